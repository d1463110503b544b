"""Batches as a function of the step number: photos, synthetic hands and hand-free pictures, mixed by share.

Nothing here has a state that a checkpoint must carry: step n draws from a generator seeded with (seed, n), and
the pool of synthetic pictures is a function of n too, so that a resumed run sees what an undisturbed one would.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from densehand.data.augment import augment, negatives
from densehand.data.fits import Fits, fit_photos
from densehand.data.photos import load_photos
from densehand.data.records import Records, TrainingBatch, records_from_photos
from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.train.config import TrainConfig

if TYPE_CHECKING:
    from densehand.synth.sampler import Synthesizer

CHUNK = 64  # synthetic pictures rendered at a time


def seeded(device: torch.device | str, *numbers: int) -> Generator:
    """A generator seeded by a hash of the numbers: neighbouring steps and runs get unrelated streams."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest()
    return Generator(device=device).manual_seed(int.from_bytes(digest, "big"))


def load_backgrounds(folder: Path | str, size: int = 256) -> UInt8[Tensor, "n s s 3"]:
    """All pictures of a folder at `size`². Raises InputError where there is none."""
    pictures = []
    for path in sorted(Path(folder).glob("*.jpg")) + sorted(Path(folder).glob("*.png")):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is not None:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
            pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    if not pictures:
        raise InputError(f"{folder}: no .jpg or .png picture to use as background")
    return torch.from_numpy(np.stack(pictures))


def load_records(folder: Path | str, hand: HandModel, fits_file: Path | str = "", split: str = "train") -> Records:
    """Photos of one split with their hand model fits; fits are computed once and kept in `fits_file`."""
    photos = load_photos(folder, split)
    path = Path(fits_file) if fits_file else None
    if path is not None and path.is_file():
        fits = Fits.load(path)
        if len(fits.scale) != len(photos):
            raise InputError(f"{path}: {len(fits.scale)} fits for {len(photos)} photos; delete it to fit again")
    else:
        fits = fit_photos(hand, photos.keypoints, photos.world)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            fits.save(path)
    return records_from_photos(photos, fits)


class SynthPool:
    """A ring of rendered hands, `pool` of them, of which each step replaces 1/replay of what it uses.

    Chunk c is rendered from seed (seed, c) alone; at step n the ring holds the last pool/CHUNK chunks due by then.
    """

    def __init__(self, synthesizer: Synthesizer, pool: int, seed: int):
        self.synthesizer, self.seed = synthesizer, seed
        self.slots = max(1, pool // CHUNK)
        self.held = [-1] * self.slots  # the chunk that each slot holds
        self.ring: Records | None = None

    def records(self, used: int, replay: float) -> Records:
        """The ring after `used` synthetic pictures have been seen in training."""
        due = self.slots + int(used / max(replay, 1.0) / CHUNK)
        for number in range(due - self.slots, due):
            slot = number % self.slots
            if self.held[slot] != number:
                generator = seeded(self.synthesizer.device, self.seed, 1, number)
                self._put(slot, self.synthesizer.records(CHUNK, generator))
                self.held[slot] = number
        assert self.ring is not None  # at least one slot was due
        return self.ring

    def _put(self, slot: int, chunk: Records) -> None:
        if self.ring is None:
            sizes = {name: (self.slots * CHUNK, *value.shape[1:]) for name, value in vars(chunk).items()}
            self.ring = Records(**{name: getattr(chunk, name).new_empty(size) for name, size in sizes.items()})
        for name, value in vars(chunk).items():
            getattr(self.ring, name)[slot * CHUNK : (slot + 1) * CHUNK] = value


class BatchStream:
    """`stream.batch(step)` → TrainingBatch on the device."""

    def __init__(self, config: TrainConfig, hand: HandModel, device: torch.device | str = "cpu"):
        self.config, self.hand, self.device = config, hand.to(device), torch.device(device)
        self.photos = None
        self.backgrounds = None
        if config.backgrounds:
            self.backgrounds = load_backgrounds(config.backgrounds).to(device)
        counts = self.counts()
        if counts["photos"]:
            if not config.photos:
                raise InputError("photo_share > 0 but no folder of photos: give --photos DIR or --photo-share 0")
            self.photos = load_records(config.photos, hand, config.fits).to(device)
        self.pool = None
        if counts["synthetic"]:
            from densehand.synth.sampler import SynthConfig, Synthesizer

            poses = self.photos.pose[self.photos.trust > 0.5] if self.photos is not None else None
            # wider and larger than needed: the pool's pictures are cut anew, turned, each time they are used
            wide = SynthConfig(zoom=(1.15, 1.45))
            size = round(config.size * 1.25 / 32) * 32
            synthesizer = Synthesizer(self.hand, self.backgrounds, self.device, size, poses=poses, config=wide)
            self.pool = SynthPool(synthesizer, config.pool, config.seed)

    def counts(self) -> dict[str, int]:
        """Pictures of each kind in a batch."""
        config = self.config
        photos = round(config.batch * config.photo_share)
        empty = round(config.batch * config.negative_share) if config.backgrounds else 0
        return {"photos": photos, "negatives": empty, "synthetic": max(0, config.batch - photos - empty)}

    def batch(self, step: int) -> TrainingBatch:
        config, counts = self.config, self.counts()
        generator = seeded(self.device, config.seed, 0, step)
        parts = []
        for kind, records in (("photos", self.photos), ("synthetic", self.pool)):
            count = counts[kind]
            if not count or records is None:
                continue
            if isinstance(records, SynthPool):
                records = records.records(step * count, config.replay)
            index = torch.randint(len(records), (count,), generator=generator, device=self.device)
            parts.append(augment(self.hand, records, index, config.size, config.augmentation, generator))
        if counts["negatives"] and self.backgrounds is not None:
            parts.append(negatives(self.backgrounds, counts["negatives"], config.size, config.augmentation, generator))
        return TrainingBatch.join(parts)
