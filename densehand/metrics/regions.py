"""Masks, boxes and sides: what is found in the picture, against what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from numpy import ndarray

from densehand.errors import InputError
from densehand.metrics.checks import as_floats


class MaskScores(NamedTuple):
    """Shares in 0…1 of one mask's pixels, or of many masks' pixels together."""

    iou: float
    precision: float
    recall: float
    f1: float


def mask_scores(predicted: Bool[ndarray, "*n h w"], target: Bool[ndarray, "*n h w"]) -> MaskScores:
    """IoU, precision, recall and F1 of the pixels; all 1 where both masks are empty, all 0 where only one is.

    Raises InputError where shapes differ, there is no pixel, or a value is other than 0 and 1.
    """
    p, t = as_floats(predicted, "predicted mask"), as_floats(target, "target mask")
    if p.shape != t.shape:
        raise InputError(f"predicted mask {p.shape} and target mask {t.shape}: sizes differ; give masks of one picture")
    for name, mask in (("predicted", p), ("target", t)):
        if not np.isin(mask, (0.0, 1.0)).all():  # NaN is neither
            raise InputError(f"{name} mask: holds values other than 0 and 1; give mask > threshold")
    both, found, there = float((p * t).sum()), float(p.sum()), float(t.sum())
    if found + there == 0:
        return MaskScores(1.0, 1.0, 1.0, 1.0)
    return MaskScores(
        both / (found + there - both),
        both / found if found else 0.0,
        both / there if there else 0.0,
        2 * both / (found + there),
    )


def mask_iou(predicted: Bool[ndarray, "h w"], target: Bool[ndarray, "h w"]) -> float:
    """Intersection over union of two masks; 1 where both are empty. Raises as `mask_scores`."""
    return mask_scores(predicted, target).iou


def box_iou(a: Float[ndarray, "n 4"], b: Float[ndarray, "m 4"]) -> Float[ndarray, "n m"]:
    """Intersection over union of every pair of boxes `[x0, y0, x1, y1]`; 0 where both are empty. n or m may be 0."""
    a, b = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    overlap = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).clip(0).prod(-1) + (b[..., 2:] - b[..., :2]).clip(0).prod(-1)
    union = areas - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def tight_box(points: Float[ndarray, "n 2"]) -> Float32[ndarray, "4"]:
    """The box `[x0, y0, x1, y1]` tight around points."""
    return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)


def side_accuracy(predicted: Sequence[str | None], target: Sequence[str]) -> float:
    """Share of right sides ("left", "right") among the hands that were found; None is a hand that was not.

    Raises InputError where the lengths differ, no hand was found, or a side is something else.
    """
    if len(predicted) != len(target):
        raise InputError(f"sides: {len(predicted)} predicted, {len(target)} known; give one for each hand")
    unknown = {side for side in (*predicted, *target) if side not in ("left", "right", None)}
    if unknown or None in target:
        raise InputError('sides: not all "left" or "right" (None only where no hand was found); mend the labels')
    right = [p == t for p, t in zip(predicted, target, strict=True) if p is not None]
    if not right:
        raise InputError("sides: no hand was found, so none has a side; tell the share missed instead")
    return float(np.mean(right))
