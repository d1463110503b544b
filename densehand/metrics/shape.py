"""How close a hand is in 3D: root-relative, scaled, after similarity alignment, and as a surface (F-score)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from densehand.errors import InputError
from densehand.metrics.checks import finite, paired_3d, points_3d
from densehand.metrics.keypoints import keypoint_error

WRIST_TO_MIDDLE = (0, 9)
"""Reference bone of HO-3D's scaled error: wrist to middle knuckle."""

MIDDLE_PROXIMAL = (9, 10)
"""Reference bone of hand3d's normalised coordinates: middle knuckle to the next joint."""


class Similarity(NamedTuple):
    """x → scale · rotation · x + translation (no mirroring)."""

    scale: float
    rotation: Float[ndarray, "3 3"]
    translation: Float[ndarray, "3"]

    def __call__(self, points: Float[ndarray, "v 3"]) -> Float[ndarray, "v 3"]:
        return self.scale * points @ self.rotation.T + self.translation


def fit_similarity(predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"]) -> Similarity:
    """The similarity that takes `predicted` closest to `target` in the least-squares sense (Umeyama 1991).

    A prediction whose points all coincide is only moved (scale 0). Raises InputError where points are NaN, missing, or
    not as many in both.
    """
    predicted, target = paired_3d(predicted, target)
    mean_p, mean_t = predicted.mean(0), target.mean(0)
    p, t = predicted - mean_p, target - mean_t
    size = (p**2).sum()
    if size < 1e-20:
        return Similarity(0.0, np.eye(3), mean_t)
    u, singular, vt = np.linalg.svd(t.T @ p)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = float((singular * sign).sum() / size)
    return Similarity(scale, rotation, mean_t - scale * rotation @ mean_p)


def procrustes_align(predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"]) -> Float[ndarray, "k 3"]:
    """`predicted` moved, turned and scaled (no mirroring) to lie closest to `target`. Raises as `fit_similarity`."""
    return fit_similarity(predicted, target)(points_3d(predicted, "predicted"))


def pa_mpjpe(predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"]) -> float:
    """Mean distance of the joints after similarity alignment, in the target's unit. Raises as `fit_similarity`."""
    return float(keypoint_error(procrustes_align(predicted, target), target).mean())


def pa_mpvpe(predicted: Float[ndarray, "v 3"], target: Float[ndarray, "v 3"]) -> float:
    """`pa_mpjpe` of the vertices of one mesh topology: the alignment is fitted to the vertices, as FreiHAND does."""
    return pa_mpjpe(predicted, target)


def root_relative_error(predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"], root: int = 0) -> float:
    """Mean distance with both roots at the origin (MPJPE root-relative). Raises InputError as `fit_similarity`."""
    predicted, target = paired_3d(predicted, target)
    return float(keypoint_error(predicted - predicted[root], target - target[root]).mean())


def bone_ratio(
    predicted: Float[ndarray, "k 3"], target: Float[ndarray, "k 3"], bone: tuple[int, int] = WRIST_TO_MIDDLE
) -> float | None:
    """By how much `predicted` must grow for its `bone` to be as long as the target's; None where it has no length."""
    own, wanted = (float(np.linalg.norm(points[bone[1]] - points[bone[0]])) for points in (predicted, target))
    return wanted / own if own > 0 else None


def scaled_error(
    predicted: Float[ndarray, "k 3"],
    target: Float[ndarray, "k 3"],
    root: int = 0,
    bone: tuple[int, int] = WRIST_TO_MIDDLE,
) -> float:
    """`root_relative_error` of the prediction scaled so that its `bone` is as long as the target's.

    What one photo without a known hand size can be held to. Raises InputError where the predicted bone has no length.
    """
    predicted, target = paired_3d(predicted, target)
    ratio = bone_ratio(predicted, target, bone)
    if ratio is None:
        raise InputError(
            f"predicted: keypoints {bone[0]} and {bone[1]} coincide, so the hand cannot be scaled; drop it"
        )
    return root_relative_error(predicted * ratio, target, root)


def nearest_distance(points: Float[ndarray, "v 3"], others: Float[ndarray, "w 3"]) -> Float[ndarray, " v"]:
    """Distance of each point to the nearest of `others`; 512 points at a time bound the memory."""
    parts = [points[i : i + 512, None] - others[None] for i in range(0, len(points), 512)]
    return np.concatenate([np.sqrt((part**2).sum(-1).min(1)) for part in parts])


def f_scores(
    predicted: Float[ndarray, "v 3"], target: Float[ndarray, "w 3"], thresholds: Sequence[float] = (5.0, 15.0)
) -> list[float]:
    """F-score of two point sets at each threshold (default F@5 mm and F@15 mm, for vertices in mm), in 0…1.

    Precision: share of predicted points nearer than the threshold to some target point; recall: the other way round;
    F = 2 · precision · recall / (precision + recall), 0 where both are 0 (Tatarchenko et al. 2019; strictly nearer, as
    FreiHAND). The meshes may differ in their vertices. As given: align first for the aligned figure.

    Raises InputError where points are NaN or missing, or a threshold is not above 0.
    """
    p, t, limits = points_3d(predicted, "predicted"), points_3d(target, "target"), finite(thresholds, "thresholds")
    if (limits <= 0).any():
        raise InputError("thresholds: not all above 0; give distances in the unit of the points")
    to_target, to_predicted = nearest_distance(p, t), nearest_distance(t, p)
    scores = []
    for limit in limits.reshape(-1):
        precision, recall = float((to_target < limit).mean()), float((to_predicted < limit).mean())
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return scores
