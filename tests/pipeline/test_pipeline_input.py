"""What the pipeline is given: boxes, pictures and calls it refuses, and pictures at the limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from untrained import BOX

import densehand
from densehand.camera import Crop
from densehand.errors import DensehandError, InputError
from densehand.photo import HandBox, check_box
from densehand.pipeline import HandEstimator


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((10, 10, 10, 50), "no area"),
        ((10, 10, 50, 10), "no area"),
        ((50, 10, 10, 60), "no area"),
        ((float("nan"), 0, 10, 10), "finite"),
        ((0, 0, float("inf"), 10), "finite"),
        ((0, 0, 10), "four"),
        ("abcd", "four"),
        (None, "four"),
        ((-50, 0, 0, 10), "outside"),
        ((280, 0, 300, 10), "outside"),
        ((0, 200, 10, 220), "outside"),
        ((-1e6, -1e6, 1e6, 1e6), "larger"),
    ],
)
def test_bad_boxes(box, words):
    with pytest.raises(InputError, match=words):
        check_box(box, 280, 200)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats() | st.integers(-500, 500), min_size=3, max_size=5))
def test_any_box_is_taken_or_refused(box):
    try:
        checked = check_box(box, 280, 200)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert checked.dtype == np.float32 and checked.shape == (4,)
        Crop.from_box(checked)


@pytest.mark.parametrize(
    "picture",
    [
        None,
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_bad_pictures(estimator, picture):
    with pytest.raises(InputError, match="picture"):
        estimator(picture, [])


def test_bad_calls(estimator, network, image):
    with pytest.raises(InputError, match="auto, left or right"):
        estimator(image, side="both")
    with pytest.raises(InputError, match="left, right or null"):
        estimator(image, [HandBox(BOX, "both")])
    for boxes in (BOX, [None], [5]):  # one box where boxes are asked for, or none at all
        with pytest.raises(InputError, match="four finite numbers"):
            estimator(image, boxes)
    with pytest.raises(InputError, match="exclude"):
        estimator(image, [BOX], whole_image=True)
    for options in (
        {"focal": 0},
        {"focal": float("nan")},
        {"refine": -1},
        {"refine": "slow"},
        {"batch": 0},
        {"device": "tpu"},
    ):
        with pytest.raises(InputError):
            HandEstimator(network, **options)
    with pytest.raises(InputError, match="dhpe-lite"):
        densehand.load("dhpe-huge")
    with pytest.raises(DensehandError, match=r"import-mano|no hand model"):
        HandEstimator(network, hand="nothing.npz")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_cuda_where_there_is_none(network):
    with pytest.raises(InputError, match="--device cpu"):
        HandEstimator(network, device="cuda")


def test_tiny_and_edge_pictures(estimator):
    for shape in ((1, 1, 3), (2, 300, 3), (300, 1, 3)):
        picture = np.full(shape, 90, dtype=np.uint8)
        (hand,) = estimator(picture, [HandBox((0, 0, shape[1], shape[0]), "right")])
        assert hand.mask(shape[:2]).shape == shape[:2]
