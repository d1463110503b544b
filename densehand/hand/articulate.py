"""The 21 keypoints as a function of anatomical angles and shape, with their exact derivatives.

A joint's rotation is Rot_f(φ) · Rot_a(α) · Rot_t(τ) (`hand/anatomy.py`), so its three angles turn everything beyond the
joint about three lines through its pivot: the flexion axis as the parent bone holds it, the abduction axis turned by φ,
and the twist axis turned by φ and α. What hangs on the joint at X moves by w × (X − pivot) a radian, w the line's
direction. Shape moves the joints at rest linearly. With 21 points this is far faster than automatic differentiation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from densehand.hand import rotations as roma
from densehand.hand.anatomy import rotation_from_angles
from densehand.hand.keypoints import JOINT_PARENTS, KEYPOINT_SOURCE
from densehand.hand.model import HandModel


class Articulated(NamedTuple):
    """Keypoints (metres, hand frame, wrist at the origin) and how far a radian or a unit of shape moves them."""

    points: Float[Tensor, "b 21 3"]
    by_angle: Float[Tensor, "b 21 3 45"]
    by_shape: Float[Tensor, "b 21 3 10"]


class Articulation:
    """The skeleton of a hand model, in the number type and on the device of `like`.

    ``articulation(angles, shape).points`` is ``model.skeleton(anatomical_to_pose(angles, model), shape)``.
    """

    def __init__(self, model: HandModel, like: Tensor) -> None:
        self.axes = model.joint_axes.to(like)
        self.joints, self.joint_dirs = model._joints.to(like), model._joint_dirs.to(like)
        # a tip's vertices may hang on several bones (T tips × 16 bones)
        self.tips, self.share = model._tips[..., :3].to(like), model._tips[..., 3].to(like)
        self.tip_shape, self.tip_pose = model._tip_shape.to(like), model._tip_pose.to(like)
        self.parents = list(JOINT_PARENTS[1:])
        own = torch.eye(16)
        below = own.clone()  # [k, j] = 1 where bone k is bone j or hangs on it
        for joint, parent in enumerate(self.parents, start=1):
            below[joint] += below[parent]
        self.below, self.beyond = below[:, 1:].to(like), (below - own)[:, 1:].to(like)

    def __call__(self, angles: Float[Tensor, "b 15 3"], shape: Float[Tensor, "b 10"]) -> Articulated:
        """Keypoints and derivatives of hands of anatomical `angles` (radians) and `shape` (standard deviations)."""
        local = rotation_from_angles(angles, self.axes)
        turn = _chain(local)
        held = turn[:, self.parents]
        rest = self.joints + torch.einsum("jcs,bs->bjc", self.joint_dirs, shape)
        bones = (held @ (rest[:, 1:] - rest[:, self.parents]).unsqueeze(-1)).squeeze(-1)
        pivot = rest[:, :1] + self.below @ bones
        offset = pivot - (turn @ rest.unsqueeze(-1)).squeeze(-1)
        tips = self.tips + torch.einsum("tkcs,bs->btkc", self.tip_shape, shape)
        if self.tip_pose.shape[-1]:
            tips = tips + torch.einsum("tkcp,bp->btkc", self.tip_pose, (local - torch.eye(3).to(local)).flatten(1))
        parts = torch.einsum("bkij,btkj->btki", turn, tips) + self.share[..., None] * offset[:, None]

        # arms: from joint j to what of a keypoint hangs on it, times the share that does
        to_pivots = self.beyond[..., None] * (pivot[:, :, None] - pivot[:, None, 1:])
        to_tips = torch.einsum("btkc,kj->btjc", parts, self.below)
        to_tips = to_tips - (self.share @ self.below)[..., None] * pivot[:, None, 1:]
        arms = torch.cat([to_pivots, to_tips], dim=1)
        lines = _lines(angles, self.axes)
        by_angle = torch.linalg.cross((lines @ held.mT)[:, None], arms[..., None, :].expand(-1, -1, -1, 3, -1))
        if self.tip_pose.shape[-1]:
            by_angle[:, 16:] += self._corrections(local, turn, lines)

        bone_dirs = held @ (self.joint_dirs[1:] - self.joint_dirs[self.parents])
        pivot_dirs = self.joint_dirs[0] + torch.einsum("kj,bjcs->bkcs", self.below, bone_dirs)
        tip_dirs = torch.einsum("bkij,tkjs->btis", turn, self.tip_shape)
        tip_dirs = tip_dirs + torch.einsum("tk,bkis->btis", self.share, pivot_dirs - turn @ self.joint_dirs)
        return Articulated(
            points=torch.cat([pivot, parts.sum(2)], dim=1)[:, KEYPOINT_SOURCE],
            by_angle=by_angle[:, KEYPOINT_SOURCE].flatten(2, 3).mT,
            by_shape=torch.cat([pivot_dirs, tip_dirs], dim=1)[:, KEYPOINT_SOURCE],
        )

    def _corrections(self, local: Tensor, turn: Tensor, lines: Tensor) -> Float[Tensor, "b 5 15 3 3"]:
        """What the pose blend shapes (MANO's) add to the tips' derivatives."""
        columns = local.mT[:, :, None].expand(-1, -1, 3, -1, -1)
        turned = torch.linalg.cross(lines[..., None, :].expand_as(columns), columns).mT.flatten(-2)  # of each angle
        by_joint = self.tip_pose.unflatten(-1, (15, 9))
        return torch.einsum("bkij,tkjnp,bnap->btnai", turn, by_joint, turned)


def _chain(local: Float[Tensor, "b 15 3 3"]) -> Float[Tensor, "b 16 3 3"]:
    """Each bone's rotation in the hand frame: five chains of three (`keypoints.JOINT_PARENTS`) on a still wrist."""
    first, second, third = local.unflatten(1, (5, 3)).unbind(2)
    second = first @ second
    fingers = torch.stack([first, second, second @ third], dim=2).flatten(1, 2)
    return torch.cat([torch.eye(3).to(local).expand(len(local), 1, 3, 3), fingers], dim=1)


def _lines(angles: Float[Tensor, "b 15 3"], axes: Float[Tensor, "15 3 3"]) -> Float[Tensor, "b 15 3 3"]:
    """Directions (rows) about which a joint's three angles turn, in the frame of its parent bone."""
    sf, sa, _ = angles.sin().unbind(-1)
    cf, ca, _ = angles.cos().unbind(-1)
    one, zero = torch.ones_like(sf), torch.zeros_like(sf)
    own = torch.stack([one, zero, zero, zero, cf, sf, sa, -sf * ca, cf * ca], dim=-1).unflatten(-1, (3, 3))
    return own @ axes


ANGLES, SHAPE, TURN, LOG_SCALE, TRANSLATION = slice(0, 45), slice(45, 55), slice(55, 58), 58, slice(59, 62)
"""The 62 numbers of a placed skeleton's state."""


def place(
    articulation: Articulation, state: Float[Tensor, "b 62"], base: Float[Tensor, "b 3 3"]
) -> tuple[Float[Tensor, "b 21 3"], Float[Tensor, "b 21 3 62"]]:
    """Keypoints exp(log scale) · Rot(turn) · base · X(angles, shape) + translation, and their derivatives by the state.

    `base` is a rotation, `turn` a rotation vector that comes after it; the unit is the caller's (log scale: per metre).
    """
    angles, shape, turn, log_scale, translation = state.split([45, 10, 3, 1, 3], dim=-1)
    local = articulation(angles.unflatten(-1, (15, 3)), shape)
    matrix = log_scale.exp()[..., None] * (roma.rotvec_to_rotmat(turn) @ base)
    points = local.points @ matrix.mT
    about = torch.linalg.cross(left_jacobian(turn).mT[:, None], points[:, :, None].expand(-1, -1, 3, -1)).mT
    by = torch.cat(
        [
            matrix[:, None] @ torch.cat([local.by_angle, local.by_shape], dim=-1),
            about,
            points[..., None],
            torch.eye(3).to(points).expand(*points.shape, 3),
        ],
        dim=-1,
    )
    return points + translation[:, None], by


def left_jacobian(turn: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Columns: the rotation vectors by which Rot(turn) turns further where an entry of `turn` grows (SO(3))."""
    angle = turn.norm(dim=-1)[:, None, None]
    small = angle < 1e-2  # there the series is exact to 1e-10
    safe = torch.where(small, torch.ones_like(angle), angle)
    first = torch.where(small, 0.5 - angle**2 / 24, (1 - safe.cos()) / safe**2)
    second = torch.where(small, 1 / 6 - angle**2 / 120, (safe - safe.sin()) / safe**3)
    cross = torch.linalg.cross(torch.eye(3).to(turn)[None], turn[:, None].expand(-1, 3, -1))
    return torch.eye(3).to(turn) + first * cross + second * cross @ cross
