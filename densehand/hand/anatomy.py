"""How fingers bend: flexion, abduction and twist of each joint, and their limits.

Every one of the 15 joints has a right-handed frame of three unit axes, fixed in the hand frame at rest:

- flexion: positive curls the finger towards the palm (thumb: across the palm);
- abduction: positive moves the finger towards the thumb's side (thumb: away from the palm);
- twist: along the bone, towards the fingertip.

A joint's rotation is R = Rot(flexion axis, φ) · Rot(abduction axis, α) · Rot(twist axis, τ), a Cardan sequence whose
singularity (α = ±90°) no hand can reach. Angles are radians.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from densehand.hand import rotations as roma
from densehand.hand.keypoints import JOINT_NAMES, KEYPOINT_NAMES

# The axis each finger flexes about, in the hand frame; the part along a bone is dropped for that bone. The arch of the
# palm turns the ring and little fingers' pads towards the thumb; the thumb's nail looks sideways.
FLEXION_GUIDES: dict[str, tuple[float, float, float]] = {
    "index": (1.0, 0.0, 0.0),
    "middle": (1.0, 0.0, 0.0),
    "ring": (0.99, 0.0, 0.14),
    "little": (0.98, 0.0, 0.20),
    "thumb": (-0.11, 0.50, -0.86),
}

# Degrees: (lower, upper) of [flexion, abduction, twist], measured from the flat hand. Passive ranges of healthy adults
# (AAOS; Norkin & White), a little widened, since a fit must be able to reach every real pose.
_LIMITS_DEGREES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "index_mcp": ((-30, 95), (-20, 25), (-10, 10)),
    "middle_mcp": ((-30, 95), (-20, 20), (-10, 10)),
    "ring_mcp": ((-30, 95), (-20, 20), (-10, 10)),
    "little_mcp": ((-30, 95), (-30, 20), (-12, 12)),
    "pip": ((-8, 115), (-8, 8), (-8, 8)),
    "dip": ((-15, 85), (-6, 6), (-6, 6)),
    "thumb_cmc": ((-35, 45), (-35, 45), (-30, 40)),
    "thumb_mcp": ((-25, 70), (-20, 20), (-20, 20)),
    "thumb_ip": ((-25, 90), (-10, 10), (-8, 8)),
}

# Degrees of flexion of a hand at rest: (MCP, PIP, DIP) a finger, the little finger curled most.
_RELAXED_DEGREES: dict[str, tuple[float, float, float]] = {
    "index": (18, 26, 14),
    "middle": (23, 30, 16),
    "ring": (27, 33, 18),
    "little": (30, 34, 20),
    "thumb": (6, 12, 16),
}


class _HasAnatomy(Protocol):
    joint_axes: Tensor
    limits_lower: Tensor
    limits_upper: Tensor


def joint_frames(keypoints: Float[Tensor, "21 3"]) -> Float[Tensor, "15 3 3"]:
    """Flexion, abduction and twist axis (rows) of joints 1…15 of a hand at rest.

    `keypoints`: the flat hand's 21 keypoints in the hand frame (fingers −y, palm −z, thumb +x). Fingers flex about the
    hand's thumb-ward axis, as far as it is perpendicular to the bone; so spread fingers converge when they curl, as
    real ones do towards the scaphoid.
    """
    frames = []
    for name in JOINT_NAMES[1:]:
        k = KEYPOINT_NAMES.index(name)
        twist = torch.nn.functional.normalize(keypoints[k + 1] - keypoints[k], dim=0)
        guide = keypoints.new_tensor(FLEXION_GUIDES[name.split("_")[0]])
        flexion = torch.nn.functional.normalize(guide - (guide @ twist) * twist, dim=0)
        frames.append(torch.stack([flexion, torch.linalg.cross(twist, flexion), twist]))
    return torch.stack(frames)


def joint_limits() -> tuple[Float[Tensor, "15 3"], Float[Tensor, "15 3"]]:
    """Lower and upper limits of [flexion, abduction, twist] for joints 1…15, radians, float64."""
    rows = [_LIMITS_DEGREES.get(name) or _LIMITS_DEGREES[name.split("_")[1]] for name in JOINT_NAMES[1:]]
    limits = torch.tensor(rows, dtype=torch.float64) * (math.pi / 180)
    return limits[..., 0], limits[..., 1]


def relaxed_angles() -> Float[Tensor, "15 3"]:
    """[flexion, abduction, twist] of the relaxed hand, radians, float64."""
    rows = []
    for place, name in enumerate(JOINT_NAMES[1:]):  # three joints a finger, from the palm on
        rows.append((_RELAXED_DEGREES[name.split("_")[0]][place % 3], 0.0, 0.0))
    return torch.tensor(rows, dtype=torch.float64) * (math.pi / 180)


def rotation_from_angles(angles: Float[Tensor, "*b 3"], axes: Float[Tensor, "*#b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrix of [flexion, abduction, twist] about the rows of `axes`: Rot_f · Rot_a · Rot_t."""
    cf, ca, ct = angles.cos().unbind(-1)
    sf, sa, st = angles.sin().unbind(-1)
    local = torch.stack(
        [
            ca * ct, -ca * st, sa,
            cf * st + sf * sa * ct, cf * ct - sf * sa * st, -sf * ca,
            sf * st - cf * sa * ct, sf * ct + cf * sa * st, cf * ca,
        ],
        dim=-1,
    ).unflatten(-1, (3, 3))  # fmt: skip
    return axes.mT @ local @ axes


