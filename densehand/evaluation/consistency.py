"""Crop and view consistency of systems on a dataset: does a hand come out the same from another crop or side?"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densehand.errors import DensehandError, InputError
from densehand.evaluation.cases import Case
from densehand.evaluation.journal import Journal
from densehand.evaluation.prediction import Prediction
from densehand.evaluation.systems import System
from densehand.files import ensure_folder, write_bytes
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.metrics import Consistency, crop_consistency, palm_frame, view_consistency

CROPS, VIEWS = "crops", "views"


@dataclass(frozen=True)
class Scatter:
    """One system on a dataset, over its hands (of each, `percent` as in docs/metrics.md, % of wrist–middle knuckle).

    hands: that came out at least twice, so that there is something to compare, of `of`. missed: share of the crops or
    photos without an answer. skipped: photos that could not be used (unreadable, without a box or a hand_id).
    """

    system: str
    hands: int
    of: int
    skipped: int
    missed: float
    percent_mean: float | None
    percent_median: float | None
    per_joint: dict[str, float | None]


def check_kind(kind: str) -> None:
    """Raises InputError for another kind than `CROPS` and `VIEWS`."""
    if kind not in (CROPS, VIEWS):
        raise InputError(f"consistency {kind!r}: use {CROPS} or {VIEWS}")


def measure(
    kind: str,
    cases: Iterable[Case],
    systems: Sequence[System],
    journals: Sequence[Journal],
    tick: Callable[[], None] = lambda: None,
) -> list[Scatter]:
    """`CROPS`: of each photo with a box, over `metrics.CROP_PADDINGS`; `VIEWS`: of the photos that share a `hand_id`.

    Raises InputError for another kind, where there is no hand to measure, or as `Journal.known`.
    """
    check_kind(kind)
    row_of = _crops_row if kind == CROPS else _view_row
    names: list[str] = []
    for case in cases:
        if case.sample.problem is None and (case.box is not None if kind == CROPS else case.hand_id is not None):
            image, labels = None, case.fingerprint()
            for system, journal in zip(systems, journals, strict=True):
                if journal.known(case.name, labels) is None:
                    image = _image(case) if image is None else image
                    journal.add({"name": case.name, **row_of(case, system, image), "labels": labels})
            names.append(case.name)
        tick()
    if not names:
        needed = "a box or keypoints" if kind == CROPS else 'a "hand_id" in its rows (dataset densehand)'
        raise InputError(f"consistency {kind}: no photo has {needed}; see docs/evaluate.md")
    summarise = _of_crops if kind == CROPS else _of_views
    return [
        summarise(system.name, [journal.rows[name] for name in names])
        for system, journal in zip(systems, journals, strict=True)
    ]


def _image(case: Case) -> np.ndarray | str:
    """The picture, or why there is none."""
    try:
        return case.sample.read_image()
    except DensehandError as error:
        return str(error)


def _joints(found: Prediction | None) -> np.ndarray | None:
    """3D joints that have a palm frame."""
    if found is None or found.joints_3d is None:
        return None
    try:
        palm_frame(found.joints_3d)
    except InputError:
        return None  # a hand without a palm is no answer
    return found.joints_3d


def _crops_row(case: Case, system: System, image: np.ndarray | str) -> dict[str, Any]:
    if isinstance(image, str):
        return {"skipped": image}
    assert case.box is not None
    box = case.box
    try:
        return _plain(crop_consistency(lambda padding: _joints(system.crop(box, image, padding))))
    except DensehandError as error:  # a box off the picture, say
        if not system.needs_picture:
            raise
        return {"skipped": str(error)}


def _view_row(case: Case, system: System, image: np.ndarray | str) -> dict[str, Any]:
    if isinstance(image, str) and system.needs_picture:
        return {"hand_id": case.hand_id, "skipped": image}
    try:
        joints = _joints(system.answer(case, None if isinstance(image, str) else image))
    except DensehandError as error:
        return {"hand_id": case.hand_id, "skipped": str(error)}
    return {"hand_id": case.hand_id, "joints": None if joints is None else np.asarray(joints, float).tolist()}


def _plain(found: Consistency) -> dict[str, Any]:
    known = np.isfinite(found.percent)
    percent, joints = (found.percent, found.per_joint.tolist()) if known else (None, None)
    return {"percent": percent, "per_joint": joints, "missed": found.missed, "photos": found.photos}


def _of_crops(name: str, rows: Sequence[dict[str, Any]]) -> Scatter:
    return _scatter(name, [row for row in rows if "skipped" not in row], sum("skipped" in row for row in rows))


def _of_views(name: str, rows: Sequence[dict[str, Any]]) -> Scatter:
    groups: dict[str, list[np.ndarray | None]] = {}
    for row in rows:
        if "skipped" not in row:
            groups.setdefault(row["hand_id"], []).append(None if row["joints"] is None else np.array(row["joints"]))
    return _scatter(
        name, [_plain(view_consistency(group)) for group in groups.values()], sum("skipped" in row for row in rows)
    )


def _scatter(name: str, found: Sequence[dict[str, Any]], skipped: int) -> Scatter:
    percents = [row["percent"] for row in found if row["percent"] is not None]
    joints = np.array([row["per_joint"] for row in found if row["percent"] is not None]).reshape(-1, 21)
    photos = sum(row["photos"] for row in found)
    return Scatter(
        system=name,
        hands=len(percents),
        of=len(found),
        skipped=skipped,
        missed=sum(row["missed"] * row["photos"] for row in found) / photos if photos else 0.0,
        percent_mean=float(np.mean(percents)) if percents else None,
        percent_median=float(np.median(percents)) if percents else None,
        per_joint={
            joint: float(column.mean()) if column.size else None
            for joint, column in zip(KEYPOINT_NAMES, joints.T, strict=True)
        },
    )


def write(folder: Path, kind: str, dataset: str, found: Sequence[Scatter]) -> None:
    """`consistency-KIND.json` and `.csv` (a row a system). Raises InputError where the folder cannot be written to."""
    folder = ensure_folder(folder)
    text = io.StringIO()
    rows = [{key: value for key, value in asdict(entry).items() if key != "per_joint"} for entry in found]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = {"consistency": kind, "dataset": dataset, "systems": [asdict(entry) for entry in found]}
    data = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode()
    write_bytes(folder / f"consistency-{kind}.json", data)
    write_bytes(folder / f"consistency-{kind}.csv", text.getvalue().encode())
