"""Views of one crop: answers carried back exactly, their agreement, and their consensus."""

import math

import numpy as np
import pytest
import torch
from view_oracle import Oracle, answers_of, ramp, true_mesh

from densehand.adapt.gather import HOUSE
from densehand.adapt.labels import Keep, label_error, pseudo_labels
from densehand.views import View, agreement, consensus, from_crop, look, to_crop


def test_a_network_that_knows_agrees_with_itself_in_every_view(hand):
    """Turn, padding and mirroring are carried back exactly: the answers of all views fall on the truth."""
    answers, truth, *_ = answers_of(hand)
    agreed = agreement(answers)
    assert agreed.spread.item() < 0.5 and agreed.flip.item() < 0.5 and agreed.disagreement.item() < 0.5
    assert agreed.bend.item() < 0.5 and agreed.side.item() == 1 and agreed.present.item() > 0.9
    assert agreed.iou.item() == pytest.approx(1)
    for view in range(5):
        torch.testing.assert_close(answers.mesh.pose[view], truth.pose, atol=1e-5, rtol=0)
        torch.testing.assert_close(answers.mesh.scale[view], truth.scale, rtol=0.01, atol=0)
        torch.testing.assert_close(answers.mesh.translation[view], truth.translation, atol=0.01, rtol=0)
        between = (answers.mesh.rotation[view] * truth.rotation).sum(-1).abs()
        assert between.min() > math.cos(math.radians(1))
    skeleton = truth.scale[:, None, None] * hand.skeleton(truth.pose, truth.shape, truth.rotation)
    expected = skeleton[..., :2] + truth.translation[:, None, :2]
    assert (answers.heat - expected).abs().max() < 0.02  # all six views, the mirrored one too
    assert (answers.skeleton[..., :2] - expected).abs().max() < 0.02


def test_answers_of_crops_turned_at_will_fall_on_the_truth(hand):
    count = 3
    truth = true_mesh(hand, count)
    centre, half, turn = torch.full((count, 2), 0.05), torch.full((count,), HOUSE), torch.tensor([0.4, -2.0, 3.0])
    views = (View(), View(zoom=0.85, turn=20), View(flip=True))
    answers = look(Oracle(hand, truth), ramp(count), centre, half, views, turn=turn)
    skeleton = truth.scale[:, None, None] * hand.skeleton(truth.pose, truth.shape, truth.rotation)
    expected = skeleton[..., :2] + truth.translation[:, None, :2]
    assert (answers.heat - expected).abs().max() < 0.03
    between = (answers.mesh.rotation * truth.rotation).sum(-1).abs()
    assert between.min() > math.cos(math.radians(1))


def test_a_network_that_does_not_look_disagrees(hand):
    answers, *_ = answers_of(hand, blind=True)
    assert agreement(answers).disagreement.item() > 10


def test_agreement_against_a_loop(hand):
    answers, *_ = answers_of(hand)
    noise = torch.Generator().manual_seed(1)
    answers.skeleton = answers.skeleton + 0.03 * torch.randn(answers.skeleton.shape, generator=noise)
    answers.heat = answers.heat + 0.03 * torch.randn(answers.heat.shape, generator=noise)
    agreed = agreement(answers)
    points, heat = answers.skeleton[:, 0, :, :2].numpy(), answers.heat[:, 0].numpy()
    mean = points.mean(0)
    box = np.ptp(mean, axis=0).max()
    squares = [np.sum((points[v, k] - mean[k]) ** 2) for v in range(5) for k in range(21)]
    assert agreed.spread.item() == pytest.approx(100 * math.sqrt(np.mean(squares)) / box, rel=1e-4)
    distances = [np.linalg.norm(heat[5, k] - heat[:5, k].mean(0)) for k in range(21)]
    assert agreed.flip.item() == pytest.approx(100 * np.mean(distances) / box, rel=1e-4)
    assert agreed.disagreement.item() == pytest.approx((agreed.spread.item() + agreed.flip.item()) / 2)


def test_consensus_and_labels_of_agreeing_views_are_the_truth(hand):
    answers, truth, centre, half = answers_of(hand)
    answers.mesh.rotation[1] *= -1  # the same rotation
    mesh, keypoints, _ = consensus(answers)
    assert (mesh.rotation * truth.rotation).sum(-1).abs().min() > 0.9998
    back = from_crop(to_crop(mesh, centre, half), centre, half)
    torch.testing.assert_close(back.translation, mesh.translation, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.scale, mesh.scale, atol=1e-4, rtol=0)
    records = pseudo_labels(hand, ramp(1), answers, agreement(answers), centre, half, Keep())
    skeleton = hand.skeleton(records.pose, records.shape, records.rotation)[..., :2]
    projected = records.scale[:, None, None] * skeleton + records.translation[:, None]
    assert label_error(projected, keypoints).item() < 1.5
    assert records.trust.item() == 1 and records.keypoint_weight.min() > 0.9
