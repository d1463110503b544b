"""Training targets and losses of the detector (Zhou et al. 2019 for centres, Liu et al. 2020 for dense box
regression)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from densehand.detect.model import REFERENCE_SIZE, STRIDE, DetectorOutput, boxes_of, cell_centres

SPREAD = 0.1  # standard deviation of a centre's bump over the box's mean side
MIN_SPREAD = 0.65  # … and at least this many cells
BOX_REACH = 0.25  # cells where the bump is higher than this learn the box and the side


class Targets(NamedTuple):
    """Dense targets on the stride-8 grid; boxes in input pixels."""

    heat: Float[Tensor, "b hs ws"]  # bumps of height 1 at the cells of the centres
    ignore: Bool[Tensor, "b hs ws"]  # cells where "nothing here" is not known
    boxes: Float[Tensor, "b 4 hs ws"]
    weight: Float[Tensor, "b hs ws"]  # of the box loss; sums to 1 over each hand's cells
    right: Float[Tensor, "b hs ws"]
    side_weight: Float[Tensor, "b hs ws"]
    keypoints: Float[Tensor, "b 42 hs ws"]  # px


class DetectorLosses(NamedTuple):
    """Scalars, not yet weighted against each other."""

    centre: Tensor
    box: Tensor
    size: Tensor
    side: Tensor
    keypoints: Tensor  # zero without the auxiliary head

    def total(self) -> Tensor:
        """The training objective."""
        return self.centre + 1.5 * self.box + 0.7 * self.size + 1.5 * self.side + 1.5 * self.keypoints


def make_targets(
    grid: tuple[int, int],
    boxes: Float[Tensor, "b n 4"],
    valid: Bool[Tensor, "b n"],
    right: Float[Tensor, "b n"],
    side_weight: Float[Tensor, "b n"],
    ignore: Float[Tensor, "b m 4"],
    keypoints: Float[Tensor, "b n 21 2"],
) -> Targets:
    """Dense targets on a grid (hs, ws) of padded boxes. Rows not ``valid`` count for nothing, nor do ``ignore``
    boxes without area.
    """
    height, width = grid
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sizes = (boxes[..., 2:] - boxes[..., :2]).clamp_min(1.0)
    limit = torch.tensor([width, height], device=boxes.device)
    cells = torch.minimum((centres / STRIDE).floor().clamp_min(0), limit - 1)
    spread = (SPREAD * sizes.prod(-1).sqrt() / STRIDE).clamp_min(MIN_SPREAD)
    grid_xy = cell_centres(height, width, boxes.device)
    offset = grid_xy[None, None] / STRIDE - 0.5 - cells[..., None, None]
    bumps = torch.exp(-offset.square().sum(2) / (2 * spread.square()[..., None, None]))
    bumps = bumps * valid[..., None, None]
    # where bumps meet, the higher one wins; among equals the smaller box, which could not be found otherwise
    small_first = 1e-4 * torch.exp(-sizes.prod(-1).sqrt() / 256)[..., None, None]
    owner = (bumps + small_first * (bumps > 0)).argmax(1, keepdim=True)
    heat = bumps.amax(1)
    region = torch.where(heat > BOX_REACH, heat, torch.zeros_like(heat))
    owned = torch.zeros_like(bumps).scatter_(1, owner, 1.0) * region[:, None]
    weight = owned / owned.sum((2, 3), keepdim=True).clamp_min(1e-6)

    def spread_out(values: Tensor) -> Tensor:
        return torch.gather(values[..., None, None].expand(-1, -1, height, width), 1, owner)[:, 0]

    left, top, far_right, bottom = (ignore[..., i, None, None] for i in range(4))
    x, y = grid_xy
    ignored = ((x > left) & (x < far_right) & (y > top) & (y < bottom)).any(1)
    return Targets(
        heat,
        ignored & (heat < 1),
        torch.stack([spread_out(boxes[..., i]) for i in range(4)], 1),
        weight.sum(1),
        spread_out(right),
        spread_out(side_weight * legibility(sizes)),
        torch.stack([spread_out(coordinate) for coordinate in keypoints.flatten(2).unbind(-1)], 1),
    )


def legibility(sizes: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    """How much a hand's side can be told from its size in pixels: from 0.05 under 12 px up to 1 at 40 px."""
    return ((sizes.amax(-1) - 12) / 28).clamp(0.05, 1.0)


def generalised_iou(a: Float[Tensor, "b 4 h w"], b: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b h w"]:
    """Generalised IoU in (−1, 1] of boxes given along dimension 1 (Rezatofighi et al. 2019)."""
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0).prod(1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1).clamp_min(1e-6)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (a, b))
    union = (area_a + area_b - common).clamp_min(1e-6)
    return common / union - (hull - union) / hull


def detector_losses(output: DetectorOutput, targets: Targets) -> DetectorLosses:
    """Focal loss of the centres (α = 2, β = 4), generalised IoU and log size of the boxes, cross entropy of the
    sides."""
    logit = output.centre_logit.float()
    positive = targets.heat >= 1
    log_p, log_q = F.logsigmoid(logit), F.logsigmoid(-logit)
    p = logit.sigmoid()
    at_centres = -((1 - p).square() * log_p)[positive].sum()
    negative = ~positive & ~targets.ignore
    elsewhere = -((1 - targets.heat).pow(4) * p.square() * log_q)[negative].sum()
    hands = positive.sum().clamp_min(1)

    weight = targets.weight
    boxes = boxes_of(output)
    box = ((1 - generalised_iou(boxes.float(), targets.boxes)) * weight).sum() / hands
    wanted = ((targets.boxes[:, 2:] - targets.boxes[:, :2]).clamp_min(1.0) / REFERENCE_SIZE).log()
    size = (F.smooth_l1_loss(output.log_size.float(), wanted, beta=0.1, reduction="none").sum(1) * weight).sum() / hands
    side = F.binary_cross_entropy_with_logits(output.side_logit.float(), targets.right, reduction="none")
    side = (side * weight * targets.side_weight).sum() / hands
    keypoints = torch.zeros((), device=logit.device)
    if output.keypoints is not None:
        height, width = logit.shape[-2:]
        centres = cell_centres(height, width, logit.device).repeat(21, 1, 1)
        extent = (targets.boxes[:, 2:] - targets.boxes[:, :2]).amax(1, keepdim=True).clamp_min(1.0)
        error = F.smooth_l1_loss(
            output.keypoints.float(), (targets.keypoints - centres) / extent, beta=0.05, reduction="none"
        )
        keypoints = (error.sum(1) / 21 * weight * targets.side_weight).sum() / hands
    return DetectorLosses((at_centres + elsewhere) / hands, box, size, side, keypoints)
