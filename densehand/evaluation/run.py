"""The one path of measuring: cases → what each system says → errors → the hands of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from densehand.errors import DensehandError, InputError
from densehand.evaluation.cases import Case
from densehand.evaluation.errors import drawn_points, errors_of, label_kinds, labelled_pairs
from densehand.evaluation.joint_map import with_corrected
from densehand.evaluation.journal import Journal
from densehand.evaluation.pictures import case_picture
from densehand.evaluation.systems import System, Untold
from densehand.report import KINDS, WORST, HandErrors

MISSES = {
    "missed": "no hand was found",
    "untold": "the file of predictions says nothing of the picture",
    "unreadable": "the picture cannot be read",
    "failed": "the system gave an error",
}
"""States of a row that count as a missed hand."""


@dataclass
class Measured:
    """One system's results: rows in the order of the cases, without those that have no labels.

    `states`: how many rows are in each state. `why`: the first reason of each state that has one. `notes`: what could
    not be corrected.
    """

    system: System
    rows: list[dict[str, Any]] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    why: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    resumed: int = 0
    worst: dict[str, list[tuple[float, Case, Any]]] = field(default_factory=dict)

    def add(self, row: dict[str, Any], case: Case) -> None:
        state = row["state"]
        self.states[state] += 1
        if row.get("why"):
            self.why.setdefault(state, f"{row['name']}: {row['why']}")
        if state == "unlabelled":
            return
        self.rows.append(row)
        # Pictures are drawn from the cases, which hold pictures where they come from shards: only the worst are kept
        for kind in row["kinds"]:
            values = row["errors"].get(kind)
            error = np.inf if state in MISSES else _mean(values)
            if error is not None:
                kept = [*self.worst.get(kind, []), (error, case, row.get("points"))]
                self.worst[kind] = sorted(kept, key=lambda entry: -entry[0])[:WORST]

    def hands(self, part: str | None = None) -> list[HandErrors]:
        """The hands for a report: all, or those of a part. Kinds that this system never tells are left out."""
        told = {kind for row in self.rows for kind in row["errors"]}
        scores = {name for row in self.rows for name in row["scores"]}
        drawn = {case.name: (case, points) for kept in self.worst.values() for _, case, points in kept}
        many = len({row["part"] for row in self.rows}) > 1
        hands = []
        for row in self.rows:
            if part is not None and row["part"] != part:
                continue
            lost = row["state"] in MISSES
            kinds = [kind for kind in row["kinds"] if kind in KINDS and (kind in told or not told)]
            told_here = [kind for kind in kinds if lost or kind in row["errors"]]
            errors = {k: np.full(21, np.inf) if lost else _floats(row["errors"][k]) for k in told_here}
            own = dict(row["scores"])
            if lost and row["mask"] and ("mask_iou" in scores or not scores):
                own["mask_iou"] = 0.0  # nothing was found where there is a hand
            if lost and "px" in row["kinds"] and ("pck_box" in scores or not scores):
                own["pck_box"] = 0.0
            picture = None
            if row["name"] in drawn:
                case, points = drawn[row["name"]]
                picture = case_picture(case, None if points is None else np.asarray(points))
            source = f"{row['part']} {row['source']}".strip() if many and part is None else row["source"]
            sure = None if lost or "sure" not in row else np.array(row["sure"])
            hands.append(HandErrors(row["name"], errors, source, own, picture, row.get("ms"), sure))
        return hands


def run(
    cases: Iterable[Case],
    systems: Sequence[System],
    journals: Sequence[Journal] | None = None,
    tick: Callable[[], None] = lambda: None,
    correct: bool = False,
) -> list[Measured]:
    """Measure the systems on the cases; what a journal holds already is not done again. `correct`: corrected errors too
    (`joint_map`), for which rows keep the points; so must those of the journals.

    One picture or label that cannot be used is counted and never ends the run.

    Raises InputError where labels differ from those of a journal's row, or a file of predictions cannot be read.
    """
    journals = journals or [Journal(None, {}) for _ in systems]
    results = [Measured(system) for system in systems]
    pictures = _Pictures()
    for case in cases:
        labels = case.fingerprint()
        for result, journal in zip(results, journals, strict=True):
            row = journal.known(case.name, labels)
            result.resumed += row is not None
            if row is None:
                measured = measure_case(case, result.system, pictures, correct)
                row = journal.add({"name": case.name, **measured, "labels": labels})
            result.add(row, case)
        tick()
    for result in results:
        untold = result.states["untold"]
        if untold and untold == len(result.rows):
            raise InputError(
                f"{result.why['untold']}, nor any other of the {untold} pictures; give predictions of this dataset, "
                "with paths that end like the dataset's"
            )
        if correct:
            result.rows, result.notes = with_corrected(result.rows)
    return results


def measure_case(case: Case, system: System, pictures: _Pictures, with_pairs: bool = False) -> dict[str, Any]:
    """The row of one hand, without its name; `with_pairs`: with what a joint map is fitted to."""
    kinds, sample = label_kinds(case), case.sample
    row: dict[str, Any] = {
        "part": case.part, "source": case.source, "state": "found", "kinds": kinds, "errors": {}, "scores": {},
        "mask": sample.mask is not None,
    }  # fmt: skip
    if with_pairs:
        row |= {"pairs": {}, "group": case.hand_id or str(case.picture)}
    if sample.problem is not None or not kinds:
        return {**row, "state": "unlabelled", "why": sample.problem or "no labels to compare with"}
    image = None
    if system.needs_picture:
        try:
            image = pictures(case)
        except DensehandError as error:
            return {**row, "state": "unreadable", "why": str(error)}
    try:
        found = system.answer(case, image)
    except Untold as error:
        return {**row, "state": "untold", "why": str(error)}
    except DensehandError as error:
        return {**row, "state": "failed", "why": str(error)}
    if found is None:
        return {**row, "state": "missed"}
    errors, scores = errors_of(case, found)
    row["errors"] = {kind: _plain(values) for kind, values in errors.items()}
    row["scores"] = {name: _short(value) for name, value in scores.items()}
    if "px" in errors and found.keypoints_score is not None:
        row["sure"] = _plain(found.keypoints_score)
    points = drawn_points(case, found)
    row["points"] = None if points is None else points.round(1).tolist()
    if with_pairs:
        pairs = labelled_pairs(case, found)
        row["pairs"] = {kind: [_plain(entry.ravel()) for entry in pair] for kind, pair in pairs.items()}
    if found.milliseconds is not None:
        row["ms"] = _short(found.milliseconds)
    return row


class _Pictures:
    """Reads pictures; the last one is kept, as hands of one picture follow one another."""

    def __init__(self) -> None:
        self._last: tuple[Any, UInt8[np.ndarray, "H W 3"]] | None = None

    def __call__(self, case: Case) -> UInt8[np.ndarray, "H W 3"]:
        key = case.sample.image
        if self._last is None or not same_picture(self._last[0], key):
            self._last = key, case.sample.read_image()
        return self._last[1]


def same_picture(a: Any, b: Any) -> bool:
    """Whether two `Sample.image` are one picture."""
    return a is b or (isinstance(a, Path | bytes) and isinstance(b, Path | bytes) and a == b)


def _short(value: float) -> float:
    """Enough digits for any figure, not all of a float's."""
    return float(f"{value:.9g}")


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else _short(value) for value in values.tolist()]


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _mean(values: Sequence[float | None] | None) -> float | None:
    known = [value for value in values or () if value is not None]
    return float(np.mean(known)) if known else None