def angles_from_rotation(rotation: Float[Tensor, "*b 3 3"], axes: Float[Tensor, "*#b 3 3"]) -> Float[Tensor, "*b 3"]:
    """[flexion, abduction, twist] of a rotation matrix; inverse of `rotation_from_angles` for |abduction| < 90°."""
    local = axes @ rotation @ axes.mT
    abduction = torch.asin(local[..., 0, 2].clamp(-1 + 1e-7, 1 - 1e-7))
    flexion = torch.atan2(-local[..., 1, 2], local[..., 2, 2])
    twist = torch.atan2(-local[..., 0, 1], local[..., 0, 0])
    return torch.stack([flexion, abduction, twist], dim=-1)


def pose_to_anatomical(pose: Float[Tensor, "*b 45"], model: _HasAnatomy) -> Float[Tensor, "*b 15 3"]:
    """Axis-angle pose → [flexion, abduction, twist] of the 15 joints, radians."""
    rotation = roma.rotvec_to_rotmat(pose.unflatten(-1, (15, 3)))
    return angles_from_rotation(rotation, model.joint_axes.to(pose))


def anatomical_to_pose(angles: Float[Tensor, "*b 15 3"], model: _HasAnatomy) -> Float[Tensor, "*b 45"]:
    """[flexion, abduction, twist] of the 15 joints, radians → axis-angle pose."""
    rotation = rotation_from_angles(angles, model.joint_axes.to(angles))
    return roma.rotmat_to_rotvec(rotation).flatten(-2)


def clamp_pose(pose: Float[Tensor, "*b 45"], model: _HasAnatomy) -> Float[Tensor, "*b 45"]:
    """The pose with every joint's three angles clamped to the model's limits."""
    angles = pose_to_anatomical(pose, model)
    clamped = torch.minimum(torch.maximum(angles, model.limits_lower.to(angles)), model.limits_upper.to(angles))
    return anatomical_to_pose(clamped, model)


def limit_violation(pose: Float[Tensor, "*b 45"], model: _HasAnatomy) -> Float[Tensor, "*b 15 3"]:
    """How far each angle lies beyond its limit, radians, ≥ 0; zero inside. Differentiable penalty term."""
    angles = pose_to_anatomical(pose, model)
    return (model.limits_lower.to(angles) - angles).relu() + (angles - model.limits_upper.to(angles)).relu()
