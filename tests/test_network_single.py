"""The regression in numpy against torch's: the same iterates, and torch alone wherever numpy cannot serve."""

import copy

import pytest
import torch

from densehand.network.single import FEW
from densehand.network.zoo import load_model


@pytest.fixture(scope="module")
def lite():
    return load_model("dhpe-lite")


@pytest.mark.parametrize("count", [1, 3, FEW])
def test_it_regresses_as_torch_does(lite, count):
    generator = torch.Generator().manual_seed(count)
    features = torch.rand(count, lite.evidence.trunk.width, generator=generator)
    keypoints = torch.rand(count, 21, 2, generator=generator) * 2 - 1
    with torch.no_grad():
        assert lite.single.takes(features)
        fast, plain = lite.single(features, keypoints), lite.regressor(lite.hand, features, keypoints)
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
