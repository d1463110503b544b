"""The detector's training pictures: composites, cut-out hands, the splits and the reading of a data folder."""

import cv2
import numpy as np
import pytest
from detector_files import SKIN, drawn_composer, encode, hand_drawing, make_detector_folder

from densehand.data.held_back import DETECTOR
from densehand.detect import compose
from densehand.detect.compose import Composer
from densehand.detect.data import (
    GUARD,
    LabelledHand,
    Picture,
    cut_out,
    is_for_training,
    read_backgrounds,
    read_crops,
    read_frames,
    visible_rectangle,
)
from densehand.detect.plane import similarity, transform
from densehand.errors import InputError
from densehand.metrics import tight_box


@pytest.fixture(scope="module")
def composer():
    return drawn_composer()


def test_similarity_carries_its_anchor_to_its_target_and_keeps_shapes():
    anchor, target = np.array([3.0, 4.0]), np.array([50.0, 60.0])
    for mirror in (False, True):
        matrix = similarity(anchor, target, 2.0, 0.7, mirror)
        np.testing.assert_allclose(transform(matrix, anchor[None])[0], target, atol=1e-4)
        assert np.linalg.det(matrix[:, :2]) == pytest.approx(-4.0 if mirror else 4.0, rel=1e-5)


def test_examples_are_well_formed(composer):
    seen = 0
    for _ in range(60):
        example = composer(96)
        assert example.image.shape == (96, 96, 3) and example.image.dtype == np.uint8
        n = len(example.boxes)
        assert len(example.right) == len(example.side_weight) == len(example.keypoints) == n
        assert np.all(example.boxes[:, 2:] - example.boxes[:, :2] >= 0)
        for box, keypoints in zip(example.boxes, example.keypoints, strict=True):
            np.testing.assert_array_equal(box, tight_box(keypoints))
            centre = (box[:2] + box[2:]) / 2
            assert np.all((centre >= 0) & (centre < 96))
        seen += n
    assert seen > 30


def test_labels_lie_where_the_hand_was_painted(composer, monkeypatch):
    """Keypoints must follow the pixels through scaling, turning, mirroring and reduced decoding."""
    monkeypatch.setattr(compose, "recolour", lambda image, random: image)
    picture = composer.frames["subhih"][0]
    checked = 0
    for scale, angle in ((0.3, 0.4), (0.6, -2.0), (1.0, 3.0), (1.7, 1.0)):
        for kind in ("picture", "hand"):
            scene = composer._background(256)
            scene.image[:] = (60, 90, 60)
            anchor = picture.hands[0].keypoints.mean(0)
            composer._paste(scene, picture, anchor, np.array([128.0, 128.0]), scale, angle, kind)
            (hand,) = scene.hands
            straight = similarity(anchor, np.array([128.0, 128.0]), scale, angle, False)
            mirrored = not np.allclose(transform(straight, picture.hands[0].keypoints), hand.keypoints, atol=1e-2)
            assert hand.right is not mirrored
            # the painted hand's pixels against those the labels would paint
            painted = np.abs(scene.image.astype(int) - SKIN).sum(2) < 120
            expected = np.zeros((256, 256), np.uint8)
            for finger in range(5):
                chain = hand.keypoints[[0, *range(1 + 4 * finger, 5 + 4 * finger)]]
                thickness = max(round(14 * scale), 1)
                cv2.polylines(expected, [np.round(chain - 0.5).astype(np.int32)], False, 1, thickness)
            union, common = (painted | (expected > 0)).sum(), (painted & (expected > 0)).sum()
            assert common / union > 0.6, (scale, angle, kind)
            checked += 1
    assert checked == 8


def test_covered_hands_are_not_to_be_found(composer):
    scene = composer._background(256)
    picture = composer.frames["subhih"][0]
    composer._paste(scene, picture, np.array([128.0, 128.0]), np.array([128.0, 128.0]), 0.8, 0.0)
    assert len(scene.hands) == 1
    alpha = np.zeros((256, 256), np.uint8)
    composer._blend(scene, scene.image.copy(), alpha)
    assert len(scene.hands) == 1
    alpha[:] = 255
    composer._blend(scene, scene.image.copy(), alpha)
    assert scene.hands == [] and scene.ignore == []


def test_grabcut_finds_a_hand_before_a_plain_wall():
    image, keypoints = hand_drawing()
    noise = np.random.default_rng(0).integers(-8, 9, image.shape)
    mask = cut_out(np.clip(image + noise, 0, 255).astype(np.uint8), keypoints)
    truth = np.abs(image.astype(int) - SKIN).sum(2) == 0
    assert mask is not None
    assert (truth & (mask > 127)).sum() / (truth | (mask > 127)).sum() > 0.75


def test_black_bars_are_found():
    image, _ = hand_drawing()
    image[:, :40] = 0
    image[200:] = 0
    x0, y0, x1, y1 = visible_rectangle(image)
    assert abs(x0 - 40) <= 4 and y0 == 0 and x1 == 256 and abs(y1 - 200) <= 4


def test_the_splits_are_apart():
    held, kept = ({i for i in range(2000) if rule(i)} for rule in (DETECTOR.held_back, is_for_training))
    assert held and kept and not held & kept
    assert all(abs(i - j) > GUARD or i == j for i in sorted(held)[:50] for j in kept if abs(i - j) < 10)
    assert 0.1 < len(held) / 2000 < 0.15


def test_reading_a_data_folder(tmp_path):
    path, keypoints = tmp_path, make_detector_folder(tmp_path)
    training_frames, held_frames = read_frames(path, False), read_frames(path, True)
    assert len(training_frames) == len(held_frames) == 2
    (hand,) = training_frames[0].hands
    np.testing.assert_allclose(hand.keypoints, keypoints, atol=0.01)
    assert not hand.right and hand.side_weight == pytest.approx(0.8)
    (ignored,) = training_frames[0].ignore  # the box with the teacher's hand inside is accounted for
    assert ignored.tolist() == [0, 0, 20, 20]
    assert len(read_crops(path, False)) == 2 and read_crops(path, True)[0].whole
    assert len(read_backgrounds(path, False)) == len(read_backgrounds(path, True)) == 1
    with pytest.raises(InputError, match="label file"):
        read_frames(path / "elsewhere", False)


def test_a_cut_out_hand_is_the_same_whichever_were_cut_before_it():
    image, keypoints = hand_drawing()
    noisy = np.clip(image + np.random.default_rng(0).integers(-40, 41, image.shape), 0, 255).astype(np.uint8)
    pictures = [Picture(encode(noisy), "asl1728", [LabelledHand(keypoints, True)]) for _ in range(4)]
    composer = Composer([], pictures, [])
    masks = [composer._cutout_mask(picture) for picture in pictures]
    assert 0.05 < (masks[0] > 127).mean() < 0.6
    assert all(np.array_equal(masks[0], mask) for mask in masks[1:])
