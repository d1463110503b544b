"""Which crops of a photo are looked at, in which order, and where the network looks again."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import BOX, StandInDetector, any_score

from densehand.camera import Crop, in_plane
from densehand.crops import CropReader, Look
from densehand.detect import Detection, Detector
from densehand.detect.boxes import Candidates
from densehand.hand.keypoints import palm_turn
from densehand.images import read_image
from densehand.photo import HandBox, Photo
from densehand.pipeline import HandEstimator

PHOTO = Path(__file__).resolve().parent.parent.parent / "demo_photos" / "open_palm_1.jpg"


def test_the_sure_side_of_a_detection_needs_one_look(network, image, monkeypatch):
    any_score(monkeypatch)
    estimator = HandEstimator(network, StandInDetector(Detection(np.array(BOX), "right", 0.9, 0.9)), "cpu")
    runs = []
    original = CropReader.run
    monkeypatch.setattr(
        CropReader,
        "run",
        lambda self, photos, crops, *a: runs.append(len(crops)) or original(self, photos, crops, *a),
    )
    estimator(image, side="left")
    assert [n for n in runs if n] == [1]


def test_a_box_beside_its_hand_looks_again_around_the_hand(network, image, monkeypatch):
    """The second look is at the box of the mesh found in the first, beyond the border too."""
    monkeypatch.setattr("densehand.pipeline.MOST_LOOKS", 1)
    any_score(monkeypatch)
    detection = Detection(np.array(BOX), "right", 0.9, 0.9)
    monkeypatch.setattr("densehand.looks.SAME_WINDOW", 0.0)
    (first,) = HandEstimator(network, StandInDetector(detection), "cpu", refine="off")(image, side="right")
    monkeypatch.setattr("densehand.looks.SAME_WINDOW", 1.01)  # no box overlaps this well
    (second,) = HandEstimator(network, StandInDetector(detection), "cpu", refine="off")(image, side="right")
    projected = first.project(first.joints_3d)
    expected = np.concatenate([projected.min(axis=0), projected.max(axis=0)])
    np.testing.assert_allclose(second.box, expected, atol=0.05)
    monkeypatch.setattr("densehand.looks.SAME_WINDOW", 0.0)
    (around,) = HandEstimator(network, device="cpu", refine="off")(
        image, [HandBox(tuple(map(float, second.box)), "right")]
    )
    np.testing.assert_allclose(second.keypoints_2d, around.keypoints_2d, atol=0.05)


def test_of_two_looks_at_a_given_box_the_second_counts_unless_less_sure_of_a_hand(network, image, monkeypatch):
    """It looks again where no crop fits well enough, and the box stays what it was."""
    monkeypatch.setattr("densehand.pipeline.LESS_SURE", 0.1)
    estimator, taken = HandEstimator(network, device="cpu", refine="off"), []
    for x in range(0, 160, 20):
        box = HandBox((20.0 + x, 40.0, 90.0 + x, 150.0), "right")
        monkeypatch.setattr("densehand.looks.SAME_WINDOW", 0.0)
        (first,) = estimator(image, [box])
        points = first.project(first.joints_3d)
        around = tuple(map(float, [*points.min(axis=0), *points.max(axis=0)]))
        crop = Crop.from_box(around)
        with torch.no_grad():
            looks = estimator.crops.run([Photo(image)], [Look(0, Crop.from_box(box.box)), Look(0, crop)])
        monkeypatch.setattr("densehand.looks.SAME_WINDOW", 1.01)
        (second,) = estimator(image, [box])
        taken.append(bool(looks[1].hand > looks[0].hand - 0.1))
        expected = crop.to_image(looks[1].keypoints) if taken[-1] else first.keypoints_2d
        np.testing.assert_allclose(second.keypoints_2d, expected, atol=0.05)
        np.testing.assert_array_equal(second.box, np.float32(box.box))
    assert True in taken and False in taken


def test_an_unknown_side_is_settled_before_it_looks_again(network, image, monkeypatch):
    """What lies where is measured in the orientation of the side found: in the other the network knows no hand."""
    monkeypatch.setattr("densehand.looks.SAME_WINDOW", 1.01)
    looked, original = [], CropReader.run

    def run(self, photos, crops, *rest):
        looked.extend(crop for _, crop, _ in crops)
        return original(self, photos, crops, *rest)

    monkeypatch.setattr(CropReader, "run", run)
    sides = set()
    for x in range(0, 180, 20):
        looked.clear()
        (hand,) = HandEstimator(network, device="cpu", refine="off")(
            image, [HandBox((20.0 + x, 40.0, 90.0 + x, 150.0))]
        )
        straight, turned, again = looked
        assert (straight.mirrored, turned.mirrored) == (False, True) and straight.center == turned.center
        assert again.mirrored == (hand.side == "left") and again.center != straight.center
        sides.add(hand.side)
    assert sides == {"left", "right"}


PLACES = [(20.0, 20.0, 70.0, 80.0), (90.0, 30.0, 140.0, 90.0), (160.0, 100.0, 230.0, 180.0), (30.0, 110.0, 90.0, 190.0)]


def rounds_of(monkeypatch, network, image, scores, hands, closer=0):
    """The places looked at in turn ("whole" for the whole picture) and the hands kept, where the network takes only the
    places `hands` for hands; the last `closer` detections are those of a closer look."""
    looked = []
    original = CropReader.run

    def run(self, photos, crops, *rest):
        names = []
        for _, crop, _ in crops:
            found = [k for k, place in enumerate(PLACES) if Crop.from_box(place).center == crop.center]
            names.append(found[0] if found else "whole")
        looked.append(names)
        answers = original(self, photos, crops, *rest)
        odds = [math.log(99999) * (1 if name in hands else -1) for name in names]
        return [
            dataclasses.replace(answer, hand=o, weight=np.full(21, 0.5))  # of keypoints as likely as not: no witness
            for answer, o in zip(answers, odds, strict=True)
        ]

    monkeypatch.setattr(CropReader, "run", run)
    found = [Detection(np.array(p), "right", 0.9, s) for p, s in zip(PLACES, scores, strict=False)]
    first = len(found) - closer
    detector = StandInDetector(*found[:first], closer=tuple(found[first:]))
    kept = HandEstimator(network, detector, "cpu", refine="off")(image, side="right")
    return [names for names in looked if names], kept


@pytest.mark.parametrize(
    ("scores", "hands", "looks"),
    [
        ((0.9, 0.15), (0, 1), [[0]]),  # a clear hand: nothing else is looked at …
        ((0.9, 0.39, 0.15), (0,), [[0, 1]]),  # … but what is nearly as likely
        ((0.9, 0.39, 0.15), (), [[0, 1], [2], ["whole"]]),  # no crop is looked at twice
        ((0.9, 0.18, 0.15), (1,), [[0], [1, 2]]),
        ((0.9, 0.18, 0.15), ("whole",), [[0], [1, 2], ["whole"]]),
        ((0.3,), (), [[0], ["whole"]]),
        ((), ("whole",), [["whole"]]),
    ],
)
def test_weak_detections_and_the_whole_picture_wait_until_nothing_else_is_a_hand(
    network, image, monkeypatch, scores, hands, looks
):
    found, kept = rounds_of(monkeypatch, network, image, scores, hands)
    assert found == looks
    assert len(kept) == min(len(hands), 1)


@pytest.mark.parametrize(
    ("scores", "hands", "looks"),
    [
        ((0.9, 0.6), (0, 1), [[0]]),  # a hand at first sight: no closer look
        ((0.9, 0.15, 0.6), (2,), [[0], [2]]),
        ((0.9, 0.15, 0.6), (1,), [[0], [2], [1]]),
        ((0.9, 0.15, 0.3), (2,), [[0], [2, 1]]),  # weak ones of both looks, the likeliest first
        ((0.3, 0.6), ("whole",), [[0], ["whole"]]),  # nothing sure: a call has looked closer already
    ],
)
def test_where_all_that_the_detector_is_sure_of_are_no_hands_it_looks_closer(
    network, image, monkeypatch, scores, hands, looks
):
    found, _ = rounds_of(monkeypatch, network, image, scores, hands, closer=1)
    assert found == looks


def test_no_more_than_the_best_few_weak_detections_are_looked_at(network, image, monkeypatch):
    monkeypatch.setattr("densehand.looks.MOST_WEAK", 2)
    found, _ = rounds_of(monkeypatch, network, image, (0.35, 0.3, 0.25, 0.2), ())
    assert found == [[0, 1], ["whole"]]


def test_the_box_of_the_whole_pictures_hand_is_set_around_it_after_looks_again(network, image, monkeypatch):
    any_score(monkeypatch)
    monkeypatch.setattr("densehand.pipeline.MOST_LOOKS", 1)
    monkeypatch.setattr("densehand.looks.SAME_WINDOW", 1.01)
    (hand,) = HandEstimator(network, StandInDetector(), "cpu", refine="off")(image, side="right")
    monkeypatch.setattr("densehand.looks.SAME_WINDOW", 0.0)
    first = HandEstimator(network, device="cpu", refine="off")(image, whole_image=True, side="right")[0]
    projected = first.project(first.joints_3d)
    np.testing.assert_allclose(hand.box, [*projected.min(axis=0), *projected.max(axis=0)], atol=0.1)


def looks_of(monkeypatch, score: float, extent: float) -> list[int]:
    """How many windows each look of a detector has that always finds a hand of this score and size, as they come."""
    looks = []

    def look(self, picture, windows):
        looks.append(len(windows))
        box = np.float32([[10, 10, 10 + extent, 60]])
        return Candidates(box, np.float32([score]), np.float32([0.9]), np.float32([[0, 0]]))

    monkeypatch.setattr(Detector, "_look", look)
    return looks


@pytest.mark.parametrize(
    ("score", "extent", "looked"),
    [(0.2, 200, [1, 1, 9]), (0.5, 200, [1]), (0.5, 74, [1, 9]), (0.5, 76, [1]), (0.2, 74, [1, 1, 9])],
)
def test_the_detector_looks_again_unless_something_is_sure_and_closer_where_that_is_small(
    monkeypatch, score, extent, looked
):
    """A low threshold, for proposals, does not do away with the looks again."""
    looks = looks_of(monkeypatch, score, extent)
    found = Detector(torch.nn.Identity(), threshold=0.1)(np.zeros((500, 500, 3), np.uint8))
    assert looks == looked
    assert all(detection.score == pytest.approx(score) for detection in found) and found


@pytest.mark.parametrize(
    ("zoom", "score", "extent", "side", "looked"),
    [
        ("auto", 0.5, 200, 500, [1, 9]),
        ("auto", 0.5, 74, 500, [1, 9]),  # the call itself looks closer
        ("auto", 0.2, 200, 500, [1, 1, 9]),
        ("always", 0.5, 200, 500, [1, 9]),
        ("auto", 0.5, 200, 300, [1]),
        ("never", 0.5, 200, 500, [1]),
    ],
)
def test_no_photo_is_looked_at_closer_twice(monkeypatch, zoom, score, extent, side, looked):
    looks, photo = looks_of(monkeypatch, score, extent), np.zeros((side, side, 3), np.uint8)
    detector = Detector(torch.nn.Identity(), threshold=0.1, zoom=zoom)
    first = detector(photo)
    by_itself = len(looks)
    found = detector.look_closer(photo, first)
    assert looks == looked and len(found) == len(looks) - by_itself


def test_a_hand_found_in_the_whole_picture_has_a_box_of_its_own(network, image, monkeypatch):
    """Where the detector finds nothing, the picture is the crop, but no hand's box."""
    any_score(monkeypatch)
    (hand,) = HandEstimator(network, StandInDetector(), "cpu", refine="off")(image, side="right")
    tight = np.concatenate([hand.keypoints_2d.min(axis=0), hand.keypoints_2d.max(axis=0)])
    np.testing.assert_allclose(hand.box, tight, atol=1e-3)


