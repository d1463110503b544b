"""Batches as a function of the step number: photos, datasets, synthetic hands and hand-free pictures, mixed by share.

Nothing here has a state that a checkpoint must carry: step n draws from a generator seeded with (seed, n), and
the pool of synthetic pictures is a function of n too, so that a resumed run sees what an undisturbed one would.
Batches are made in the training process itself: there is no loader process whose order or death could matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import roma
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from densehand.data.augment import augment, negatives
from densehand.data.fits import known_fits
from densehand.data.labelled import load_dataset
from densehand.data.photos import Skipped, load_photos, need_folder, read_picture
from densehand.data.records import Records, TrainingBatch, records_from_photos
from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.images import find_images
from densehand.train import ranks
from densehand.train.config import TrainConfig

if TYPE_CHECKING:
    from densehand.synth.sampler import Synthesizer
    from densehand.train.selfsup import Reseeder

CHUNK = 64  # synthetic pictures rendered at a time


def seeded(device: torch.device | str, *numbers: int) -> Generator:
    """A generator seeded by a hash of the numbers: neighbouring steps and runs get unrelated streams."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest()
    return Generator(device=device).manual_seed(int.from_bytes(digest, "big"))


def load_backgrounds(
    folder: Path | str,
    size: int = 256,
    skipped: Skipped | None = None,
    wanted: Callable[[Path], bool] = lambda path: True,
) -> UInt8[Tensor, "n s s 3"]:
    """The wanted pictures of a folder at `size`²; damaged ones go to `skipped`. InputError where there is none."""
    pictures = []
    folder = need_folder(folder, "hand-free pictures")
    for path in filter(wanted, find_images([folder])):
        picture = read_picture(path)
        if picture is not None:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
            pictures.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        elif skipped is not None:
            skipped.add("pictures missing or damaged", path.name)
    if not pictures:
        raise InputError(f"{folder}: no picture in it can be used as background; give a folder of hand-free photos")
    return torch.from_numpy(np.stack(pictures))


def load_records(
    folder: Path | str,
    hand: HandModel,
    fits_file: Path | str = "",
    split: str = "train",
    skipped: Skipped | None = None,
) -> Records:
    """Photos of one split with their hand model fits; fits are computed once and kept in `fits_file`.

    What the folder lacks goes to `skipped`. Raises InputError where nothing is left or the fits are of other photos.
    """
    photos = load_photos(folder, split)
    if skipped is not None:
        skipped.merge(photos.skipped)
    return records_from_photos(photos, known_fits(fits_file, hand, photos), hand=hand)


def likeness(records: Records) -> Float[Tensor, "n 48"]:
    """Pose and view as numbers whose distance says how unlike two pictures are; turns in the picture do not count."""
    axes = roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(records.rotation))
    return torch.cat([records.pose, 2.0 * axes[:, 2]], 1)  # which way the hand's axes point in depth


def rarity(likeness: Float[Tensor, "n d"], power: float, neighbours: int = 30) -> Float[Tensor, " n"]:
    """The distance to the 30th most alike photo, to a power: large where few photos show such a hand."""
    count = min(neighbours, len(likeness))
    parts = [torch.cdist(part, likeness).kthvalue(count, 1).values for part in likeness.split(1024)]
    return torch.cat(parts) ** power


def pool_size(size: int) -> int:
    """Side of rendered pictures for crops of `size`²: larger, as they are cut anew, turned, each time they are used."""
    return round(size * 1.25 / 32) * 32


