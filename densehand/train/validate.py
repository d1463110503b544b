"""Figures on held-back photos while a run goes on. The labels are a teacher's: good for watching, not for claims."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from densehand.camera import ERROR_CROP
from densehand.data.augment import Augmentation, augment
from densehand.data.records import Records, TrainingBatch
from densehand.hand.model import HandModel
from densehand.network.estimator import DHPE, evaluating

PLAIN = Augmentation(
    rotation=0, any_rotation=0, zoom=(1.0, 1.0), shift=0, flip=0, colour=0, blur=0, noise=0, occluder=0, grey=0
)


class HeldBackPhotos:
    """Error of a network on hands it does not train on: pixels of a 224-px crop against the corrected teacher."""

    def __init__(
        self,
        records: Records,
        hand: HandModel,
        size: int,
        limit: int = 512,
        how: Augmentation = PLAIN,
        backgrounds: UInt8[Tensor, "n s s 3"] | None = None,
    ):
        self.batches: list[TrainingBatch] = []
        for part in records.trusted(limit).split(64):
            generator = torch.Generator(device=records.images.device).manual_seed(len(self.batches))
            self.batches.append(augment(hand, records, part, size, how, generator, backgrounds))

    @torch.no_grad()
    def __call__(self, network: DHPE) -> dict[str, float]:
        heat, refined, mesh, right = [], [], [], []

        def error(points: Tensor, target: Tensor) -> Tensor:
            return (points - target).norm(dim=-1).mean(-1) * (ERROR_CROP / 2)

        with evaluating(network):
            for batch in self.batches:
                estimate = network(batch.images)
                heat.append(error(estimate.keypoints[0], batch.keypoints))
                refined.append(error(estimate.keypoints[-1], batch.keypoints))
                mesh.append(error(estimate.skeletons[-1][..., :2], batch.keypoints))
                right += [estimate.side_logit > 0, network(batch.images.flip(-1)).side_logit < 0]
        figures: dict[str, float] = {}
        for name, values in (("heat", heat), ("refined", refined), ("mesh", mesh)):
            all_values = torch.cat(values)
            figures |= {f"{name}_median": float(all_values.median()), f"{name}_mean": float(all_values.mean())}
        return figures | {"side": float(torch.cat(right).float().mean())}
