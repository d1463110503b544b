"""Fit the hand model to measured 3D keypoints (Levenberg-Marquardt).

Used to measure how well the hand's skeleton agrees with annotated hands, and to turn recorded keypoints into poses.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical
from densehand.hand.model import HandModel

_PALM = [0, 1, 5, 9, 13, 17]
_LAYOUT = {"angles": 45, "shape": 10, "turn": 3, "log_scale": 1, "translation": 3}


@dataclass(frozen=True)
class SkeletonFit:
    """What `fit_skeleton` found: keypoints ≈ scale · skeleton(pose, shape, rotation) + translation."""

    pose: Float[Tensor, "b 45"]
    shape: Float[Tensor, "b 10"]
    rotation: Float[Tensor, "b 4"]
    scale: Float[Tensor, "b"]
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
    device = model.template.device
    model = _in_double(model)
    target = keypoints.to(device=device, dtype=torch.float64)
    origin = target[:, :1]
    unit = (target[:, 9] - target[:, 0]).norm(dim=-1)[:, None, None]
    target = (target - origin) / unit
    relaxed = pose_to_anatomical(model.mean_pose, model)
    lower, upper = model.limits_lower.flatten(), model.limits_upper.flatten()
    rest = model.skeleton(anatomical_to_pose(relaxed, model), model.mean_pose.new_zeros(10))
    turn, scale = _palm_similarity(rest, target)
    state = torch.cat(
        [
            relaxed.flatten().expand(len(target), 45),
            target.new_zeros(len(target), 10),
            roma.rotmat_to_rotvec(turn),
            scale.log()[:, None],
            target[:, 0] * 0,
        ],
        dim=1,
    )

    def place(x: Tensor) -> Tensor:
        angles, shape, turn, log_scale, translation = x.split(list(_LAYOUT.values()), dim=-1)
        local = model.skeleton(anatomical_to_pose(angles.unflatten(-1, (15, 3)), model), shape)
        matrix = roma.rotvec_to_rotmat(turn)
        return (local @ matrix.mT) * log_scale.exp().unsqueeze(-1) + translation.unsqueeze(-2)

    def residual(x: Tensor, y: Tensor) -> Tensor:
        prior = [pose_weight * (x[..., :45] - relaxed.flatten()), shape_weight * x[..., 45:55]]
        return torch.cat([(place(x) - y).flatten(-2), *prior], dim=-1)

    jacobian = torch.func.vmap(torch.func.jacfwd(residual))
    damping = target.new_full((len(target),), 1e-3)
    error = residual(state, target).square().sum(-1)
    eye = torch.eye(state.shape[1], dtype=state.dtype, device=device)
    for _ in range(iterations):
        j, r = jacobian(state, target), residual(state, target)
        normal = j.mT @ j
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        step = torch.linalg.solve(
            normal + damping[:, None, None] * (diagonal[:, None, :] + 1e-4) * eye, (j.mT @ r.unsqueeze(-1)).squeeze(-1)
        )
        trial = state - step
        trial = torch.cat([trial[:, :45].clamp(lower, upper), trial[:, 45:]], dim=1)
        trial_error = residual(trial, target).square().sum(-1)
        better = trial_error < error
        state = torch.where(better[:, None], trial, state)
        error = torch.where(better, trial_error, error)
        damping = torch.where(better, damping / 3, damping * 4).clamp(1e-9, 1e6)

    angles, shape, rotvec, log_scale, translation = state.split(list(_LAYOUT.values()), dim=-1)
    return SkeletonFit(
        pose=anatomical_to_pose(angles.unflatten(-1, (15, 3)), model),
        shape=shape,
        rotation=roma.rotvec_to_unitquat(rotvec)[..., [3, 0, 1, 2]],
        scale=log_scale.exp()[:, 0] * unit[:, 0, 0],
        translation=translation * unit[:, 0] + origin[:, 0],
        keypoints=place(state) * unit + origin,
    )


def aligned_error(found: Float[Tensor, "*b n 3"], truth: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n"]:
    """Distance of each point after the best similarity of the whole set (PA error), in the truth's unit."""
    turn, move, scale = roma.rigid_points_registration(found, truth, compute_scaling=True)
    aligned = scale[..., None, None] * (found @ turn.mT) + move[..., None, :]
    return (aligned - truth).norm(dim=-1)


def _palm_similarity(rest: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    turn, _, scale = roma.rigid_points_registration(
        rest[_PALM].expand(len(target), -1, -1), target[:, _PALM], compute_scaling=True
    )
    return turn, scale


def _in_double(model: HandModel) -> HandModel:
    if model.template.dtype == torch.float64:
        return model
    return copy.deepcopy(model).double()
