"""Files of predictions: densehand/1, densehand-keypoints/1, FreiHAND's and mmpose's results (docs/evaluate.md).

A file either tells the picture of each prediction (`Predictions.pictures`) or lists one for each hand of the dataset,
in its order (`Predictions.ordered`). All of it is checked on opening: what is wrong is named with file, row and remedy.

Layouts, as published: FreiHAND `pred.json` = `[xyz, verts]` (lmb-freiburg/freihand, pred.py); mmpose 0.x
`result_keypoints.json` = list of `keypoints` 21×3 (x, y, score) with `image_id`, `bbox_id`; mmpose 1.x
`*.keypoints.json` (CocoMetric) = list of `keypoints` (63 numbers), `image_id`; mmpose 1.x inferencer, one file a
picture = list of `keypoints` 21×2 with `keypoint_scores`, or an object with that list as `instance_info`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from densehand.document import SCHEMA
from densehand.errors import InputError
from densehand.evaluation.mediapipe_hands import SCHEMA as KEYPOINTS_SCHEMA
from densehand.evaluation.prediction import Prediction
from densehand.files import first_line, reason
from densehand.hand.keypoints import to_house_order
from densehand.hand.model import HandModel
from densehand.result import SIDES, Hand

FORMATS = "densehand/1, densehand-keypoints/1, FreiHAND's pred.json and mmpose's results (docs/evaluate.md)"


@dataclass
class Predictions:
    """What a file says. `ordered`: one a hand of the dataset, None where it was missed; else `pictures`, by path."""

    ordered: list[Prediction | None] | None = None
    pictures: list[tuple[str, list[Prediction]]] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """What is known of the dataset while a file is read.

    images: pictures of the COCO ids that the dataset's label file has; None where it has none. order: in which it lists
    the keypoints (mmpose's predictions do as the labels). hand: name of the hand model of densehand/1.
    """

    images: dict[Any, str] | None = None
    order: str | Sequence[int] = "densehand"
    hand: str = "open"


def read_predictions(path: Path | str, about: Reading | None = None) -> Predictions:
    """Read a file, or every `*.json` and `*.jsonl` of a folder. Raises InputError naming the file, row and remedy."""
    path, about = Path(path), about or Reading()
    if not path.is_dir():
        return _read_file(path, about, alone=True)
    parts = [_read_file(entry, about, alone=False) for entry in prediction_files(path)]
    if not parts:
        raise InputError(f"{path}: no .json or .jsonl in this folder; give predictions: {FORMATS}")
    return Predictions(pictures=[entry for part in parts for entry in part.pictures])


def prediction_files(path: Path) -> list[Path]:
    """A file itself, or those of a folder that are read, sorted."""
    if not path.is_dir():
        return [path]
    return sorted(entry for entry in path.iterdir() if entry.suffix in (".json", ".jsonl"))


def _read_file(path: Path, about: Reading, alone: bool) -> Predictions:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            content = json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({first_line(error)}); write the predictions again") from error
    documents = [content] if isinstance(content, dict) and "schema" in content else content
    if isinstance(documents, list) and documents and all(isinstance(d, dict) and "schema" in d for d in documents):
        return Predictions(pictures=[_document(path, i, d, about) for i, d in enumerate(documents, 1)])
    instances = content.get("instance_info") if isinstance(content, dict) else content
    if isinstance(instances, list) and all(isinstance(entry, dict) and "keypoints" in entry for entry in instances):
        if not alone or isinstance(content, dict):  # one file a picture, named after it
            hands = [_mmpose(path, i, entry, about) for i, entry in enumerate(instances, 1)]
            return Predictions(pictures=[(path.stem, hands)])
        if instances:
            return _mmpose_results(path, instances, about)
    if alone and isinstance(content, list) and len(content) == 2 and all(isinstance(part, list) for part in content):
        return _freihand(path, *content)
    raise InputError(f"{path}: no predictions that are read; give {FORMATS}")


def _points(value: Any, shape: tuple[int, ...], where: str, what: str) -> np.ndarray:
    """Finite float64 of a shape, -1 for any size. Raises InputError."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {what} is no array of numbers; write the predictions again") from error
    if array.ndim != len(shape) or any(
        wanted not in (-1, size) for wanted, size in zip(shape, array.shape, strict=True)
    ):
        wanted = "×".join("V" if size == -1 else str(size) for size in shape)
        found = "×".join(map(str, array.shape)) or "a number"
        raise InputError(f"{where}: {what} is {found}, not {wanted}; give 21 keypoints (docs/evaluate.md)")
    if not np.isfinite(array).all():
        raise InputError(f"{where}: {what} holds NaN or infinity; leave a hand that was not found out (or write null)")
    return array


def _document(path: Path, number: int, record: dict, about: Reading) -> tuple[str, list[Prediction]]:
    """A densehand/1 or densehand-keypoints/1 document: its picture and hands."""
    where = f"{path}: document {number}"
    if record["schema"] not in (SCHEMA, KEYPOINTS_SCHEMA):
        raise InputError(f"{where}: schema {record['schema']!r}; write {SCHEMA} or {KEYPOINTS_SCHEMA}")
    image, hands = record.get("image"), record.get("hands")
    if not isinstance(image, str) or not isinstance(hands, list):
        raise InputError(f"{where}: lacks image (a path) or hands (a list); write it with densehand predict")
    time = record.get("milliseconds")
    each = float(time) / max(len(hands), 1) if isinstance(time, int | float) else None
    full = record["schema"] == SCHEMA
    return image, [_hand(f"{where} ({image}), hand {i}", h, about, full, each) for i, h in enumerate(hands)]


