"""What all rows share: the training hands of a seed, rendered once and kept in a file, the hands they are tested on,
and the batches cut from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from densehand.data.augment import augment
from densehand.data.records import Records, TrainingBatch
from densehand.errors import InputError
from densehand.files import write_atomically
from densehand.hand.model import HandModel
from densehand.synth import Synthesizer
from densehand.train.config import TrainConfig
from densehand.train.stream import BatchStream, seeded

CHUNK = 64  # pictures rendered at a time
TEST_SEED = 1_000_003  # no training seed


def rendered(synthesizer: Synthesizer, count: int, seed: int, tick: Callable[[str], None] = lambda _: None) -> Records:
    """`count` synthetic hands as a function of the seed."""
    parts = []
    for start in range(0, count, CHUNK):
        generator = seeded(synthesizer.device, seed, 2, start)
        parts.append(synthesizer.records(min(CHUNK, count - start), generator))
        tick(f"{start + len(parts[-1])} of {count} hands of seed {seed} rendered")
    return Records.join(parts)


def kept(path: Path, make: Callable[[], Records]) -> Records:
    """The records of a file, made and written first where it is missing. Raises InputError where it is damaged."""
    if not path.is_file():
        made = {name: value.cpu().contiguous() for name, value in vars(make()).items()}
        with write_atomically(path) as temporary:
            save_file(made, temporary)
    try:
        state: dict[str, Tensor] = load_file(path)
        return Records(**{f.name: state[f.name] for f in fields(Records)})
    except Exception as error:  # safetensors has errors of its own
        raise InputError(f"{path}: cannot be read ({error}); delete it to have it made again") from error


class PoolStream(BatchStream):
    """Batches as a function of the step, from records that do not change but by `add`: the same for every row.

    sources: records and how many pictures of each a batch holds; the last are those that `add` extends.
    """

    def __init__(self, config: TrainConfig, hand: HandModel, sources: list[tuple[Records, int]]) -> None:
        self.config, self.hand, self.device = config, hand, sources[-1][0].images.device
        self.sources = list(sources)

    def add(self, more: Records) -> None:
        """More hands to draw from, beside the last source's."""
        records, count = self.sources[-1]
        self.sources[-1] = Records.join([records, more]), count

    def batch(self, step: int) -> TrainingBatch:
        """Pictures and labels of one step."""
        config = self.config
        generator = seeded(self.device, config.seed, 0, step)
        parts = []
        for records, count in self.sources:
            index = torch.randint(len(records), (count,), generator=generator, device=self.device)
            parts.append(augment(self.hand, records, index, config.size, config.augmentation, generator))
        return TrainingBatch.join(parts)
