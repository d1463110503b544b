"""Labels for hands nobody labelled: what the network's views agree on, weighted by how well they agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densehand.data.fits import box_size
from densehand.data.records import Records, no_masks
from densehand.hand.model import HandModel
from densehand.refine.fast import refine_fast
from densehand.views import Agreement, Answers, consensus, from_crop, to_crop


@dataclass(frozen=True)
class Keep:
    """What a hand must keep to for its labels to be believed: largest values (%), or least where it says so.

    spread, flip, bend, side (least), iou (least), present (least): see `views.Agreement`. teacher: mean distance of the
    consensus to a teacher's keypoints, where it has any.
    """

    spread: float = 6.0
    flip: float = 10.0
    bend: float = 15.0
    side: float = 0.8
    iou: float = 0.5
    present: float = 0.5
    teacher: float = 12.0

    def looser(self, factor: float) -> Keep:
        """Distances allowed `factor` times as large; the least values stay."""
        return Keep(
            self.spread * factor, self.flip * factor, self.bend * factor, self.side, self.iou, self.present,
            self.teacher * factor,
        )  # fmt: skip


def believable(agreed: Agreement, keep: Keep, teacher_error: Float[Tensor, " n"] | None = None) -> Bool[Tensor, " n"]:
    """Which hands agree with themselves, and do not contradict the teacher (error in %, NaN where it is silent)."""
    good = (agreed.spread <= keep.spread) & (agreed.flip <= keep.flip) & (agreed.bend <= keep.bend)
    good &= (agreed.side >= keep.side) & (agreed.iou >= keep.iou) & (agreed.present >= keep.present)
    if teacher_error is not None:
        good &= ~(teacher_error > keep.teacher)
    return good


def label_error(points: Float[Tensor, "n 21 2"], labels: Float[Tensor, "n 21 2"]) -> Float[Tensor, " n"]:
    """Mean distance of keypoints to labels in % of the labels' box; NaN where a hand has no label."""
    return 100 * (points - labels).norm(dim=-1).mean(-1) / box_size(labels)


@torch.no_grad()
def pseudo_labels(
    hand: HandModel,
    images: Tensor,
    answers: Answers,
    agreed: Agreement,
    centre: Float[Tensor, "n 2"],
    half: Float[Tensor, " n"],
    keep: Keep,
) -> Records:
    """All n hands with the views' consensus as labels: its mesh drawn to its 2D skeleton by the fast refinement.

    trust falls from 1 at half the allowed disagreement to 0.2 at the allowed one; a keypoint's weight further falls
    with its own spread over the views.
    """
    mesh, keypoints, confidence = consensus(answers)
    evidence = (keypoints - centre[:, None]) / half[:, None, None]
    refined = refine_fast(hand, to_crop(mesh, centre, half), evidence, confidence)
    mesh = from_crop(refined.h, centre, half)
    allowed = (keep.spread + keep.flip) / 2
    trust = (1.8 - 1.6 * agreed.disagreement / allowed).clamp(0.2, 1.0)
    apart = (answers.keypoints - keypoints).norm(dim=-1).square().mean(0).sqrt() / box_size(keypoints)[:, None]
    weight = trust[:, None] * (1.5 - 100 * apart / (2 * keep.spread)).clamp(0, 1)
    nothing = no_masks(len(images)).to(images.device)
    return Records(
        images, keypoints, weight, mesh.pose, mesh.shape, mesh.rotation, mesh.scale, mesh.translation[:, :2], trust,
        nothing, nothing,
    )  # fmt: skip