def _hand(where: str, record: Any, about: Reading, full: bool, milliseconds: float | None) -> Prediction:
    if not isinstance(record, dict):
        raise InputError(f"{where}: is no object; write it with densehand predict")
    side, score = record.get("side"), record.get("score", 1.0)
    if side not in (None, *SIDES) or not isinstance(score, int | float) or not np.isfinite(score):
        raise InputError(f'{where}: side is "left", "right" or null and score a number, not {side!r} and {score!r}')
    shapes = {"keypoints_2d": (21, 2), "joints_3d": (21, 3)}
    fields = {
        name: _points(record[name], shape, where, name)
        for name, shape in shapes.items()
        if record.get(name) is not None
    }
    if not fields:
        raise InputError(f"{where}: lacks keypoints_2d and joints_3d; give at least one of them")
    # the mesh is posed only when a measure asks for it
    hand: Callable[[], Hand] | None = partial(_posed, where, record, about.hand) if full else None
    return Prediction(**fields, side=side, score=float(score), hand=hand, milliseconds=milliseconds)


def _posed(where: str, record: dict, name: str) -> Hand:
    try:
        return Hand.from_json_dict(record, _hand_model(name))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


@lru_cache(maxsize=1)
def _hand_model(name: str) -> HandModel:
    return HandModel.load(name)


def _freihand(path: Path, joints: list, vertices: list) -> Predictions:
    """`[xyz, verts]`, metres, the house order; null where a hand was missed."""
    if vertices and len(vertices) != len(joints):
        raise InputError(f"{path}: {len(joints)} hands have joints, {len(vertices)} vertices; write one of each a hand")
    found: list[Prediction | None] = []
    for row, xyz in enumerate(joints):
        if xyz is None:
            found.append(None)
            continue
        where, mesh = f"{path}: row {row}", vertices[row] if vertices else None
        # sets without meshes leave the list empty
        verts = _points(mesh, (-1, 3), where, "verts") if mesh else None
        found.append(Prediction(joints_3d=_points(xyz, (21, 3), where, "xyz"), vertices=verts))
    return Predictions(ordered=found)


def _mmpose(path: Path, number: int, entry: dict, about: Reading) -> Prediction:
    """One instance: keypoints 21×2, 21×3 (x, y, score) or 63 numbers, in the order of the dataset's labels."""
    values = entry["keypoints"]
    if isinstance(values, list) and values and not isinstance(values[0], list) and len(values) % 3 == 0:
        values = np.asarray(values, dtype=object).reshape(-1, 3).tolist()
    points = _points(values, (21, -1), f"{path}: entry {number}", "keypoints")[:, :2]
    score = entry.get("score", np.mean(entry.get("bbox_score", 1.0)))
    return Prediction(keypoints_2d=to_house_order(points, about.order), score=float(score))


def _mmpose_results(path: Path, entries: list[dict], about: Reading) -> Predictions:
    if about.images is not None and all("image_id" in entry for entry in entries):
        groups: dict[str, list[Prediction]] = {}
        for number, entry in enumerate(entries, 1):
            if entry["image_id"] not in about.images:
                raise InputError(
                    f"{path}: entry {number}: image_id {entry['image_id']!r} is not in the dataset's labels; "
                    "name the split it was made on with --split"
                )
            groups.setdefault(about.images[entry["image_id"]], []).append(_mmpose(path, number, entry, about))
        missed: dict[str, list[Prediction]] = {name: [] for name in about.images.values()}
        return Predictions(pictures=list((missed | groups).items()))
    numbered = list(enumerate(entries, 1))
    if all("bbox_id" in entry for entry in entries):
        numbered.sort(key=lambda pair: pair[1]["bbox_id"])
    return Predictions(ordered=[_mmpose(path, number, entry, about) for number, entry in numbered])


class PictureTable:
    """Predictions by picture. Paths need not begin alike: a picture is found by the end of its path."""

    def __init__(self, pictures: Sequence[tuple[str, list[Prediction]]], file: Path) -> None:
        self.file = file
        self._by_stem: dict[str, list[tuple[tuple[str, ...], list[Prediction]]]] = {}
        for name, hands in pictures:
            parts = _parts(name)
            self._by_stem.setdefault(parts[-1], []).append((parts, hands))

    def __call__(self, picture: Path, root: Path) -> list[Prediction] | None:
        """The hands of a picture below `root`; None where the file does not tell.

        One path must be the end of the other: what is in the file of the picture's whole path, or the picture's path
        below `root` of what is in the file. Raises InputError where two entries fit.
        """
        whole = _parts(picture)
        below = _parts(picture.relative_to(root)) if picture.is_relative_to(root) else whole
        fitting = [
            (len(parts), hands)
            for parts, hands in self._by_stem.get(whole[-1], [])
            if whole[-len(parts) :] == parts or parts[-len(below) :] == below
        ]
        longest = [hands for size, hands in fitting if size == max(size for size, _ in fitting)]
        if len(longest) > 1:
            raise InputError(f"{self.file}: {len(longest)} entries for {picture}; keep one, or give longer paths in it")
        return longest[0] if longest else None


def _parts(path: str | Path) -> tuple[str, ...]:
    """Folders and the name without its suffix (and without all that shards and inferencers leave out)."""
    parts = PurePosixPath(str(path).replace("\\", "/")).parts
    if not parts:
        return ("",)
    return (*(part for part in parts[:-1] if part not in ("/", ".")), PurePosixPath(parts[-1]).stem)
