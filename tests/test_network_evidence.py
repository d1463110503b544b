"""Heat maps: positions against naive loops, confidence, shapes at every input size, learning to point."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densehand.network.config import CONFIGS
from densehand.network.evidence import EvidenceNet, cell_centers, local_soft_argmax, mass_near, soft_argmax


def center(index: int, size: int) -> float:
    return (index + 0.5) / size * 2 - 1


def gaussian(x: float, y: float, sigma: float, size: int = 32) -> torch.Tensor:
    """Gaussian map around (x, y) in cells (the first cell's centre is 0.5)."""
    cells = torch.arange(size, dtype=torch.float64) + 0.5
    return torch.exp(-((cells[None] - x) ** 2 + (cells[:, None] - y) ** 2) / (2 * sigma**2))


def test_soft_argmax_agrees_with_a_naive_sum():
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 4, 6).double()
    maps = maps / maps.sum((-2, -1), keepdim=True)
    got = soft_argmax(maps)
    for b in range(2):
        for k in range(3):
            x = sum(maps[b, k, i, j].item() * center(j, 6) for i in range(4) for j in range(6))
            y = sum(maps[b, k, i, j].item() * center(i, 4) for i in range(4) for j in range(6))
            assert got[b, k].tolist() == pytest.approx([x, y], abs=1e-12)


def test_cells_are_centred_and_reach_the_edges():
    c = cell_centers(32, torch.zeros(1))
    assert c[0] == -1 + 1 / 32 and c[-1] == 1 - 1 / 32 and c.sum().abs() < 1e-6


@settings(max_examples=40, deadline=None)
@given(x=st.floats(3, 29), y=st.floats(3, 29), sigma=st.floats(0.8, 1.6), noise=st.floats(0, 0.01))
def test_local_soft_argmax_finds_a_gaussian_to_a_fraction_of_a_cell(x, y, sigma, noise):
    maps = gaussian(x, y, sigma) - noise * torch.rand(32, 32, generator=torch.Generator().manual_seed(0)).double()
    got = (local_soft_argmax(maps) + 1) * 16
    assert math.dist(got.tolist(), (x, y)) < 0.35


def test_local_soft_argmax_agrees_with_a_naive_window():
    torch.manual_seed(1)
    maps = torch.randn(5, 8, 10).double()
    got = local_soft_argmax(maps)
    for k in range(5):
        peak = int(maps[k].argmax())
        row, column = divmod(peak, 10)
        total = x = y = 0.0
        for i in range(max(row - 2, 0), min(row + 3, 8)):
            for j in range(max(column - 2, 0), min(column + 3, 10)):
                weight = max(maps[k, i, j].item(), 0) ** 2
                total, x, y = total + weight, x + weight * center(j, 10), y + weight * center(i, 8)
        assert got[k].tolist() == pytest.approx([x / total, y / total], abs=1e-9)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_local_soft_argmax_without_positive_values_is_the_peak(value):
    maps = torch.full((32, 32), value - 1)
    maps[5, 20] = value
    assert local_soft_argmax(maps).tolist() == pytest.approx([center(20, 32), center(5, 32)])


def test_local_soft_argmax_gradcheck():
    maps = gaussian(4.3, 3.8, 1.2, size=8).clone().requires_grad_()
    assert torch.autograd.gradcheck(local_soft_argmax, maps)


def test_confidence_is_the_mass_in_five_by_five_cells():
    torch.manual_seed(2)
    maps = torch.rand(32, 32).double()
    maps = maps / maps.sum()
    point = torch.tensor([center(10, 32), center(31, 32)]).double()  # in the bottom row: the window is cut
    assert mass_near(maps, point).item() == pytest.approx(maps[29:32, 8:13].sum().item())
    assert mass_near(maps, point + 10).item() == 0
    flat, peaked = torch.full((32, 32), 1 / 1024), gaussian(16.5, 16.5, 0.6)
    middle = torch.tensor([center(16, 32)] * 2)
    assert mass_near(flat, middle).item() == pytest.approx(25 / 1024)
    assert mass_near(peaked / peaked.sum(), middle.double()) > 0.99


@pytest.mark.parametrize("name", ["dhpe-lite", "dhpe-paper"])
@pytest.mark.parametrize(("batch", "size"), [(1, 64), (3, 96)])
def test_maps_are_32_wide_at_every_input_size(name, batch, size):
    net = EvidenceNet(CONFIGS[name]).eval()
    with torch.inference_mode():
        evidence = net(torch.rand(batch, 3, size, size))
    assert evidence.heatmaps.shape == (batch, 21, 32, 32)
    assert [x.shape for x in evidence.heatmap_logits] == [(batch, 21, 32, 32)] * 2
    assert [x.shape for x in evidence.stage_mask_logits] == [(batch, 32, 32)] * 2
    assert evidence.keypoints.shape == (batch, 21, 2) and evidence.keypoints.abs().max() <= 1
    assert evidence.confidence.shape == (batch, 21)
    assert (evidence.confidence >= 0).all() and (evidence.confidence <= 1).all()
    if CONFIGS[name].heatmap_activation == "softmax":
        assert torch.allclose(evidence.heatmaps.sum((-2, -1)), torch.ones(batch, 21), atol=1e-5)
        assert evidence.keypoints.abs().max() < 0.2  # near-flat at the start: the middle of the crop


def test_features_alone_equal_those_of_the_whole():
    net = EvidenceNet(CONFIGS["dhpe-lite"]).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(net.extract_features(images), net(images).features)


@pytest.mark.parametrize("activation", ["softmax", "linear"])
def test_the_head_learns_where_a_dot_is(activation):
    """Both activations: 30 steps on white dots, over a trunk at rest, bring j closer than any constant answer could."""
    torch.manual_seed(0)
    config = replace(CONFIGS["dhpe-lite"], heatmap_activation=activation, head_width=32, head_depth=(1, 1))
    net = EvidenceNet(config)
    net.trunk.eval().requires_grad_(False)
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 3e-3)
    grid = torch.linspace(-0.6, 0.6, 4)
    points = torch.cartesian_prod(grid, grid)
    pixels = cell_centers(64, points)
    distance = (pixels[None, None] - points[:, 0, None, None]) ** 2 + (
        pixels[None, :, None] - points[:, 1, None, None]
    ) ** 2
    images = torch.exp(-distance / 0.01)[:, None].expand(-1, 3, -1, -1).contiguous()
    cells = cell_centers(32, points)
    distance = (cells[None, None] - points[:, 0, None, None]) ** 2 + (
        cells[None, :, None] - points[:, 1, None, None]
    ) ** 2
    target = torch.exp(-distance / 0.02)[:, None]
    for _ in range(30):
        evidence = net(images)
        if activation == "softmax":
            shares = (target / target.sum((-2, -1), keepdim=True)).flatten(2)
            loss = sum(-(shares * x.flatten(2).log_softmax(-1)).sum(-1).mean() for x in evidence.heatmap_logits)
        else:
            loss = sum(100 * (x - target).square().mean() for x in evidence.heatmap_logits)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    error = (net(images).keypoints - points[:, None]).norm(dim=-1).mean()
    constant = points.norm(dim=-1).mean()
    assert error < 0.6 * constant
