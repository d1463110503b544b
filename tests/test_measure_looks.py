"""What pictures of far and moving hands are made of."""

import pytest
import torch
from tool_loader import load_tool


@pytest.fixture(scope="module")
def tool():
    return load_tool("measure_looks")


def test_a_moving_point_becomes_a_line_of_the_share_asked_for(tool):
    pictures = torch.zeros(4, 3, 129, 129)
    pictures[:, :, 64, 64] = 255
    half = torch.tensor([0.2, 0.2, 0.6, 0.6])
    for share in tool.MOVED:
        seen = tool.moved(pictures, half, share)
        torch.testing.assert_close(seen.sum((1, 2, 3)), pictures.sum((1, 2, 3)), atol=1.0, rtol=1e-3)
        for one, reach in zip(seen[:, 0], half, strict=True):
            rows, columns = (one > 0).nonzero(as_tuple=True)
            light = {"aweights": one[rows, columns], "correction": 0}
            across, along = torch.linalg.eigvalsh(torch.cov(torch.stack((rows, columns)), **light))
            length = share * reach * 129
            assert 0 <= along - length**2 / 11 < 0.75 and across < 0.75  # five steps' variance; sampling spreads it


def test_a_far_hand_keeps_its_brightness_and_loses_detail(tool):
    torch.manual_seed(0)
    pictures = 255 * torch.rand(1, 3, 256, 256)
    seen = tool.far(pictures)
    assert seen.shape == pictures.shape and abs(float(seen.mean() - pictures.mean())) < 1
    assert float(seen.std()) < 0.4 * float(pictures.std())
