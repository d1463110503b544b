"""Full photos: what counts as found, missed, twice and false, and tools/measure_end_to_end.py, which measures it."""

import csv
import itertools
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_loader import load_tool

from densehand.detect.data import LabelledHand, Picture
from densehand.errors import DependencyError
from densehand.evaluation.end_to_end import (
    Found,
    LabelledPhoto,
    Tally,
    Verdict,
    cut,
    match_hands,
    spread,
    without_hands,
)
from densehand.metrics import box_iou, tight_box

tool = load_tool("measure_end_to_end")
UNIT = np.random.default_rng(0).uniform(0, 1, (21, 2))
UNIT = ((UNIT - UNIT.min(0)) / np.ptp(UNIT, axis=0)).astype(np.float32)


def points(x: float, y: float, size: float) -> np.ndarray:
    return UNIT * size + np.float32([x, y])


def case(*hands: np.ndarray, ignore=(), complete: bool = True):
    return LabelledPhoto(
        np.zeros((200, 300, 3), np.uint8),
        np.array(hands, np.float32).reshape(-1, 21, 2),
        np.array([k % 2 == 0 for k in range(len(hands))], bool),
        np.array(ignore, np.float32).reshape(-1, 4),
        complete,
    )


def found(*hands: np.ndarray, side: str = "right"):
    return [Found(hand, side) for hand in hands]


def test_each_output_is_one_of_found_twice_unknown_and_false():
    a, b = points(10, 10, 80), points(150, 20, 60)
    outputs = found(a + 15, b + 2, a + 1, points(40, 40, 20), points(220, 140, 40), points(20, 150, 40))
    photo = case(a, b, ignore=[(10, 140, 80, 199)])
    verdict = match_hands(photo, outputs)
    assert sorted(verdict.pairs) == [(0, 2), (1, 1)]  # the nearer one answers
    assert verdict.duplicates == [0, 3]  # beside the better answer; within the hand
    assert verdict.false_alarms == [4]  # the last lies where nobody labelled
    assert match_hands(case(a, b, complete=False), outputs).false_alarms == []
    assert match_hands(photo, []) == Verdict([], [], [])
    assert match_hands(case(), outputs[:1]).false_alarms == [0]


def test_keypoints_that_are_not_labelled_play_no_part():
    truth = points(10, 10, 80)
    truth[5:] = np.nan
    output = points(10, 10, 80)
    output[5:] += 500
    photo = case(truth)
    assert match_hands(photo, found(output)).pairs == [(0, 0)]
    tally = Tally()
    tally.add(photo, found(output), None)
    assert tally.errors == [0.0] and tally.missed == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(0, 3))
def test_best_pairs_first_whatever_the_order(seed, hands, outputs):
    """Against the naive way: the best free pair, again and again, among all of them."""
    random = np.random.default_rng(seed)
    truth = [points(*random.uniform(0, 100, 2), random.uniform(30, 90)) for _ in range(hands)]
    answers = [points(*random.uniform(0, 100, 2), random.uniform(30, 90)) for _ in range(outputs)]
    verdict = match_hands(case(*truth), found(*answers))
    rated = []
    for h, o in itertools.product(range(hands), range(outputs)):
        rated.append((float(box_iou(tight_box(answers[o])[None], tight_box(truth[h])[None])[0, 0]), h, o))
    expected = []
    for overlap, h, o in sorted(rated, reverse=True):
        if overlap >= 0.3 and all(h != x and o != y for x, y in expected):
            expected.append((h, o))
    assert sorted(verdict.pairs) == sorted(expected)
    told = [o for _, o in verdict.pairs] + verdict.duplicates + verdict.false_alarms
    assert sorted(told) == list(range(outputs))


def test_a_tally_counts_and_averages():
    tally = Tally()
    a, b = points(10, 10, 80), points(150, 20, 50)
    tally.add(case(a, b), found(a + np.float32([8, 0]), points(100, 150, 40)), 30.0)
    tally.add(case(), found(points(0, 0, 40)), 10.0)
    tally.add(case(a), found(a, side="left"), 20.0)
    assert tally.row() == {
        "pictures": 3, "hands": 3, "missed": 1, "duplicates": 0, "false_alarms": 2, "right_side": 0.5,
        "error_median": 5.0, "error_mean": 5.0, "cpu_ms": 20.0,
    }  # fmt: skip
    tally.add(case(a, complete=False), [], None)
    assert tally.row()["false_alarms"] == "" and tally.row()["missed"] == 2
    assert set(Tally().row().values()) == {0, ""}


def encoded(image: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def test_pictures_cut_to_a_hand_carry_its_labels_along():
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    picture = Picture(encoded(image), "x", [LabelledHand(points(40, 30, 50), True)], [np.float32([0, 0, 20, 20])])
    part = cut(picture, 0.1)
    assert part.image.shape == (60, 60, 3)
    np.testing.assert_array_equal(part.image, image[25:85, 35:95])
    np.testing.assert_allclose(part.keypoints[0], points(5, 5, 50), atol=1e-4)
    np.testing.assert_array_equal(part.ignore, [[-35, -25, -15, -5]])
    assert cut(picture, 5.0).image.shape == image.shape
    assert without_hands(picture) is None  # no strip is wide enough
    wide = np.concatenate([image, image, image], axis=1)
    strip = without_hands(Picture(encoded(wide), "x", picture.hands))
    np.testing.assert_array_equal(strip.image, wide[:, 106:])  # the box ends at 90, grown by a third of 50
    assert len(strip.keypoints) == 0 and without_hands(Picture(encoded(wide), "x", [])) is None


def test_a_few_of_each_set_evenly_and_always_the_same():
    assert spread(list(range(5)), 9) == [0, 1, 2, 3, 4]
    assert spread(list(range(10)), 4) == [0, 2, 5, 7]


def test_mediapipe_answers_through_a_python_of_its_own(tmp_path):
    answer = {"hands": [{"keypoints_2d": points(1, 2, 30).tolist(), "side": "left"}]}
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!{sys.executable}\nimport pathlib, sys\n"
        "pictures = sorted(pathlib.Path(sys.argv[2]).glob('*.png'))\n"
        f"pathlib.Path(sys.argv[4]).write_text(({json.dumps(answer)!r} + '\\n') * len(pictures))\n"
    )
    stand_in.chmod(0o755)
    answers = list(tool.by_mediapipe(stand_in, [case(), case()]))
    assert len(answers) == 2 and answers[0][0][0].side == "left" and answers[0][1] is None
    np.testing.assert_allclose(answers[1][0][0].keypoints, points(1, 2, 30), atol=1e-5)
    stand_in.write_text("#!/bin/sh\necho no module >&2; exit 1\n")
    with pytest.raises(DependencyError, match="no module"):
        list(tool.by_mediapipe(stand_in, [case()]))


def test_rows_and_pictures_of_what_went_wrong(shared_dir, tmp_path):
    options = ["--count", "2", "--only", "backgrounds", "--refine", "off", "--what", "test"]
    tool.main(["--data", str(shared_dir), *options, "--csv", str(tmp_path / "rows.csv"), "--sheets", str(tmp_path)])
    (row,) = csv.DictReader((tmp_path / "rows.csv").open(newline=""))
    assert row["set"] == "backgrounds without hands" and row["pictures"] == "2" and row["hands"] == "0"
    assert (tmp_path / "densehand_backgrounds_without_hands.png").is_file() == (row["false_alarms"] != "0")
