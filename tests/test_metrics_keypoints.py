"""EPE, PCK and AUC against values worked out by hand, naive loops, and hand3d's protocol written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from densehand.errors import InputError
from densehand.metrics import (
    THRESHOLDS_0_50,
    THRESHOLDS_20_50,
    THRESHOLDS_FREIHAND,
    area_under_curve,
    auc,
    box_normalised_error,
    end_point_error,
    keypoint_error,
    pck,
)

# Whole multiples of an eighth, so that errors fall on thresholds exactly.
ERRORS = hnp.arrays(
    float, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 480).map(lambda n: n / 8)
)


def with_gaps(errors, seed):
    """Some errors without a label, but not all of them."""
    hidden = np.random.default_rng(seed).random(errors.shape) < 0.4
    hidden.flat[0] = False
    return np.where(hidden, np.nan, errors)


def naive_groups(errors, per_keypoint):
    groups = [[e for e in column if not np.isnan(e)] for column in (errors.T if per_keypoint else [errors.reshape(-1)])]
    return [group for group in groups if group]


def naive_pck(errors, thresholds, per_keypoint=False):
    curve = []
    for threshold in thresholds:
        shares = [sum(e <= threshold for e in group) / len(group) for group in naive_groups(errors, per_keypoint)]
        curve.append(sum(shares) / len(shares))
    return curve


def naive_auc(errors, thresholds, per_keypoint=False):
    curve, area = naive_pck(errors, thresholds, per_keypoint), 0.0
    for i in range(len(thresholds) - 1):
        area += (thresholds[i + 1] - thresholds[i]) * (curve[i] + curve[i + 1]) / 2
    return area / (thresholds[-1] - thresholds[0])


# ---- distances


def test_keypoint_error_by_hand_and_hidden_ones_are_nan():
    error = keypoint_error(np.array([[0.0, 0], [3, 4]]), np.zeros((2, 2)), np.array([True, True]))
    assert error.tolist() == [0, 5]
    assert np.isnan(keypoint_error(np.ones((1, 2)), np.zeros((1, 2)), np.array([False]))).all()


def test_points_without_a_label_have_no_error_and_need_no_prediction():
    target = [[0.0, 0.0], [np.nan, 0.0], [None, None]]
    error = keypoint_error([[3.0, 4.0], [np.nan, np.nan], [1.0, 1.0]], target)
    assert error[0] == 5 and np.isnan(error[1:]).all()
    assert np.isnan(keypoint_error([[np.nan, 0.0]], [[0.0, 0.0]], [False])).all()


def test_a_hand_that_was_missed_is_an_infinite_error_and_an_infinite_label_is_none():
    assert keypoint_error(np.full((21, 3), np.inf), np.zeros((21, 3))).tolist() == [np.inf] * 21
    with pytest.raises(InputError, match="target: infinite"):
        keypoint_error(np.zeros((21, 3)), np.full((21, 3), np.inf))
    with pytest.raises(InputError, match="visible"):
        keypoint_error(np.zeros((21, 3)), np.zeros((21, 3)), np.ones(20, bool))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_keypoint_error_equals_a_loop(seed, dimensions):
    predicted, target = np.random.default_rng(seed).normal(size=(2, 3, 5, dimensions))
    expected = [[sum((a - b) ** 2 for a, b in zip(p, t, strict=True)) ** 0.5 for p, t in zip(*hands, strict=True)]
                for hands in zip(predicted, target, strict=True)]  # fmt: skip
    np.testing.assert_allclose(keypoint_error(predicted, target), expected)


def test_box_normalised_error_by_hand():
    errors = box_normalised_error([[10.0, 0.0], [3.0, np.nan]], [[0, 0, 100, 50], [5, 5, 10, 35]])
    np.testing.assert_allclose(errors, [[0.1, 0.0], [0.1, np.nan]])
    assert pck(errors, [0.05, 0.1]).tolist() == pytest.approx([1 / 3, 1.0])
    with pytest.raises(InputError, match="boxes: a box has no size"):
        box_normalised_error([[1.0]], [[3, 3, 3, 3]])
    with pytest.raises(InputError, match="boxes: shape"):
        box_normalised_error([[1.0]], [0, 0, 1, 1])
    with pytest.raises(InputError, match="boxes: 1 of 4"):
        box_normalised_error([[1.0]], [[0, 0, np.nan, 1]])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_box_normalised_error_does_not_depend_on_the_size_of_the_photo(seed, scale):
    rng = np.random.default_rng(seed)
    errors, corner, size = rng.uniform(0, 9, (4, 21)), rng.uniform(0, 50, (4, 2)), rng.uniform(1, 50, (4, 2))
    boxes = np.hstack([corner, corner + size])
    np.testing.assert_allclose(box_normalised_error(errors * scale, boxes * scale), box_normalised_error(errors, boxes))


# ---- EPE


def test_end_point_error_by_hand():
    errors = [[0.0, 10.0], [1.0, np.nan], [5.0, np.nan]]
    assert end_point_error(errors) == pytest.approx((4.0, 3.0))
    # hand3d: keypoint 0 has mean 2 and median 1, keypoint 1 has 10 and 10
    assert end_point_error(errors, per_keypoint=True) == pytest.approx((6.0, 5.5))
    assert end_point_error([[1.0, np.nan], [3.0, np.nan]], per_keypoint=True) == pytest.approx((2.0, 2.0))


@settings(max_examples=50, deadline=None)
@given(ERRORS, st.integers(0, 1000), st.booleans())
def test_end_point_error_equals_a_loop(errors, seed, per_keypoint):
    errors = with_gaps(errors, seed)
    groups = [sorted(group) for group in naive_groups(errors, per_keypoint)]
    means = [sum(g) / len(g) for g in groups]
    medians = [(g[(len(g) - 1) // 2] + g[len(g) // 2]) / 2 for g in groups]
    expected = sum(means) / len(groups), sum(medians) / len(groups)
    assert end_point_error(errors, per_keypoint) == pytest.approx(expected)


def test_a_missed_hand_has_no_mean():
    with pytest.raises(InputError, match="infinite"):
        end_point_error([1.0, np.inf])


# ---- PCK


def test_pck_by_hand():
    assert pck(np.array([1.0, 2, 3, np.nan]), np.array([0, 1, 2.5, 3])).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert pck([1.0, np.inf], [1.0, 1e9]).tolist() == [0.5, 0.5], "a missed hand is never correct"
    assert pck([[1.0, 3.0], [1.0, np.nan]], [2.0], per_keypoint=True).tolist() == [0.5]
    assert pck([[1.0, 3.0], [1.0, np.nan]], [2.0]).tolist() == pytest.approx([2 / 3])


@settings(max_examples=50, deadline=None)
@given(ERRORS, st.integers(0, 1000), st.booleans())
def test_pck_equals_a_loop_rises_and_stays_within_0_and_1(errors, seed, per_keypoint):
    errors = with_gaps(errors, seed)
    thresholds = np.arange(0, 61, 5.0)
    curve = pck(errors, thresholds, per_keypoint)
    np.testing.assert_allclose(curve, naive_pck(errors, thresholds, per_keypoint))
    assert (np.diff(curve) >= 0).all() and curve.min() >= 0 and curve[-1] == pytest.approx(1), "60 is the largest error"


@pytest.mark.parametrize("measure", [end_point_error, auc, lambda e: pck(e, [1.0])])
@pytest.mark.parametrize(
    ("errors", "said"), [([], "errors: empty"), ([np.nan] * 3, "errors: all are NaN"), ([-1.0], "errors: negative")]
)
def test_errors_that_say_nothing_are_named(measure, errors, said):
    with pytest.raises(InputError, match=said):
        measure(errors)


def test_averages_over_keypoints_need_to_know_the_keypoints():
    with pytest.raises(InputError, match="hands, keypoints"):
        end_point_error([1.0, 2.0], per_keypoint=True)
    with pytest.raises(InputError, match="thresholds"):
        pck([1.0], [np.nan])


# ---- AUC


def test_thresholds_are_those_of_hand3d_and_freihand():
    assert len(THRESHOLDS_0_50) == 20 and THRESHOLDS_0_50[[0, -1]].tolist() == [0, 50]
    assert len(THRESHOLDS_20_50) == 12
    assert THRESHOLDS_20_50[0] == pytest.approx(8 * 50 / 19) and round(THRESHOLDS_20_50[0], 2) == 21.05
    assert len(THRESHOLDS_FREIHAND) == 100 and THRESHOLDS_FREIHAND[[0, -1]].tolist() == [0, 50]


def test_auc_by_hand():
    # A step between two thresholds is a slope between them: 0 at 0, 1 from 10 on, over 0…20.
    assert auc([5.0], [0.0, 10.0, 20.0]) == pytest.approx((5 + 10) / 20)
    assert area_under_curve([0.0, 1.0, 4.0], [0.0, 1.0, 1.0]) == pytest.approx(3.5 / 4)
    assert auc([0.0, 1.0]) == 1 and auc([51.0]) == 0 and auc([np.inf]) == 0
    # 40 of 19 steps of 50/19 mm: correct from the 16th threshold (42.1 mm) on, half of the step before it counts.
    assert auc([40.0]) == pytest.approx((3 + 0.5) / 11)
    assert auc([40.0], THRESHOLDS_0_50) == pytest.approx((3 + 0.5) / 19)


def hand3d_figures(errors):
    """EPE mean, EPE median, AUC 0–50 and AUC 20–50 as the published protocol words them."""
    columns = [c[~np.isnan(c)] for c in errors.T if not np.isnan(c).all()]
    thresholds = np.linspace(0, 50, 20)
    curves = np.array([[(c <= t).mean() for t in thresholds] for c in columns])
    step = thresholds[1]
    whole = np.mean([(c[:-1] + c[1:]).sum() / 2 * step / 50 for c in curves])
    last = curves.mean(0)[-12:]
    part = (last[:-1] + last[1:]).sum() / 2 * step / (50 - thresholds[8])
    return np.mean([c.mean() for c in columns]), np.mean([np.median(c) for c in columns]), whole, part


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_figures_are_those_of_hand3d(seed):
    errors = with_gaps(np.random.default_rng(seed).gamma(2, 10, (9, 21)), seed)
    mean, median, whole, part = hand3d_figures(errors)
    assert end_point_error(errors, per_keypoint=True) == pytest.approx((mean, median))
    assert auc(errors, THRESHOLDS_0_50, per_keypoint=True) == pytest.approx(whole)
    assert auc(errors, per_keypoint=True) == pytest.approx(part)


@settings(max_examples=50, deadline=None)
@given(ERRORS, st.integers(0, 1000), st.booleans())
def test_auc_equals_a_loop_and_smaller_errors_never_lower_it(errors, seed, per_keypoint):
    errors = with_gaps(errors, seed)
    value = auc(errors, THRESHOLDS_20_50, per_keypoint)
    assert value == pytest.approx(naive_auc(errors, THRESHOLDS_20_50, per_keypoint))
    assert 0 <= value <= 1 + 1e-12
    assert auc(errors * 0.7, THRESHOLDS_20_50, per_keypoint) >= value - 1e-12


def test_a_curve_needs_two_rising_thresholds():
    for thresholds in ([1.0], [2.0, 1.0], [1.0, 1.0]):
        with pytest.raises(InputError, match="thresholds"):
            auc([1.0], thresholds)
