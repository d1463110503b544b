"""`Refinement`: what testing refinement did to a hand, a part of its result and of the JSON document."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from densehand.errors import InputError


@dataclass(frozen=True)
class Refinement:
    """What testing refinement did to a hand (docs/refinement.md).

    Attributes:
        mode: "fast", "paper", "views" or "frames".
        steps: how many were taken.
        converged: whether a further step would have been of no size.
        moved_px: mean distance of the 21 projected keypoints of the mesh from where they were, pixels of the photo.
        energy_before, energy_after: the mode's energy; comparable within a mode only.
        residual_px: mean distance of those keypoints to the 2D evidence, weighted by its confidence, pixels.
    """

    mode: str
    steps: int
    converged: bool
    moved_px: float
    energy_before: float
    energy_after: float
    residual_px: float

    def __post_init__(self) -> None:
        if not isinstance(self.mode, str) or not self.mode:
            raise InputError(f"the mode of a refinement is a word, not {self.mode!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise InputError(f"the steps of a refinement are a whole number, not {self.steps!r}")
        if not isinstance(self.converged, bool):
            raise InputError(f"converged of a refinement is true or false, not {self.converged!r}")
        for name in ("moved_px", "energy_before", "energy_after", "residual_px"):
            try:
                number = float(np.float32(getattr(self, name)))
            except (TypeError, ValueError):
                number = math.nan
            if not (math.isfinite(number) and number >= 0):
                raise InputError(f"{name} of a refinement is a finite number of 0 or more, not {getattr(self, name)!r}")
            object.__setattr__(self, name, plain(number))  # as the JSON has it

    def scaled(self, pixels: float) -> Refinement:
        """With both lengths times `pixels`."""
        return replace(self, moved_px=self.moved_px * pixels, residual_px=self.residual_px * pixels)

    @classmethod
    def from_json_dict(cls, record: Any) -> Refinement:
        """Back from `asdict`; keys of later versions are passed over. Raises InputError where it is malformed."""
        if not isinstance(record, dict):
            raise InputError(f"refinement is an object, not {record!r}")
        missing = [field.name for field in fields(cls) if field.name not in record]
        if missing:
            raise InputError(f"refinement lacks {missing[0]!r}")
        return cls(**{field.name: record[field.name] for field in fields(cls)})


def plain(value: Any) -> Any:
    """Python numbers with as few digits as name the float32 exactly (0.1, not 0.10000000149)."""
    array = np.asarray(value, dtype=np.float32)
    if array.ndim:
        return [plain(entry) for entry in array]
    return float(str(array))
