"""Distances of points and what is told of them: EPE, PCK, the area under it. Any unit, 2D or 3D.

NaN among errors says that the point has no label: it counts nowhere. Infinity says that the hand was not found: it is
an error above every threshold, so that misses lower PCK and AUC.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from densehand.errors import InputError
from densehand.metrics.checks import as_floats, finite

THRESHOLDS_0_50: Float[ndarray, " 20"] = np.linspace(0.0, 50.0, 20)
"""mm; of "AUC 0–50" as hand3d (Zimmermann and Brox 2017) takes it."""

THRESHOLDS_20_50: Float[ndarray, " 12"] = THRESHOLDS_0_50[8:]
"""mm; of "AUC 20–50": hand3d keeps the last 12 of the 20, so the figure really starts at 21.05 mm."""

THRESHOLDS_FREIHAND: Float[ndarray, " 100"] = np.linspace(0.0, 50.0, 100)
"""mm; of FreiHAND's AUC."""


class EndPointError(NamedTuple):
    """Mean and median distance, in the unit of the errors."""

    mean: float
    median: float


def keypoint_error(
    predicted: Float[ndarray, "*n k d"], target: Float[ndarray, "*n k d"], visible: Bool[ndarray, "*n k"] | None = None
) -> Float[ndarray, "*n k"]:
    """Euclidean distance of each point (2D or 3D, any unit); NaN where `visible` is False or the target is NaN.

    Raises InputError where shapes differ, nothing is given, a target is infinite, or a point that has a label is
    predicted as NaN.
    """
    p, t = as_floats(predicted, "predicted"), as_floats(target, "target")
    if p.shape != t.shape or p.ndim < 2:
        raise InputError(
            f"predicted {p.shape} and target {t.shape} are not both (…, points, 2 or 3); give equal shapes"
        )
    if np.isinf(t).any():
        raise InputError("target: infinite coordinates; mark points without a label with NaN")
    known = ~np.isnan(t).any(-1)
    if visible is not None:
        seen = np.asarray(visible, bool)
        if seen.shape != known.shape:
            raise InputError(f"visible: shape {seen.shape} is not {known.shape}; give one value for each point")
        known &= seen
    if np.isnan(p[known]).any():
        raise InputError("predicted: NaN where the target is known; leave hands without a prediction out")
    return np.where(known, np.linalg.norm(np.where(known[..., None], p - t, 0.0), axis=-1), np.nan)


def box_normalised_error(errors: Float[ndarray, "*n k"], boxes: Float[ndarray, "*n 4"]) -> Float[ndarray, "*n k"]:
    """Errors in pixels as shares of the larger side of each hand's box `[x0, y0, x1, y1]`: `pck` of it is PCK@box.

    Raises InputError where a box is not finite or has no size, or there is not one box for each hand.
    """
    e, b = as_floats(errors, "errors"), finite(boxes, "boxes")
    if b.shape != (*e.shape[:-1], 4):
        raise InputError(f"boxes: shape {b.shape} is not {(*e.shape[:-1], 4)}; give one box for each hand")
    sides = (b[..., 2:] - b[..., :2]).max(-1)
    if (sides <= 0).any():
        raise InputError("boxes: a box has no size; give [x0, y0, x1, y1] with x1 > x0 or y1 > y0")
    return e / sides[..., None]


def known_errors(errors: Float[ndarray, "..."]) -> Float[ndarray, " m"]:
    """All errors that are not NaN. Raises InputError where there is none, or a negative one."""
    values = as_floats(errors, "errors")
    known = values[~np.isnan(values)]
    if known.size == 0:
        raise InputError("errors: all are NaN, so no point has a label; give hands with labels")
    if (known < 0).any():
        raise InputError("errors: negative values among them; give distances")
    return known


def columns(errors: Float[ndarray, "n k"]) -> list[Float[ndarray, " m"]]:
    """The known errors of each keypoint that has any, hand3d's way of grouping. Raises InputError."""
    values = as_floats(errors, "errors")
    if values.ndim != 2:
        raise InputError(f"errors: shape {values.shape} is not (hands, keypoints); needed to average over keypoints")
    known_errors(values)
    return [column[~np.isnan(column)] for column in values.T if not np.isnan(column).all()]


def end_point_error(errors: Float[ndarray, "..."], per_keypoint: bool = False) -> EndPointError:
    """Mean and median of the known errors.

    `per_keypoint` (errors (hands, keypoints)): each keypoint's mean and median, averaged over the keypoints, as hand3d
    and FreiHAND print them; the same mean where all keypoints are known equally often, but another median.

    Raises InputError where no error is known, or one is infinite (a missed hand has no distance).
    """
    if np.isinf(known_errors(errors)).any():
        raise InputError("errors: infinite for missed hands, which have no mean; leave them out and tell their share")
    groups = columns(errors) if per_keypoint else [known_errors(errors)]
    return EndPointError(
        float(np.mean([group.mean() for group in groups])), float(np.mean([np.median(group) for group in groups]))
    )


def pck(
    errors: Float[ndarray, "..."], thresholds: Float[ndarray, " t"], per_keypoint: bool = False
) -> Float[ndarray, " t"]:
    """Share of the known errors that are at most each threshold (percentage of correct keypoints, in 0…1).

    `per_keypoint` (errors (hands, keypoints)): the mean over the keypoints of each one's share, hand3d's way.

    Raises InputError where no error is known or a threshold is NaN.
    """
    limits = finite(thresholds, "thresholds")
    groups = columns(errors) if per_keypoint else [known_errors(errors)]
    # Sorted once, a curve of any length costs no more than its look-ups.
    shares = [np.searchsorted(np.sort(group), limits, side="right") / group.size for group in groups]
    return np.mean(shares, axis=0)


def area_under_curve(thresholds: Float[ndarray, " t"], shares: Float[ndarray, " t"]) -> float:
    """Trapezoid integral of `shares` over rising `thresholds`, divided by their span: 1 for a curve that is 1.

    Raises InputError where there are fewer than two thresholds, or they do not rise.
    """
    x, y = finite(thresholds, "thresholds"), finite(shares, "shares")
    if x.ndim != 1 or x.shape != y.shape or x.size < 2 or (np.diff(x) <= 0).any():
        raise InputError("thresholds: not two or more rising values with one share each; give a curve")
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def auc(
    errors: Float[ndarray, "..."], thresholds: Float[ndarray, " t"] = THRESHOLDS_20_50, per_keypoint: bool = False
) -> float:
    """Area under the PCK curve over `thresholds`, in 0…1. The default wants errors in mm. Raises as `pck`."""
    return area_under_curve(thresholds, pck(errors, thresholds, per_keypoint))
