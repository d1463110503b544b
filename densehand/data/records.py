"""What training reads: hands in memory (`Records`) and what one step sees (`TrainingBatch`)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from densehand.data.fits import Fits, evenly, ramp, render_masks
from densehand.data.photos import PhotoSet
from densehand.errors import InputError
from densehand.hand.model import HandModel

GOOD, BAD = 0.03, 0.08  # the 3D labels are trusted below a 2D residual of GOOD (share of the box), not beyond BAD


@dataclass
class Records:
    """Right hands with a weak-perspective hand model fit, in units of their stored picture ([-1, 1] over it).

    trust: weight of the 3D labels (0 where the fit does not explain the 2D evidence). masks: visible hand surface,
    empty (n, 0, 0) where a source has none; a hand whose mask is nothing but zeros has none either. silhouettes: the
    whole hand, what is covered included; empty where the masks are that already, or the best there is.
    """

    images: UInt8[Tensor, "n s s 3"]
    keypoints: Float[Tensor, "n 21 2"]
    keypoint_weight: Float[Tensor, "n 21"]
    pose: Float[Tensor, "n 45"]
    shape: Float[Tensor, "n 10"]
    rotation: Float[Tensor, "n 4"]
    scale: Float[Tensor, " n"]
    translation: Float[Tensor, "n 2"]
    trust: Float[Tensor, " n"]
    masks: UInt8[Tensor, "n m m"]
    silhouettes: UInt8[Tensor, "n m m"]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> Records:
        return Records(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def select(self, rows: Tensor | slice) -> Records:
        """Some of the hands: indices, a mask or a slice."""
        return Records(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def trusted(self, most: int | None = None) -> Int[Tensor, " k"]:
        """Rows of the hands of trusted fits, at most so many, evenly drawn. Raises InputError where there is none."""
        rows = torch.nonzero(self.trust > 0.5).flatten()
        if not len(rows):
            raise InputError(f"none of {len(self)} photos has a fit to be trusted; give others")
        return rows if most is None else rows[evenly(len(rows), most)]

    @staticmethod
    def join(parts: list[Records]) -> Records:
        """Records one after another; their pictures must be of one size."""
        return Records(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Records)})


@dataclass
class TrainingBatch:
    """One step's pictures and labels, in crop units (see docs/architecture.md).

    skeleton: y* = scale · R · X + t. Weights are 0 where a label is absent. is_right / has_hand: 1 or 0, for the two
    yes-no heads. mask: the hand as seen, without what covers it; silhouette: the whole hand, as its mesh shows it.
    """

    images: Float[Tensor, "b 3 s s"]
    keypoints: Float[Tensor, "b 21 2"]
    keypoint_weight: Float[Tensor, "b 21"]
    skeleton: Float[Tensor, "b 21 3"]
    pose: Float[Tensor, "b 45"]
    shape: Float[Tensor, "b 10"]
    rotation: Float[Tensor, "b 4"]
    trust: Float[Tensor, " b"]
    mask: Float[Tensor, "b s s"]
    silhouette: Float[Tensor, "b s s"]
    has_mask: Bool[Tensor, " b"]
    is_right: Float[Tensor, " b"]
    has_hand: Float[Tensor, " b"]

    def __len__(self) -> int:
        return len(self.images)

    def every(self, first: int, stride: int) -> TrainingBatch:
        """Rows first, first + stride, first + 2·stride, …"""
        return TrainingBatch(**{f.name: getattr(self, f.name)[first::stride] for f in fields(self)})

    @staticmethod
    def join(parts: list[TrainingBatch]) -> TrainingBatch:
        names = [f.name for f in fields(TrainingBatch)]
        return TrainingBatch(**{n: torch.cat([getattr(p, n) for p in parts]) for n in names})


def no_masks(count: int) -> UInt8[Tensor, "n 0 0"]:
    """What `Records` holds where a source has no masks."""
    return torch.zeros(count, 0, 0, dtype=torch.uint8)


def records_from_photos(photos: PhotoSet, fits: Fits, hand: HandModel | None = None) -> Records:
    """Photos with their fits. Trust falls from 1 at a residual of `GOOD` to 0 at `BAD`.

    Where the fit fails, the teacher's 2D is suspect too: its keypoints keep 0.3 of their weight down to none at
    twice `BAD`. Fits that say themselves what they are worth are taken at their word. With a hand model, masks are
    rendered of the fits that allow it.
    """
    count = len(photos)
    trust, weight = fits.trust, fits.keypoint_weight
    if trust is None:
        trust = ramp(fits.residual, BAD, GOOD) * (photos.score > 0.5)
    if weight is None:
        flat = ramp(fits.residual, 2 * BAD, BAD) * 0.3
        weight = torch.maximum(trust, flat)[:, None].expand(count, 21).clone()
    masks = render_masks(hand, fits) if hand is not None else None
    if masks is None:
        masks = no_masks(count)
    return Records(
        photos.images, fits.labels, weight, fits.pose, fits.shape, fits.rotation, fits.scale, fits.translation, trust,
        masks, no_masks(count),
    )  # fmt: skip
