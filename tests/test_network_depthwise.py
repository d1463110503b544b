"""Depthwise convolutions with gradients of their own are torch's, only faster."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from densehand.network.backbone import create_trunk
from densehand.network.depthwise import SMALL, depthwise, is_slow


def depthwise_layer(kernel: int, stride: int, padding: int, channels: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([3, 5]), st.sampled_from([1, 2]), st.booleans(), st.integers(5, 11), st.integers(5, 11),
    st.integers(0, 9),
)  # fmt: skip
def test_answers_and_gradients_are_torchs(kernel, stride, padded, height, width, seed):
    torch.manual_seed(seed)
    layer = depthwise_layer(kernel, stride, kernel // 2 if padded else 0).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    plain = layer(x)
    weights = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, [x, layer.weight], weights)
    fast = depthwise(layer, x)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(torch.autograd.grad(fast, [x, layer.weight], weights), expected)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_maps_smaller_than_the_kernel(side):
    layer = depthwise_layer(5, 1, 2).double()
    x = torch.randn(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: depthwise(layer, x), [x])
    expected = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    torch.testing.assert_close(torch.autograd.grad(depthwise(layer, x).square().sum(), layer.weight), expected)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_in_bfloat16_they_are_float32s_to_its_precision(kernel, stride):
    torch.manual_seed(0)
    layer = depthwise_layer(kernel, stride, kernel // 2, channels=32)
    x = torch.randn(4, 32, 12, 12, requires_grad=True)
    weights = torch.randn_like(layer(x))
    expected = torch.autograd.grad(layer(x), [x, layer.weight], weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise(layer, x)
    assert found.dtype == torch.bfloat16
    gradients = torch.autograd.grad(found, [x, layer.weight], weights.bfloat16())
    for mine, theirs in zip(gradients, expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, atol=0.02 * float(theirs.abs().max()), rtol=0)


def test_only_what_is_slow_goes_that_way():
    small, large = torch.zeros(1, 3, SMALL, SMALL), torch.zeros(1, 3, SMALL + 1, SMALL)
    five, three = depthwise_layer(5, 1, 2), depthwise_layer(3, 1, 1)
    assert is_slow(five, small) and not is_slow(five, large) and not is_slow(three, small)
    assert not is_slow(depthwise_layer(5, 2, 2), small) and not is_slow(nn.Conv2d(3, 3, 5, bias=False), small)
    assert not is_slow(nn.Conv2d(3, 3, 5, groups=3), small), "a folded batch norm's bias"
    assert not is_slow(nn.Conv2d(4, 4, 5, groups=2, bias=False), torch.zeros(1, 4, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert is_slow(five, large) and is_slow(three, small)
        with torch.no_grad():
            assert not is_slow(five, small)
        assert not is_slow(five.requires_grad_(False), small)


def test_a_trunk_learns_the_same_either_way(monkeypatch):
    torch.manual_seed(1)
    trunk = create_trunk("efficientnet_lite0").double().eval()
    pictures = torch.rand(1, 3, 64, 64, dtype=torch.float64)

    def gradients() -> list[torch.Tensor]:
        trunk.zero_grad()
        trunk(pictures).final.square().mean().backward()
        return [p.grad.clone() for p in trunk.parameters() if p.grad is not None]

    mine = gradients()
    monkeypatch.setattr("densehand.network.backbone.is_slow", lambda *_: False)
    torch.testing.assert_close(mine, gradients())
