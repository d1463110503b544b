"""Which of the hands found in a photo are kept: the score of a detected hand, when two are one, and when a pair.

Detector and network judge a hand apart: one from afar, the other from near, and the network twice, by its say on the
whole and by how sure it is of each keypoint. Their log-odds are added, less what the network says too readily: it was
taught on pictures without hands, of which few look like what a detector takes for one.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float

from densehand.crops import log_odds, probability
from densehand.metrics import tight_box
from densehand.result import Hand

MIN_SCORE = 0.5
"""Detected hands of a lower combined score are dropped; hands in given boxes never are."""

MIN_DOUBTFUL = 0.7
"""The same for weak detections and the whole picture, most of which are no hands."""

SEEN = 2.0
"""What the keypoints' share in the sum of log-odds is: of a face or an arm the network may well say that it is a hand,
but not where its keypoints lie. Raw log-odds: the network's calibration is fitted on other pictures than what a
detector takes for a hand. What the sum loses is `Calibration.readily` of the weights' card, fitted on such pictures."""

SAME_HAND = 0.5
"""Two detected hands are one if this share of the smaller one's outline (its keypoints' hull) lies in the other's.

Of 606 pairs of hands labelled in one frame (people who sign, hold things, touch) none share more than 0.45, but for
three that are one hand labelled twice (0.75, 0.82, 0.99)."""

FAR_HAND = 0.06
"""… unless its area is less than this share of the other's: a far hand before or behind a near one."""

PAIR = 2.3
"""Log-odds that two hands beside each other are a left and a right one: of 538 pairs labelled in one frame, half to
three times the larger hand apart, 488 are, and of 319 of which the labels are sure, 318."""

NEAR = 3.0
"""How far apart the hands of a pair may be, of the larger one's extent, …"""

ALIKE = 2.0
"""… and how many times as large one of them."""


def witnesses(present: float, detected: float, seen: float) -> float:
    """The sum of three log-odds of a hand: the network's raw ones, the detector's probability's, and those of the mean
    raw confidence in the keypoints."""
    return present + log_odds(detected) + SEEN * log_odds(seen)


def combined_score(present: float, detected: float, seen: float, readily: float) -> float:
    """The probability of a hand, from what `witnesses` takes, less what they say too `readily`."""
    return probability(witnesses(present, detected, seen) - readily)


def select_hands(hands: list[Hand], least: float = MIN_SCORE) -> list[Hand]:
    """Detected hands worth keeping, by falling score: at or above `least`, and each hand once (whatever its side)."""
    kept: list[Hand] = []
    for hand in sorted(hands, key=lambda hand: -hand.score):
        if hand.score >= least and not any(same_hand(hand.keypoints_2d, k.keypoints_2d) for k in kept):
            kept.append(hand)
    return kept


def same_hand(a: Float[np.ndarray, "21 2"], b: Float[np.ndarray, "21 2"]) -> bool:
    """Whether two sets of keypoints (px) lie on one hand, by their outlines alone: the order of the fingers, which a
    mistaken side turns round, plays no part."""
    first, second = (cv2.convexHull(np.asarray(points, np.float32)) for points in (a, b))
    smaller, larger = sorted((cv2.contourArea(first), cv2.contourArea(second)))
    if smaller <= FAR_HAND * larger:  # so too where one is a line
        return False
    common = float(cv2.intersectConvexConvex(first, second)[0])
    return common > SAME_HAND * smaller


def other_sides(points: Sequence[Float[np.ndarray, "21 2"]], right: Sequence[float]) -> list[int]:
    """Which of a photo's hands are rather of the other side than they seem by themselves, with log-odds of ``right``.

    Of two hands beside each other, about as large and seemingly of one side, it is the less sure one, if it is less
    sure than that they are a pair (`PAIR`). ``points``: each hand's keypoints, px.
    """
    boxes = np.array([tight_box(p) for p in points]).reshape(-1, 4)
    extents, centres = (boxes[:, 2:] - boxes[:, :2]).max(-1), (boxes[:, :2] + boxes[:, 2:]) / 2

    def partner(k: int) -> int | None:
        """The nearest hand that may be the other of a pair."""
        apart = np.linalg.norm(centres - centres[k], axis=-1)
        larger, smaller = np.maximum(extents, extents[k]), np.minimum(extents, extents[k])
        fits = (apart <= NEAR * larger) & (larger <= ALIKE * smaller)
        others = [j for j in map(int, np.flatnonzero(fits)) if j != k and not same_hand(points[j], points[k])]
        return min(others, key=lambda j: apart[j], default=None)

    partners = [partner(k) for k in range(len(points))]
    pairs = [(k, j) for k, j in enumerate(partners) if j is not None and k < j and partners[j] == k]
    lesser = [min(pair, key=lambda k: abs(right[k])) for pair in pairs if right[pair[0]] * right[pair[1]] > 0]
    return [k for k in lesser if abs(right[k]) < PAIR]
