"""Figures of measured hands as lines of text and rows of a results file; what measures is `densehand.evaluation`.

The plain way: a folder of measuring fixtures, `val2d.jsonl` and `val3d.jsonl` beside their pictures. Rows: `image`
(path below the folder), `source`, `side`, `keypoints_px` 21×2; 2D rows have `visible` 21; 3D rows have `joints_mm` 21×3
in the camera frame and perhaps `vertices_mm`. Every hand is given to the estimator with its tight ground-truth box and,
as `predict --boxes` does, without its side.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densehand.camera import ERROR_CROP, HOUSE_PADDING
from densehand.errors import InputError
from densehand.evaluation.cases import FIXTURES, open_cases, read_fixture
from densehand.evaluation.run import run
from densehand.evaluation.systems import ModelSystem
from densehand.files import write_atomically
from densehand.metrics import expected_calibration_error
from densehand.network.calibration import NEAR
from densehand.report import HandErrors
from densehand.report.measured import missed

__all__ = ["append_rows", "by_source", "grouped", "labelled_box", "measure", "read_fixture", "score_figures", "summary"]


def labelled_box(row: dict[str, Any]) -> tuple[float, float, float, float]:
    """The box around the labelled keypoints of a fixture's row, pixels."""
    points = np.asarray(row["keypoints_px"], float)[np.asarray(row.get("visible", [True] * 21))]
    return (*points.min(0), *points.max(0))


def measure(estimator: Any, folder: Path | str, name: str, tick: Callable[[], None] = lambda: None) -> list[HandErrors]:
    """Estimate every hand of a fixture file (`val2d.jsonl`) and compare. `estimator`: a `HandEstimator`."""
    cases = open_cases(FIXTURES, folder, name.removesuffix(".jsonl"))
    return run(cases, [ModelSystem(estimator)], tick=tick)[0].hands()


def summary(hands: Sequence[HandErrors], more: bool = True) -> dict[str, float]:
    """Figures of a set of hands over those found, with the share `missed` where any was.

    `median_px`, `mean_px` (also `corrected_`) and `mesh_px` (a mean) over keypoints, others over hands; `more`: all
    scores, not the side alone.
    """
    found = [hand for hand in hands if not missed(hand)]
    figures: dict[str, float] = {"hands": len(hands)}
    if len(found) < len(hands):
        figures["missed"] = 1 - len(found) / len(hands)
    over_keypoints = {
        "px": ("median_px", "mean_px"),
        "mesh_px": ("mesh_px",),
        "corrected_px": ("corrected_median_px", "corrected_mean_px"),
    }
    for kind, names in over_keypoints.items():
        known = [hand.errors[kind] for hand in found if kind in hand.errors]
        if known:
            errors = np.concatenate([row[~np.isnan(row)] for row in known])
            figures |= {name: float(np.median(errors) if "median" in name else errors.mean()) for name in names}
    for kind in ("pa_mm", "root_mm", *(["scaled_mm"] if more else []), "corrected_pa_mm"):
        means = [float(np.nanmean(hand.errors[kind])) for hand in found if kind in hand.errors]
        if means:
            figures[kind] = float(np.mean(means))
    scores = list(dict.fromkeys(name for hand in hands for name in hand.scores)) if more else ["side_right"]
    for name in scores:
        values = [hand.scores[name] for hand in hands if name in hand.scores]
        if values:
            figures[name] = float(np.mean(values))
    return figures


def by_source(hands: Sequence[HandErrors]) -> dict[str, dict[str, float]]:
    """`summary` of all hands and of each source, without all scores."""
    return {name: summary(group, more=False) for name, group in grouped(hands).items()}


def grouped(hands: Sequence[HandErrors]) -> dict[str, list[HandErrors]]:
    """All hands and those of each source."""
    groups = {"all": list(hands)}
    for hand in hands:
        if hand.source:
            groups.setdefault(hand.source, []).append(hand)
    return groups


def score_figures(hands: Sequence[HandErrors]) -> dict[str, float]:
    """`score_ece`: how far keypoints' scores are from the share of them that lie within `NEAR` of the box of the label,
    over the hands found (docs/confidence.md); nothing where a system gives no scores or there are no labels in 2D."""
    limit = NEAR * ERROR_CROP / HOUSE_PADDING
    scores, near = [], []
    for hand in hands:
        if hand.keypoints_score is not None and "px" in hand.errors:
            known = np.isfinite(hand.errors["px"])
            scores.append(hand.keypoints_score[known])
            near.append(hand.errors["px"][known] <= limit)
    if not sum(map(len, scores)):
        return {}
    return {"score_ece": expected_calibration_error(np.concatenate(scores), np.concatenate(near))}


def read_results(path: Path | str) -> list[dict[str, Any]]:
    """The rows of a results CSV, none where there is no such file. InputError: no text, or its folder is missing."""
    path = Path(path)
    if not path.is_file():
        if not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; make it, or choose another file")
        return []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file that rows can be added to ({error}); choose another") from error


def append_rows(path: Path | str, rows: list[dict[str, Any]]) -> None:
    """Add rows to a results CSV (made with a header when missing); columns that are new are added at the end."""
    path, old = Path(path), read_results(path)
    columns = list(dict.fromkeys(key for row in [*old, *rows] for key in row))
    with write_atomically(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows([*old, *rows])
