"""Which of the hands found in a photo are kept: weak ones and duplicates."""

import dataclasses

import cv2
import numpy as np
from hands import make_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.selection import FAR_HAND, SAME_HAND, same_hand, select_hands


def test_duplicates_and_weak_hands_are_dropped():
    a = make_hand("right", score=0.9)
    twin = dataclasses.replace(make_hand("left", score=0.8), keypoints_2d=a.keypoints_2d + 3)
    within = make_hand("right", pixels=70, center=tuple((a.box[:2] + a.box[2:]) / 2), score=0.7)
    apart = make_hand("left", center=(250, 60), score=0.5)
    weak = make_hand("left", center=(60, 200), score=0.1)
    kept = select_hands([weak, twin, apart, within, a])
    assert kept == [a, apart]
    assert select_hands([weak, a], 0.05) == [a, weak]


def drawn_overlap(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Areas of both hulls and of what they share, counted in sixteenths of a pixel."""
    pictures = []
    for points in (a, b):
        hull = cv2.convexHull((points * 4).round().astype(np.int32))
        pictures.append(cv2.fillConvexPoly(np.zeros((800, 800), np.uint8), hull, 1) > 0)
    return pictures[0].sum(), pictures[1].sum(), (pictures[0] & pictures[1]).sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 90), st.floats(0, 90), st.floats(0.1, 1))
def test_one_hand_twice_is_told_by_the_outlines_alone(seed, dx, dy, scale):
    random = np.random.default_rng(seed)
    a = random.uniform(50, 150, (21, 2))
    b = (random.uniform(50, 150, (21, 2)) - 100) * scale + 100 + [dx, dy]
    area_a, area_b, common = drawn_overlap(a, b)
    share, ratio = common / min(area_a, area_b), min(area_a, area_b) / max(area_a, area_b)
    if abs(share - SAME_HAND) > 0.05 and abs(ratio - FAR_HAND) > 0.02:
        expected = share > SAME_HAND and ratio > FAR_HAND
        assert same_hand(a, b) == same_hand(b, a) == same_hand(a, b[::-1]) == expected


def test_points_without_an_outline_are_no_duplicates():
    line = np.linspace([10, 10], [50, 50], 21)
    assert not same_hand(line, line) and not same_hand(np.full((21, 2), 7.0), line)
