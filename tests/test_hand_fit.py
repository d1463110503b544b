"""Fitting the hand to keypoints: finds what it made, and how well the open hand agrees with annotated hands."""

import json

import pytest
import torch

from densehand.hand import HandModel, clamp_pose
from densehand.hand.anatomy import limit_violation
from densehand.hand.fit import aligned_error, fit_skeleton
from densehand.hand.model import quaternion_to_matrix


@pytest.fixture(scope="module")
def model() -> HandModel:
    return HandModel.load("open", dtype=torch.float64)


def test_finds_its_own_hands(model: HandModel) -> None:
    generator = torch.Generator().manual_seed(0)
    pose = model.mean_pose + 0.25 * torch.randn(4, 45, generator=generator, dtype=torch.float64)
    pose = clamp_pose(pose, model)
    shape = 0.7 * torch.randn(4, 10, generator=generator, dtype=torch.float64)
    rotation = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    target = model.skeleton(pose, shape, rotation) * 1000 + torch.tensor([30.0, -20.0, 600.0])
    fit = fit_skeleton(model, target, shape_weight=1e-3, pose_weight=1e-4)
    assert (fit.keypoints - target).norm(dim=-1).mean() < 0.5  # mm
    assert limit_violation(fit.pose, model).max() < 1e-5
    again = model.skeleton(fit.pose, fit.shape, fit.rotation) * fit.scale[:, None, None] + fit.translation[:, None]
    torch.testing.assert_close(again, fit.keypoints, atol=1e-4, rtol=0)  # mm
    turn = quaternion_to_matrix(fit.rotation).mT @ quaternion_to_matrix(rotation)
    angle = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2).clamp(-1, 1).acos()
    assert angle.max() < 0.1


def test_aligned_error_ignores_similarities_only() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(3, 21, 3, generator=generator, dtype=torch.float64)
    matrix = quaternion_to_matrix(torch.randn(3, 4, generator=generator, dtype=torch.float64))
    moved = 2.5 * truth @ matrix.mT + 7
    assert aligned_error(moved, truth).max() < 1e-9
    mirrored = truth * torch.tensor([-1.0, 1.0, 1.0])
    assert aligned_error(mirrored, truth).mean() > 0.1


def test_open_hand_fits_annotated_hands(model: HandModel, shared_dir) -> None:
    rows = [json.loads(line) for line in (shared_dir / "fixtures" / "val3d.jsonl").read_text().splitlines()][::4]
    truth = torch.tensor([row["joints_mm"] for row in rows], dtype=torch.float64)
    truth[[row["side"] == "left" for row in rows]] *= torch.tensor([-1.0, 1.0, 1.0])
    error = aligned_error(fit_skeleton(model, truth, iterations=25).keypoints, truth)
    assert error.mean() < 2.0  # mm, measured 1.3
    assert error.mean(0).max() < 4.0  # no keypoint lies at a place of its own
