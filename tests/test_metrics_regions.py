"""Masks, boxes, sides and the detector's average precision: by hand and against naive twins."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from densehand.detect.evaluate import average_precision, match
from densehand.errors import InputError
from densehand.metrics import box_iou, mask_iou, mask_scores, side_accuracy

# ---- masks


def test_mask_scores_by_hand():
    predicted, target = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    predicted[:2], target[1:] = True, True
    # 8 found, 12 there, 4 both
    assert mask_scores(predicted, target) == pytest.approx((4 / 16, 4 / 8, 4 / 12, 8 / 20))
    assert mask_iou(predicted, target) == 0.25


def test_empty_masks():
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    assert mask_scores(empty, empty) == (1, 1, 1, 1)
    assert mask_scores(empty, full) == mask_scores(full, empty) == (0, 0, 0, 0)


MASKS = st.tuples(*[hnp.arrays(bool, (3, 4))] * 2)


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_mask_scores_equal_a_loop(masks):
    both = found = there = either = 0
    for p, t in zip(masks[0].ravel(), masks[1].ravel(), strict=True):
        both, found, there, either = both + (p and t), found + p, there + t, either + (p or t)
    iou, precision, recall, f1 = mask_scores(*masks)
    if either:
        assert iou == pytest.approx(both / either)
        assert precision == pytest.approx(both / found if found else 0)
        assert recall == pytest.approx(both / there if there else 0)
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall) if both else 0)
    assert 0 <= iou <= f1 <= 1, "F1 = 2 IoU / (1 + IoU)"
    swapped = mask_scores(masks[1], masks[0])
    assert (swapped.iou, swapped.precision, swapped.recall, swapped.f1) == pytest.approx((iou, recall, precision, f1))


@pytest.mark.parametrize(
    ("predicted", "said"),
    [
        (np.full((2, 2), 0.5), "predicted mask: holds values other than 0 and 1"),
        (np.full((2, 2), np.nan), "predicted mask: holds values other than 0 and 1"),
        (np.zeros((2, 3)), "predicted mask .* sizes differ"),
        (np.zeros((0, 2)), "predicted mask: empty"),
    ],
)
def test_masks_that_are_none(predicted, said):
    with pytest.raises(InputError, match=said):
        mask_scores(predicted, np.zeros((2, 2), bool))


# ---- boxes


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
    assert box_iou([], [[0, 0, 1, 1]]).shape == (0, 1)


# ---- sides


def test_side_accuracy_by_hand():
    assert side_accuracy(["left", "right", None, "left"], ["left", "left", "left", "left"]) == pytest.approx(2 / 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["left", "right", None]), st.sampled_from(["left", "right"])), min_size=1))
def test_side_accuracy_equals_a_loop(pairs):
    found = [(p, t) for p, t in pairs if p]
    predicted, target = [p for p, _ in pairs], [t for _, t in pairs]
    if not found:
        with pytest.raises(InputError, match="no hand was found"):
            side_accuracy(predicted, target)
        return
    assert side_accuracy(predicted, target) == pytest.approx(sum(p == t for p, t in found) / len(found))


def test_sides_that_are_none():
    for predicted, target in ((["left"], []), (["up"], ["left"]), (["left"], [None])):
        with pytest.raises(InputError, match="sides: "):
            side_accuracy(predicted, target)
    with pytest.raises(InputError, match="sides: no hand was found"):
        side_accuracy([], [])


# ---- average precision (it lives with the detector)


def naive_average_precision(hit, score, hands):
    """All-point interpolation: each step of recall times the best precision at that recall or a higher one."""
    order = sorted(range(len(hit)), key=lambda i: -score[i])
    points, hits = [], 0
    for rank, i in enumerate(order, 1):
        hits += bool(hit[i])
        points.append((hits / hands, hits / rank))
    area, before = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[i:])
        before = recall
    return area


def test_average_precision_by_hand():
    # Precisions 1, 1/2, 2/3 at recalls 1/4, 1/4, 2/4: interpolated 1 · 1/4 + 2/3 · 1/4.
    score = np.array([0.9, 0.8, 0.7])
    assert average_precision(np.array([True, False, True]), score, 4) == pytest.approx(1 / 4 + 2 / 3 / 4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 5), st.integers(0, 1000))
def test_average_precision_equals_a_loop(hits, missed, seed):
    hit, score = np.array(hits), np.random.default_rng(seed).permutation(len(hits)) / len(hits)
    hands = max(sum(hits) + missed, 1)
    value = average_precision(hit, score, hands)
    assert value == pytest.approx(naive_average_precision(hits, score, hands))
    assert 0 <= value <= sum(hits) / hands + 1e-12


def test_detections_match_at_an_iou_of_a_half_and_each_hand_once():
    truth = np.array([[0.0, 0, 10, 10], [100, 100, 110, 110]])
    sample = SimpleNamespace(boxes=truth, ignore=np.zeros((0, 4)), all_labelled=True)
    boxes = [[0, 0, 10, 5], [0, 0, 10, 10], [100, 100, 110, 104.9]]
    found = [SimpleNamespace(box=np.array(b, float), score=s) for b, s in zip(boxes, (0.9, 0.8, 0.7), strict=True)]
    assert [(one.score, hand) for one, hand, _ in match(found, sample)] == [(0.9, 0), (0.8, -1), (0.7, -1)]
