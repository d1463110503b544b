"""Errors once a system's joints are carried to where the set's labels have theirs (docs/evaluate.md).

Sets and hand models do not put a knuckle in one place, and a system is not wrong for having another. So one fixed
linear map `M` of its 21 points (21×21, rows sum to 1, all coordinates share it) is fitted to the labels and applied,
always to other hands than those it was fitted on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from densehand.errors import InputError
from densehand.metrics import fit_similarity, keypoint_error

CORRECTED = {"px": "corrected_px", "pa_mm": "corrected_pa_mm"}
"""The kinds of errors that are corrected, and what they are called then (`densehand.report.KINDS`)."""

FOLDS = 5
LEAST_HANDS = 20  # fewer say more of their own poses than of where the set has its joints
LEAST_OTHERS = LEAST_HANDS // 2  # hands outside any fold, which its map is fitted on
RIDGE = 30.0  # hands' worth of saying "the same joints": about what errors of 5 % of the box and maps of 3 % call for
GROSS = 3.0  # times the median residual beyond which a hand has no part in the fit
ROUNDS = 3  # of fitting, leaving out and aligning anew


def with_corrected(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of one system's run with their corrected errors; and what could not be corrected, and why.

    Rows need `pairs` and `group`, as `run(correct=True)` keeps them.
    """
    rows = [{**row, "kinds": list(row["kinds"]), "errors": dict(row["errors"])} for row in rows]
    refused = []
    for kind, name in CORRECTED.items():
        told = [row for row in rows if kind in row["pairs"]]
        if not told:
            continue
        found, target = (
            np.array([row["pairs"][kind][i] for row in told], dtype=float).reshape(len(told), 21, -1) for i in (0, 1)
        )
        try:
            errors = corrected_errors(found, target, [row["group"] for row in told])
        except InputError as error:
            refused.append(f"no {name}: {error}")
            continue
        for row, values in zip(told, errors, strict=True):
            row["errors"][name] = values.tolist()
        for row in rows:
            row["kinds"] += [name] if kind in row["kinds"] else []
    return rows, refused


def corrected_errors(
    found: Float[np.ndarray, "n 21 d"],
    target: Float[np.ndarray, "n 21 d"],
    groups: Sequence[str],
    ridge: float = RIDGE,
) -> Float[np.ndarray, "n 21"]:
    """Distances to the labels after correction, in their unit; NaN where there is no label (a NaN of `target`).

    Each hand's map is fitted on the hands of the other folds (`fold_of`). 3D points are aligned to the labels before
    (for the fit) and after. Every hand needs a label in 2D, or four in 3D. Raises InputError where hands are too few.
    """
    fold = fold_of(groups)
    others = len(fold) - int(np.bincount(fold).max()) if len(fold) else 0
    if len(fold) < LEAST_HANDS or others < LEAST_OTHERS:
        raise InputError(
            f"{len(fold)} hands with labels, {others} of them outside the largest fold, where a joint map takes "
            f"{LEAST_HANDS} and {LEAST_OTHERS}; measure more of the set"
        )
    errors = np.empty(found.shape[:2])
    for number in np.unique(fold):
        mine = fold == number
        mapping = fit_joint_map(found[~mine], target[~mine], ridge)
        errors[mine] = keypoint_error(mapping @ placed(found[mine], target[mine], mapping), target[mine])
    return errors


def fold_of(groups: Sequence[str]) -> Int[np.ndarray, " n"]:
    """The fold of each hand: groups in the order they come in, cut into blocks of about as many hands.

    Blocks, because frames that follow one another in a film are nearly one picture.
    """
    fold, before = {}, 0
    for group, size in Counter(groups).items():
        fold[group] = before * FOLDS // len(groups)
        before += size
    return np.array([fold[group] for group in groups], dtype=int)


def fit_joint_map(
    found: Float[np.ndarray, "n 21 d"], target: Float[np.ndarray, "n 21 d"], ridge: float = RIDGE
) -> Float[np.ndarray, "21 21"]:
    """The map that takes a system's points closest to the labels (NaN where there is none), drawn to the identity.

    Hands whose residual is large are left out, so that a hand taken for another does not decide it. In 3D the points
    are aligned by what the map makes of them, as the errors are.
    """
    mapping = np.eye(21)
    for _ in range(ROUNDS):
        points = placed(found, target, mapping)
        residual = np.nanmean(keypoint_error(mapping @ points, target), axis=1)
        kept = residual <= GROSS * np.median(residual)
        mapping = _solve(points[kept], target[kept], ridge)
    return mapping


def placed(
    found: Float[np.ndarray, "n 21 d"], target: Float[np.ndarray, "n 21 d"], mapping: Float[np.ndarray, "21 21"]
) -> Float[np.ndarray, "n 21 d"]:
    """3D points moved, turned and scaled so that `mapping` takes them closest to the labels; 2D ones as they are."""
    if found.shape[-1] == 2:
        return found
    known = np.isfinite(target).all(axis=-1)
    return np.stack(
        [fit_similarity((mapping @ p)[k], t[k])(p) for p, t, k in zip(found, target, known, strict=True)]
    )  # the map and a similarity may change places, as its rows sum to 1


def _solve(
    points: Float[np.ndarray, "n 21 d"], target: Float[np.ndarray, "n 21 d"], ridge: float
) -> Float[np.ndarray, "21 21"]:
    """Ridge regression of each label on all points, over the hands that have it.

    Points are taken from their mean, to which a row of `M - 1` that sums to nothing is blind: so all of them do.
    """
    known = np.isfinite(target).all(axis=-1)
    centred = points - points.mean(axis=1, keepdims=True)
    penalty = ridge * (centred**2).sum(axis=2).mean() * np.eye(21)  # what a hand adds to the squares, times `ridge`
    mapping = np.eye(21)
    for joint in range(21):
        rows = known[:, joint]
        x = centred[rows].swapaxes(1, 2).reshape(-1, 21)
        y = (target - points)[rows, joint].reshape(-1)
        mapping[joint] += np.linalg.pinv(x.T @ x + penalty, rcond=1e-12, hermitian=True) @ (x.T @ y)
    return mapping
