"""The labelled hands that systems are measured on, whatever dataset they come from."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from densehand.data.readers import common, dataset, dataset_names, read_dataset
from densehand.data.readers.coco import FILES as COCO_FILES
from densehand.data.sample import Sample
from densehand.errors import InputError

FIXTURES = "fixtures"
"""The set of measuring fixtures: `val2d.jsonl` and `val3d.jsonl` in one folder."""

PARTS = ("val2d", "val3d")

LOOSE_BOXES = (*COCO_FILES, "coco_wholebody")
"""Sets whose published boxes are padded or the whole picture."""

PUBLISHED_SPLITS = {"freihand": "evaluation", "rhd": "evaluation", "rhd_mmpose": "test", "stb": "test"}
"""The splits that figures are published of, where `densehand.report` has some."""

MOST_KEYPOINTS = 11
"""With so many known keypoints of 21, the box around them is that of the hand."""


@dataclass(frozen=True)
class Case:
    """A labelled hand, where it comes from, and what its row says beyond `Sample`.

    index: place in the split, from 0. part: the split or fixture file. source: where the picture comes from, "" where
    nothing tells. box: `[x0, y0, x1, y1]` that models are given and errors are told in, pixels; None where nothing
    tells it. vertices: metres, camera frame. hand_id: the same for all photos of one hand held still.
    """

    index: int
    sample: Sample
    part: str = ""
    source: str = ""
    box: Float[np.ndarray, "4"] | None = None
    vertices: Float[np.ndarray, "V 3"] | None = None
    hand_id: str | None = None

    @property
    def name(self) -> str:
        return self.sample.name

    @property
    def picture(self) -> Path:
        """What predictions name it by: its path, or its place within a shard."""
        if isinstance(self.sample.image, Path):
            return self.sample.image
        return Path(self.sample.name.rpartition(":")[2])

    @property
    def labels(self) -> Float[np.ndarray, "21 2"]:
        """Labelled keypoints, pixels; NaN where there is none (or a hidden one, where the set tells)."""
        points, visible = self.sample.keypoints_2d, self.sample.visible
        if points is None or visible is None:
            return np.full((21, 2), np.nan)
        return np.where(np.asarray(visible, dtype=bool)[:, None], points, np.nan)

    def fingerprint(self) -> str:
        """Changes with the labels."""
        sum_ = 0
        arrays = (self.sample.keypoints_2d, self.sample.visible, self.sample.joints_3d, self.box, self.vertices)
        for array in arrays:
            sum_ = zlib.crc32(b"-" if array is None else np.ascontiguousarray(array).tobytes(), sum_)
        return f"{zlib.crc32(str(self.sample.side).encode(), sum_):08x}"


def check_dataset(name: str) -> None:
    """Raises InputError naming the known sets."""
    if name != FIXTURES and name not in dataset_names():
        raise InputError(f"unknown dataset {name!r}; known: {FIXTURES}, {', '.join(dataset_names())}")


def open_cases(name: str, root: Path | str, split: str | None = None, limit: int = 0) -> Iterator[Case]:
    """The hands of a dataset's split, in its order; the first `limit` where it is not 0. Raises as `read_dataset`."""
    check_dataset(name)
    return islice(_fixtures(Path(root), split) if name == FIXTURES else _cases(name, Path(root), split), limit or None)


def split_of(name: str, split: str | None) -> str:
    """The split that `open_cases` reads."""
    return split or ("+".join(PARTS) if name == FIXTURES else dataset(name).splits[0])


def read_fixture(folder: Path | str, name: str) -> list[dict[str, Any]]:
    """Rows of `folder/name`. Raises InputError where the file is missing or damaged."""
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(
            f"{path}: no such fixture file; give the folder that holds val2d.jsonl and val3d.jsonl, or --dataset NAME"
        )
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise InputError(f"{path}: not JSON lines ({error}); fetch the file again") from error
    for number, row in enumerate(rows, 1):
        if np.shape(row.get("keypoints_px")) != (21, 2):
            raise InputError(f"{path}:{number}: keypoints_px is not 21×2; remove or mend the row")
    return rows


def _fixtures(root: Path, split: str | None) -> Iterator[Case]:
    if split is not None and split not in PARTS:
        raise InputError(f"the fixtures have no split {split!r}; known: {', '.join(PARTS)}")
    index = 0
    for part in PARTS if split is None else (split,):
        rows = read_fixture(root, f"{part}.jsonl")
        for row, sample in zip(rows, read_dataset("densehand", root, part), strict=True):
            yield _case(index, sample, part, row, str(row.get("source", "?")))
            index += 1


def _cases(name: str, root: Path, split: str | None) -> Iterator[Case]:
    part = split_of(name, split)
    samples = read_dataset(name, root, split)
    columns = _own_columns(root) if name == "densehand" else lambda sample: {}
    vertices = _published_vertices(name, root, part)
    for index, sample in enumerate(samples):
        row = columns(sample)
        if vertices is not None and index < len(vertices):
            row = {**row, "vertices_mm": np.asarray(vertices[index], dtype=np.float64) * 1000}
        yield _case(index, sample, part, row, str(row.get("source") or ""), name in LOOSE_BOXES)


def _case(index: int, sample: Sample, part: str, row: dict[str, Any], source: str, loose: bool = False) -> Case:
    vertices, hand_id = row.get("vertices_mm"), row.get("hand_id")
    if vertices is not None:
        vertices = np.asarray(vertices, dtype=np.float64) / 1000
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            vertices, sample = None, Sample(sample.name, sample.image, problem="vertices_mm are not V×3 numbers")
    hand_id = None if hand_id is None else str(hand_id)
    return Case(index, sample, part, source, _reference_box(sample, loose), vertices, hand_id)


def _reference_box(sample: Sample, loose: bool) -> np.ndarray | None:
    """The published box, or that around the keypoints where there is none or most of them tell a tighter one."""
    box, points = sample.box, sample.keypoints_2d
    around = None
    if points is not None:
        around = common.tight(points, sample.visible)
        known = np.isfinite(points).all(axis=1) & np.asarray(sample.visible)
        if loose and known.sum() >= MOST_KEYPOINTS:
            box = around
    candidates = [entry for entry in (box, around) if entry is not None and np.isfinite(entry).all()]
    return next((entry for entry in candidates if (entry[2:] > entry[:2]).all()), None)


def _own_columns(root: Path) -> Callable[[Sample], dict[str, Any]]:
    """What a row of densehand's own format says beyond `Sample`; nothing for rows of shards."""
    read: dict[str, list[str]] = {}

    def columns(sample: Sample) -> dict[str, Any]:
        file, _, number = sample.name.rpartition(":")
        if not file.endswith(".jsonl") or sample.problem is not None:
            return {}
        if file not in read:
            read.clear()  # files come one after the other
            read[file] = common.lines_of(root / file)
        return json.loads(read[file][int(number) - 1])

    return columns


def _published_vertices(name: str, root: Path, split: str) -> list | None:
    """FreiHAND's evaluation meshes, metres, where they are there: no other reader's set publishes vertices as such."""
    path = root / f"{split}_verts.json"
    return common.read_json(path, list) if name == "freihand" and split == "evaluation" and path.is_file() else None