class SynthPool:
    """A ring of rendered hands, `pool` of them, of which each step replaces 1/replay of what it uses.

    Chunk c is rendered from seed (seed, c) alone; at step n the ring holds the last pool/CHUNK chunks due by then.
    `own`: of several processes each renders other pictures.
    """

    def __init__(self, synthesizer: Synthesizer | Reseeder, pool: int, seed: int, own: bool = False):
        self.synthesizer, self.seed, self.own = synthesizer, seed, own
        self.slots = max(1, pool // CHUNK)
        self.held = [-1] * self.slots  # the chunk that each slot holds
        self.ring: Records | None = None

    def records(self, used: int, replay: float) -> Records:
        """The ring after `used` synthetic pictures have been seen in training."""
        due = self.slots + int(used / max(replay, 1.0) / CHUNK)
        for number in range(due - self.slots, due):
            slot = number % self.slots
            if self.held[slot] != number:
                mine = (ranks.rank(),) if self.own and ranks.rank() else ()
                generator = seeded(self.synthesizer.device, self.seed, 1, number, *mine)
                self._put(slot, self.synthesizer.records(CHUNK, generator))
                self.held[slot] = number
        assert self.ring is not None  # at least one slot was due
        return self.ring

    def draw(self, used: int, count: int, replay: float, generator: Generator) -> tuple[Records, Int[Tensor, " k"]]:
        """The ring after `used` pictures, and which `count` of it come next: the next rendered, where each is to be
        shown once, else any."""
        ring = self.records(used, replay)
        if replay <= 1 and count + CHUNK <= len(ring):
            return ring, (used + torch.arange(count, device=self.synthesizer.device)) % len(ring)
        return ring, torch.randint(len(ring), (count,), generator=generator, device=self.synthesizer.device)

    def _put(self, slot: int, chunk: Records) -> None:
        if self.ring is None:
            sizes = {name: (self.slots * CHUNK, *value.shape[1:]) for name, value in vars(chunk).items()}
            self.ring = Records(**{name: getattr(chunk, name).new_empty(size) for name, size in sizes.items()})
        for name, value in vars(chunk).items():
            getattr(self.ring, name)[slot * CHUNK : (slot + 1) * CHUNK] = value


class BatchStream:
    """`stream.batch(step)` → TrainingBatch on the device: of several processes, this one's part of it.

    skipped: what each source lacked, by its name.
    """

    def __init__(self, config: TrainConfig, hand: HandModel, device: torch.device | str = "cpu"):
        self.config, self.hand, self.device = config, hand.to(device), torch.device(device)
        self.photos: Records | None = None
        self.rarity: Tensor | None = None  # how often each photo is drawn; None: all alike
        self.backgrounds = None
        self.real: list[tuple[float, Records]] = []  # weight and records of photos and datasets
        self.skipped: dict[str, Skipped] = {}
        if config.backgrounds:
            lacking = self.skipped["backgrounds"] = Skipped()
            self.backgrounds = load_backgrounds(config.backgrounds, skipped=lacking).to(device)
        if config.photo_share + config.negative_share + config.selfsup_share > 1 + 1e-6:
            raise InputError(
                f"photo_share {config.photo_share:g} + negative_share {config.negative_share:g} + selfsup_share "
                f"{config.selfsup_share:g} are more than 1; what they leave of it is synthetic"
            )
        counts = self.counts(config.batch)
        if counts["photos"] or counts["selfsup"]:
            self._load_real()
        self.pool: SynthPool | None = None
        self.views: SynthPool | None = None  # new views of the photos' hands
        if counts["synthetic"] or counts["selfsup"]:
            synthesizer = self.synthesizer()
            own = config.rank_batches == "own"
            if counts["synthetic"]:
                self.pool = SynthPool(synthesizer, config.pool, config.seed, own)
            if counts["selfsup"]:
                self.views = SynthPool(self._reseeder(synthesizer), config.pool // 4, config.seed + 1, own)

    def synthesizer(self) -> Synthesizer:
        """Renders hands in poses around those of the trusted photos, before the backgrounds."""
        from densehand.synth.sampler import Synthesizer

        known = [records.pose[records.trust > 0.5] for _, records in self.real]
        poses = torch.cat(known) if known else None
        size, how = pool_size(self.config.size), self.config.synthesis
        return Synthesizer(self.hand, self.backgrounds, self.device, size, poses=poses, config=how)

    def weigh_photos(self) -> Tensor | None:
        """How often each photo is drawn under `config.rare`; None: all alike."""
        if self.photos is None or not self.config.rare:
            return None
        believed = 0.1 + self.photos.keypoint_weight.mean(1)
        return rarity(likeness(self.photos), self.config.rare) * believed

    def _reseeder(self, synthesizer: Synthesizer) -> Reseeder:
        from densehand.train.selfsup import Reseeder

        if self.photos is None:
            raise InputError("selfsup_share > 0 makes new views of photos: give --photos DIR or --selfsup-share 0")
        return Reseeder(self.hand, self.photos, synthesizer=synthesizer)

    def _load_real(self) -> None:
        config = self.config
        if not config.photos and not config.dataset:
            raise InputError("photo_share > 0 but no folder of photos: give --photos DIR or --photo-share 0")
        if config.photos:
            lacking = self.skipped["photos"] = Skipped()
            self.photos = load_records(config.photos, self.hand, config.fits, skipped=lacking).to(self.device)
            self.real.append((config.photos_weight, self.photos))
            self.rarity = self.weigh_photos()
        for share in config.dataset:
            parts, lacking = load_dataset(
                share.name, share.root, self.hand, share.split or None, share.limit, config.seed
            )
            self.skipped[share.name] = lacking
            hands = sum(map(len, parts))
            self.real += [(share.weight * len(part) / hands, part.to(self.device)) for part in parts]
        if not sum(weight for weight, _ in self.real):
            raise InputError("photos and datasets all have weight 0; give one of them more, or --photo-share 0")

    def counts(self, batch: int) -> dict[str, int]:
        """Pictures of each kind in a batch of so many."""
        config = self.config
        photos = round(batch * config.photo_share)
        empty = round(batch * config.negative_share) if config.backgrounds else 0
        new = round(batch * config.selfsup_share)
        return {
            "photos": photos, "negatives": empty, "selfsup": new, "synthetic": max(0, batch - photos - empty - new),
        }  # fmt: skip

    def batch(self, step: int) -> TrainingBatch:
        """The pictures of a step. Of several processes, each gets every world-th picture from its rank on, or makes
        batch / world of its own (`rank_batches`)."""
        rank, world = ranks.rank(), ranks.world()
        if world > 1 and self.config.rank_batches == "own":
            return self._make(step, self.config.batch // world, (rank,))
        whole = self._make(step, self.config.batch)
        return whole if world == 1 else whole.every(rank, world)

    def _make(self, step: int, size: int, mine: tuple[int, ...] = ()) -> TrainingBatch:
        config, counts = self.config, self.counts(size)
        generator = seeded(self.device, config.seed, 0, step, *mine)
        how, parts = config.augmentation, []
        for (_, records), count in zip(self.real, self._shares(step, counts["photos"], mine), strict=True):
            if count:
                index = self._draw(records, count, generator)
                parts.append(augment(self.hand, records, index, config.size, how, generator, self.backgrounds))
        for pool, count in ((self.views, counts["selfsup"]), (self.pool, counts["synthetic"])):
            if pool is not None and count:
                records, index = pool.draw(step * count, count, config.replay, generator)
                parts.append(augment(self.hand, records, index, config.size, how, generator))
        if counts["negatives"] and self.backgrounds is not None:
            parts.append(negatives(self.backgrounds, counts["negatives"], config.size, config.augmentation, generator))
        return TrainingBatch.join(parts)

    def _draw(self, records: Records, count: int, generator: Generator) -> Tensor:
        """Rows of real hands, all alike, or photos of rare poses and views more often."""
        if records is self.photos and self.rarity is not None:
            return torch.multinomial(self.rarity, count, True, generator=generator)
        return torch.randint(len(records), (count,), generator=generator, device=self.device)

    def _shares(self, step: int, count: int, mine: tuple[int, ...]) -> list[int]:
        """How many of `count` real pictures each source gives: drawn by weight, so that small weights count too."""
        if len(self.real) < 2:
            return [count] * len(self.real)
        if not count:
            return [0] * len(self.real)
        weights = torch.tensor([weight for weight, _ in self.real])
        drawn = torch.multinomial(weights, count, True, generator=seeded("cpu", self.config.seed, 2, step, *mine))
        return torch.bincount(drawn, minlength=len(weights)).tolist()
