"""Box arithmetic of the detector: overlaps, suppression of duplicates, and picking peaks from the dense answers.

Boxes are ``[x0, y0, x1, y1]`` in continuous pixels.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from densehand.detect.model import REFERENCE_SIZE, STRIDE, DetectorOutput
from densehand.network.calibration import sigmoid

_AROUND = np.indices((3, 3)).reshape(2, 9)  # of a cell in a map: its own and its neighbours' places in the bordered one


class Candidates(NamedTuple):
    """Peaks of one picture before suppression, best first."""

    boxes: NDArray[np.float32]  # (n, 4) input px
    scores: NDArray[np.float32]  # (n,) in (0, 1)
    right: NDArray[np.float32]  # (n,) probability of a right hand
    turn: NDArray[np.float32]  # (n, 2) mean sine and cosine of the palm's turn


def areas(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Areas in px²; a box turned inside out has area 0."""
    return np.clip(boxes[..., 2] - boxes[..., 0], 0, None) * np.clip(boxes[..., 3] - boxes[..., 1], 0, None)


def intersections(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Areas of the pairwise intersections, px²."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=-1)


def suppress(
    boxes: Float[np.ndarray, "n 4"],
    scores: Float[np.ndarray, " n"],
    iou_threshold: float = 0.45,
    containment: float = 0.85,
    smallest_ratio: float = 0.06,
) -> Int[np.ndarray, " k"]:
    """Indices of the boxes to keep, best score first (ties in their order); sides play no part.

    A box goes if a kept, better one overlaps it by an IoU of more than ``iou_threshold``, or if more than
    ``containment`` of the smaller of the two lies within the other: a palm or a fist's fingers found beside their own
    hand. Boxes of less than ``smallest_ratio`` of the other's area are spared by the second rule: that is a far hand
    before or behind a near one.
    """
    if len(boxes) < 2:
        return np.arange(len(boxes))
    order = np.argsort(-scores, kind="stable")
    area, common = areas(boxes), intersections(boxes, boxes)
    smaller, larger = np.minimum(area[:, None], area), np.maximum(area[:, None], area)
    union = area[:, None] + area - common
    inside = (common > containment * smaller) & (smaller > smallest_ratio * larger)
    rivals = (common > iou_threshold * np.maximum(union, 1e-9)) | inside
    alive = np.ones(len(boxes), bool)
    keep = []
    for i in order:
        if alive[i]:
            keep.append(i)
            alive &= ~rivals[i]
    return np.asarray(keep, dtype=np.int64)


def peaks(output: DetectorOutput, threshold: float, limit: int = 100) -> list[Candidates]:
    """Local maxima (3×3) of the centre map at or above ``threshold`` (between 0 and 1), at most ``limit`` of each
    picture, best first.

    By numpy on any device's answers, which are small: torch would wake its threads for a map of some hundred cells, and
    wait for them where the cores are busy. Only the cells of a peak are read of the other answers.
    """
    least = math.log(threshold / (1 - threshold))
    found = []
    for centre, shift, size, side, turn in zip(*(value.float().cpu().numpy() for value in output[:5]), strict=True):
        rows, columns = np.nonzero(centre >= least)
        bordered = np.full((centre.shape[0] + 2, centre.shape[1] + 2), -np.inf, np.float32)
        bordered[1:-1, 1:-1] = centre
        values = centre[rows, columns]
        best = np.flatnonzero(values == bordered[rows[:, None] + _AROUND[0], columns[:, None] + _AROUND[1]].max(axis=1))
        best = best[np.argsort(-values[best], kind="stable")[:limit]]
        rows, columns = rows[best], columns[best]
        middle = STRIDE * (np.stack([columns, rows], 1) + np.float32(0.5) + shift[:, rows, columns].T)
        half = 0.5 * REFERENCE_SIZE * np.exp(size[:, rows, columns].T.clip(-4, 4))
        boxes = np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)
        scores, right = sigmoid(np.stack([values[best], side[rows, columns]]))
        found.append(Candidates(boxes, scores, right, turn[:, rows, columns].T))
    return found
