"""Training pictures of the detector: full frames and hand crops with a teacher's keypoints, backgrounds, held-back
split.

Reads a folder laid out like this (the openly licensed photos the shipped weights were trained on; one JSON object a
line):

- ``photos/frames.jsonl``: ``frame`` (path), ``source``, ``boxes`` (people's boxes around whole hands, or none),
  ``teacher`` (list of ``box``, ``side``, ``score``, the k-th belonging to the crop ``…_k.jpg``);
- ``photos/labels.jsonl``: ``crop`` (path), ``source``, ``frame``, ``side``, ``score``, ``keypoints_px`` (21×2, crop
px);
- ``backgrounds/*.jpg``: pictures without hands.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densehand.data.held_back import BACKGROUNDS, DETECTOR, frame_number
from densehand.errors import InputError
from densehand.metrics import tight_box

Pixels = NDArray[Any]  # uint8, H×W×3 (RGB) or H×W
Points = NDArray[Any]  # float32, n×2 points, 4-number boxes or 2×3 matrices, px

# Backgrounds that show hands after all (looked through by eye); they are neither background nor negative.
BACKGROUNDS_WITH_HANDS = frozenset(
    [150, 151, 185, 186, 187, 188, 189, 192, 193, 219, 261, 273, 274, 275, 292, 293, 294, 295, 296, 302, 303, 304, 305]
    + [327, 328, 329, 330, 386, 415, 457, 538, 539, 540, 541, 542, 545, 546, 549, 558, 580, 588, 589]
)
# Frames of these sources without a teacher's hand do show hands, except the two empty ones.
EMPTY_FRAMES = frozenset(["fingercount/00000", "fingercount/01440"])
DARK = 10  # the black beside a crop's photo, of 255, JPEG's noise included
CUT_OUT_SIDE = 96  # px, longer side of the picture in which a hand is cut out
GUARD = 3  # neighbours of a held-back block are not trained on either: a film's next frame is the same picture


@dataclass(frozen=True)
class LabelledHand:
    """A hand in a picture."""

    keypoints: Points  # (21, 2) px
    right: bool
    side_weight: float = 1.0  # 0 (side unknown) … 1


def decoded(encoded: bytes, flags: int) -> Pixels:
    """An encoded picture's pixels; ``InputError`` if it cannot be read."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if image is None:
        raise InputError("a training picture cannot be decoded; fetch the data again")
    return image


@dataclass
class Picture:
    """An encoded picture with everything known about its hands."""

    encoded: bytes
    source: str
    hands: list[LabelledHand]
    ignore: list[Points] = field(default_factory=list)  # boxes that may hold unlabelled hands, px
    whole: bool = True  # False: other, unlabelled hands may be in it, so only the labelled hand may be cut out of it
    cutout: bytes | None = None  # PNG mask of the hand, if there is one

    def decode(self, reduce: int = 1) -> Pixels:
        """RGB, H×W×3; ``reduce`` 2, 4 or 8 decodes a JPEG at a fraction of its size, at a fraction of the cost."""
        flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}.get(
            reduce, cv2.IMREAD_REDUCED_COLOR_8
        )
        return cv2.cvtColor(decoded(self.encoded, flags), cv2.COLOR_BGR2RGB)


def is_for_training(index: int) -> bool:
    """Whether a picture may be trained on: neither held back nor a close neighbour in time of one that is."""
    return not any(DETECTOR.held_back(i) for i in (index - GUARD, index, index + GUARD))


def selected(index: int, held_back: bool) -> bool:
    """Membership of the two splits."""
    return DETECTOR.held_back(index) if held_back else is_for_training(index)


def _rows(path: Path) -> list[dict]:
    if not path.is_file():
        raise InputError(f"{path}: no such label file; give the folder that holds photos/ and backgrounds/")
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _hand(points: Points, side: str, score: float) -> LabelledHand:
    return LabelledHand(points, side == "right", float(np.clip(2 * score - 1, 0, 1)))


def frame_rows(photos: Path, held_back: bool) -> list[tuple[str, dict]]:
    """Rows of a split's frames of which is known where hands are, each after its name (``source/00123``)."""
    named = [(row["frame"].removeprefix("frames/").rpartition(".")[0], row) for row in _rows(photos / "frames.jsonl")]
    return [
        (name, row)
        for name, row in named
        if selected(frame_number(name), held_back) and (row["teacher"] or row["boxes"] or name in EMPTY_FRAMES)
    ]


def read_frames(folder: str | Path, held_back: bool) -> list[Picture]:
    """Full frames. People's boxes without a teacher's hand inside, and all of ``rf100``'s (two hands, one box), are
    ignored."""
    photos = Path(folder) / "photos"
    crops = {row["crop"]: row for row in _rows(photos / "labels.jsonl")}
    pictures = []
    for name, row in frame_rows(photos, held_back):
        hands, boxes = [], []
        for k, teacher in enumerate(row["teacher"]):
            keypoints = np.asarray(crops[f"crops/{name}_{k}.jpg"]["keypoints_px"], np.float32)
            box = np.asarray(teacher["box"], np.float32)  # tight around the same keypoints: gives the crop's place
            low, high = keypoints.min(0), keypoints.max(0)
            points = (keypoints - low) / np.maximum(high - low, 1e-3) * (box[2:] - box[:2]) + box[:2]
            hands.append(_hand(points.astype(np.float32), teacher["side"], teacher["score"]))
            boxes.append(box)
        ignore = [
            np.asarray(box, np.float32)
            for box in row["boxes"]
            if row["source"] == "rf100" or not any(_covers(box, other) for other in boxes)
        ]
        pictures.append(Picture((photos / row["frame"]).read_bytes(), row["source"], hands, ignore))
    return pictures


