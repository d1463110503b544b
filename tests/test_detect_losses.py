"""Targets and losses of the detector."""

import numpy as np
import torch

from densehand.detect.boxes import peaks
from densehand.detect.losses import Targets, detector_losses, generalised_iou, legibility, make_targets
from densehand.detect.model import REFERENCE_SIZE, STRIDE, DetectorOutput, cell_centres

GRID = (16, 20)


def targets_of(boxes, right=None, ignore=(), valid=None) -> Targets:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4)
    n = boxes.shape[1]
    right = torch.tensor([right if right is not None else [1.0] * n])
    valid = torch.tensor([valid if valid is not None else [True] * n])
    ignored = torch.tensor(ignore or [[0.0, 0, 0, 0]]).reshape(1, -1, 4)
    keypoints = torch.rand(1, n, 21, 2) * 50
    return make_targets(GRID, boxes, valid, right, torch.ones(1, n), ignored, keypoints)


def perfect_output(targets: Targets) -> DetectorOutput:
    """What a flawless network would say."""
    centre = (targets.boxes[:, :2] + targets.boxes[:, 2:]) / 2
    size = (targets.boxes[:, 2:] - targets.boxes[:, :2]).clamp_min(1e-3)
    cells = cell_centres(*GRID)
    extent = size.amax(1, keepdim=True)
    return DetectorOutput(
        torch.where(targets.heat >= 1, 12.0, -12.0),
        (centre - cells) / STRIDE,
        (size / REFERENCE_SIZE).log(),
        (targets.right - 0.5) * 40,
        torch.zeros_like(centre),
        (targets.keypoints - cells.repeat(21, 1, 1)) / extent,
    )


def test_every_hand_has_its_peak_in_the_cell_of_its_centre_and_a_weight_of_one():
    boxes = [[10, 12, 40, 30], [60, 20, 150, 120], [100, 90, 112, 104]]
    targets = targets_of(boxes)
    assert (targets.heat == 1).sum() == 3
    for x0, y0, x1, y1 in boxes:
        row, column = int((y0 + y1) / 2 // STRIDE), int((x0 + x1) / 2 // STRIDE)
        assert targets.heat[0, row, column] == 1
        assert targets.boxes[0, :, row, column].tolist() == [x0, y0, x1, y1]
    assert abs(targets.weight.sum().item() - 3) < 1e-5


def test_rows_of_padding_count_for_nothing():
    alone = targets_of([[10, 12, 40, 30]])
    padded = targets_of([[10, 12, 40, 30], [0, 0, 0, 0]], valid=[True, False])
    for name in ("heat", "weight", "ignore"):
        assert torch.equal(getattr(alone, name), getattr(padded, name)), name
    assert targets_of([[0.0, 0, 0, 0]], valid=[False]).heat.max() == 0


def test_a_flawless_answer_costs_nothing_and_decodes_to_the_boxes():
    boxes = [[10.0, 12, 40, 30], [60, 20, 150, 120]]
    targets = targets_of(boxes, right=[1.0, 0.0])
    output = perfect_output(targets)
    losses = detector_losses(output, targets)
    assert all(loss.item() < 2e-3 for loss in losses)
    found = peaks(output, 0.5)[0]
    order = np.argsort(found.boxes[:, 0])
    np.testing.assert_allclose(found.boxes[order], boxes, atol=1e-3)
    assert (found.right[order] > 0.5).tolist() == [True, False]


def test_each_fault_raises_its_own_loss():
    targets = targets_of([[60.0, 20, 150, 120]])
    flawless = perfect_output(targets)
    base = detector_losses(flawless, targets)
    wrong_side = detector_losses(flawless._replace(side_logit=-flawless.side_logit), targets)
    assert wrong_side.side > base.side + 1 and wrong_side.box == base.box
    larger = detector_losses(flawless._replace(log_size=flawless.log_size + 0.3), targets)
    assert larger.size > base.size + 0.1 and larger.box > base.box + 0.1
    blind = detector_losses(flawless._replace(centre_logit=torch.full((1, *GRID), -12.0)), targets)
    assert blind.centre > base.centre + 5
    no_pose = detector_losses(flawless._replace(keypoints=None), targets)
    assert no_pose.keypoints == 0


def test_false_alarms_are_free_only_in_regions_to_ignore():
    region = [80.0, 80, 120, 120]
    targets, ignoring = targets_of([[10.0, 12, 40, 30]]), targets_of([[10.0, 12, 40, 30]], ignore=region)
    output = perfect_output(targets)
    alarm = output.centre_logit.clone()
    alarm[0, 12, 12] = 5.0  # the cell around (100, 100)
    output = output._replace(centre_logit=alarm)
    assert detector_losses(output, targets).centre > 1
    assert detector_losses(output, ignoring).centre < 1e-3


def test_a_hand_inside_a_region_to_ignore_is_still_to_be_found():
    targets = targets_of([[80.0, 80, 120, 120]], ignore=[60.0, 60, 140, 140])
    assert targets.heat[0, 12, 12] == 1 and not targets.ignore[0, 12, 12]


def test_generalised_iou_agrees_with_the_naive_twin_and_finite_differences():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(1, 2, 3, 4, generator=generator, dtype=torch.float64) * 10
    a = torch.cat([low, low + 1 + torch.rand(low.shape, generator=generator, dtype=torch.float64) * 10], 1)
    b = a.roll(1, -1) + 0.37
    values = generalised_iou(a, b)
    for row in range(3):
        for column in range(4):
            p, q = a[0, :, row, column].tolist(), b[0, :, row, column].tolist()
            common = max(min(p[2], q[2]) - max(p[0], q[0]), 0) * max(min(p[3], q[3]) - max(p[1], q[1]), 0)
            union = (p[2] - p[0]) * (p[3] - p[1]) + (q[2] - q[0]) * (q[3] - q[1]) - common
            hull = (max(p[2], q[2]) - min(p[0], q[0])) * (max(p[3], q[3]) - min(p[1], q[1]))
            assert abs(values[0, row, column].item() - (common / union - (hull - union) / hull)) < 1e-12
    assert torch.autograd.gradcheck(generalised_iou, (a.requires_grad_(), b))


def test_small_hands_teach_little_about_sides():
    sizes = torch.tensor([[5.0, 9.0], [20.0, 10.0], [40.0, 10.0], [300.0, 200.0]])
    weights = legibility(sizes)
    assert torch.all(weights.diff() >= 0) and weights[0] < 0.1 and weights[-1] == 1
