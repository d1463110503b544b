"""Alignment, root-relative and scaled errors and F-scores: by hand, naive twins, and what they may not depend on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from densehand.errors import InputError
from densehand.metrics import (
    MIDDLE_PROXIMAL,
    WRIST_TO_MIDDLE,
    bone_ratio,
    f_scores,
    fit_similarity,
    pa_mpjpe,
    pa_mpvpe,
    procrustes_align,
    root_relative_error,
    scaled_error,
)

SEEDS = st.integers(0, 10_000)


def any_similarity(seed):
    """A function that turns, scales and moves points."""
    rng = np.random.default_rng(seed)
    turn, scale, move = Rotation.random(random_state=seed).as_matrix(), rng.uniform(0.1, 5), rng.normal(size=3)
    return lambda points: scale * points @ turn.T + move


# ---- alignment


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_alignment_undoes_any_similarity(seed):
    target = np.random.default_rng(seed).normal(size=(21, 3))
    assert pa_mpjpe(any_similarity(seed)(target), target) < 1e-9


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_aligned_error_ignores_where_the_prediction_is_and_scales_with_the_target(seed):
    predicted, target = np.random.default_rng(seed).normal(size=(2, 21, 3))
    error = pa_mpjpe(predicted, target)
    assert pa_mpjpe(any_similarity(seed + 1)(predicted), target) == pytest.approx(error)
    assert pa_mpjpe(predicted, 3 * target + 7) == pytest.approx(3 * error)
    assert 0 <= error <= np.linalg.norm(target - target.mean(0), axis=1).mean() * 21**0.5


def test_alignment_does_not_mirror():
    target = np.random.default_rng(0).normal(size=(21, 3))
    assert pa_mpjpe(target * (-1, 1, 1), target) > 0.3


@settings(max_examples=10, deadline=None)
@given(SEEDS)
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


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_aligned_errors_are_freihands_where_it_does_not_mirror(seed):
    """FreiHAND's alignment written out: both normalised, orthogonal Procrustes, scaled back."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(21, 3))
    predicted = any_similarity(seed)(target + 0.2 * rng.normal(size=(21, 3)))
    t, p = target - target.mean(0), predicted - predicted.mean(0)
    rotation, scale = orthogonal_procrustes(t / np.linalg.norm(t), p / np.linalg.norm(p))
    assert np.linalg.det(rotation) > 0
    twin = p / np.linalg.norm(p) @ rotation.T * scale * np.linalg.norm(t) + target.mean(0)
    assert pa_mpjpe(predicted, target) == pytest.approx(np.linalg.norm(twin - target, axis=1).mean())


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_a_similarity_fitted_to_joints_carries_the_vertices(seed):
    rng = np.random.default_rng(seed)
    joints, vertices = rng.normal(size=(21, 3)), rng.normal(size=(50, 3))
    move = any_similarity(seed)
    np.testing.assert_allclose(fit_similarity(joints, move(joints))(vertices), move(vertices), atol=1e-9)


def test_a_collapsed_prediction_is_only_moved():
    target = np.random.default_rng(0).normal(size=(21, 3))
    expected = np.linalg.norm(target - target.mean(0), axis=1).mean()
    assert pa_mpjpe(np.zeros((21, 3)), target) == pytest.approx(expected)


def test_aligned_vertex_error_by_hand():
    """A square on a plane; the target's corners are lifted in turn, which no similarity undoes."""
    square = np.array([[1.0, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]])
    target = square + np.array([[0, 0, 1.0], [0, 0, -1], [0, 0, 1], [0, 0, -1]])
    # The z of the target is uncorrelated with the square, so scale = 1, no turn, and each corner is 1 away.
    assert pa_mpvpe(7 * square + 3, target) == pytest.approx(1.0)


# ---- root-relative and scaled


def test_root_relative_by_hand():
    predicted, target = np.zeros((3, 3)), np.zeros((3, 3))
    predicted[:, 0], target[2] = 7, (0, 0, 3)
    assert root_relative_error(predicted, target) == pytest.approx(1.0)
    assert root_relative_error(predicted, target, root=2) == pytest.approx(2.0)


