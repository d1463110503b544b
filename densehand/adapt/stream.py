"""What an adaptation learns from: its own hands, new samples made from them, synthetic hands and hand-free pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from densehand.data.augment import Augmentation, augment, negatives
from densehand.data.records import Records, TrainingBatch
from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.synth import Synthesizer
from densehand.train.selfsup import WIDE, Reseeder
from densehand.train.stream import SynthPool, pool_size, seeded

REPLAY = 4.0  # how often a rendered picture is used (see TrainConfig)


@dataclass(frozen=True)
class Shares:
    """Parts of a batch; what is left of 1 is synthetic. negatives: pictures without a hand, where any are given."""

    photos: float = 0.5
    selfsup: float = 0.125
    negatives: float = 0.04


class AdaptStream:
    """`stream.batch(step)` → TrainingBatch, from the step number alone, as `train.stream.BatchStream`.

    records: hands with their labels, at least one. pool: of the rendered pictures (see TrainConfig). The new samples
    are left out, and their share is synthetic, where too few of the records are realistic seeds (`reseeding`).
    """

    def __init__(
        self,
        hand: HandModel,
        records: Records,
        backgrounds: UInt8[Tensor, "m h w 3"] | None,
        size: int,
        batch: int,
        shares: Shares,
        seed: int = 0,
        pool: int = 256,
    ) -> None:
        if shares.photos + shares.selfsup + shares.negatives > 1:
            raise InputError("the shares of photos, their new samples and hand-free pictures add up to more than 1")
        self.device = records.images.device
        self.hand, self.own, self.backgrounds, self.size = hand, records, backgrounds, size
        self.seed, self.augmentation = seed, Augmentation()
        synthesizer = Synthesizer(hand, backgrounds, self.device, pool_size(size), poses=records.pose, config=WIDE)
        self.pools: dict[str, SynthPool] = {}
        self.source = source = Reseeder(hand, records, synthesizer=synthesizer)
        self.reseeding = source.check.started
        self.counts = self._counts(batch, shares)
        if self.counts["selfsup"]:
            self.pools["selfsup"] = SynthPool(source, pool // 2, seed + 1)
        if self.counts["synthetic"]:
            self.pools["synthetic"] = SynthPool(synthesizer, pool, seed)

    def _counts(self, batch: int, shares: Shares) -> dict[str, int]:
        photos = max(1, round(batch * shares.photos))
        new = round(batch * shares.selfsup) if self.reseeding else 0
        empty = round(batch * shares.negatives) if self.backgrounds is not None else 0
        return {"photos": photos, "selfsup": new, "negatives": empty, "synthetic": max(0, batch - photos - new - empty)}

    def batch(self, step: int) -> TrainingBatch:
        generator = seeded(self.device, self.seed, 0, step)
        parts = []
        for kind in ("photos", "selfsup", "synthetic"):
            count = self.counts[kind]
            if count:
                records = self.own if kind == "photos" else self.pools[kind].records(step * count, REPLAY)
                index = torch.randint(len(records), (count,), generator=generator, device=self.device)
                parts.append(augment(self.hand, records, index, self.size, self.augmentation, generator))
        if self.counts["negatives"] and self.backgrounds is not None:
            parts.append(negatives(self.backgrounds, self.counts["negatives"], self.size, self.augmentation, generator))
        return TrainingBatch.join(parts)
