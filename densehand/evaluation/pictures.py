"""A picture of one case: the hand's surroundings with its labels and the estimate."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from densehand.camera import Crop
from densehand.errors import DensehandError
from densehand.evaluation.cases import Case
from densehand.evaluation.errors import known_keypoints
from densehand.hand.keypoints import BONES
from densehand.resample import crop_image

SIDE = 224  # pixels of the picture
TRUTH, ESTIMATE = (60, 220, 90), (255, 70, 60)
"""Colours of the labels and of the estimate, RGB."""

_SHIFT = 4  # cv2 draws at 1/16 pixel


def case_picture(case: Case, points: Float[np.ndarray, "21 2"] | None) -> Callable[[], UInt8[np.ndarray, "h w 3"]]:
    """A function that draws the case: labels green, the estimate (pixels of the photo) red. It never raises."""

    def draw() -> np.ndarray:
        try:
            image = case.sample.read_image()
        except DensehandError:
            return _blank()
        crop = Crop.to_look_at(case.box, image.shape[1], image.shape[0])
        tile = crop_image(image, crop, SIDE)
        if case.sample.keypoints_2d is not None:
            _skeleton(tile, crop.to_pixels(case.sample.keypoints_2d, SIDE), known_keypoints(case), TRUTH)
        if points is not None:
            _skeleton(tile, crop.to_pixels(points, SIDE), np.ones(21, dtype=bool), ESTIMATE)
        return tile

    return draw


def _skeleton(tile: UInt8[np.ndarray, "h w 3"], points: np.ndarray, known: np.ndarray, colour: tuple) -> None:
    # far points would make cv2 overflow; beyond the tile they are not seen anyway
    fixed = (np.clip(np.nan_to_num(points) - 0.5, -4 * SIDE, 4 * SIDE) * 2**_SHIFT).round().astype(int)
    for a, b in BONES:
        if known[a] and known[b]:
            cv2.line(tile, fixed[a].tolist(), fixed[b].tolist(), colour, 2, cv2.LINE_AA, _SHIFT)
    for point in fixed[known]:
        cv2.circle(tile, point.tolist(), 3 << _SHIFT, colour, -1, cv2.LINE_AA, _SHIFT)


def _blank() -> UInt8[np.ndarray, "h w 3"]:
    """Stands for a picture that cannot be read."""
    tile = np.full((SIDE, SIDE, 3), 225, dtype=np.uint8)
    cv2.line(tile, (0, 0), (SIDE, SIDE), (190, 190, 190), 2, cv2.LINE_AA)
    cv2.line(tile, (0, SIDE), (SIDE, 0), (190, 190, 190), 2, cv2.LINE_AA)
    return tile
