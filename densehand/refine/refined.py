"""What a refinement gives back, whatever its method: the hands, and how far and how well each of them moved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Refined(NamedTuple):
    """A batch of refined hands; lengths in crop units, energies in the method's own unit (docs/refinement.md)."""

    h: Float[Tensor, "b 63"]
    steps: Int[Tensor, " b"]  # taken; those that would have raised the energy are not
    converged: Bool[Tensor, " b"]  # a further step would have been of no size
    before: Float[Tensor, " b"]  # energy
    after: Float[Tensor, " b"]
    moved: Float[Tensor, " b"]  # mean distance of the keypoints' projections from where they were
    residual: Float[Tensor, " b"]  # mean distance of the keypoints' projections to the evidence, by its confidence


def weighted_distance(
    points: Float[Tensor, "b 21 2"], evidence: Float[Tensor, "b 21 2"], confidence: Float[Tensor, "b 21"]
) -> Float[Tensor, " b"]:
    """Mean distance of points to the evidence, weighted by its confidence; 0 where there is none."""
    share = confidence / confidence.sum(-1, keepdim=True).clamp_min(1e-9)
    return (share * torch.linalg.vector_norm(points - evidence, dim=-1)).sum(-1)
