"""Cameras and frames: the square crop around a hand, and the pinhole camera.

Conventions (docs/architecture.md): pixels are continuous, pixel (i, j) covers [j, j+1) × [i, i+1); the camera frame is
x right, y down, z forward, in metres; crop units put the crop's centre at (0, 0) and its edges at ±1 (``grid_sample``'s
convention, ``align_corners=False``). Every function takes numpy arrays or torch tensors and answers in the kind it got.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from densehand.errors import InputError

__all__ = [
    "DEFAULT_FOCAL_FACTOR",
    "ERROR_CROP",
    "HOUSE_PADDING",
    "SHOWN",
    "Crop",
    "can_be_shown",
    "default_focal",
    "in_plane",
    "project_pinhole",
]

# A field of view of 2·atan(1 / 1.7) = 60.9° along the longer side: between a phone's main lens (26 mm equivalent, 67°),
# its stabilised video and most laptop webcams (55–65°), and cropped or edited pictures, which only narrow it.
DEFAULT_FOCAL_FACTOR = 0.85

HOUSE_PADDING = 1.5  # side of the crop whose units the estimator speaks in, over the larger side of the hand's box
SHOWN = 0.9  # of that crop's side, what the network is shown: fewer pixels beside the hand (tools/measure_looks.py)
ERROR_CROP = 224.0  # side, in pixels, of the house's crop in which 2D errors are told; half of it is a crop unit

Array = Any  # np.ndarray | Tensor: the answer is of the kind of the input


def default_focal(width: float, height: float) -> float:
    """Focal length assumed when nothing is known of the camera: 0.85 × the longer side, in pixels.

    That is a 61° field of view along the longer side (31 mm equivalent). The focal length only moves the hand along
    the viewing direction (distance = focal / scale) and turns hands beside the middle of the picture a little
    (`densehand/rays.py`): a wrong one leaves their projection and their shape as they are.
    """
    if not (width > 0 and height > 0):
        raise InputError(f"an image of {width} × {height} pixels has no focal length; give a positive width and height")
    return DEFAULT_FOCAL_FACTOR * max(width, height)


def _floating(values: Array) -> Array:
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else values.to(torch.get_default_dtype())
    values = np.asarray(values)
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.float64)


def _like(values: Array, reference: Array) -> Array:
    """`values` as an array of the kind, device and precision of `reference` (tensors stay on their graph)."""
    if isinstance(reference, Tensor):
        return torch.as_tensor(values, dtype=reference.dtype, device=reference.device)
    return np.asarray(values, dtype=reference.dtype)


@dataclass(frozen=True)
class Crop:
    """A square window of an image, possibly mirrored (left hands are shown to the network as right hands).

    Attributes:
        center: (x, y) of the window's centre, pixels of the full image (continuous).
        half_side: half the window's side, pixels, positive.
        mirrored: whether x runs from right to left inside the crop.
    """

    center: tuple[float, float]
    half_side: float
    mirrored: bool = False

    def __post_init__(self) -> None:
        center = tuple(float(v) for v in self.center)
        if len(center) != 2 or not all(map(math.isfinite, center)):
            raise InputError(f"the centre of a crop is two finite numbers, not {self.center}")
        if not (math.isfinite(self.half_side) and self.half_side > 0):
            raise InputError(f"half the side of a crop is a positive number of pixels, not {self.half_side}")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "half_side", float(self.half_side))
        object.__setattr__(self, "mirrored", bool(self.mirrored))

    @classmethod
    def from_box(
        cls, box: Sequence[float] | Float[np.ndarray, "4"], padding: float = HOUSE_PADDING, mirrored: bool = False
    ) -> Crop:
        """The square of side `padding` × the box's larger side around the box's centre.

        Args:
            box: [x0, y0, x1, y1] in pixels, tight around the 21 keypoints.
            padding: crop side over the larger box side.
            mirrored: mirror x (left hands).

        Raises:
            InputError: the box is not four finite numbers with x1 > x0 or y1 > y0 and neither negative.
        """
        values = np.asarray(box, dtype=np.float64).reshape(-1)
        if values.size != 4 or not np.isfinite(values).all():
            raise InputError(f"a box is four finite numbers x0, y0, x1, y1, not {np.asarray(box).tolist()}")
        width, height = float(values[2] - values[0]), float(values[3] - values[1])
        if width < 0 or height < 0 or max(width, height) == 0:
            raise InputError(f"the box {values.tolist()} has no area; give x0 < x1 and y0 < y1")
        center = (float(values[0]) + width / 2, float(values[1]) + height / 2)
        return cls(center, 0.5 * padding * max(width, height), mirrored)

    @classmethod
    def to_look_at(cls, box: Float[np.ndarray, "4"] | None, width: int, height: int) -> Crop:
        """What to show of a labelled hand: the house's crop around its box, never less than 8 pixels wide; where
        `can_be_shown` says no, the whole photo of that size."""
        if box is None or not can_be_shown(box):
            return cls((width / 2, height / 2), max(width, height) / 2)
        return cls(tuple((box[:2] + box[2:]) / 2), max(HOUSE_PADDING * float((box[2:] - box[:2]).max()), 8.0) / 2)

    def times(self, factor: float) -> Crop:
        """The square around the same centre that is `factor` times as wide."""
        return replace(self, half_side=factor * self.half_side)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """[x0, y0, x1, y1] of the window, pixels."""
        (x, y), h = self.center, self.half_side
        return x - h, y - h, x + h, y + h

    def to_crop(self, points: Array) -> Array:
        """Image pixels → crop units. points (*b 2), or (*b 3) whose z (pixels from the root) is only scaled."""
        points = _floating(points)
        factor, offset = self._axes(points)
        return (points - offset) / factor

    def to_image(self, points: Array) -> Array:
        """Crop units → image pixels, the inverse of `to_crop`. points (*b 2) or (*b 3)."""
        points = _floating(points)
        factor, offset = self._axes(points)
        return points * factor + offset

    def to_pixels(self, points: Array, size: int) -> Array:
        """Image pixels → pixels of the crop at `size` × `size`. points (*b 2)."""
        return (self.to_crop(points) + 1) * (size / 2)

    def _axes(self, points: Array) -> tuple[Array, Array]:
        if points.shape[-1] not in (2, 3):
            raise InputError(f"points have 2 or 3 coordinates, not {points.shape[-1]}")
        depth = points.shape[-1] - 2
        factor = [-self.half_side if self.mirrored else self.half_side, self.half_side] + [self.half_side] * depth
        return _like(factor, points), _like([*self.center] + [0.0] * depth, points)

    def crop_to_image_affine(self, size: int, turn: float = 0.0) -> Float[np.ndarray, "2 3"]:
        """Matrix A with ``(x, y) = A @ (column, row, 1)``: pixels of a size × size crop to image pixels.

        turn: radians by which what is shown is turned inside the crop: its up is the crop's `in_plane(turn) @ (0, -1)`.
        """
        axes = 2 * self.half_side / size * np.diag([-1.0 if self.mirrored else 1.0, 1.0]) @ in_plane(turn)
        return np.column_stack([axes, np.array(self.center) - axes.sum(axis=1) * (size / 2)])


def in_plane(angle: Array | float) -> Array:
    """Matrices (*b 2 2) that turn the picture's plane (x right, y down) by angles (*b, radians), clockwise as one sees
    it; of a number, an array."""
    if isinstance(angle, Tensor):
        c, s = angle.cos(), angle.sin()
        return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def can_be_shown(box: Float[np.ndarray, "4"]) -> bool:
    """Whether a label's box is one: finite, with an area, and not so far away that nothing could be drawn of it."""
    return bool(np.isfinite(box).all() and (box[2:] > box[:2]).all() and (np.abs(box) <= 1e6).all())


def project_pinhole(points: Array, translation: Array, focal: Array, center: Array) -> Array:
    """Pinhole camera: points (*b N 3), metres from the wrist → pixels (*b N 2).

    Args:
        points: root-relative points, metres, camera axes.
        translation: (*b 3) the wrist in the camera frame, metres.
        focal: (*b) pixels.
        center: (*b 2) principal point, pixels.

    Points at or behind the camera plane (z ≤ 0) have no image and come back as NaN.
    """
    points = _floating(points)
    metric = points + _like(translation, points)[..., None, :]
    depth = metric[..., 2:]
    if isinstance(points, Tensor):
        depth = torch.where(depth > 0, depth, torch.nan)
    else:
        depth = np.where(depth > 0, depth, np.nan).astype(points.dtype)
    return metric[..., :2] / depth * _like(focal, points)[..., None, None] + _like(center, points)[..., None, :]
