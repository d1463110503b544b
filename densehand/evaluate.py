"""Accuracy on a folder of measuring fixtures: `val2d.jsonl` and `val3d.jsonl` beside their pictures.

Rows: `image` (path below the folder), `source`, `side`, `keypoints_px` 21×2; 2D rows have `visible` 21; 3D rows have
`joints_mm` 21×3 in the camera frame and perhaps `vertices_mm` in MANO's order (not comparable with the open hand's).
Every hand is given to the estimator with its tight ground-truth box and, as `--boxes` does, without its side.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densehand.errors import InputError
from densehand.files import write_atomically
from densehand.images import read_image
from densehand.metrics import keypoint_error, pa_mpjpe, root_relative_error
from densehand.pipeline import HandBox, HandEstimator
from densehand.result import Hand

CROP = 224.0  # pixels of the crop in which 2D errors are reported


@dataclass(frozen=True)
class Measured:
    """One hand of a fixture: its row, the estimate, and the errors (2D in pixels of a 224-px crop, 3D in mm)."""

    row: dict[str, Any]
    hand: Hand
    error_px: np.ndarray  # of the visible keypoints
    mesh_px: np.ndarray  # of the same keypoints as the mesh projects them
    pa_mm: float | None
    root_mm: float | None
    side_right: bool | None


def read_fixture(folder: Path | str, name: str) -> list[dict[str, Any]]:
    """Rows of `folder/name`. Raises InputError where the file is missing or damaged."""
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"{path}: no such fixture file; give the folder that holds val2d.jsonl and val3d.jsonl")
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path}: not JSON lines ({error}); fetch the file again") from error
    for number, row in enumerate(rows, 1):
        if np.shape(row.get("keypoints_px")) != (21, 2):
            raise InputError(f"{path}:{number}: keypoints_px is not 21×2; remove or mend the row")
    return rows


def tight_box(row: dict[str, Any]) -> tuple[float, float, float, float]:
    """The box around the labelled keypoints, pixels."""
    points = np.asarray(row["keypoints_px"], float)[np.asarray(row.get("visible", [True] * 21))]
    return (*points.min(0), *points.max(0))


def measure(
    estimator: HandEstimator, folder: Path | str, name: str, tick: Callable[[], None] = lambda: None
) -> list[Measured]:
    """Estimate every hand of a fixture file and compare."""
    results = []
    for row in read_fixture(folder, name):
        box = tight_box(row)
        hand = estimator(read_image(Path(folder) / row["image"]), [HandBox(box)])[0]
        visible = np.asarray(row.get("visible", [True] * 21))
        pixel = 1.5 * max(box[2] - box[0], box[3] - box[1]) / CROP
        error, mesh = (
            keypoint_error(found, row["keypoints_px"])[visible] / pixel
            for found in (hand.keypoints_2d, hand.project(hand.joints_3d))
        )
        pa = root = None
        if row.get("joints_mm"):
            target = np.asarray(row["joints_mm"], float)
            pa = pa_mpjpe(hand.joints_3d * 1000.0, target)
            root = root_relative_error(hand.joints_3d * 1000.0, target)
        side_right = None if row.get("side") is None else hand.side == row["side"]
        results.append(Measured(row, hand, error, mesh, pa, root, side_right))
        tick()
    return results


def summary(results: list[Measured]) -> dict[str, float]:
    """Figures of a set of hands: `median_px`, `mean_px`, `mesh_px` (a mean) over keypoints, others over hands."""
    errors = np.concatenate([r.error_px for r in results])
    figures = {"hands": len(results), "median_px": float(np.median(errors)), "mean_px": float(errors.mean())}
    figures["mesh_px"] = float(np.concatenate([r.mesh_px for r in results]).mean())
    for key in ("pa_mm", "root_mm"):
        values = [getattr(r, key) for r in results if getattr(r, key) is not None]
        if values:
            figures[key] = float(np.mean(values))
    sides = [r.side_right for r in results if r.side_right is not None]
    if sides:
        figures["side_right"] = float(np.mean(sides))
    return figures


def by_source(results: list[Measured]) -> dict[str, dict[str, float]]:
    """`summary` of all hands and of each source."""
    groups = {"all": results}
    for result in results:
        groups.setdefault(str(result.row.get("source", "?")), []).append(result)
    return {name: summary(group) for name, group in groups.items()}


def append_rows(path: Path | str, rows: list[dict[str, Any]]) -> None:
    """Add rows to a results CSV (made with a header when missing); columns that are new are added at the end."""
    path = Path(path)
    old: list[dict[str, Any]] = []
    if path.is_file():
        with path.open(newline="") as stream:
            old = list(csv.DictReader(stream))
    columns = list(dict.fromkeys(key for row in [*old, *rows] for key in row))
    with write_atomically(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows([*old, *rows])
