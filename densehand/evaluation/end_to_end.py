"""Full photos in, hands out: the photos, and what counts as found, missed, found twice and found where nothing is.

A hand is found if the box of an output's keypoints overlaps the box of its own (IoU) by 0.3; each output answers one
hand. Another output on a hand that is answered is a duplicate; one on a region where hands may be that nobody
labelled is neither right nor wrong; any other is a false alarm, where all hands of a picture are labelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, UInt8

from densehand.detect.boxes import intersections
from densehand.detect.data import Picture, hand_free_part, read_backgrounds, read_crops, read_frames
from densehand.evaluation.cases import PARTS, read_fixture
from densehand.evaluation.prediction import LEAST_OVERLAP
from densehand.images import read_image
from densehand.metrics import box_iou, tight_box

Item = TypeVar("Item")

INSIDE = 0.7  # an output that lies in an answered hand's box by this share of its own area is on that hand


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo (RGB) with the labels of its n hands.

    keypoints: px, NaN where not labelled. right: whether it is a right hand. ignore: boxes x0, y0, x1, y1 (px) where
    unlabelled hands may be. complete: no unlabelled hand elsewhere.
    """

    image: UInt8[np.ndarray, "h w 3"]
    keypoints: Float[np.ndarray, "n 21 2"]
    right: Bool[np.ndarray, " n"]
    ignore: Float[np.ndarray, "m 4"]
    complete: bool = True


class Found(NamedTuple):
    """An output. keypoints: px; side: "left" or "right"."""

    keypoints: Float[np.ndarray, "21 2"]
    side: str


class Verdict(NamedTuple):
    """Indices of outputs (and of hands): pairs (hand, output) that answer each other, and the outputs left over."""

    pairs: list[tuple[int, int]]
    duplicates: list[int]
    false_alarms: list[int]


def match_hands(case: LabelledPhoto, found: Sequence[Found]) -> Verdict:
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

    def add(self, case: LabelledPhoto, found: Sequence[Found], milliseconds: float | None) -> Verdict:
        """Count one photo, and the CPU milliseconds it took where they are known."""
        verdict = match_hands(case, found)
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


def spread(items: list[Item], count: int) -> list[Item]:
    """At most `count` of them, evenly spaced."""
    return items if len(items) <= count else [items[i * len(items) // count] for i in range(count)]


def whole(picture: Picture) -> LabelledPhoto:
    """The picture as it is."""
    keypoints = np.array([hand.keypoints for hand in picture.hands], np.float32).reshape(-1, 21, 2)
    ignore = np.array(picture.ignore, np.float32).reshape(-1, 4)
    right = np.array([hand.right for hand in picture.hands], bool)
    return LabelledPhoto(picture.decode(), keypoints, right, ignore, picture.whole)


def cut(picture: Picture, margin: float) -> LabelledPhoto:
    """Its first hand's tight box with a margin (share of its larger side) on each side, as a photo of its own."""
    case = whole(picture)
    box = tight_box(case.keypoints[0])
    grow = margin * float((box[2:] - box[:2]).max())
    x0, y0 = np.maximum(np.floor(box[:2] - grow), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(box[2:] + grow), case.image.shape[1::-1]).astype(int)
    part = np.ascontiguousarray(case.image[y0:y1, x0:x1])
    origin = np.array([x0, y0], np.float32)
    return LabelledPhoto(part, case.keypoints[:1] - origin, case.right[:1], case.ignore - np.tile(origin, 2))


def without_hands(picture: Picture) -> LabelledPhoto | None:
    """A part of a frame that shows no hand; None: there is none."""
    part = hand_free_part(picture)
    nothing = np.zeros((0, 4), np.float32)
    return None if part is None else LabelledPhoto(part, np.zeros((0, 21, 2), np.float32), np.zeros(0, bool), nothing)


def fixtures(folder: Path) -> list[LabelledPhoto]:
    """The measuring photos of a folder with `val2d.jsonl` and `val3d.jsonl`: one labelled hand each, others possible.

    Raises InputError where a file of rows is missing or damaged, or a photo cannot be read.
    """
    cases = []
    for part in PARTS:
        for row in read_fixture(folder, f"{part}.jsonl"):
            points = np.array(row["keypoints_px"], np.float32)
            points[~np.array(row.get("visible", [True] * 21), bool)] = np.nan
            right, none = np.array([row["side"] == "right"]), np.zeros((0, 4), np.float32)
            cases.append(LabelledPhoto(read_image(folder / row["image"]), points[None], right, none, complete=False))
    return cases


def measuring_sets(data: Path, fixture_folder: Path | None, count: int) -> dict[str, list[LabelledPhoto]]:
    """Named sets of at most `count` photos, always the same ones.

    data: holds `photos/` and `backgrounds/` as `densehand/detect/data.py` says, of which those that the detector's
    training held back are taken; fixture_folder: see `fixtures`. Raises InputError where `data` lacks its labels or a
    picture is damaged, OSError where one is missing.
    """
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
