"""What turns a network's raw scores into probabilities (docs/confidence.md): part of the card of its weights.

Platt's scaling (1999): log-odds' = scale · log-odds + bias, a pair of numbers a score; of sides a scale alone.
Refinement keeps to the raw confidence: its prior was learnt with it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

NEAR = 0.1
"""A keypoint's score is the probability that it lies within this share of the larger side of the hand's box."""

LEAST = 1e-4
"""Confidences are cut here and at 1 − LEAST, so that their log-odds are finite."""


@dataclass(frozen=True)
class Calibration:
    """Scale (above 0, so that no order changes) and bias of the log-odds of each score; the default changes none.

    keypoint: of a keypoint's confidence. hand: of a hand being there, where hands and pictures without are as many.
    side: of a right hand, where both sides are as many; what favours neither side needs no bias. readily: what the
    witnesses of a detected hand lose together (densehand/selection.py; `tools/fit_score.py` fits it).
    """

    keypoint_scale: float = 1.0
    keypoint_bias: float = 0.0
    hand_scale: float = 1.0
    hand_bias: float = 0.0
    side_scale: float = 1.0
    readily: float = 7.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{entry.name} of the calibration is a finite number, not {value!r}")
            if entry.name.endswith("scale") and value <= 0:
                raise ValueError(f"{entry.name} of the calibration is above 0, not {value!r}")

    def keypoints(self, confidence: Float[np.ndarray, "*n 21"]) -> Float[np.ndarray, "*n 21"]:
        """Probabilities from the network's raw confidence, of its type and shape."""
        if (self.keypoint_scale, self.keypoint_bias) == (1.0, 0.0):
            return confidence
        return sigmoid(self.keypoint_scale * logit(confidence) + self.keypoint_bias).astype(confidence.dtype)

    def hand(self, log_odds: float) -> float:
        """Log-odds of a hand."""
        return self.hand_scale * log_odds + self.hand_bias

    def side(self, log_odds: float) -> float:
        """Log-odds of a right hand in the crop as the network sees it."""
        return self.side_scale * log_odds

    def to_card(self) -> dict[str, float]:
        """As the model card has it, to six digits."""
        return {name: float(f"{value:.6g}") for name, value in asdict(self).items()}

    @classmethod
    def from_card(cls, record: Any) -> Calibration:
        """Back from a card; what is missing changes nothing, other keys are notes. ValueError where it is malformed."""
        if not isinstance(record, dict):
            raise ValueError(f"calibration is an object, not {record!r}")
        return cls(**{entry.name: record[entry.name] for entry in fields(cls) if entry.name in record})


def logit(probability: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Log-odds in float64, cut at those of `LEAST`."""
    p = np.clip(np.asarray(probability, np.float64), LEAST, 1 - LEAST)
    return np.log(p) - np.log1p(-p)


def sigmoid(odds: Any) -> Any:
    """Probability of log-odds, of their shape."""
    return 1 / (1 + np.exp(-np.clip(odds, -60, 60)))
