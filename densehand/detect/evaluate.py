"""Measuring the detector on held-back pictures: ``python -m densehand.detect.evaluate --data FOLDER [--fixtures
FOLDER]``.

Writes one CSV row per set: hands, recall and precision at the default threshold, average precision at IoU 0.5, share of
right sides among the hands found, and false alarms per picture. Detections on a don't-care region count as neither.
Where not all hands of a set are labelled, there is no precision.
"""

import argparse
import csv
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from densehand.detect.boxes import intersections
from densehand.detect.data import (
    LabelledHand,
    Picture,
    Pixels,
    Points,
    decoded,
    read_backgrounds,
    read_crops,
    read_frames,
)
from densehand.detect.detector import Detection, Detector
from densehand.detect.plane import similarity, transform, transform_box
from densehand.detect.rendered import SIZE, render_crops
from densehand.detect.weights import PACKAGED
from densehand.evaluation.cases import PARTS, read_fixture
from densehand.files import write_atomically
from densehand.metrics import box_iou, tight_box
from densehand.network.card import amend_card, card_beside


@dataclass(frozen=True)
class Sample:
    """A picture to measure on; boxes in px."""

    image: Pixels
    boxes: Points
    right: NDArray[np.bool_]
    ignore: Points
    all_labelled: bool = True  # False: other hands may be seen, so extra detections say nothing


@dataclass(frozen=True)
class Scores:
    """What was measured on one set."""

    pictures: int
    hands: int
    recall: float
    precision: float
    average_precision: float
    right_side: float
    false_alarms: float  # per picture
    median_iou: float

    def row(self) -> list[str]:
        """The values as text; "" where they do not apply."""
        pictures, hands, *shares = astuple(self)
        return [str(pictures), str(hands), *("" if np.isnan(v) else f"{v:.3f}" for v in shares)]


# measured with zoom="auto" too
LOOKED_AT_AGAIN = (
    "frames rf100",
    "frames all",
    "frames hands of 40 px in 640",
    "crops filled by the hand",
    "backgrounds without hands",
)
RENDERED = 300  # rendered hands, of which also those are known that no teacher finds …
RENDERED_SEED = 1  # … others than the training's
LEAST_IOU = 0.5  # from which on a detection is a hand
HEADER = ["set", "pictures", "hands", "recall", "precision", "ap50", "right_side", "false_alarms", "median_iou"]


def average_precision(hit: NDArray[np.bool_], score: NDArray[np.float64], hands: int) -> float:
    """Area under the precision–recall curve (all points, precision made monotone), detections in any order."""
    if hands == 0:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(hit[order])
    recall, precision = hits / hands, hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def match(found: list[Detection], sample: Sample) -> list[tuple[Detection, int, float]]:
    """(detection, matched hand or −1, IoU) for each of `found`, best first, that counts; every hand is matched at most
    once."""
    free = np.ones(len(sample.boxes), bool)
    results = []
    for detection in found:
        box = detection.box[None]
        overlaps = np.where(free, box_iou(box, sample.boxes)[0], -1.0) if len(free) else np.zeros(0)
        best = int(np.argmax(overlaps)) if len(overlaps) else -1
        if best >= 0 and overlaps[best] >= LEAST_IOU:
            free[best] = False
            results.append((detection, best, float(overlaps[best])))
            continue
        area = max(float(np.prod(box[0, 2:] - box[0, :2])), 1e-6)
        if len(sample.ignore) and np.max(intersections(box, sample.ignore)) > 0.5 * area:
            continue
        if sample.all_labelled:
            results.append((detection, -1, 0.0))
    return results


