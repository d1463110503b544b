"""A photo and what is asked of it: the boxes and sides a caller gives, and the checks on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from densehand.errors import InputError


@dataclass(frozen=True)
class HandBox:
    """Where a hand is: x0, y0, x1, y1 in pixels, tight around its 21 keypoints, and its side where that is known."""

    box: Sequence[float] | Float[np.ndarray, "4"]
    side: str | None = None


@dataclass(frozen=True)
class Photo:
    """A picture and what is asked of it (see `HandEstimator.__call__`)."""

    image: UInt8[np.ndarray, "H W 3"]
    boxes: Sequence[HandBox] | None = None
    side: str = "auto"
    whole_image: bool = False


def check_picture(image: Any) -> tuple[int, int]:
    """Height and width of an H×W×3 uint8 array, or InputError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"a picture is an H×W×3 uint8 RGB array, not {found}; read it with read_image")
    if image.size == 0:
        raise InputError(f"the picture is empty: {image.shape[1]}×{image.shape[0]} pixels; give one with pixels")
    return image.shape[0], image.shape[1]


def check_box(box: Any, width: int, height: int) -> Float[np.ndarray, "4"]:
    """A box as float32 after checking it against the picture, or InputError naming the box and the fault."""
    try:
        values = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.zeros(0)
    if values.shape != (4,) or not np.isfinite(values).all():
        shown = repr(box) if len(repr(box)) < 80 else "given"
        raise InputError(f"box {shown} is not four finite numbers; give x0, y0, x1, y1 in pixels")
    x0, y0, x1, y1 = values
    text = "[" + ", ".join(f"{v:g}" for v in values) + "]"
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"box {text} has no area; give x0 < x1 and y0 < y1 in pixels")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise InputError(f"box {text} lies outside the picture of {width}×{height} pixels; give pixels of this picture")
    if max(x1 - x0, y1 - y0) > 4 * max(width, height):
        raise InputError(f"box {text} is far larger than the picture of {width}×{height} pixels; give pixels of it")
    return values.astype(np.float32)
