"""The regression in numpy against torch's: the same iterates, and torch alone wherever numpy cannot serve."""

import copy

import numpy as np
import pytest
import torch

from densehand.hand.model import quaternion_to_matrix
from densehand.hand.vector_skeleton import FEW
from densehand.network.mesh import NUM_PARAMETERS, ROTATION, decode, encode
from densehand.network.single import decode_few, decode_one, encode_one
from densehand.network.zoo import load_model


@pytest.fixture(scope="module")
def lite():
    return load_model("dhpe-lite")


@pytest.mark.parametrize("count", [1, 3, FEW])
def test_it_regresses_as_torch_does(lite, count):
    generator = torch.Generator().manual_seed(count)
    features = torch.rand(count, lite.evidence.trunk.width, generator=generator)
    keypoints = torch.rand(count, 21, 2, generator=generator) * 2 - 1
    confidence = torch.rand(count, 21, generator=generator)
    with torch.no_grad():
        assert lite.single.takes(features)
        fast = lite.single(features, keypoints, confidence)
        plain = lite.regressor(lite.hand, features, keypoints, confidence)
    assert len(plain[0]) == lite.config.iterations + 2  # the corrector's step is among them
    for mine, theirs in zip(fast, plain, strict=True):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_torch_serves_many_hands_other_types_and_gradients(lite):
    features = torch.rand(FEW + 1, lite.evidence.trunk.width)
    assert not lite.single.takes(features[:1])  # gradients are wanted here
    with torch.no_grad():
        assert lite.single.takes(features[:1])
        assert not lite.single.takes(features) and not lite.single.takes(features[:1].double())


def test_copies_and_training_go_without(lite):
    assert copy.deepcopy(lite).single is None
    assert load_model("dhpe-lite", fuse=False).single is None


@pytest.mark.parametrize("seed", range(4))
def test_one_hand_is_decoded_and_encoded_as_batches_are(seed):
    h = torch.randn(1, NUM_PARAMETERS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected, found = decode(h), decode_one(h[0].numpy())
    for name in ("shape", "scale", "translation"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name)[0], atol=1e-12)
    np.testing.assert_allclose(found.pose.ravel(), expected.pose[0], atol=1e-12)
    np.testing.assert_allclose(found.turn, quaternion_to_matrix(expected.rotation)[0], atol=1e-12)
    np.testing.assert_allclose(encode_one(found), encode(expected)[0], atol=1e-9)


@pytest.mark.parametrize("wild", [0.1, 1.0, 5.0])
def test_few_hands_are_decoded_as_batches_are(wild):
    h = wild * torch.randn(FEW, NUM_PARAMETERS, generator=torch.Generator().manual_seed(0))
    h[0, ROTATION] = torch.tensor([-1.0, 0.0, 0.0, 0.0])  # no rotation at all
    h[1, 3], h[2, 56], h[3, 59] = torch.nan, torch.inf, 200.0
    for found, expected in zip(decode_few(h), decode(h), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6, equal_nan=True)
