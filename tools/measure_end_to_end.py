"""Full photos in, hands out: what is missed, what is found where nothing is, what is found twice.

    python tools/measure_end_to_end.py --data FOLDER --fixtures FOLDER/fixtures --csv results/end_to_end.csv

FOLDER holds `photos/` and `backgrounds/` as `densehand/detect/data.py` says; only pictures that the detector's training
held back are used, a few of each set, always the same ones. Labels of the photos are MediaPipe's, so on them MediaPipe
(`--mediapipe-python`, a Python that has it) is measured against itself. `--sheets` draws what went wrong.

A hand is found if the box of an output's keypoints overlaps the box of its own (IoU) by 0.3; each output answers one
hand. Another output on a hand that is answered is a duplicate; one on a region where hands may be that nobody
labelled is neither right nor wrong; any other is a false alarm, where all hands of a picture are labelled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from densehand.detect.boxes import intersections
from densehand.detect.data import Picture, hand_free_part, read_backgrounds, read_crops, read_frames
from densehand.detect.detector import Detector
from densehand.errors import DependencyError
from densehand.evaluate import append_rows
from densehand.evaluation import mediapipe_hands
from densehand.evaluation.prediction import LEAST_OVERLAP
from densehand.images import read_image
from densehand.looks import PROPOSED
from densehand.metrics import box_iou, tight_box
from densehand.pipeline import HandEstimator
from densehand.revision import commit

INSIDE = 0.7  # an output that lies in an answered hand's box by this share of its own area is on that hand


@dataclass(frozen=True)
class Case:
    """A photo with its labels. keypoints: n 21 2 px, NaN where not labelled; right: n; ignore: m 4, unlabelled hands
    may be there; complete: no unlabelled hand elsewhere."""

    image: np.ndarray
    keypoints: np.ndarray
    right: np.ndarray
    ignore: np.ndarray
    complete: bool = True


class Found(NamedTuple):
    """An output. keypoints: 21 2 px."""

    keypoints: np.ndarray
    side: str


class Verdict(NamedTuple):
    """Indices of outputs (and of hands): pairs (hand, output) that answer each other, and the outputs left over."""

    pairs: list[tuple[int, int]]
    duplicates: list[int]
    false_alarms: list[int]


def judge(case: Case, found: Sequence[Found]) -> Verdict:
    """Which output answers which hand, the best overlap first."""
    if not found:
        return Verdict([], [], [])
    boxes = np.stack([tight_box(entry.keypoints) for entry in found])
    seen = [~np.isnan(points).any(axis=1) for points in case.keypoints]
    overlap = np.zeros((len(found), len(case.keypoints)))
    labelled = np.zeros((len(case.keypoints), 4), np.float32)
    for hand, rows in enumerate(seen):
        labelled[hand] = tight_box(case.keypoints[hand][rows])
        same = np.stack([tight_box(entry.keypoints[rows]) for entry in found])
        overlap[:, hand] = box_iou(same, labelled[hand : hand + 1])[:, 0]
    pairs, free = [], overlap.copy()
    while free.size and free.max() >= LEAST_OVERLAP:
        output, hand = (int(i) for i in np.unravel_index(free.argmax(), free.shape))
        pairs.append((hand, output))
        free[output], free[:, hand] = -1, -1
    duplicates, false_alarms = [], []
    area = np.maximum(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), 1e-6)
    for output in sorted(set(range(len(found))) - {output for _, output in pairs}):
        box = boxes[output : output + 1]
        if (overlap[output] >= LEAST_OVERLAP).any():
            duplicates.append(output)
        elif (intersections(box, case.ignore) > 0.5 * area[output]).any():
            continue
        elif (intersections(box, labelled) > INSIDE * area[output]).any():
            duplicates.append(output)
        elif case.complete:
            false_alarms.append(output)
    return Verdict(pairs, duplicates, false_alarms)


@dataclass
class Tally:
    """Counts of one set and system."""

    pictures: int = 0
    hands: int = 0
    missed: int = 0
    duplicates: int = 0
    false_alarms: int = 0
    complete: bool = True
    sides: list[bool] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)  # mean keypoint error of a found hand, % of its box's larger side
    milliseconds: list[float] = field(default_factory=list)

    def add(self, case: Case, found: Sequence[Found], milliseconds: float | None) -> Verdict:
        """Count one photo."""
        verdict = judge(case, found)
        self.pictures, self.hands = self.pictures + 1, self.hands + len(case.keypoints)
        self.missed += len(case.keypoints) - len(verdict.pairs)
        self.duplicates += len(verdict.duplicates)
        self.false_alarms += len(verdict.false_alarms)
        self.complete &= case.complete
        for hand, output in verdict.pairs:
            truth = case.keypoints[hand]
            rows = ~np.isnan(truth).any(axis=1)
            box = tight_box(truth[rows])
            error = np.linalg.norm(found[output].keypoints[rows] - truth[rows], axis=1).mean()
            self.errors.append(100 * float(error / max((box[2:] - box[:2]).max(), 1e-6)))
            self.sides.append((found[output].side == "right") == bool(case.right[hand]))
        if milliseconds is not None:
            self.milliseconds.append(milliseconds)
        return verdict

    def row(self) -> dict[str, Any]:
        """One line of the table; empty where a figure does not apply."""
        return {
            "pictures": self.pictures,
            "hands": self.hands,
            "missed": self.missed,
            "duplicates": self.duplicates,
            "false_alarms": self.false_alarms if self.complete else "",
            "right_side": round(float(np.mean(self.sides)), 3) if self.sides else "",
            "error_median": round(float(np.median(self.errors)), 2) if self.errors else "",
            "error_mean": round(float(np.mean(self.errors)), 2) if self.errors else "",
            "cpu_ms": round(float(np.median(self.milliseconds)), 1) if self.milliseconds else "",
        }


# ---- the sets


def spread(items: list, count: int) -> list:
    """At most `count` of them, evenly spaced."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]