def _covers(box: list[float], other: Points) -> bool:
    centre = (other[:2] + other[2:]) / 2
    return bool(box[0] < centre[0] < box[2] and box[1] < centre[1] < box[3])


def read_crops(folder: str | Path, held_back: bool) -> list[Picture]:
    """Hand crops (about twice the hand's box) of all sources."""
    photos = Path(folder) / "photos"
    rows = _rows(photos / "labels.jsonl")
    hands_in_frame = Counter(row["frame"] for row in rows)
    pictures = []
    for row in rows:
        if not selected(frame_number(row["frame"]), held_back):
            continue
        hand = _hand(np.asarray(row["keypoints_px"], np.float32), row["side"], row["score"])
        whole = row["source"] != "rf100" and hands_in_frame[row["frame"]] == 1
        pictures.append(Picture((photos / row["crop"]).read_bytes(), row["source"], [hand], whole=whole))
    return pictures


def background_selected(index: int, held_back: bool) -> bool:
    """Whether a background shows no hand and is of the split."""
    return index not in BACKGROUNDS_WITH_HANDS and BACKGROUNDS.held_back(index) == held_back


def read_backgrounds(folder: str | Path, held_back: bool) -> list[Picture]:
    """Hand-free pictures."""
    pictures = []
    for path in sorted((Path(folder) / "backgrounds").glob("*.jpg")):
        if background_selected(int(path.stem), held_back):
            pictures.append(Picture(path.read_bytes(), "background", []))
    return pictures


def hand_free_part(picture: Picture) -> Pixels | None:
    """The largest strip of a frame beside all that is or may be a hand (boxes grown by a third of the largest).

    None where no hand is labelled or the strip's shorter side is under 96 px.
    """
    tight = [tight_box(hand.keypoints) for hand in picture.hands]
    if not tight and not picture.ignore:
        return None
    image, taken = picture.decode(), np.array([*tight, *picture.ignore])
    grow = (taken[:, 2:] - taken[:, :2]).max() / 3
    (x0, y0), (x1, y1) = taken[:, :2].min(axis=0) - grow, taken[:, 2:].max(axis=0) + grow
    height, width = image.shape[:2]
    strips = [(0, 0, x0, height), (x1, 0, width, height), (0, 0, width, y0), (0, y1, width, height)]
    a, b, c, d = (int(v) for v in max(strips, key=lambda s: max(s[2] - s[0], 0) * max(s[3] - s[1], 0)))
    return np.ascontiguousarray(image[b:d, a:c]) if min(c - a, d - b) >= 96 else None


def visible_rectangle(image: Pixels) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of a crop without the black bars it has where it reached over its photo's border."""
    step = max(image.shape[0] // 64, 1)
    bright = image[::step, ::step].max(axis=2) > DARK
    columns, rows = np.flatnonzero(bright.mean(0) > 0.05) * step, np.flatnonzero(bright.mean(1) > 0.05) * step
    if len(columns) < 8 or len(rows) < 8:
        return 0, 0, image.shape[1], image.shape[0]
    right, bottom = min(columns[-1] + step, image.shape[1]), min(rows[-1] + step, image.shape[0])
    return int(columns[0]), int(rows[0]), int(right), int(bottom)


def cut_out(image: Pixels, keypoints: Points) -> Pixels | None:
    """Mask (H×W, 0/255) of a hand by GrabCut seeded with the keypoints' bones, or None where it came out implausible.

    Worth it for photos before a plain wall.
    """
    height, width = image.shape[:2]
    scale = CUT_OUT_SIDE / max(height, width)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    points = keypoints * scale
    extent = float(np.max(points.max(0) - points.min(0)))
    seeds = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    hull = cv2.convexHull(points.astype(np.int32))
    around = cv2.fillConvexPoly(np.zeros_like(seeds), hull, 1)
    grow = max(int(0.35 * extent), 1)
    around = cv2.dilate(around, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1)))
    seeds[around > 0] = cv2.GC_PR_BGD
    chains = [points[[0, *range(1 + 4 * finger, 5 + 4 * finger)]].astype(np.int32) for finger in range(5)]
    cv2.polylines(seeds, chains, False, int(cv2.GC_PR_FGD), max(int(0.16 * extent), 2))
    cv2.polylines(seeds, chains, False, int(cv2.GC_FGD), max(int(0.04 * extent), 1))
    black = small.max(2) < DARK
    seeds[black & (seeds != cv2.GC_FGD)] = cv2.GC_BGD
    try:
        cv2.setRNGSeed(0)  # GrabCut draws from OpenCV's one generator: else a mask hangs on which were cut before it
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, seeds, (0, 0, 1, 1), *models, 2, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return None
    mask: Pixels = np.isin(seeds, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8) * 255
    inside = (mask > 0).mean() * CUT_OUT_SIDE**2 / max(extent * extent, 1)
    if not 0.2 < inside < 1.6:
        return None
    mask = cv2.GaussianBlur(mask, (0, 0), 0.8)
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