def test_one_photo_is_estimated_without_torchs_compiler():
    """It comes with `roma`, takes two seconds to load, and nothing of it is needed."""
    code = (
        "import sys, numpy, densehand; densehand.load('dhpe-lite', device='cpu')(numpy.zeros((64, 64, 3), 'uint8'), "
        "[(8, 8, 56, 56)]); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("options", [{}, {"consensus": True}, {"refine": "fast"}, {"refine": 2}], ids=str)
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_hand_that_lies_turned_is_looked_at_upright(quarters, options):
    """So a turned photo's hand is the upright one's, turned: in 2D and in 3D, found or given."""
    upright = read_image(PHOTO)
    estimator = HandEstimator(device="cpu", **{"refine": "off", **options})
    (plain,) = estimator(upright)
    turned = np.rot90(upright, -quarters).copy()
    turn, corner = in_plane(quarters * math.pi / 2), np.array(upright.shape[1::-1]) / 2
    expected = (plain.keypoints_2d - corner) @ turn.T + np.array(turned.shape[1::-1]) / 2
    size = np.ptp(plain.keypoints_2d, axis=0).max()
    around = np.eye(3)
    around[:2, :2] = turn
    (found,) = estimator(turned)
    (given,) = estimator(turned, [HandBox(tuple(map(float, [*expected.min(axis=0), *expected.max(axis=0)])))])
    for hand in (found, given):
        assert hand.side == plain.side
        assert np.abs(hand.keypoints_2d - expected).max() < 0.03 * size
        assert np.abs(hand.joints_3d - plain.joints_3d @ around.T).max() < 0.02


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_turn_that_the_detector_knows_is_turned_back_at_once(network, image, monkeypatch, side):
    """Of a left hand's crop, which is mirrored, the other way round; a small one not at all."""
    any_score(monkeypatch)
    looked, original = [], CropReader.run

    def run(self, photos, crops, *rest):
        looked.extend(crops)
        return original(self, photos, crops, *rest)

    monkeypatch.setattr(CropReader, "run", run)
    for turn, expected in ((None, 0.0), (math.radians(25), 0.0), (2.0, 2.0)):
        detection = Detection(np.array(BOX), side, 0.99, 0.9, turn)
        looked.clear()
        HandEstimator(network, StandInDetector(detection), "cpu", refine="off")(image, side=side)
        assert looked[0].turn == (expected if side == "right" else -expected)


def test_the_turn_of_a_palm():
    """From the wrist to the fingers' knuckles, clockwise from upright; of a palm seen end on nobody knows."""
    points = np.zeros((21, 2))
    points[[5, 9, 13, 17]] = [[-0.2, -1], [0, -1], [0.1, -1], [0.1, -1]]
    for angle in (-3.0, -1.0, 0.0, 0.5, 2.0):
        turned = points @ in_plane(angle).T
        assert palm_turn(turned) == pytest.approx(angle)
        assert palm_turn(torch.from_numpy(turned)[None]).item() == pytest.approx(angle)
    points[8] = [0, -8]  # a finger eight times as long as the palm seen
    assert np.isnan(palm_turn(points)) and palm_turn(torch.from_numpy(points)).isnan()
    assert np.isnan(palm_turn(np.zeros((21, 2))))