def test_scaled_error_by_hand():
    target = np.zeros((21, 3))
    target[9], target[10], target[12] = (0, 2, 0), (0, 5, 0), (0, 6, 0)
    predicted = target.copy()
    predicted[10], predicted[12] = (0, 3, 0), (0, 3, 0)
    assert WRIST_TO_MIDDLE == (0, 9) and MIDDLE_PROXIMAL == (9, 10)
    assert scaled_error(10 * predicted + 5, target) == pytest.approx((2 + 3) / 21)
    # 9→10 is 1 long, should be 3: keypoint 9 at 6, 10 and 12 at 9
    assert scaled_error(10 * predicted + 5, target, bone=MIDDLE_PROXIMAL) == pytest.approx((4 + 4 + 3) / 21)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0.01, 100), st.integers(0, 20))
def test_scaled_error_equals_a_loop_and_ignores_size_and_place(seed, scale, root):
    rng = np.random.default_rng(seed)
    predicted, target = rng.normal(size=(2, 21, 3))
    ratio = np.linalg.norm(target[9] - target[0]) / np.linalg.norm(predicted[9] - predicted[0])
    expected = 0.0
    for p, t in zip(predicted, target, strict=True):
        expected += np.linalg.norm((p - predicted[root]) * ratio - (t - target[root])) / 21
    assert scaled_error(predicted, target, root) == pytest.approx(expected)
    assert scaled_error(scale * predicted + rng.normal(size=3), target, root) == pytest.approx(expected)


def test_a_hand_without_its_reference_bone_cannot_be_scaled():
    with pytest.raises(InputError, match="predicted: keypoints 0 and 9 coincide"):
        scaled_error(np.ones((21, 3)), np.random.default_rng(0).normal(size=(21, 3)))
    assert bone_ratio(np.ones((21, 3)), np.eye(21, 3)) is None
    assert bone_ratio(2 * np.eye(21, 3), 3 * np.eye(21, 3), bone=(0, 1)) == pytest.approx(1.5)


# ---- F-score


def naive_f_score(predicted, target, threshold):
    def share(points, others):
        return sum(min(np.linalg.norm(a - b) for b in others) < threshold for a in points) / len(points)

    precision, recall = share(predicted, target), share(target, predicted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_f_scores_by_hand():
    target = np.array([[0.0, 0, 0], [100, 0, 0]])
    predicted = np.array([[4.0, 0, 0], [200, 0, 0], [0, 10, 0], [0, 300, 0]])
    # At 5: 1 of 4 predicted, 1 of 2 target points; at 15: 2 of 4 and 1 of 2.
    assert f_scores(predicted, target) == pytest.approx([2 * 0.25 * 0.5 / 0.75, 0.5])
    assert f_scores(target + (0, 5, 0), target) == [0.0, 1.0], "exactly at the threshold is not nearer"
    # One of two points is exactly at the threshold: precision (or recall) ½, the other 1.
    pair = np.array([[0.0, 0, 0], [0, 5, 0]])
    assert f_scores(pair, pair[:1]) == f_scores(pair[:1], pair) == pytest.approx([2 / 3, 1.0])


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 30), st.integers(1, 30))
def test_f_scores_equal_a_loop_lie_in_0_1_rise_and_ignore_motion(seed, n, m):
    rng = np.random.default_rng(seed)
    predicted, target = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    limits = (0.3, 0.8, 2.0)
    scores = f_scores(predicted, target, limits)
    assert scores == pytest.approx([naive_f_score(predicted, target, limit) for limit in limits])
    assert all(0 <= score <= 1 for score in scores) and scores == sorted(scores)
    assert f_scores(target, predicted, limits) == pytest.approx(scores)
    turn = Rotation.random(random_state=seed).as_matrix()
    assert f_scores(predicted @ turn.T + 3, target @ turn.T + 3, limits) == pytest.approx(scores)


def test_more_points_than_are_measured_at_a_time():
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=(700, 3)), rng.normal(size=(600, 3))
    near = np.linalg.norm(predicted[:, None] - target[None], axis=-1)
    precision, recall = (near.min(1) < 0.2).mean(), (near.min(0) < 0.2).mean()
    assert f_scores(predicted, target, [0.2]) == pytest.approx([2 * precision * recall / (precision + recall)])


def test_thresholds_of_no_size_are_an_error():
    with pytest.raises(InputError, match="thresholds"):
        f_scores(np.zeros((2, 3)), np.zeros((2, 3)), [0.0])
