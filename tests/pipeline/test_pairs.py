"""Two hands beside each other are a left and a right one."""

import dataclasses

import numpy as np
import pytest

from densehand.crops import CropReader, probability
from densehand.photo import HandBox, Photo
from densehand.pipeline import HandEstimator
from densehand.selection import PAIR

BOXES = [(20.0, 40.0, 90.0, 150.0), (120.0, 40.0, 190.0, 150.0)]


@pytest.fixture
def estimator(network, monkeypatch) -> HandEstimator:
    """Looks at each box once."""
    monkeypatch.setattr(HandEstimator, "_look_again", lambda self, photos, jobs, answers: (jobs, answers))
    return HandEstimator(network, device="cpu", refine="off")


@pytest.mark.parametrize(
    ("odds", "sides"),
    [((4, 1), ("right", "left")), ((-1, -4), ("right", "left")), ((4, 3), ("right", "right"))],
)
def test_the_doubtful_one_of_two_that_seem_to_be_of_one_side_is_seen_as_the_other(
    estimator, image, monkeypatch, odds, sides
):
    """What it says of that hand then is what it says where the side is given."""
    expected = [estimator(image, [HandBox(box, side)])[0] for box, side in zip(BOXES, sides, strict=True)]
    original = CropReader.run

    def run(self, photos, looks, *rest):
        """The network's answers, but keypoints all over the box, and the sides of the left and of the right one."""
        answers = original(self, photos, looks, *rest)
        found = [float(odds[look.crop.center[0] > 105]) for look in looks]
        fixed = {"keypoints": np.random.default_rng(0).uniform(-0.66, 0.66, (21, 2)), "hand": 0.0}
        return [dataclasses.replace(a, right=right, **fixed) for a, right in zip(answers, found, strict=True)]

    monkeypatch.setattr(CropReader, "run", run)
    hands = estimator(image, BOXES)
    assert tuple(hand.side for hand in hands) == sides
    for hand, given, right in zip(hands, expected, odds, strict=True):
        np.testing.assert_allclose(hand.vertices, given.vertices, atol=1e-5)
        sure = abs(right) if (right > 0) == (hand.side == "right") else PAIR - abs(right)
        assert hand.side_score == pytest.approx(probability(sure), abs=1e-6)
    one_each = estimator.estimate([Photo(image, [HandBox(box)]) for box in BOXES])  # hands of two photos are no pair
    assert [hand.side for (hand,) in one_each] == ["right" if right > 0 else "left" for right in odds]
    assert {hand.side for hand in estimator(image, BOXES, side="right")} == {"right"}
