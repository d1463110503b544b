"""Which pictures are held back from training: whole blocks of neighbours, because many are frames of one film.

Each network keeps the split that it was first trained with, so what either is measured on none of its weights has seen.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """Pictures in order, in blocks of `size`; of every `every` blocks that numbered `place` (from 0) is held back."""

    size: int
    every: int
    place: int

    def block(self, index: int) -> int:
        """The block in which the index-th picture is."""
        return index // self.size

    def held_back(self, index: int) -> bool:
        """Whether the index-th picture is held back."""
        return self.block(index) % self.every == self.place


ESTIMATOR = Blocks(40, 12, 11)
"""Frames of a source, for the estimator."""

DETECTOR = Blocks(50, 8, 3)
"""Frames of a source, for the detector."""

BACKGROUNDS = Blocks(8, 8, 3)
"""Pictures without hands, for both: neighbours are crops of one photo."""


def frame_number(frame: str) -> int:
    """`source/00123` → 123; 0 where there is no digit."""
    return int("".join(c for c in frame.rsplit("/", 1)[-1] if c.isdigit()) or 0)


def neighbours(frame: str) -> str:
    """What the frames of one block of a source share: `source/00123` → `source/3`."""
    return f"{frame.rpartition('/')[0]}/{ESTIMATOR.block(frame_number(frame))}"