def whole(picture: Picture) -> Case:
    """The picture as it is."""
    keypoints = np.array([hand.keypoints for hand in picture.hands], np.float32).reshape(-1, 21, 2)
    ignore = np.array(picture.ignore, np.float32).reshape(-1, 4)
    right = np.array([hand.right for hand in picture.hands], bool)
    return Case(picture.decode(), keypoints, right, ignore, picture.whole)


def cut(picture: Picture, margin: float) -> Case:
    """Its first hand's tight box with a margin (share of its larger side) on each side, as a photo of its own."""
    case = whole(picture)
    box = tight_box(case.keypoints[0])
    grow = margin * float((box[2:] - box[:2]).max())
    x0, y0 = np.maximum(np.floor(box[:2] - grow), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(box[2:] + grow), case.image.shape[1::-1]).astype(int)
    part = np.ascontiguousarray(case.image[y0:y1, x0:x1])
    return Case(part, case.keypoints[:1] - np.float32([x0, y0]), case.right[:1], case.ignore - np.float32([x0, y0] * 2))


def without_hands(picture: Picture) -> Case | None:
    """A part of a frame that shows no hand; None: there is none."""
    part = hand_free_part(picture)
    nothing = np.zeros((0, 4), np.float32)
    return None if part is None else Case(part, np.zeros((0, 21, 2), np.float32), np.zeros(0, bool), nothing)


