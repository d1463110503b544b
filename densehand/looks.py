"""Which crops of a photo the network looks at, in which order, and where it looks again.

Rounds. Detections scored `SURE` are looked at first, with the next likely. Where none of them is a hand, those of a
closer look of the detector are, then weaker ones, and at last the whole picture, for a hand that fills it. So a photo
with a clear hand costs hardly more than that hand.

Turned. A detection that tells how its hand lies is shown to the network turned upright at once.

Again. The network answers best where the hand fills its crop as in training, and stands upright in it, fingers up.
Where the crop of a box, or of the whole picture, is not the one that the hand found in it asks for, the network looks
there, the pixels turned. Detected boxes are set around the hand that way; given ones stay what they are, and the new
look counts unless the network is clearly less sure in it of a hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from densehand.camera import SHOWN, Crop, in_plane
from densehand.crops import CERTAIN, CropAnswer, Look, log_odds
from densehand.detect.detector import SURE
from densehand.errors import InputError
from densehand.hand.keypoints import palm_turn
from densehand.metrics import box_iou, tight_box
from densehand.photo import Photo, check_box, check_picture
from densehand.result import SIDES
from densehand.selection import MIN_DOUBTFUL, MIN_SCORE

if TYPE_CHECKING:
    from densehand.detect import Detection, Detector

PROPOSED = 0.1
"""Least score of a detection that is looked at: those below `SURE` where no hand was found in the others …"""

MOST_WEAK = 4
"""… and of these no more than the best few."""

NEARLY = 0.2
"""But from this score on the best `MOST_NEARLY` of the weak ones are looked at beside those that are `SURE`."""

MOST_NEARLY = 2

DOUBT = 3.5
"""Where the log-odds of the side are nearer to 0, the crop is looked at both ways."""

WHOLE_PICTURE = 0.7
"""Stands for the detector's score where the whole picture is the crop, of which it says nothing."""

DETECTORS_SIDE = 0.25
"""What the detector's log-odds of a right hand count. Of 256 held-back hands the network alone had 98.4 % of the sides
right, a detector of 79.7 % summed with it 96.1 %, with this share 98.0 %."""

SAME_WINDOW = 0.75
"""Where a crop overlaps the one that the hand found in it asks for by less (IoU), that one is looked at too …"""

ASKEW = math.radians(30)
"""… and where the fingers of the hand found are turned from upright by more, the crop is turned for the next look, …"""

MOST_LOOKS = 2
"""… at most this many times where the box was detected, once where it was given."""

LESS_SURE = 1.0
"""Of a given box the second look counts unless its log-odds of a hand are lower by more than this (than the first's, or
than `CERTAIN`)."""

Witness = Literal["nobody", "detector", "network", "caller"]


@dataclass(frozen=True)
class Job:
    """One crop to run."""

    photo: int
    crop: Crop  # mirrored as the guessed side asks
    box: np.ndarray | None  # None: to be taken from the keypoints found
    right: float  # log-odds of a right hand …
    witness: Witness  # … and whose word that is; nobody's is 0
    score: float | None  # the detector's
    least: float = 0.0  # where detected: a lower score is no hand's
    turn: float = 0.0  # radians, of the hand's fingers in the crop from upright

    @property
    def look(self) -> Look:
        return Look(self.photo, self.crop, self.turn)

    @property
    def settled(self) -> bool:
        """Whether the network's answer on this crop says nothing new of the side."""
        return self.witness in ("network", "caller")

    @property
    def other_side(self) -> Job:
        """The same crop as if the hand were the other one."""
        return replace(self, crop=replace(self.crop, mirrored=not self.crop.mirrored), turn=-self.turn)


