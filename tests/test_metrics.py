"""Error measures against values worked out by hand and naive loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from densehand.metrics import box_iou, keypoint_error, mask_iou, pa_mpjpe, pck, procrustes_align, root_relative_error


def test_keypoint_error_by_hand_and_hidden_ones_are_nan():
    error = keypoint_error(np.array([[0.0, 0], [3, 4]]), np.zeros((2, 2)), np.array([True, True]))
    assert error.tolist() == [0, 5]
    assert np.isnan(keypoint_error(np.ones((1, 2)), np.zeros((1, 2)), np.array([False]))).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_alignment_undoes_any_similarity(seed):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(21, 3))
    moved = rng.uniform(0.1, 5) * target @ Rotation.random(random_state=seed).as_matrix().T + rng.normal(size=3)
    assert pa_mpjpe(moved, target) < 1e-9


def test_alignment_does_not_mirror():
    target = np.random.default_rng(0).normal(size=(21, 3))
    assert pa_mpjpe(target * (-1, 1, 1), target) > 0.3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_alignment_is_the_best_similarity(seed):
    """No small change of the aligned points' scale, turn or place brings them closer."""
    rng = np.random.default_rng(seed)
    predicted, target = rng.normal(size=(2, 21, 3))
    aligned = procrustes_align(predicted, target)
    best = ((aligned - target) ** 2).sum()
    for _ in range(10):
        turn = Rotation.from_rotvec(rng.normal(size=3) * 0.05).as_matrix()
        other = (1 + 0.05 * rng.normal()) * (aligned - aligned.mean(0)) @ turn.T + aligned.mean(0)
        assert ((other - target) ** 2).sum() >= best - 1e-9


def test_a_collapsed_prediction_is_only_moved():
    target = np.random.default_rng(0).normal(size=(21, 3))
    expected = np.linalg.norm(target - target.mean(0), axis=1).mean()
    assert pa_mpjpe(np.zeros((21, 3)), target) == pytest.approx(expected)


def test_root_relative_by_hand():
    predicted, target = np.zeros((3, 3)), np.zeros((3, 3))
    predicted[:, 0], target[2] = 7, (0, 0, 3)
    assert root_relative_error(predicted, target) == pytest.approx(1.0)


def test_pck_by_hand():
    assert pck(np.array([1.0, 2, 3, np.nan]), np.array([0, 1, 2.5, 3])).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert np.isnan(pck(np.array([np.nan]), np.array([1.0]))).all()


def test_mask_iou_by_hand():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) == 1
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(4 / 12)


def naive_box_iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0


def test_box_iou_equals_a_loop():
    rng = np.random.default_rng(0)
    boxes = [np.sort(rng.uniform(0, 10, (n, 2, 2)), axis=1).reshape(n, 4) for n in (7, 5)]
    expected = [[naive_box_iou(a, b) for b in boxes[1]] for a in boxes[0]]
    np.testing.assert_allclose(box_iou(*boxes), expected)
    assert box_iou([[0, 0, 0, 0]], [[0, 0, 0, 0]]).tolist() == [[0]]