def measure(detector: Detector, samples: Iterable[Sample], threshold: float = 0.4) -> Scores:
    """Scores of a detector (made with a threshold low enough for average precision) at a working ``threshold``."""
    hit, score, overlaps, sides = [], [], [], []
    pictures = hands = found_hands = alarms = 0
    complete = True
    for sample in samples:
        pictures, hands = pictures + 1, hands + len(sample.boxes)
        complete &= sample.all_labelled
        for found, index, overlap in match(detector(sample.image), sample):
            hit.append(index >= 0)
            score.append(found.score)
            if found.score >= threshold:
                found_hands, alarms = found_hands + (index >= 0), alarms + (index < 0)
                if index >= 0:
                    overlaps.append(overlap)
                    sides.append((found.side == "right") == bool(sample.right[index]))
    nan = float("nan")
    return Scores(
        pictures,
        hands,
        found_hands / hands if hands else nan,
        found_hands / (found_hands + alarms) if found_hands + alarms and hands and complete else nan,
        average_precision(np.asarray(hit, bool), np.asarray(score, np.float64), hands) if complete else nan,
        float(np.mean(sides)) if sides else nan,
        alarms / max(pictures, 1) if complete else nan,
        float(np.median(overlaps)) if overlaps else nan,
    )


# ---- the sets


def as_sample(picture: Picture, matrix: Points | None = None, size: tuple[int, int] | None = None) -> Sample:
    """A picture with its labels, turned and scaled by a 2×3 ``matrix`` onto ``size`` (width, height) where given."""
    image = picture.decode()
    if matrix is None or size is None:
        matrix, size = np.eye(2, 3, dtype=np.float32), (image.shape[1], image.shape[0])
    else:
        scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        finer = int(np.clip(np.ceil(1 / scale), 1, 4))  # cv2's warp samples points: what shrinks would alias
        shift = matrix * finer
        shift[:, 2] += shift[:, :2] @ np.array([0.5, 0.5], np.float32) - 0.5
        fine = (size[0] * finer, size[1] * finer)
        image = cv2.warpAffine(image, shift, fine, flags=cv2.INTER_LINEAR, borderValue=(114, 114, 114))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if finer > 1 else image
    hands: list[LabelledHand] = picture.hands
    return Sample(
        image,
        np.array([tight_box(transform(matrix, hand.keypoints)) for hand in hands], np.float32).reshape(-1, 4),
        np.array([hand.right for hand in hands], bool),
        np.array([transform_box(matrix, box) for box in picture.ignore], np.float32).reshape(-1, 4),
        picture.whole,
    )


def turned(picture: Picture, angle: float) -> Sample:
    """The whole picture turned by ``angle`` radians on a canvas that holds it."""
    image = picture.decode()
    height, width = image.shape[:2]
    c, s = abs(np.cos(angle)), abs(np.sin(angle))
    size = int(np.ceil(width * c + height * s)), int(np.ceil(width * s + height * c))
    middle, target = np.array([width, height]) / 2, np.array(size) / 2
    return as_sample(picture, similarity(middle, target, 1.0, angle, False), size)


def in_large_photo(picture: Picture, extent: float, longer: int, random: np.random.Generator) -> Sample:
    """The picture, scaled so that its largest hand is ``extent`` px, somewhere in a grey photo ``longer`` px wide."""
    largest = max(float(np.max(h.keypoints.max(0) - h.keypoints.min(0))) for h in picture.hands)
    image, scale = picture.decode(), extent / max(largest, 1.0)
    width, height = longer, longer * 3 // 4
    room = np.maximum(np.array([width, height]) - scale * np.array(image.shape[1::-1]), 0)
    matrix = similarity(np.zeros(2), random.uniform(0, 1, 2) * room, scale, 0.0, False)
    return as_sample(picture, matrix, (width, height))


def filling(picture: Picture) -> Sample:
    """The hand's tight box plus 5 % on every side, as a square picture of its own."""
    box, side = tight_box(picture.hands[0].keypoints), 224
    scale = side / (1.1 * max(float(np.max(box[2:] - box[:2])), 1.0))
    matrix = similarity((box[:2] + box[2:]) / 2, np.array([side, side]) / 2, scale, 0.0, False)
    return as_sample(picture, matrix, (side, side))


