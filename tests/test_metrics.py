"""What every measure says of input it cannot use: one InputError that names it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand import metrics
from densehand.errors import InputError

PAIRED = {
    "keypoint_error": metrics.keypoint_error,
    "pa_mpjpe": metrics.pa_mpjpe,
    "pa_mpvpe": metrics.pa_mpvpe,
    "procrustes_align": metrics.procrustes_align,
    "root_relative_error": metrics.root_relative_error,
    "scaled_error": metrics.scaled_error,
    "f_scores": metrics.f_scores,
}
SAME_COUNT = sorted(set(PAIRED) - {"f_scores"})


@pytest.mark.parametrize("name", sorted(PAIRED))
@settings(max_examples=10, deadline=None)
@given(where=st.tuples(st.integers(0, 20), st.integers(0, 2)))
def test_nan_in_a_prediction_is_named(name, where):
    target = np.random.default_rng(0).normal(size=(21, 3))
    predicted = target.copy()
    predicted[where] = np.nan
    with pytest.raises(InputError, match=r"predicted.*NaN"):
        PAIRED[name](predicted, target)


@pytest.mark.parametrize("name", sorted(set(PAIRED) - {"keypoint_error"}))
def test_nan_in_a_target_is_named(name):
    target = np.random.default_rng(0).normal(size=(21, 3))
    broken = target.copy()
    broken[3, 1] = np.inf
    with pytest.raises(InputError, match="target: 1 of 63"):
        PAIRED[name](target, broken)


@pytest.mark.parametrize("name", sorted(PAIRED))
def test_empty_predictions_are_named(name):
    with pytest.raises(InputError, match="predicted: empty"):
        PAIRED[name](np.zeros((0, 3)), np.zeros((0, 3)))


@pytest.mark.parametrize("name", SAME_COUNT)
def test_different_numbers_of_points_are_an_error(name):
    with pytest.raises(InputError, match="predicted"):
        PAIRED[name](np.ones((21, 3)), np.ones((20, 3)))


def test_ragged_lists_and_words_are_no_points():
    for bad in ([[0.0, 1.0, 2.0], [0.0]], [["a", "b", "c"]]):
        with pytest.raises(InputError, match="predicted: not an array of numbers"):
            metrics.pa_mpjpe(bad, np.zeros((2, 3)))
    with pytest.raises(InputError, match=r"predicted: shape \(21, 2\)"):
        metrics.pa_mpjpe(np.ones((21, 2)), np.ones((21, 2)))


def test_every_public_name_is_there():
    assert all(hasattr(metrics, name) for name in metrics.__all__)
