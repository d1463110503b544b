"""Error measures, in numpy, one hand or many: what `evaluate` and the benchmarks report."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


def keypoint_error(
    predicted: Float[ndarray, "*n k d"], target: Float[ndarray, "*n k d"], visible: Bool[ndarray, "*n k"] | None = None
) -> Float[ndarray, "*n k"]:
    """Euclidean distance of each keypoint (2D or 3D, any unit); NaN where `visible` is False."""
    error = np.linalg.norm(np.asarray(predicted) - np.asarray(target), axis=-1)
    return error if visible is None else np.where(visible, error, np.nan)


def procrustes_align(predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"]) -> Float[ndarray, "k 3"]:
    """`predicted` moved, turned and scaled (no mirroring) to lie closest to `target` in the least-squares sense.

    Umeyama 1991. A prediction whose points all coincide is only moved.
    """
    mean_p, mean_t = predicted.mean(0), target.mean(0)
    p, t = predicted - mean_p, target - mean_t
    size = (p**2).sum()
    if size < 1e-20:
        return np.broadcast_to(mean_t, predicted.shape).copy()
    u, singular, vt = np.linalg.svd(t.T @ p)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    return (singular * sign).sum() / size * p @ rotation.T + mean_t


def pa_mpjpe(predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"]) -> float:
    """Mean distance after similarity alignment (PA-MPJPE; with vertices: PA-MPVPE), in the target's unit."""
    return float(keypoint_error(procrustes_align(predicted, target), target).mean())


def root_relative_error(predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"], root: int = 0) -> float:
    """Mean distance with both roots at the origin (MPJPE root-relative)."""
    return float(keypoint_error(predicted - predicted[root], target - target[root]).mean())


def pck(errors: Float[ndarray, "..."], thresholds: Float[ndarray, " t"]) -> Float[ndarray, " t"]:
    """Share of the errors (NaN left out) that are at most each threshold."""
    known = np.asarray(errors)[np.isfinite(errors)]
    if known.size == 0:
        return np.full(len(thresholds), np.nan)
    return (known[:, None] <= np.asarray(thresholds)).mean(0)


def mask_iou(predicted: Bool[ndarray, "h w"], target: Bool[ndarray, "h w"]) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = np.logical_or(predicted, target).sum()
    return float(np.logical_and(predicted, target).sum() / union) if union else 1.0


def box_iou(a: Float[ndarray, "n 4"], b: Float[ndarray, "m 4"]) -> Float[ndarray, "n m"]:
    """Intersection over union of every pair of boxes `[x0, y0, x1, y1]`; 0 where both are empty."""
    a, b = np.asarray(a, float).reshape(-1, 1, 4), np.asarray(b, float).reshape(1, -1, 4)
    overlap = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).clip(0).prod(-1) + (b[..., 2:] - b[..., :2]).clip(0).prod(-1)
    union = areas - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
