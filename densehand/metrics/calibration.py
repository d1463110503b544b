"""Are scores probabilities? Reliability, calibration error and Brier score; and do they rank: AUROC, false alarms."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from densehand.errors import InputError
from densehand.metrics.checks import finite

BINS = 15


class Reliability(NamedTuple):
    """The bins that hold anything, by rising score: mean score, share that is true, how many."""

    score: Float[ndarray, " b"]
    share: Float[ndarray, " b"]
    size: Int[ndarray, " b"]


def reliability(probability: Any, truth: Any, bins: int = BINS, even: bool = False) -> Reliability:
    """Scores and truths by bins: of equal width over 0…1, or `even`ly filled (a bin may then miss one of the rest).

    Raises InputError where the arrays differ in size or are empty, a probability is outside 0…1, or `bins` < 1.
    """
    p, t = _paired(probability, truth)
    if bins < 1:
        raise InputError(f"bins: {bins}; give 1 or more")
    if p.min() < 0 or p.max() > 1:
        raise InputError("probability: values outside 0…1; give probabilities, not logits")
    if even:
        order = p.argsort(kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
    else:
        place = np.minimum((p * bins).astype(int), bins - 1)  # 1 belongs to the last bin
        parts = [np.flatnonzero(place == number) for number in np.unique(place)]
    return Reliability(
        np.array([p[part].mean() for part in parts]),
        np.array([t[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def expected_calibration_error(probability: Any, truth: Any, bins: int = BINS) -> float:
    """Mean |score − share that is true| over bins of equal width, weighted by their counts (Guo et al. 2017).

    Raises InputError as `reliability`.
    """
    found = reliability(probability, truth, bins)
    return float(np.abs(found.score - found.share) @ found.size / found.size.sum())


def brier_score(probability: Any, truth: Any) -> float:
    """Mean squared distance of the probability to what is so, 1 or 0 (Brier 1950). Raises InputError as `auroc`."""
    p, t = _paired(probability, truth)
    return float(np.square(p - t).mean())


def auroc(score: Any, truth: Any) -> float:
    """How often a true one scores above a false one, ties half: the area under the ROC curve (Mann and Whitney 1947).

    Raises InputError where the arrays differ in size, hold NaN, or all are true or all false.
    """
    s, t = _paired(score, truth)
    _both(t)
    _, place, count = np.unique(s, return_inverse=True, return_counts=True)
    rank = (count.cumsum() - (count - 1) / 2)[place]  # 1 …, equal scores share their mean rank
    true = int(t.sum())
    return float((rank[t].sum() - true * (true + 1) / 2) / (true * (len(t) - true)))


def false_alarms(score: Any, truth: Any, recall: float) -> tuple[float, float]:
    """The highest threshold at which at least `recall` of the true ones pass (score ≥ threshold), and the share of the
    false ones that pass it too.

    Raises InputError as `auroc`, or where `recall` is outside 0…1.
    """
    s, t = _paired(score, truth)
    _both(t)
    if not 0 < recall <= 1:
        raise InputError(f"recall: {recall}; give a share above 0, at most 1")
    falling = np.sort(s[t])[::-1]
    threshold = float(falling[int(np.ceil(recall * len(falling) - 1e-9)) - 1])
    return threshold, float((s[~t] >= threshold).mean())


def _paired(score: Any, truth: Any) -> tuple[Float[ndarray, " n"], Bool[ndarray, " n"]]:
    s, t = finite(score, "scores").ravel(), finite(truth, "truth").ravel()
    if s.shape != t.shape:
        raise InputError(f"scores: {s.size}, truth: {t.size}; give one truth for each score")
    if not np.isin(t, (0.0, 1.0)).all():
        raise InputError("truth: holds values other than 0 and 1; give what is so and what is not")
    return s, t.astype(bool)


def _both(truth: Bool[ndarray, " n"]) -> None:
    if truth.all() or not truth.any():
        raise InputError("truth: all the same; give true ones and false ones, else nothing can be told apart")
