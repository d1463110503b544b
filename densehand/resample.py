"""The pixels of a crop: its square window of a photo, resampled to the size that a network takes."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from densehand.camera import Crop
from densehand.errors import InputError


def crop_image(
    image: UInt8[np.ndarray, "H W 3"],
    crop: Crop,
    size: int,
    border: Literal["constant", "replicate"] = "constant",
    turn: float = 0.0,
) -> UInt8[np.ndarray, "size size 3"]:
    """Resample the crop's window to size × size pixels, mirrored if the crop is.

    Bilinear where it magnifies. Where it minifies, every output pixel is the mean of the image over its own square (a
    box filter), so that thin fingers do not alias. Memory is bounded by the image and size², however large the window.

    Args:
        image: H×W×3, 8 bit.
        crop: the window; it may reach outside the image.
        size: side of the result, pixels.
        border: what lies outside the image: black or the nearest edge pixel.
        turn: radians by which the pixels are turned inside the crop (`Crop.crop_to_image_affine`).

    Raises:
        InputError: the image is not a non-empty H×W×3 array of 8 bit, or size < 1.
    """
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        raise InputError("an image to crop is an H×W×3 array of 8-bit integers")
    if image.shape[0] == 0 or image.shape[1] == 0 or size < 1:
        raise InputError(f"cannot crop {image.shape[1]} × {image.shape[0]} pixels to {size} × {size}")
    mode = {"constant": cv2.BORDER_CONSTANT, "replicate": cv2.BORDER_REPLICATE}[border]
    shrink = 2 * crop.half_side / size
    corners = abs(math.sin(turn)) + abs(math.cos(turn)) - 1  # of the turned square reach out of the crop
    patch, (left, top, right, _) = _region(image, crop, margin=2 + 2 * shrink + corners * crop.half_side)
    # In two steps: whole blocks of r × r pixels are averaged first, which cv2 does fast, then few bilinear samples.
    r = min(max(int(shrink), 1), max(patch.shape[:2]))
    if r > 1:
        before, after = (-patch.shape[1] % r, 0) if crop.mirrored else (0, -patch.shape[1] % r)
        patch = cv2.copyMakeBorder(patch, 0, -patch.shape[0] % r, before, after, mode)
        patch = _block_means(patch, r)
    samples = math.ceil(min(shrink / r, 2) / 1.125)
    fine = size * samples
    to_image = crop.crop_to_image_affine(fine, turn)
    if crop.mirrored:  # pixels are counted from the right: a left hand's crop is, to the last bit, the mirrored photo's
        patch = cv2.flip(patch, 1)
        to_image[0] *= -1
    to_image[:, 2] = (to_image[:, 2] + ((right, -top) if crop.mirrored else (-left, -top))) / r
    to_image[:, :2] /= r
    to_image[:, 2] += 0.5 * (to_image[:, 0] + to_image[:, 1]) - 0.5  # cv2 counts from pixel centres
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(patch, to_image, (fine, fine), flags=flags, borderMode=mode)
    if samples > 1:
        warped = cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(warped)


def crop_mask(mask: Bool[np.ndarray, "H W"], crop: Crop, size: int) -> UInt8[np.ndarray, "s s"]:
    """The crop of a mask, `size`² bytes: 255 where it is, in between at its edge."""
    return crop_image(np.repeat(mask.astype(np.uint8)[..., None] * 255, 3, axis=2), crop, size)[..., 0]


def _block_means(image: np.ndarray, r: int) -> np.ndarray:
    """Means of r × r pixels, of an image whose sides are multiples of r: by halves first, which cv2 does four times as
    fast as other blocks, rounded each time."""
    while r > 1:
        step = r if r % 2 else 2
        image = cv2.resize(image, (image.shape[1] // step, image.shape[0] // step), interpolation=cv2.INTER_AREA)
        r //= step
    return image


def _region(image: np.ndarray, crop: Crop, margin: float) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The part of the image the crop can see (at least one pixel), and its edges (x0, y0, x1, y1) in the image."""
    bounds = []
    for low, high, limit in ((crop.box[0], crop.box[2], image.shape[1]), (crop.box[1], crop.box[3], image.shape[0])):
        first = min(max(math.floor(low - margin), 0), limit - 1)
        bounds.append((first, max(min(math.ceil(high + margin), limit), first + 1)))
    (x0, x1), (y0, y1) = bounds
    return image[y0:y1, x0:x1], (x0, y0, x1, y1)