def fixture_samples(folder: Path) -> list[Sample]:
    """The measuring photos (never trained on): one labelled hand each, others possible."""
    samples = []
    for part in PARTS:
        for row in read_fixture(folder, f"{part}.jsonl"):
            image = cv2.cvtColor(decoded((folder / row["image"]).read_bytes(), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            box = tight_box(np.asarray(row["keypoints_px"], np.float32))[None]
            none = np.zeros((0, 4), np.float32)
            samples.append(Sample(image, box, np.array([row["side"] == "right"]), none, all_labelled=False))
    return samples


def rendered_samples(backgrounds: list[Picture]) -> Iterator[Sample]:
    """Rendered hands, half of them mirrored to left ones, made when the first is asked for."""
    middle = np.array([SIZE, SIZE]) / 2
    mirroring = similarity(middle, middle, 1.0, 0.0, mirror=True)
    for index, picture in enumerate(render_crops(RENDERED, backgrounds, RENDERED_SEED)):
        if index % 2:
            mirrored = as_sample(picture, mirroring, (SIZE, SIZE))
            yield replace(mirrored, right=~mirrored.right)
        else:
            yield as_sample(picture)


def held_back_sets(data: Path) -> dict[str, Iterator[Sample]]:
    """Named sets of held-back pictures, made as they are read."""
    frames, crops, backgrounds = read_frames(data, True), read_crops(data, True), read_backgrounds(data, True)
    with_hands = [p for p in frames if p.hands]
    whole_crops = [p for p in crops if p.whole]
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, len(with_hands)).tolist()
    sets: dict[str, Iterator[Sample]] = {}
    for source in sorted({p.source for p in frames}):
        sets[f"frames {source}"] = map(as_sample, [p for p in frames if p.source == source])
    sets["frames all"] = map(as_sample, frames)
    sets["frames upside down"] = map(turned, with_hands, [np.pi] * len(with_hands))
    sets["frames any rotation"] = map(turned, with_hands, angles)
    sharp = [p for p in with_hands if p.source != "rf100"]
    for extent in (40, 80):
        randoms = [np.random.default_rng(i) for i in range(len(sharp))]
        sets[f"frames hands of {extent} px in 640"] = map(
            in_large_photo, sharp, [float(extent)] * len(sharp), [640] * len(sharp), randoms
        )
    for source in sorted({p.source for p in whole_crops}):
        sets[f"crops {source}"] = map(as_sample, [p for p in whole_crops if p.source == source])
    sets["crops filled by the hand"] = map(filling, whole_crops[::3])
    sets["backgrounds without hands"] = map(as_sample, backgrounds)
    sets["rendered hands"] = rendered_samples(backgrounds)
    return sets


def main(arguments: list[str] | None = None) -> None:
    """Command line of the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--fixtures", type=Path, help="folder with val2d.jsonl and val3d.jsonl")
    parser.add_argument("--weights", type=Path, help="a detector's .safetensors file; default: the packaged one")
    parser.add_argument("--out", type=Path, default=Path("results/detector.csv"))
    parser.add_argument("--threshold", type=float, default=0.4)
    parser.add_argument("--card", action="store_true", help="write the figures into the weights' card too")
    parser.add_argument("--every", type=int, default=1, help="use every N-th picture of each set")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    detector = Detector.load("cpu", threshold=0.05, zoom="never", path=options.weights)
    sets = held_back_sets(options.data)
    again_sets = {name: samples for name, samples in held_back_sets(options.data).items() if name in LOOKED_AT_AGAIN}
    if options.fixtures:
        sets["measuring fixtures"] = iter(fixture_samples(options.fixtures))
    again = Detector.load("cpu", threshold=options.threshold, path=options.weights)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table = [HEADER]
    for name, samples in sets.items():
        table.append([name, *measure(detector, islice(samples, 0, None, options.every), options.threshold).row()])
        print(",".join(table[-1]), flush=True)
    for name, samples in again_sets.items():
        scores = measure(again, islice(samples, 0, None, options.every), options.threshold)
        # average precision wants detections of every score; this detector gives what it is asked to report
        table.append([f"{name}, looking again", *replace(scores, average_precision=float("nan")).row()])
        print(",".join(table[-1]), flush=True)
    with write_atomically(options.out) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    if options.card:
        heading = f"held-back pictures, IoU {LEAST_IOU:g}, threshold {options.threshold:g}"
        figures = {
            row[0]: {key: float(value) for key, value in zip(HEADER[1:], row[1:], strict=True) if value}
            for row in table[1:]
        }
        path = options.weights or PACKAGED
        amend_card(path, accuracy=card_beside(path).accuracy | {heading: figures})


if __name__ == "__main__":
    main()