def rounds_of(index: int, photo: Photo, detector: Callable[[], Detector]) -> Iterator[list[Job]]:
    """The crops of photo number `index`, from its boxes, its frame or the detector (asked for only if needed): rounds
    to be tried in order until one has a hand. With the first, raises InputError for what cannot be looked at."""
    height, width = check_picture(photo.image)
    if photo.side not in ("auto", *SIDES):
        raise InputError(f"side {photo.side!r}: use auto, left or right")
    if photo.whole_image and photo.boxes is not None:
        raise InputError("whole_image and boxes exclude each other; give one of them")
    whole = Crop((width / 2, height / 2), max(width, height) / 2 / SHOWN)  # of which the network is shown the picture
    if photo.whole_image:
        yield [_job(index, whole, None, photo.side, None, None)]
    elif photo.boxes is not None:
        jobs = []
        for entry in photo.boxes:
            box = check_box(entry.box, width, height)
            if entry.side not in (None, *SIDES):
                raise InputError(f"side {entry.side!r} of a box: use left, right or null")
            jobs.append(_job(index, Crop.from_box(box), box, entry.side or photo.side, None, None))
        yield jobs
    else:
        for detections in _proposals(photo, detector()):
            yield [first_look(index, detection, photo.side) for detection in detections]
        last = _job(index, whole, None, photo.side, None, WHOLE_PICTURE)
        yield [replace(last, least=MIN_DOUBTFUL)]


def _proposals(photo: Photo, detector: Detector) -> Iterator[list[Detection]]:
    """What the detector holds for hands, the likely ones first; no list is empty."""
    found = detector(photo.image)  # by falling score
    sure, weak = ([d for d in found if (d.score >= SURE) == wanted] for wanted in (True, False))
    if sure:
        count = sum(detection.score >= NEARLY for detection in weak[:MOST_NEARLY])
        yield sure + weak[:count]
        # all in vain: what it mistook for a hand kept it from looking closer
        closer = detector.look_closer(photo.image, found)
        if sure := [detection for detection in closer if detection.score >= SURE]:
            yield sure
        weak = sorted(weak[count:] + closer[len(sure) :], key=lambda detection: -detection.score)
    if weak:
        yield weak[:MOST_WEAK]


def first_look(index: int, detection: Detection, side: str = "auto") -> Job:
    """The crop of a detection in photo number `index`, upright where the detector tells how the hand lies."""
    odds = DETECTORS_SIDE * log_odds(detection.side_score) * (1 if detection.side == "right" else -1)
    box = np.asarray(detection.box, dtype=np.float32)
    job = _job(index, Crop.from_box(box), box, side, odds, float(detection.score))
    lies = detection.turn or 0.0
    turn = lies if abs(lies) > ASKEW else 0.0
    least = MIN_SCORE if detection.score >= SURE else MIN_DOUBTFUL
    return replace(job, least=least, turn=-turn if job.crop.mirrored else turn)


def _job(index: int, crop: Crop, box: np.ndarray | None, side: str, right: float | None, score: float | None) -> Job:
    """`right`: the detector's log-odds, if it has a say."""
    if side != "auto":
        right = CERTAIN if side == "right" else -CERTAIN
    witness: Witness = "caller" if side != "auto" else "nobody" if right is None else "detector"
    odds = right or 0.0
    return Job(index, replace(crop, mirrored=odds < 0), box, odds, witness, score)


def fitted(job: Job, answer: CropAnswer) -> Job | None:
    """The job with the crop and turn that the hand found asks for; None where its own are near enough."""
    points = answer.projected
    if not np.isfinite(points).all():
        return None
    turn = float(palm_turn(points))
    askew = math.isfinite(turn) and abs(math.remainder(turn - job.turn, math.tau)) > ASKEW
    turn = turn if askew else job.turn
    around = Crop.from_box(tight_box(points @ in_plane(turn)))  # in the crop turned upright
    middle = job.crop.to_image(in_plane(turn) @ around.center)
    crop = Crop(tuple(middle), around.half_side * job.crop.half_side, job.crop.mirrored)
    windows = np.array([crop.box, job.crop.box], dtype=np.float32)
    if not askew and box_iou(windows[:1], windows[1:])[0, 0] >= SAME_WINDOW:
        return None
    box = job.box if job.score is None else tight_box(job.crop.to_image(points))
    if askew and job.witness == "network":
        job = replace(job, witness="nobody", right=0.0)  # sides of hands that are not upright are guesses
    return replace(job, crop=crop, turn=turn, box=box)
