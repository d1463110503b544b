"""The systems that can be measured: a model of densehand, MediaPipe, a file of predictions. All answer a case alike."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8

from densehand.camera import HOUSE_PADDING
from densehand.data.readers import common
from densehand.data.readers.coco import FILES as COCO_FILES
from densehand.errors import DependencyError, InputError
from densehand.evaluation.cases import Case, split_of
from densehand.evaluation.formats import PictureTable, Reading, prediction_files, read_predictions
from densehand.evaluation.mediapipe_hands import find_hands, open_mediapipe
from densehand.evaluation.prediction import Prediction, from_hand, match
from densehand.photo import HandBox
from densehand.result import Hand

MEDIAPIPE = "mediapipe"
LABELS, DETECT = "labels", "detect"
"""Where a model's boxes come from: the labels, or its own detector."""


class System(Protocol):
    """name: in the report. about: what the report tells of it. settings: what a resumed run must share with the first.
    needs_picture: whether `answer` looks at it."""

    name: str
    about: Mapping[str, Any]
    settings: Mapping[str, Any]
    needs_picture: bool

    def answer(self, case: Case, image: UInt8[np.ndarray, "H W 3"] | None) -> Prediction | None:
        """What it says of the labelled hand; None: missed."""

    def crop(self, box: Float[np.ndarray, "4"], image: UInt8[np.ndarray, "H W 3"], padding: float) -> Prediction | None:
        """What it says of the crop around the box whose side is `padding` × the box's larger side."""


class ModelSystem:
    """A model of densehand, given the labelled boxes (a hand without one is detected) or its own detector's."""

    needs_picture = True

    def __init__(self, estimator: Any, boxes: str = LABELS, name: str | None = None) -> None:
        """`estimator`: a `HandEstimator`. Raises InputError for other boxes than `LABELS` and `DETECT`."""
        if boxes not in (LABELS, DETECT):
            raise InputError(f"boxes {boxes!r}: use {LABELS} or {DETECT}")
        self.estimator, self.boxes = estimator, boxes
        self.name = name or estimator.name
        refine = str(estimator.refine or "off") + " + consensus" * estimator.consensus
        self.about: Mapping[str, Any] = {"boxes": "of the labels" if boxes == LABELS else "detected", "refine": refine}
        self.settings: Mapping[str, Any] = {
            "model": estimator.name,
            "weights": weights_digest(estimator.network),
            "hand": estimator.hand.name,
            "boxes": boxes,
            "refine": refine,
            "precision": getattr(getattr(estimator.network, "engine", None), "precision", "float32"),
        }
        self._last: tuple[Any, list[Prediction]] | None = None

    def answer(self, case: Case, image: UInt8[np.ndarray, "H W 3"] | None) -> Prediction | None:
        assert image is not None
        if self.boxes == LABELS and case.box is not None:
            return self._timed(image, [HandBox(case.box)])[0]
        if self._last is None or self._last[0] is not image:  # hands of one picture are found once
            self._last = image, self._timed(image, None)
        return match(case.box, self._last[1], case.labels)

    def crop(self, box: Float[np.ndarray, "4"], image: UInt8[np.ndarray, "H W 3"], padding: float) -> Prediction | None:
        return self._timed(image, [HandBox(_grown(box, padding / HOUSE_PADDING))])[0]

    def _timed(self, image: np.ndarray, boxes: list[HandBox] | None) -> list[Prediction]:
        start = time.perf_counter()
        hands: list[Hand] = self.estimator(image, boxes)
        each = 1000 * (time.perf_counter() - start) / max(len(hands), 1)
        return [from_hand(hand, each) for hand in hands]


