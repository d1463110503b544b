"""The same hand in the parameters of another hand model."""

import torch
from jaxtyping import Float

from densehand.hand import HandModel
from densehand.hand.fit import fit_skeleton
from densehand.network.mesh import MeshParameters


def retarget(hand: HandModel, parameters: MeshParameters, joints: Float[torch.Tensor, "b 21 3"]) -> MeshParameters:
    """The same hands in the parameters of another hand model, fitted to their joints (metres from the wrist)."""
    if not len(joints):
        return parameters
    fit = fit_skeleton(hand, joints)
    scale, shift = parameters.scale[:, None] * fit.scale[:, None], parameters.scale[:, None] * fit.translation
    values = fit.pose, fit.shape, fit.rotation, scale[:, 0], parameters.translation + shift
    return MeshParameters(*(value.to(joints.dtype) for value in values))
