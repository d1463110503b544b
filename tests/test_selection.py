"""Which of the hands found in a photo are kept (weak ones and duplicates are not), and what is a pair."""

import dataclasses

import cv2
import numpy as np
import pytest
from hands import make_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.selection import ALIKE, FAR_HAND, NEAR, PAIR, SAME_HAND, other_sides, same_hand, select_hands


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


def hand_at(x: float, y: float = 0.0, extent: float = 100.0) -> np.ndarray:
    """Keypoints all over a square around a point."""
    return np.random.default_rng(7).permuted(np.linspace([-0.5] * 2, [0.5] * 2, 21), axis=0) * extent + [x, y]


@pytest.mark.parametrize(
    ("hands", "right", "others"),
    [
        ([hand_at(0), hand_at(150)], [5, 1], [1]),
        ([hand_at(0), hand_at(150)], [-1, -5], [0]),
        ([hand_at(0), hand_at(150)], [5, -1], []),  # a pair already
        ([hand_at(0), hand_at(150)], [5, PAIR + 0.01], []),  # both are sure
        ([hand_at(0), hand_at(NEAR * 100 + 1)], [5, 1], []),
        ([hand_at(0), hand_at(0, NEAR * 100 - 1)], [5, 1], [1]),
        ([hand_at(0), hand_at(150, extent=100 / ALIKE - 1)], [5, 1], []),  # of two people
        ([hand_at(0), hand_at(3)], [5, 1], []),  # one hand twice
        ([hand_at(0), hand_at(150), hand_at(280)], [1, 5, 4], []),  # the two on the right are nearer to each other
        ([hand_at(0), hand_at(120), hand_at(280)], [1, 5, 1], [0]),
        ([hand_at(0), hand_at(120), hand_at(900), hand_at(1000)], [5, 1, -2, -1], [1, 3]),
        ([hand_at(0), hand_at(150)], [5, float("nan")], []),
        ([hand_at(0), hand_at(150) * float("nan")], [5, 1], []),
        ([hand_at(0)], [1], []),
        ([], [], []),
    ],
)
def test_of_two_hands_of_one_side_beside_each_other_the_doubtful_one_is_the_other(hands, right, others):
    assert other_sides(hands, right) == others


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6))
def test_pairs_hang_on_neither_order_nor_side_nor_size(seed, count):
    random = np.random.default_rng(seed)
    hands = [hand_at(*random.uniform(0, 500, 2), random.uniform(60, 200)) for _ in range(count)]
    right, order = random.normal(0, 3, count), random.permutation(count)
    found = other_sides(hands, right)
    assert all(abs(right[k]) < PAIR for k in found)
    assert other_sides(hands, -right) == found
    assert other_sides([3 * hand + 7 for hand in hands], right) == found
    shuffled = other_sides([hands[k] for k in order], [right[k] for k in order])
    assert sorted(int(order[k]) for k in shuffled) == sorted(found)
