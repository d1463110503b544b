"""What the regression usually gets wrong, and together with what: the prior of the fast refinement.

The errors of the network's h on synthetic hands, as steps of `articulate.place`'s 62 numbers, have a covariance: joints
of a finger err together, a hand turned too far has its fingers bent too little, and so on. Its inverse says what a step
away from the network's answer costs. Keypoints that are seen so also mend the angles of those that are not.
Learnt by `tools/build_refine_prior.py`; nothing of it was chosen on real pictures.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from densehand.hand import rotations as roma
from densehand.hand.anatomy import pose_to_anatomical
from densehand.hand.articulate import SHAPE
from densehand.hand.model import HandModel, quaternion_to_matrix
from densehand.network.mesh import decode

STATE = 62
HELD = 61  # the wrist's depth: no part of a picture, never moved
WILD = 1.8  # radians: hands turned the wrong way round are no small errors and say nothing of them
SHRINK = 0.3  # towards the variances alone, as the hands are few for a matrix of this size


def state_errors(
    hand: HandModel, h: Float64[Tensor, "b 63"], truth: Float64[Tensor, "b 63"]
) -> Float64[Tensor, "b 62"]:
    """The steps that would take h to the truth: anatomical angles, shape, turn, log scale, translation."""
    found, true = decode(h), decode(truth)
    angles = pose_to_anatomical(true.pose, hand) - pose_to_anatomical(found.pose, hand)
    turn = quaternion_to_matrix(true.rotation) @ quaternion_to_matrix(found.rotation).mT
    steps = (
        angles.flatten(1),
        true.shape - found.shape,
        roma.rotmat_to_rotvec(turn),
        (true.scale / found.scale).log()[:, None],
        true.translation - found.translation,
    )
    return torch.cat(steps, dim=1)


def error_covariance(errors: Float64[Tensor, "b 62"]) -> Float64[Tensor, "62 62"]:
    """Second moments of the errors about 0, hands turned by more than `WILD` left out, shrunk by `SHRINK`."""
    kept = errors[errors[:, SHAPE.stop : SHAPE.stop + 3].norm(dim=-1) < WILD]
    moments = kept.mT @ kept / len(kept)
    return (1 - SHRINK) * moments + SHRINK * torch.diag(moments.diagonal())


def load_precision(hand: HandModel, numbers: int = STATE) -> Float64[Tensor, "62 62"]:
    """What steps cost: the inverse covariance of the first `numbers` of the state, 0 for the others.

    Shape numbers mean the same only within a hand model: for another than the open hand they stand alone, one standard
    deviation each.
    """
    return _precision(hand.name == "open", numbers)


@lru_cache
def _precision(own_shape: bool, numbers: int) -> Float64[Tensor, "62 62"]:
    path = resources.files("densehand.hand") / "assets" / "refine_prior.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        covariance = torch.from_numpy(data["covariance"].astype(np.float64))
    if not own_shape:
        covariance[SHAPE], covariance[:, SHAPE] = 0.0, 0.0
        covariance[SHAPE, SHAPE] = torch.eye(SHAPE.stop - SHAPE.start, dtype=torch.float64)
    moving = min(numbers, HELD)
    precision = torch.zeros(STATE, STATE, dtype=torch.float64)
    precision[:moving, :moving] = torch.linalg.inv(covariance[:moving, :moving])
    return precision
