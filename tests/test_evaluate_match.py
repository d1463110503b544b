"""Which of several predictions answers a labelled hand."""

import numpy as np

from densehand.evaluation.prediction import Prediction, match

RNG = np.random.default_rng(0)


def test_the_hand_that_overlaps_the_label_most_is_meant():
    points = RNG.uniform(0, 1, (21, 2))
    near, far = Prediction(points * 100, score=0.1), Prediction(points * 100 + 60, score=0.9)
    box = np.array([5.0, 5, 100, 100])
    assert match(box, [far, near]) is near
    assert match(box + 500, [far, near]) is None
    assert match(None, [near, far]) is far and match(box, []) is None
    flat = Prediction(joints_3d=np.zeros((21, 3)))
    assert match(box, [flat]) is flat, "3D alone has no place in the picture"


def test_of_a_hand_with_few_labels_those_are_compared():
    """The box around all 21 of a right answer is no small one; that of the same joints fits."""
    points = np.random.default_rng(3).uniform(0, 100, (21, 2))
    labels = np.full((21, 2), np.nan)
    labels[5:9] = points[5:9]
    box = np.concatenate([labels[5:9].min(0), labels[5:9].max(0)])
    right, wrong = Prediction(points + 1.0), Prediction(points + 500.0)
    assert match(box, [wrong, right]) is None and match(box, [wrong, right], labels) is right
    labels[7:] = np.nan
    assert match(np.array([0.0, 0, 100, 100]), [right], labels) is right, "too few to tell: the published box counts"