def fixtures(folder: Path) -> list[Case]:
    """The measuring photos: one labelled hand each, others possible."""
    cases = []
    for name in ("val2d.jsonl", "val3d.jsonl"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            points = np.array(row["keypoints_px"], np.float32)
            points[~np.array(row.get("visible", [True] * 21), bool)] = np.nan
            right, none = np.array([row["side"] == "right"]), np.zeros((0, 4), np.float32)
            cases.append(Case(read_image(folder / row["image"]), points[None], right, none, complete=False))
    return cases


def measuring_sets(data: Path, fixture_folder: Path | None, count: int) -> dict[str, list[Case]]:
    """Named sets of at most `count` photos."""
    frames, crops = read_frames(data, True), [p for p in read_crops(data, True) if p.whole]
    per_source: dict[str, list[Picture]] = defaultdict(list)
    for picture in crops:
        per_source[picture.source].append(picture)
    close = [p for source in sorted(per_source) for p in spread(per_source[source], -(-count // len(per_source)))]
    sets = {
        f"frames {source}": [whole(p) for p in spread([p for p in frames if p.source == source], count)]
        for source in sorted({p.source for p in frames})
    }
    sets["close-ups"] = [whole(p) for p in close]
    sets["cut to the hand plus 25 %"] = [cut(p, 0.25) for p in close]
    sets["cut to the hand plus 5 %"] = [cut(p, 0.05) for p in close]
    sets["frames' parts without hands"] = spread([case for p in frames[::2] if (case := without_hands(p))], count)
    sets["backgrounds without hands"] = [whole(p) for p in spread(read_backgrounds(data, True), count)]
    if fixture_folder:
        sets["fixtures"] = spread(fixtures(fixture_folder), count)
    return sets


# ---- the systems: each answers photos one by one, with the CPU milliseconds it took


Answers = Iterator[tuple[list[Found], float | None]]


def by_densehand(estimator: HandEstimator, cases: Sequence[Case]) -> Answers:
    for case in cases:
        start = time.process_time()
        hands = estimator(case.image)
        spent = 1000 * (time.process_time() - start)
        yield [Found(hand.keypoints_2d, hand.side) for hand in hands], spent


def by_mediapipe(python: Path, cases: Sequence[Case]) -> Answers:
    """MediaPipe in its own Python; raises DependencyError where it does not run there."""
    with tempfile.TemporaryDirectory() as folder:
        for k, case in enumerate(cases):
            cv2.imwrite(f"{folder}/{k:05d}.png", case.image[..., ::-1])
        out = Path(folder) / "hands.jsonl"
        command = [str(python), mediapipe_hands.__file__, folder, "-o", str(out), "--max-hands", "4"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DependencyError(f"{python}: MediaPipe does not run there ({last}); pip install 'mediapipe<0.10.30'")
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        yield [Found(np.array(hand["keypoints_2d"]), hand["side"]) for hand in row["hands"]], None


# ---- pictures of what went wrong


def drawn(case: Case, found: Sequence[Found], verdict: Verdict, tile: int = 200) -> np.ndarray:
    """Labels white, found green, duplicates yellow, false alarms red."""
    scale = tile / max(case.image.shape[:2])
    picture = cv2.resize(case.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = cv2.copyMakeBorder(picture, 0, tile - picture.shape[0], 0, tile - picture.shape[1], cv2.BORDER_CONSTANT)
    colours = dict.fromkeys(verdict.duplicates, (255, 230, 0)) | dict.fromkeys(verdict.false_alarms, (255, 40, 40))
    for points, colour in [
        *[(points[~np.isnan(points).any(axis=1)], (255, 255, 255)) for points in case.keypoints],
        *[(entry.keypoints, colours.get(k, (40, 255, 40))) for k, entry in enumerate(found)],
    ]:
        x0, y0, x1, y1 = (int(v) for v in (tight_box(points) * scale).round())
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1)
    return picture


def write_sheet(path: Path, tiles: list[np.ndarray], columns: int = 6) -> None:
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--fixtures", type=Path, help="folder with val2d.jsonl and val3d.jsonl")
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--refine", default="fast", help="as of densehand predict")
    parser.add_argument("--detector", type=Path, help="a detector's .safetensors file; default: the packaged one")
    parser.add_argument("--mediapipe-python", type=Path, help="a Python with MediaPipe: measure it too")
    parser.add_argument("--count", type=int, default=40, help="most pictures of a set")
    parser.add_argument("--only", default="", help="sets whose names begin so")
    parser.add_argument("--what", default="", help="a word on this run for the rows of --csv")
    parser.add_argument("--csv", type=Path, help="results file to add the rows to")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of misses, duplicates and false alarms (PNG)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    detector = Detector.load("cpu", PROPOSED, path=options.detector)
    estimator = HandEstimator(options.model, detector, "cpu", options.refine)
    systems: dict[str, Callable[[Sequence[Case]], Answers]] = {
        "densehand": lambda cases: by_densehand(estimator, cases)
    }
    if options.mediapipe_python:
        systems["mediapipe"] = lambda cases: by_mediapipe(options.mediapipe_python, cases)
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, cases in measuring_sets(options.data, options.fixtures, options.count).items():
        for system, answer in systems.items() if name.startswith(options.only) else ():
            tally, tiles = Tally(), []
            for case, (found, milliseconds) in zip(cases, answer(cases), strict=True):
                verdict = tally.add(case, found, milliseconds)
                if len(verdict.pairs) < len(case.keypoints) or verdict.duplicates or verdict.false_alarms:
                    tiles.append(drawn(case, found, verdict))
            rows.append({"commit": commit(), "what": options.what, "system": system, "set": name, **tally.row()})
            print(*(f"{key}={value}" for key, value in rows[-1].items() if key != "commit"), flush=True)
            if options.sheets and tiles:
                write_sheet(options.sheets / f"{system} {name}.png".replace(" ", "_"), tiles)
    if options.csv:
        append_rows(options.csv, rows)


if __name__ == "__main__":
    main()
