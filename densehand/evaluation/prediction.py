"""What a system says of one hand, and which of several hands it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from densehand.metrics import box_iou, tight_box
from densehand.result import Hand

LEAST_OVERLAP = 0.3
"""A hand found in the picture is the labelled one if their boxes overlap at least so much (IoU)."""


FEWEST = 3
"""With fewer labelled keypoints the published box tells more than that around them."""


@dataclass(frozen=True)
class Prediction:
    """One hand. What a system does not tell is None.

    keypoints_2d: pixels of the picture. joints_3d: metres along the camera's axes, any origin. vertices: in the frame
    of `joints_3d`. score: confidence. hand: gives the whole result where there is one (mesh, projection, mask).
    milliseconds: what it took. keypoints_score: probability of each keypoint of `keypoints_2d`.
    """

    keypoints_2d: Float[np.ndarray, "21 2"] | None = None
    joints_3d: Float[np.ndarray, "21 3"] | None = None
    vertices: Float[np.ndarray, "V 3"] | None = None
    side: str | None = None
    score: float = 1.0
    hand: Callable[[], Hand] | None = None
    milliseconds: float | None = None
    keypoints_score: Float[np.ndarray, "21"] | None = None


def from_hand(hand: Hand, milliseconds: float | None = None) -> Prediction:
    """A result of `HandEstimator`."""
    return Prediction(
        keypoints_2d=hand.keypoints_2d,
        joints_3d=hand.joints_3d,
        vertices=hand.vertices,
        side=hand.side,
        score=hand.score,
        hand=lambda: hand,
        milliseconds=milliseconds,
        keypoints_score=hand.keypoints_score,
    )


def match(
    box: Float[np.ndarray, "4"] | None,
    found: Sequence[Prediction],
    labels: Float[np.ndarray, "21 2"] | None = None,
) -> Prediction | None:
    """The prediction whose keypoints' box overlaps the labelled one most, if by `LEAST_OVERLAP`; None: missed.

    Of keypoints with `labels` (NaN where there is none), both boxes are those around the labelled ones: the box around
    all 21 of a right answer may be far larger than that around the few a set labels. Without a labelled box, or where
    the predictions are 3D only, it is the surest. Sides are not looked at, so that a mistaken side shows in the
    figures; a prediction may answer two labelled hands if it overlaps both.
    """
    placed = [entry for entry in found if entry.keypoints_2d is not None]
    if box is None or not placed:
        return max(found, key=lambda entry: entry.score, default=None)
    known = np.ones(21, dtype=bool)
    if labels is not None and np.isfinite(labels).all(axis=1).sum() >= FEWEST:
        known = np.isfinite(labels).all(axis=1)
        box = tight_box(labels[known])
    boxes = np.stack([tight_box(p.keypoints_2d[known]) for p in placed])  # type: ignore[index]
    overlap = box_iou(boxes, box[None])[:, 0]
    best = int(overlap.argmax())
    return placed[best] if overlap[best] >= LEAST_OVERLAP else None
