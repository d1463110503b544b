"""Measuring on fixtures: the figures of an estimator that knows the truth, and files that are not fixtures."""

import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from densehand.errors import InputError
from densehand.evaluate import append_rows, by_source, measure, read_fixture, tight_box

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(20, 80, (21, 2))
JOINTS = RNG.normal(0, 40, (21, 3)) + (0, 0, 500)


@pytest.fixture
def folder(tmp_path):
    cv2.imwrite(str(tmp_path / "hand.png"), np.zeros((100, 100, 3), np.uint8))
    row = {"image": "hand.png", "source": "drawn", "side": "left", "keypoints_px": TRUTH.tolist()}
    visible = [True] * 20 + [False]
    (tmp_path / "val2d.jsonl").write_text(json.dumps({**row, "visible": visible}) + "\n")
    (tmp_path / "val3d.jsonl").write_text(json.dumps({**row, "joints_mm": JOINTS.tolist()}) + "\n\n")
    return tmp_path


def estimator_that_is_off_by(pixels, metres=0.0):
    """An estimator that knows the fixture, moved right and with one joint pulled."""
    joints = (JOINTS - JOINTS[0]) / 1000
    joints[5, 0] += metres
    hand = SimpleNamespace(
        keypoints_2d=TRUTH + (pixels, 0), joints_3d=joints, side="left", project=lambda points: TRUTH + (2 * pixels, 0)
    )
    return lambda image, boxes: [hand]


def test_errors_are_in_pixels_of_a_224_crop(folder):
    (result,) = measure(estimator_that_is_off_by(2.0), folder, "val2d.jsonl")
    box = tight_box(result.row)
    side = max(box[2] - box[0], box[3] - box[1]) * 1.5
    assert result.error_px.shape == (20,), "hidden keypoints are not measured"
    np.testing.assert_allclose(result.error_px, 2.0 * 224 / side)
    np.testing.assert_allclose(result.mesh_px, 4.0 * 224 / side)
    assert result.pa_mm is None and result.side_right is True


def test_3d_errors_are_in_millimetres(folder):
    (result,) = measure(estimator_that_is_off_by(0.0, metres=0.021), folder, "val3d.jsonl")
    assert result.root_mm == pytest.approx(1.0), "21 mm at one of 21 joints"
    assert 0.5 < result.pa_mm <= 21 / 21**0.5, "alignment can only lower the root mean square"
    (perfect,) = measure(estimator_that_is_off_by(0.0), folder, "val3d.jsonl")
    assert perfect.pa_mm < 1e-6


def test_summary_by_source(folder):
    groups = by_source(measure(estimator_that_is_off_by(1.0), folder, "val3d.jsonl"))
    assert set(groups) == {"all", "drawn"} and groups["all"] == groups["drawn"]
    assert groups["all"]["hands"] == 1 and groups["all"]["side_right"] == 1.0


def test_files_that_are_no_fixtures(tmp_path):
    with pytest.raises(InputError, match=r"val2d\.jsonl: no such fixture"):
        read_fixture(tmp_path, "val2d.jsonl")
    for text, message in (("{", "not JSON"), ('{"keypoints_px": [[1, 2]]}', "21×2")):
        (tmp_path / "val2d.jsonl").write_text(text)
        with pytest.raises(InputError, match=message):
            read_fixture(tmp_path, "val2d.jsonl")


def test_results_files_grow_and_may_gain_columns(tmp_path):
    path = tmp_path / "results.csv"
    append_rows(path, [{"a": 1}])
    append_rows(path, [{"a": 2, "b": 3}])
    with path.open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [{"a": "1", "b": ""}, {"a": "2", "b": "3"}]
