"""Boxes of the detector: overlaps, suppression and peak picking against naive twins."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.detect.boxes import intersections, peaks, suppress
from densehand.detect.evaluate import average_precision
from densehand.detect.model import REFERENCE_SIZE, STRIDE, DetectorOutput, boxes_of
from densehand.metrics import box_iou

coordinate = st.integers(-50, 300).map(float)
box = st.tuples(coordinate, coordinate, st.integers(0, 200), st.integers(0, 200)).map(
    lambda t: [t[0], t[1], t[0] + t[2], t[1] + t[3]]
)
boxes = st.lists(box, min_size=0, max_size=12).map(lambda rows: np.array(rows, np.float64).reshape(-1, 4))


def overlap_by_hand(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def area_by_hand(a):
    return max(a[2] - a[0], 0.0) * max(a[3] - a[1], 0.0)


def suppress_by_hand(rows, scores, threshold, containment, ratio):
    """The rule in words, one pair at a time."""
    kept = []
    for i in sorted(range(len(rows)), key=lambda k: (-scores[k], k)):
        survives = True
        for k in kept:
            common = overlap_by_hand(rows[i], rows[k])
            area_i, area_k = area_by_hand(rows[i]), area_by_hand(rows[k])
            if common > threshold * max(area_i + area_k - common, 1e-9):
                survives = False
            small, large = min(area_i, area_k), max(area_i, area_k)
            if common > containment * small and small > ratio * large:
                survives = False
        if survives:
            kept.append(i)
    return kept


@settings(deadline=None)
@given(boxes, boxes)
def test_overlaps_agree_with_the_naive_twin(a, b):
    common, shares = intersections(a, b), box_iou(a, b)
    for i in range(len(a)):
        for j in range(len(b)):
            expected = overlap_by_hand(a[i], b[j])
            union = area_by_hand(a[i]) + area_by_hand(b[j]) - expected
            assert common[i, j] == expected
            assert shares[i, j] == pytest.approx(expected / union if union else 0.0)
    np.testing.assert_allclose(shares, box_iou(b, a).T)
    assert np.all((shares >= 0) & (shares <= 1))


@settings(max_examples=200, deadline=None)
@given(boxes, st.data())
def test_suppression_agrees_with_the_naive_twin(rows, data):
    scores = np.array(
        data.draw(st.lists(st.sampled_from([0.2, 0.4, 0.6, 0.8]), min_size=len(rows), max_size=len(rows)))
    )
    assert suppress(rows, scores, 0.45, 0.85, 0.06).tolist() == suppress_by_hand(rows, scores, 0.45, 0.85, 0.06)


@settings(deadline=None)
@given(boxes)
def test_what_was_kept_once_is_kept_again(rows):
    scores = np.linspace(0.9, 0.1, len(rows))
    kept = suppress(rows, scores)
    assert suppress(rows[kept], scores[kept]).tolist() == list(range(len(kept)))
    assert len(rows) == 0 or kept[0] == 0


def test_a_duplicate_and_a_part_go_but_a_far_hand_before_a_near_one_stays():
    whole, shifted, part = [0, 0, 100, 100], [5, 5, 105, 105], [10, 10, 60, 60]
    far, other = [40, 40, 60, 60], [200, 0, 300, 100]
    rows = np.array([whole, shifted, part, far, other], float)
    assert suppress(rows, np.array([0.9, 0.8, 0.7, 0.6, 0.5])).tolist() == [0, 3, 4]


def random_output(seed: int, height: int = 6, width: int = 9) -> DetectorOutput:
    generator = torch.Generator().manual_seed(seed)
    return DetectorOutput(
        torch.randn(2, height, width, generator=generator),
        torch.randn(2, 2, height, width, generator=generator),
        torch.randn(2, 2, height, width, generator=generator),
        torch.randn(2, height, width, generator=generator),
        torch.randn(2, 2, height, width, generator=generator),
    )


@pytest.mark.parametrize("seed", range(4))
def test_peaks_agree_with_the_naive_twin(seed):
    output = random_output(seed)
    for b, found in enumerate(peaks(output, 0.4)):
        score = output.centre_logit[b].sigmoid().tolist()
        expected = []
        for row in range(6):
            for column in range(9):
                around = [
                    score[r][c]
                    for r in range(max(row - 1, 0), min(row + 2, 6))
                    for c in range(max(column - 1, 0), min(column + 2, 9))
                ]
                if score[row][column] < 0.4 or score[row][column] < max(around):
                    continue
                dx, dy = output.offset[b, :, row, column].tolist()
                w, h = (REFERENCE_SIZE * np.exp(v) for v in output.log_size[b, :, row, column].tolist())
                x, y = (column + 0.5 + dx) * STRIDE, (row + 0.5 + dy) * STRIDE
                right = torch.sigmoid(output.side_logit[b, row, column]).item()
                turn = output.turn[b, :, row, column].tolist()
                expected.append((score[row][column], [x - w / 2, y - h / 2, x + w / 2, y + h / 2], right, turn))
        expected.sort(key=lambda entry: -entry[0])
        assert len(expected) > 1
        np.testing.assert_allclose(found.scores, [e[0] for e in expected], rtol=1e-6)
        np.testing.assert_allclose(found.boxes, [e[1] for e in expected], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found.right, [e[2] for e in expected], rtol=1e-5)
        np.testing.assert_array_equal(found.turn, np.float32([e[3] for e in expected]))


def peaks_of_torch(output, threshold):
    """Each picture's boxes, scores and probabilities of a right hand, from whole maps."""
    score = output.centre_logit.sigmoid()
    is_peak = (F.max_pool2d(score[:, None], 3, 1, 1)[:, 0] == score) & (score >= threshold)
    for b, mask in enumerate(is_peak):
        order = score[b, mask].argsort(descending=True, stable=True)
        yield (
            boxes_of(output)[b, :, mask].T[order],
            score[b, mask][order],
            output.side_logit[b, mask].sigmoid()[order],
            output.turn[b, :, mask].T[order],
        )


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**31 - 1), st.sampled_from([(1, 1), (1, 7), (9, 2), (12, 12)]), st.sampled_from([0.05, 0.5, 0.95])
)
def test_peaks_are_those_of_whole_maps(seed, grid, threshold):
    """Also of maps that are level in places, at their edges, of wild sizes, and where an answer is no number."""
    output = random_output(seed, *grid)
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(2, *grid, generator=generator) < 0.3
    odd = output.centre_logit.mul(8).round().div(2).masked_fill(level, 4.0)
    odd[torch.rand(2, *grid, generator=generator) < 0.05] = torch.nan
    output = output._replace(centre_logit=odd, log_size=5 * output.log_size)
    found, expected = peaks(output, threshold), list(peaks_of_torch(output, threshold))
    assert len(found) == len(expected) == 2
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.dtype == np.float32
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-3 if a.ndim == 2 else 0)


def test_peaks_are_limited_to_the_best():
    output = random_output(0, 20, 20)
    few, all_of_them = peaks(output, 0.1, limit=5)[0], peaks(output, 0.1, limit=400)[0]
    assert len(few.scores) == 5 < len(all_of_them.scores)
    np.testing.assert_array_equal(few.scores, all_of_them.scores[:5])


def test_average_precision_of_known_rankings():
    def ap(hits, hands):
        return average_precision(np.array(hits, bool), np.linspace(0.9, 0.1, len(hits)), hands)

    assert ap([True, True], 2) == 1
    assert ap([True, True], 4) == 0.5
    assert ap([False, True], 1) == 0.5
    assert ap([True, False, True], 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert ap([False, False], 2) == 0
    assert np.isnan(ap([False], 0))


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=30), st.randoms())
def test_average_precision_does_not_depend_on_the_order_of_the_rows(hits, shuffle):
    score = np.linspace(0.9, 0.1, len(hits))
    order = list(range(len(hits)))
    shuffle.shuffle(order)
    hit = np.array(hits, bool)
    a = average_precision(hit, score, len(hits) + 1)
    assert a == pytest.approx(average_precision(hit[order], score[order], len(hits) + 1))
    assert 0 <= a <= 1
