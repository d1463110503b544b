"""Fit the hand model to measured 3D keypoints (Levenberg-Marquardt).

Used to measure how well the hand's skeleton agrees with annotated hands, and to turn recorded keypoints into poses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from densehand.hand import rotations as roma
from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical
from densehand.hand.articulate import ANGLES, LOG_SCALE, SHAPE, TRANSLATION, TURN, Articulation, place
from densehand.hand.keypoints import PALM
from densehand.hand.levenberg import Local, minimise
from densehand.hand.model import HandModel


@dataclass(frozen=True)
class SkeletonFit:
    """What `fit_skeleton` found: keypoints ≈ scale · skeleton(pose, shape, rotation) + translation."""

    pose: Float[Tensor, "b 45"]
    shape: Float[Tensor, "b 10"]
    rotation: Float[Tensor, "b 4"]
    scale: Float[Tensor, " b"]
    translation: Float[Tensor, "b 3"]
    keypoints: Float[Tensor, "b 21 3"]


def fit_skeleton(
    model: HandModel,
    keypoints: Float[Tensor, "b 21 3"],
    iterations: int = 40,
    shape_weight: float = 0.01,
    pose_weight: float = 0.002,
) -> SkeletonFit:
    """Fit pose (inside the limits), shape, rotation, scale and translation to right hands' keypoints, any unit.

    Minimises Σ‖residual / hand length‖² + (shape_weight·‖shape‖)² + (pose_weight·‖angles − relaxed‖)², where the hand
    length is the wrist-to-middle-knuckle distance: a weight is the noise (a share of that length) that one standard
    deviation of shape, or one radian, is worth. Runs in float64 on the model's device; left hands must be
    mirrored by the caller.
    """
    target = keypoints.to(device=model.template.device, dtype=torch.float64)
    origin = target[:, :1]
    unit = (target[:, 9] - target[:, 0]).norm(dim=-1)[:, None, None]
    target = (target - origin) / unit
    articulation = Articulation(model, target)
    relaxed = pose_to_anatomical(model.mean_pose.to(target), model)
    rest = articulation(relaxed[None], target.new_zeros(1, 10)).points[0]
    base, scale = _palm_similarity(rest, target)
    start = target.new_zeros(len(target), 62)
    start[:, ANGLES], start[:, LOG_SCALE] = relaxed.flatten(), scale.log()
    lower, upper = torch.full_like(start[0], -torch.inf), torch.full_like(start[0], torch.inf)
    lower[ANGLES], upper[ANGLES] = model.limits_lower.flatten().to(start), model.limits_upper.flatten().to(start)
    stride = torch.full_like(start[0], 0.5)
    stride[SHAPE] = 1.0
    weight = torch.zeros_like(start[0])
    weight[ANGLES], weight[SHAPE] = pose_weight**2, shape_weight**2
    centre = torch.zeros_like(start[0])
    centre[ANGLES] = relaxed.flatten()

    def look(state: Tensor) -> Local:
        points, by = place(articulation, state, base)
        residual, jacobian = (points - target).flatten(1), by.flatten(1, 2)
        off = state - centre
        return Local(
            residual.square().sum(-1) + (weight * off.square()).sum(-1),
            (residual[:, None] @ jacobian)[:, 0] + weight * off,
            jacobian.mT @ jacobian + torch.diag(weight),
        )

    state = minimise(look, start, lower, upper, stride, iterations, tolerance=1e-7).state
    turn = roma.rotvec_to_rotmat(state[:, TURN]) @ base
    return SkeletonFit(
        pose=anatomical_to_pose(state[:, ANGLES].unflatten(-1, (15, 3)), model),
        shape=state[:, SHAPE],
        rotation=roma.rotmat_to_unitquat(turn)[..., [3, 0, 1, 2]],
        scale=state[:, LOG_SCALE].exp() * unit[:, 0, 0],
        translation=state[:, TRANSLATION] * unit[:, 0] + origin[:, 0],
        keypoints=place(articulation, state, base)[0] * unit + origin,
    )


def aligned_error(found: Float[Tensor, "*b n 3"], truth: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n"]:
    """Distance of each point after the best similarity of the whole set (PA error), in the truth's unit."""
    turn, move, scale = roma.rigid_points_registration(found, truth, compute_scaling=True)
    aligned = scale[..., None, None] * (found @ turn.mT) + move[..., None, :]
    return (aligned - truth).norm(dim=-1)


def _palm_similarity(rest: Tensor, target: Tensor) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, " b"]]:
    turn, _, scale = roma.rigid_points_registration(
        rest[list(PALM)].expand(len(target), -1, -1), target[:, list(PALM)], compute_scaling=True
    )
    return turn, scale