class MediapipeSystem:
    """MediaPipe Hands in this environment; it finds the hands itself."""

    needs_picture = True

    def __init__(self) -> None:
        """Raises DependencyError where MediaPipe is not installed."""
        try:
            import mediapipe

            self._landmarker = open_mediapipe()
        except ImportError as error:
            raise DependencyError(
                f"MediaPipe cannot be used here ({error}): pip install 'mediapipe<0.10.30' (which needs numpy < 2), or "
                "run densehand/evaluation/mediapipe_hands.py in an environment of its own and give --predictions FILE"
            ) from error
        self.name = MEDIAPIPE
        self.about: Mapping[str, Any] = {"boxes": "detected", "version": mediapipe.__version__}
        self.settings: Mapping[str, Any] = {"model": MEDIAPIPE, "version": mediapipe.__version__}
        self._last: tuple[Any, list[Prediction]] | None = None

    def answer(self, case: Case, image: UInt8[np.ndarray, "H W 3"] | None) -> Prediction | None:
        assert image is not None
        if self._last is None or self._last[0] is not image:
            self._last = image, self._find(image)
        return match(case.box, self._last[1], case.labels)

    def crop(self, box: Float[np.ndarray, "4"], image: UInt8[np.ndarray, "H W 3"], padding: float) -> Prediction | None:
        side = padding * float((box[2:] - box[:2]).max())
        low = np.floor((box[:2] + box[2:] - side) / 2).astype(int)
        high = low + int(np.ceil(side))
        size = np.array(image.shape[1::-1])
        a, b = low.clip(0, size), high.clip(0, size)
        part = np.zeros((high[1] - low[1], high[0] - low[0], 3), dtype=np.uint8)
        part[a[1] - low[1] : b[1] - low[1], a[0] - low[0] : b[0] - low[0]] = image[a[1] : b[1], a[0] : b[0]]
        return match(np.concatenate([box[:2] - low, box[2:] - low]), self._find(part))

    def _find(self, image: np.ndarray) -> list[Prediction]:
        start = time.perf_counter()
        hands = find_hands(self._landmarker, image)
        each = 1000 * (time.perf_counter() - start) / max(len(hands), 1)
        return [
            Prediction(
                keypoints_2d=np.array(hand["keypoints_2d"]),
                joints_3d=np.array(hand["joints_3d"]),
                side=hand["side"],
                score=hand["score"],
                milliseconds=each,
            )
            for hand in hands
        ]


class FileSystem:
    """Predictions that some system has written to a file, or a folder of files."""

    needs_picture = False

    def __init__(
        self, path: Path, dataset: str, root: Path, split: str | None, hand: str = "open", name: str | None = None
    ) -> None:
        """Reads and checks the whole file. Raises InputError as `read_predictions`."""
        self.path, self.root = path, root
        self.name = name or path.stem
        found = read_predictions(path, _reading(dataset, root, split, hand))
        if found.ordered is not None and dataset.startswith("ho3d"):
            raise InputError(
                f"{path}: a list in the order of the dataset is read as FreiHAND's, whose joints and axes are not "
                "HO-3D's; write densehand-keypoints/1 (docs/evaluate.md)"
            )
        self.ordered = found.ordered
        self.table = PictureTable(found.pictures, path)
        self.about: Mapping[str, Any] = {"boxes": "not known", "file": path.name}
        self.settings: Mapping[str, Any] = {"predictions": file_digest(path), "hand": hand}

    def check_count(self, hands: int, limited: bool) -> None:
        """Raises InputError where the file lists another number of hands than the dataset has."""
        count = None if self.ordered is None else len(self.ordered)
        if count is not None and (count < hands or (count > hands and not limited)):
            raise InputError(
                f"{self.path}: predictions of {count} hands, but the dataset has {hands}; "
                "give one for each in its order (null: missed), or another --split"
            )

    def answer(self, case: Case, image: UInt8[np.ndarray, "H W 3"] | None) -> Prediction | None:
        if self.ordered is not None:
            return self.ordered[case.index]
        hands = self.table(case.picture, self.root)
        if hands is None:
            raise Untold(f"{case.picture} is not in {self.path}")
        return match(case.box, hands, case.labels)

    def crop(self, box: Float[np.ndarray, "4"], image: UInt8[np.ndarray, "H W 3"], padding: float) -> Prediction | None:
        raise InputError(f"{self.path}: a file cannot answer other crops; measure crop consistency with --model")


class Untold(InputError):
    """A file of predictions says nothing of a picture."""


def _reading(dataset: str, root: Path, split: str | None, hand: str) -> Reading:
    """COCO ids and the keypoint order of mmpose's sets."""
    if dataset not in COCO_FILES:
        return Reading(hand=hand)
    files, part = COCO_FILES[dataset], split_of(dataset, split)
    labels = root / files.labels.format(split=part)
    if not labels.is_file():
        return Reading(order=files.order, hand=hand)
    images = {number: str(image["file_name"]) for number, image in common.coco_tables(labels)[0].items()}
    return Reading(images, files.order, hand)


def _grown(box: Float[np.ndarray, "4"], factor: float) -> Float[np.ndarray, "4"]:
    """The box about its centre."""
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * factor
    return np.concatenate([middle - half, middle + half])


def weights_digest(network: torch.nn.Module | None) -> str:
    """Changes with any weight, and with the calibration."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()) if network is not None else ():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    digest.update(repr(getattr(network, "calibration", None)).encode())
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Of a file, or of all files of a folder that are read."""
    digest = hashlib.sha256()
    for entry in prediction_files(path):
        digest.update(entry.read_bytes())
    return digest.hexdigest()[:16]


def distinct(systems: Sequence[System]) -> None:
    """Give systems of one name numbers: a, a-2, a-3."""
    seen: set[str] = set()
    for system in systems:
        base, count = system.name, 1
        while system.name in seen:
            count += 1
            system.name = f"{base}-{count}"
        seen.add(system.name)
