"""Two measures that need no labels: does the same hand come out the same from another side, or from another crop?

Both compare hands in a palm frame, which takes away where the hand is, how it is turned and how large it is; what is
left is the shape and the fingers' pose. A hand whose side was mistaken differs in this frame by the sign of z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from densehand.errors import InputError
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.metrics.checks import points_3d

CROP_PADDINGS: tuple[float, ...] = (1.2, 1.4, 1.6, 1.8, 2.0, 2.2)
"""Sides of the crops of `crop_consistency` over the larger side of the hand's tight box (the house's crop is 1.5)."""

_WRIST, _INDEX, _MIDDLE, _LITTLE = (KEYPOINT_NAMES.index(n) for n in ("wrist", "index_mcp", "middle_mcp", "little_mcp"))


@dataclass(frozen=True)
class Consistency:
    """How far a hand's joints scatter over its photos, in % of the distance from the wrist to the middle knuckle."""

    percent: float  # root mean square over joints and photos; NaN where fewer than two photos gave a hand
    per_joint: Float[ndarray, "21"]  # root mean square over photos, in the house order
    missed: float  # share of the photos without a prediction, 0…1
    photos: int


def palm_frame(joints: Float[ndarray, "21 3"], name: str = "joints") -> Float[ndarray, "21 3"]:
    """Joints with the wrist at the origin, the middle knuckle at (0, 1, 0) and the palm's normal along z.

    The normal is that of the plane through the wrist, the index knuckle and the little knuckle, made square to y.

    Raises InputError where `joints` is not 21×3, holds NaN, or its palm is no plane (knuckles on the wrist or in line).
    """
    points = points_3d(joints, name)
    if len(points) != len(KEYPOINT_NAMES):
        raise InputError(f"{name}: {len(points)} joints; give the 21 keypoints in the house order")
    points = points - points[_WRIST]
    length = np.linalg.norm(points[_MIDDLE])
    # Relative to the hand's own size, so that the unit does not matter.
    smallest = 1e-6 * np.abs(points).max()
    if length <= smallest:
        raise InputError(f"{name}: wrist and middle knuckle coincide, so there is no palm; leave this hand out")
    y = points[_MIDDLE] / length
    normal = np.cross(points[_INDEX], points[_LITTLE])
    normal -= normal @ y * y
    area = np.linalg.norm(normal)
    if area <= smallest * length:
        raise InputError(f"{name}: wrist and knuckles lie in line, so the palm has no normal; leave this hand out")
    z = normal / area
    return points @ np.stack([np.cross(y, z), y, z], axis=1) / length


def view_consistency(predictions: Sequence[Float[ndarray, "21 3"] | None]) -> Consistency:
    """Scatter of one hand's joints over photos of it from several sides, the hand held still.

    `predictions`: 3D keypoints of each photo (any unit, any frame), None where no hand was found. In the palm frame,
    each joint's root mean square distance to its mean over the photos; `percent` is over all 21 joints, of which the
    wrist and the middle knuckle are 0 by definition.

    Raises InputError where the list is empty or a prediction cannot be put into the palm frame.
    """
    if len(predictions) == 0:
        raise InputError("predictions: empty; give one for each photo, None where no hand was found")
    hands = [palm_frame(p, f"prediction {i}") for i, p in enumerate(predictions) if p is not None]
    missed = 1 - len(hands) / len(predictions)
    if len(hands) < 2:
        return Consistency(float("nan"), np.full(len(KEYPOINT_NAMES), np.nan), missed, len(predictions))
    stack = np.stack(hands)
    squares = ((stack - stack.mean(0)) ** 2).sum(-1).mean(0)
    return Consistency(100 * float(np.sqrt(squares.mean())), 100 * np.sqrt(squares), missed, len(predictions))


def crop_consistency(predict: Callable[[float], Any], paddings: Sequence[float] = CROP_PADDINGS) -> Consistency:
    """`view_consistency` over crops of one photo: the crop should not matter, so neither should its padding.

    `predict(padding)`: 3D keypoints (21, 3) from the crop whose side is `padding` × the larger side of the hand's tight
    box, around the same centre; None where no hand was found.

    Raises InputError where a padding is not above 0, there is none, or as `view_consistency`.
    """
    if len(paddings) == 0 or not all(np.isfinite(p) and p > 0 for p in paddings):
        raise InputError(f"paddings: {tuple(paddings)} are not all above 0; give sides over the box's larger side")
    return view_consistency([predict(padding) for padding in paddings])
