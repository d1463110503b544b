"""`HandEstimator`: a photo in, a list of `Hand` out. Detect, crop, estimate, refine, and put back into the photo.

Sides. The network always looks at a right hand: crops of left hands are mirrored before it, and what it says is
mirrored back. Where nobody gives the side, three witnesses decide, each with a probability that it is a right hand:

- the detector's `side_score`;
- the network's `side_logit` on the crop as it is;
- the network's `side_logit` on the mirrored crop, its sign turned.

A crop with a detected side is run in that orientation. Only if the sum of the log-odds then points to the other side,
or hardly to this one, is it run mirrored too; a crop without any side is run both ways (of a whole picture, where it
seems to show a hand), and again where the hand turns out not to be upright, as sides of such hands are guesses. The
two network answers are averaged (they see the same pixels); half of how much more the crop looks like a hand to it than
its mirror image and a quarter of the detector's log-odds are added; and the estimate of the orientation that agrees
with the sum is kept. Of two hands beside each other that seem to be of one side the doubtful one is taken for the
other (`selection.other_sides`). `side_score` is the probability of the side chosen.

Crops. `looks.py` says which are looked at, in which order, and where the network looks again, closer or upright.

Scores. `score` is the network's hand probability; for detected boxes, the detector has its say (`selection.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8

from densehand.camera import default_focal
from densehand.crops import CERTAIN, CropAnswer, CropReader, probability
from densehand.errors import InputError
from densehand.hand import HandModel
from densehand.looks import DOUBT, LESS_SURE, MOST_LOOKS, PROPOSED, Job, fitted, rounds_of
from densehand.metrics import tight_box
from densehand.network.engine import check_precision
from densehand.network.together import names_of, open_networks
from densehand.network.zoo import resolve_device
from densehand.photo import HandBox, Photo
from densehand.rays import turn_rotation, turn_to_box, wrist_place
from densehand.refine.modes import FAST, parse_refine
from densehand.result import Hand, faces_of, mirrored_if_left
from densehand.selection import MIN_SCORE, PAIR, combined_score, other_sides, select_hands

if TYPE_CHECKING:
    from densehand.detect import Detector
    from densehand.network.estimator import DHPE

DEFAULT_MODEL = "dhpe-lite"

HANDS_SIDE = 0.5
"""What it counts for a right hand that the crop looks more like a hand than its mirror image: log-odds of the network,
which always looks at a right hand, one way less those the other way."""


class HandEstimator:
    """Finds the hands of a photo and estimates each in 3D.

    Args:
        model: name of a packaged model, the path of a weights file (`NAME.safetensors` with its card beside it),
            several of them joined by "+", whose mean is taken (`network/together.py`), or a `DHPE`.
        detector: finds the boxes; by default the packaged one, loaded when it is first needed.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        refine: testing refinement of each hand: "fast", "paper", "off" or a number of gradient steps
            (docs/refinement.md).
        focal: the camera's focal length in pixels; by default `camera.default_focal` of the photo.
        batch: most crops in one pass of the network.
        hand: hand model of the result: by default the one the network was trained with; another ("mano", or the path of
            an .npz) is fitted to the network's joints, so that it has their pose in its own parameters.
        consensus: look at each hand in four crops of other paddings and turns, and take the mean; steadier, four more
            passes of the network a hand. Not with the paper's refinement, which sees one crop.
        precision: "auto" (8-bit integers on x86-64 CPUs where the weights' card allows them) or "float32"
            (docs/network.md); a `DHPE` or a detector given stays as it was loaded.

    Errors:
        InputError: unknown model, device or precision, or a number out of range.
        WeightsError: missing or damaged weights.
    """

    def __init__(
        self,
        model: str | Path | DHPE = DEFAULT_MODEL,
        detector: Detector | None = None,
        device: str = "auto",
        refine: str | int = FAST,
        focal: float | None = None,
        batch: int = 16,
        hand: str | None = None,
        consensus: bool = False,
        precision: str = "auto",
    ) -> None:
        if focal is not None and not (math.isfinite(focal) and focal > 0):
            raise InputError(f"the focal length is a positive number of pixels, not {focal}")
        if batch < 1:
            raise InputError(f"batch is 1 or more, not {batch}")
        self.device = resolve_device(device)
        if given := isinstance(model, (str, Path)):
            network = open_networks(str(model), self.device, precision)
        else:
            network = model.to(self.device)
        self.network = network.eval()
        # as results call what made them
        self.name = "+".join(Path(m).name for m in names_of(str(model))) if given else network.config.name
        self.hand = network.hand
        if hand is not None and hand != self.hand.name:
            self.hand = HandModel.load(hand).to(self.device)
        self.refine, self.focal, self.consensus = parse_refine(refine), focal, consensus
        if consensus and self.refine not in (0, FAST):
            raise InputError("consensus goes with refine 'fast' or 'off': the paper's refinement sees one crop")
        self.crops = CropReader(self.network, self.hand, self.device, batch)
        self._detector, self._precision = detector, check_precision(precision)

    @property
    def detector(self) -> Detector:
        """The detector, loaded now if it was not."""
        if self._detector is None:
            from densehand.detect import Detector

            self._detector = Detector.load(self.device, PROPOSED, precision=self._precision)
        return self._detector

    def __call__(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        boxes: Iterable[HandBox | Sequence[float]] | None = None,
        side: str = "auto",
        whole_image: bool = False,
    ) -> list[Hand]:
        """Estimate the hands of one photo.

        Args:
            image: H×W×3 uint8, RGB, upright (`densehand.images.read_image`).
            boxes: tight boxes around the 21 keypoints (pixels), as `HandBox` or four numbers each; one hand a box, in
                order. Without them the detector looks for hands.
            side: "auto", or the side of every hand whose box does not name one.
            whole_image: the photo shows one hand and is the crop itself (its centred square around the longer side).

        Returns:
            The hands: of given boxes in their order, of detected ones by falling score.

        Errors:
            InputError: no such picture or side, boxes together with whole_image, or a box that is malformed, empty or
                outside the picture.
        """
        checked = None if boxes is None else [b if isinstance(b, HandBox) else HandBox(b) for b in boxes]
        return self.estimate([Photo(image, checked, side, whole_image)])[0]

    @torch.no_grad()
    def estimate(self, photos: Sequence[Photo]) -> list[list[Hand]]:
        """Estimate several photos with their crops batched together; see `__call__`."""
        rounds = {index: rounds_of(index, photo, lambda: self.detector) for index, photo in enumerate(photos)}
        jobs: list[Job] = []
        first: list[CropAnswer] = []
        while tried := [job for more in rounds.values() for job in next(more, ())]:  # a round of each photo in question
            sided = self._settle(photos, tried, self._run(photos, tried))
            upright = self._settle(photos, *self._look_again(photos, *sided))
            for job, answer in zip(*upright, strict=True):
                if job.score is None or self._score(job, answer) >= job.least:
                    jobs.append(job)
                    first.append(answer)
                    rounds.pop(job.photo, None)
        hands: list[list[Hand]] = [[] for _ in photos]
        for job, answer in zip(*self._answer(photos, jobs, first), strict=True):
            hands[job.photo].append(self._hand(photos[job.photo], job, answer))
        found = [photo.boxes is None and not photo.whole_image for photo in photos]
        return [
            select_hands(entry, MIN_SCORE) if detected else entry for entry, detected in zip(hands, found, strict=True)
        ]

    def _run(self, photos: Sequence[Photo], jobs: Sequence[Job]) -> list[CropAnswer]:
        return self.crops.run(photos, [job.look for job in jobs])

    def _both_ways(
        self, photos: Sequence[Photo], jobs: Sequence[Job], answers: Sequence[CropAnswer], rows: Sequence[int]
    ) -> tuple[list[Job], list[CropAnswer]]:
        """The crops of these rows are looked at mirrored too, and the orientation of the side found is kept."""
        jobs, answers = list(jobs), list(answers)
        for k, other in zip(rows, self._run(photos, [jobs[k].other_side for k in rows]), strict=True):
            plain, mirrored = (other, answers[k]) if jobs[k].crop.mirrored else (answers[k], other)
            rather = self.network.calibration.side(HANDS_SIDE * (plain.hand - mirrored.hand))
            right = jobs[k].right + (plain.right + mirrored.right) / 2 + rather
            if (right < 0) != jobs[k].crop.mirrored:
                jobs[k], answers[k] = jobs[k].other_side, other
            jobs[k] = replace(jobs[k], right=right, witness="network")
        return jobs, answers

    def _settle(
        self, photos: Sequence[Photo], jobs: list[Job], answers: list[CropAnswer]
    ) -> tuple[list[Job], list[CropAnswer]]:
        """Sides nobody knows, before anything is measured in the wrong orientation. Not of whole pictures that seem to
        have no hand, as most photos without one."""
        shown = [job.score is None or answer.hand > 0 for job, answer in zip(jobs, answers, strict=True)]
        unknown = [k for k, job in enumerate(jobs) if job.witness == "nobody" and shown[k]]
        return self._both_ways(photos, jobs, answers, unknown)

    def _look_again(
        self, photos: Sequence[Photo], jobs: list[Job], answers: list[CropAnswer]
    ) -> tuple[list[Job], list[CropAnswer]]:
        """Crops that do not fit the hand found in them are set around it and looked at again."""
        jobs, answers = list(jobs), list(answers)
        waiting = list(range(len(jobs)))
        for _ in range(MOST_LOOKS):
            again = {k: found for k in waiting if (found := fitted(jobs[k], answers[k])) is not None}
            waiting = []
            for k, answer in zip(again, self._run(photos, list(again.values())), strict=True):
                detected = jobs[k].score is not None
                if detected or answer.hand > min(answers[k].hand, CERTAIN) - LESS_SURE:
                    jobs[k], answers[k] = again[k], answer
                if detected:
                    waiting.append(k)
        return jobs, answers

    def _answer(
        self, photos: Sequence[Photo], jobs: list[Job], first: list[CropAnswer]
    ) -> tuple[list[Job], list[CropAnswer]]:
        """The jobs with the crops of the sides chosen, and what is said of the hands in them, refined."""
        odds = [_odds(job, answer) * (-1 if job.crop.mirrored else 1) for job, answer in zip(jobs, first, strict=True)]
        doubtful = [k for k, job in enumerate(jobs) if not job.settled and odds[k] < DOUBT]
        jobs, answers = self._pair(photos, *self._both_ways(photos, jobs, first, doubtful))
        looks = [job.look for job in jobs]
        if self.consensus:
            answers = self.crops.consensus(photos, looks, answers)
        if self.refine == FAST:
            answers = self.crops.refine_fast(answers)
        elif self.refine:  # only now, so that no step is spent on an orientation that is not kept
            answers = self.crops.run(photos, looks, int(self.refine))
        return jobs, answers

    def _pair(
        self, photos: Sequence[Photo], jobs: list[Job], answers: list[CropAnswer]
    ) -> tuple[list[Job], list[CropAnswer]]:
        """Two hands beside each other are a left and a right one, unless both are sure not to be."""
        jobs, answers = list(jobs), list(answers)
        others: dict[int, Job] = {}
        for photo in {job.photo for job in jobs}:
            rows = [k for k, job in enumerate(jobs) if job.photo == photo]
            odds = [_odds(jobs[k], answers[k]) for k in rows]
            points = [jobs[k].crop.to_image(answers[k].keypoints) for k in rows]
            for i in other_sides(points, odds):
                right = math.copysign(PAIR - abs(odds[i]), -odds[i])
                others[rows[i]] = replace(jobs[rows[i]].other_side, right=right, witness="network")
        for (k, job), answer in zip(others.items(), self._run(photos, list(others.values())), strict=True):
            jobs[k], answers[k] = job, answer
        return jobs, answers

    def _score(self, job: Job, answer: CropAnswer) -> float:
        """How surely a hand is there; of given boxes what the network says alone."""
        if job.score is None:
            return answer.present
        readily = self.network.calibration.readily
        return combined_score(answer.hand, job.score, float(answer.weight.mean()), readily)

    def _hand(self, photo: Photo, job: Job, answer: CropAnswer) -> Hand:
        """Crop units → the full photo and the camera."""
        crop, odds = job.crop, _odds(job, answer)
        height, width = photo.image.shape[:2]
        side = "left" if crop.mirrored else "right"
        keypoints = crop.to_image(answer.keypoints)
        wrist = crop.to_image(answer.h["translation"][:2])
        scale = float(answer.h["scale"]) * crop.half_side
        focal = self.focal or default_focal(width, height)
        center = np.array([width / 2, height / 2])
        box = tight_box(keypoints) if job.box is None else job.box
        turn, inside = (turn_to_box(box, focal, center, mirrored) for mirrored in (False, crop.mirrored))
        vertices, joints = (mirrored_if_left(p, side) @ turn.T for p in (answer.vertices, answer.joints))
        return Hand(
            side=side,
            side_score=1.0 if job.witness == "caller" else probability(odds if side == "right" else -odds),
            score=self._score(job, answer),
            box=box,
            keypoints_2d=keypoints,
            keypoints_score=answer.confidence,
            joints_3d=joints,
            pose=answer.h["pose"],
            shape=answer.h["shape"],
            rotation=turn_rotation(inside, answer.h["rotation"]),
            scale=scale,
            translation=wrist_place(scale, wrist, joints, focal, center),
            focal_px=focal,
            center_px=center.astype(np.float32),
            vertices=vertices,
            faces=faces_of(self.hand, side),
            refinement=answer.refinement and answer.refinement.scaled(crop.half_side),
            keypoints_weight=answer.weight,
        )


def _odds(job: Job, answer: CropAnswer) -> float:
    """Log-odds of a right hand, by all that were heard of it."""
    return job.right + (0.0 if job.settled else answer.right)
