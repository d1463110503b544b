"""The mean over several looks at each hand, with the packaged weights on a demo photo."""

from pathlib import Path

import numpy as np
import pytest

import densehand.views
from densehand.camera import SHOWN
from densehand.errors import InputError
from densehand.images import read_image
from densehand.pipeline import HandEstimator
from densehand.views import View

PHOTO = Path(__file__).resolve().parent.parent / "demo_photos" / "open_palm_1.jpg"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return read_image(PHOTO)


@pytest.fixture(scope="module")
def single() -> HandEstimator:
    # bytes round what differs by a bit, as a mirrored picture does, by a whole step
    return HandEstimator(device="cpu", refine="off", precision="float32")


@pytest.fixture(scope="module")
def box(single, image):
    (hand,) = single(image)
    return tuple(hand.box.tolist())


def agreeing(single: HandEstimator, **options) -> HandEstimator:
    return HandEstimator(single.network, device="cpu", consensus=True, **options)


def size_of(hand) -> float:
    return float(np.ptp(hand.keypoints_2d, axis=0).max())


def test_of_one_plain_view_is_the_plain_answer(single, image, box, monkeypatch):
    monkeypatch.setattr(densehand.views, "CONSENSUS", (View(zoom=SHOWN),))
    (plain,), (mean,) = single(image, [box]), agreeing(single, refine="off")(image, [box])
    # the crop is cut from one a third larger, so pixels are resampled twice
    np.testing.assert_allclose(mean.keypoints_2d, plain.keypoints_2d, atol=0.01 * size_of(plain))
    np.testing.assert_allclose(mean.joints_3d, plain.joints_3d, atol=2e-3)
    assert mean.scale == pytest.approx(plain.scale, rel=0.02)
    assert mean.side == plain.side


@pytest.mark.parametrize("view", [View(zoom=0.85), View(turn=25), View(turn=-25)])
def test_of_another_view_is_carried_back(single, image, box, view, monkeypatch):
    """A clear photo looks alike from every crop, so a wrong way back would show as the turn or zoom itself."""
    monkeypatch.setattr(densehand.views, "CONSENSUS", (view,))
    (plain,), (other,) = single(image, [box]), agreeing(single, refine="off")(image, [box])
    for points in ("keypoints_2d", "projected"):
        a, b = (h.keypoints_2d if points == "keypoints_2d" else h.project(h.joints_3d) for h in (plain, other))
        assert np.linalg.norm(a - b, axis=1).mean() < 0.05 * size_of(plain), points


def test_a_mirrored_photo_gives_the_mirrored_hand(single, image, box):
    estimator, width = agreeing(single, refine="fast"), image.shape[1]
    x0, y0, x1, y1 = box
    (hand,) = estimator(image, [box], side="right")
    (other,) = estimator(np.ascontiguousarray(image[:, ::-1]), [(width - x1, y0, width - x0, y1)], side="left")
    near = 2e-4 * size_of(hand)  # the angle by which both are turned upright differs in its last bits
    np.testing.assert_allclose(other.keypoints_2d, hand.keypoints_2d * (-1, 1) + (width, 0), atol=near)
    np.testing.assert_allclose(other.vertices, hand.vertices * (-1, 1, 1), atol=1e-4)


def test_hands_keep_their_order_over_batches_and_refinement_follows(single, image, box):
    boxes = [tuple(np.asarray(box) + shift) for shift in (0.0, 12.0, -9.0)]
    together = agreeing(single, refine="fast", batch=2)(image, boxes)
    for hand, alone in zip(together, boxes, strict=True):
        (only,) = agreeing(single, refine="fast")(image, [alone])
        np.testing.assert_allclose(hand.keypoints_2d, only.keypoints_2d, atol=0.1)
        assert hand.refinement is not None and hand.refinement.mode == "fast"


@pytest.mark.parametrize("refine", ["paper", 3])
def test_the_papers_refinement_sees_one_crop(single, refine):
    with pytest.raises(InputError, match="consensus"):
        HandEstimator(single.network, device="cpu", refine=refine, consensus=True)
