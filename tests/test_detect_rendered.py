"""Rendered hands among the detector's training pictures, and training in bfloat16 with them."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from detector_files import make_detector_folder
from test_detect_training import OPTIONS, make_small

from densehand.detect import evaluate
from densehand.detect import train as training
from densehand.detect.compose import Composer
from densehand.detect.data import Picture, decoded
from densehand.detect.rendered import SIZE, render_crops
from densehand.errors import InputError
from densehand.metrics import tight_box

GREEN = (0, 200, 0)


def wall(colour: tuple[int, int, int]) -> Picture:
    """A background of one colour (RGB)."""
    encoded = cv2.imencode(".png", np.full((64, 80, 3), colour[::-1], np.uint8))[1].tobytes()
    return Picture(encoded, "background", [])


@pytest.fixture(scope="module")
def crops() -> list[Picture]:
    return render_crops(40, [wall(GREEN)], seed=3)


def test_the_mask_lies_where_the_keypoints_are_and_the_background_is_shown(crops):
    on_hand, green = [], []
    for crop in crops:
        (hand,) = crop.hands
        assert crop.source == "rendered" and hand.right and hand.side_weight == 1.0 and crop.whole
        image, mask = crop.decode(), decoded(crop.cutout, cv2.IMREAD_GRAYSCALE)
        assert image.shape == (SIZE, SIZE, 3) and mask.shape == (SIZE, SIZE)
        columns, rows = np.clip(hand.keypoints, 0, SIZE - 1).astype(int).T
        on_hand.append((mask[rows, columns] > 127).mean())
        corner = image[:12, :12].reshape(-1, 3).mean(0)
        green.append(corner[1] > 1.3 * max(corner[0], corner[2]))
    assert np.mean(on_hand) > 0.8  # what is held or before a hand hides the rest
    assert np.mean(green) > 0.6


def test_the_seed_makes_the_pictures():
    one, again, other = (render_crops(2, [wall(GREEN)], seed) for seed in (3, 3, 4))
    assert len(one) == 2 and [crop.encoded for crop in one] == [crop.encoded for crop in again]
    assert not any(crop.encoded == crop_of_another.encoded for crop, crop_of_another in zip(one, other, strict=True))


def test_none_are_rendered_unless_asked_for():
    assert render_crops(0, []) == []
    assert render_crops(1, [])[0].decode().shape == (SIZE, SIZE, 3)  # before made-up scenes


def test_they_are_shown_as_left_and_right_hands(crops):
    composer = Composer([], crops, [])
    composer.begin(1)
    sides = [side for _ in range(30) for side in composer.close_up(96).right]
    assert 0.2 < np.mean(sides) < 0.8 and len(sides) >= 25


def test_half_of_those_that_are_measured_on_are_left_hands(crops, monkeypatch):
    monkeypatch.setattr(evaluate, "render_crops", lambda *_: crops[:2])
    right, left = evaluate.rendered_samples([])
    assert right.right.tolist() == [True] and left.right.tolist() == [False]
    for sample, crop in ((right, crops[0]), (left, crops[1])):
        pixels, keypoints = crop.decode(), crop.hands[0].keypoints.copy()
        if sample is left:
            pixels, keypoints[:, 0] = pixels[:, ::-1], SIZE - keypoints[:, 0]
        np.testing.assert_array_equal(sample.image, pixels)
        np.testing.assert_allclose(sample.boxes, tight_box(keypoints)[None], atol=1e-3)


def test_training_with_them_in_bfloat16(tmp_path, monkeypatch):
    make_small(monkeypatch)
    make_detector_folder(tmp_path / "data")
    run = tmp_path / "run"
    net = training.train(tmp_path / "data", run, **OPTIONS, bf16=True, rendered=2)
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in net.state_dict().values())
    assert {k: json.loads((run / "start.json").read_text())[k] for k in ("bf16", "rendered")} == {
        "bf16": True,
        "rendered": 2,
    }
    assert all(np.isfinite(float(v)) for row in list(csv.reader((run / "log.csv").open()))[1:] for v in row)
    with pytest.raises(InputError, match="begun with other bf16, rendered; give the same options"):
        training.train(tmp_path / "data", run, **OPTIONS)
