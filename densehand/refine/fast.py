"""Fast testing refinement: the mesh drawn to the 2D skeleton by Levenberg-Marquardt, without a network in the loop.

    E = Σₖ cₖ ρ(‖pₖ − jₖ‖²) + (x − x⁰)ᵀ Σ⁻¹ (x − x⁰)

over x: anatomical angles (inside the joint limits), shape and the weak perspective camera. p is the skeleton in the
crop, x⁰ the regression's, Σ the covariance of the regression's errors (`refine/prior.py`), and
ρ(d²) = d² / (s² + d²/r²) is Geman and McClure's (1987). j is the refiner's last skeleton with its confidence c.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from densehand.hand import rotations as roma
from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical
from densehand.hand.articulate import ANGLES, LOG_SCALE, SHAPE, TRANSLATION, TURN, Articulation, place
from densehand.hand.levenberg import Local, minimise
from densehand.hand.model import HandModel, quaternion_to_matrix
from densehand.hand.vector_skeleton import FEW
from densehand.network.mesh import MeshParameters, decode, encode
from densehand.refine.modes import FAST_STEPS
from densehand.refine.prior import load_precision
from densehand.refine.refined import Refined, weighted_distance
from densehand.refine.single import refine_alone


@dataclass(frozen=True)
class FastWeights:
    """What is worth one unit of energy; chosen on synthetic hands."""

    pixel: float = 0.05  # s, crop units: error of a keypoint of confidence 1
    robust: float = 4.0  # r: beyond r·s a keypoint's pull fades
    prior: float = 4.0  # times Σ⁻¹


@torch.no_grad()
def refine_fast(
    hand: HandModel,
    h: Float[Tensor, "b 63"],
    keypoints: Float[Tensor, "b 21 2"],
    confidence: Float[Tensor, "b 21"],
    weights: FastWeights | None = None,
    iterations: int = FAST_STEPS,
) -> Refined:
    """Draw each hand's projection towards 2D keypoints (crop units, confidence 0…1); a hand's energy never rises.

    No angle goes further beyond its limit than h had it. Keypoints that are not finite, or of confidence 0, do not
    pull; a hand whose h is not finite, or which no step improves, is given back as it was, bit for bit.
    """
    weights = weights or FastWeights()
    alone = 0 < len(h) <= FEW and h.device.type == "cpu"
    refine = refine_alone if alone else refine_together
    return refine(hand, h, keypoints, confidence, weights, iterations)


def refine_together(
    hand: HandModel,
    h: Float[Tensor, "b 63"],
    keypoints: Float[Tensor, "b 21 2"],
    confidence: Float[Tensor, "b 21"],
    weights: FastWeights,
    iterations: int = FAST_STEPS,
) -> Refined:
    """`refine_fast` as one batch, on any device."""
    problem = FastProblem(hand, h.double(), keypoints.double(), confidence.double(), weights)
    found = minimise(problem.look, problem.start, problem.lower, problem.upper, problem.stride, iterations, 1e-3)
    after = place(problem.articulation, found.state, problem.base)[0][..., :2]
    refined = problem.parameters(found.state).to(h)
    return Refined(
        h=torch.where((found.steps > 0)[:, None], refined, h),
        steps=found.steps,
        converged=found.converged,
        before=found.first,
        after=found.energy,
        moved=(after - problem.first[..., :2]).norm(dim=-1).mean(-1),
        residual=weighted_distance(after, problem.keypoints, problem.confidence),
    )


class FastProblem:
    """The energy of a batch of hands as a function of `articulate.place`'s 62 numbers."""

    def __init__(self, hand: HandModel, h: Tensor, keypoints: Tensor, confidence: Tensor, weights: FastWeights) -> None:
        self.hand, self.articulation, self.weights = hand, Articulation(hand, h), weights
        usable = keypoints.isfinite().all(-1) & confidence.isfinite()
        self.confidence = torch.where(usable, confidence, 0.0).clamp(0, 1)
        self.keypoints = torch.where(usable[..., None], keypoints, 0.0)
        first = decode(h)
        self.base = quaternion_to_matrix(first.rotation)
        start = h.new_zeros(len(h), 62)
        start[:, ANGLES] = pose_to_anatomical(first.pose, hand).flatten(1)
        start[:, SHAPE], start[:, LOG_SCALE], start[:, TRANSLATION] = first.shape, first.scale.log(), first.translation
        self.start = start
        self.first = place(self.articulation, start, self.base)[0]
        self.lower, self.upper = torch.full_like(start, -torch.inf), torch.full_like(start, torch.inf)
        self.lower[:, ANGLES] = start[:, ANGLES].minimum(hand.limits_lower.flatten().to(h))
        self.upper[:, ANGLES] = start[:, ANGLES].maximum(hand.limits_upper.flatten().to(h))
        self.lower[:, 61] = self.upper[:, 61] = start[:, 61]  # the wrist's depth is no part of the picture
        self.stride = h.new_full((62,), 0.5)
        self.stride[SHAPE] = 1.0
        self.trust = weights.prior * load_precision(hand).to(h)

    def look(self, state: Float[Tensor, "b 62"]) -> Local:
        points, by = place(self.articulation, state, self.base)
        energy, pull, flat = self.draw(points[..., :2])
        return self.local(energy, pull, flat, by[..., :2, :], state)

    def local(self, energy: Tensor, pull: Tensor, flat: Tensor, by: Tensor, state: Tensor) -> Local:
        """The evidence's energy with the prior's, and the derivatives; see `draw`, `by` is b 21 2 62."""
        slope, weight = by.flatten(1, 2), pull[..., None].expand_as(flat).flatten(1)
        weighted = slope * weight[..., None]
        moved = state - self.start
        cost = moved @ self.trust
        return Local(
            energy + (cost * moved).sum(-1),
            (flat.flatten(1)[:, None] @ weighted)[:, 0] + cost,
            weighted.mT @ slope + self.trust,
        )

    def draw(self, points: Float[Tensor, "b 21 2"]) -> tuple[Tensor, Tensor, Tensor]:
        """The evidence's energy (b), each keypoint's weight in the Gauss-Newton matrix (b 21), the gaps (b 21 2)."""
        off = points - self.keypoints
        square = off.square().sum(-1) / self.weights.pixel**2
        fade = 1 + square / self.weights.robust**2
        pull = self.confidence / (self.weights.pixel * fade) ** 2
        return (self.confidence * square / fade).sum(-1), pull, off

    def parameters(self, state: Float[Tensor, "b 62"]) -> Float[Tensor, "b 63"]:
        """The state as h."""
        turn = roma.rotvec_to_rotmat(state[:, TURN]) @ self.base
        return encode(
            MeshParameters(
                pose=anatomical_to_pose(state[:, ANGLES].unflatten(-1, (15, 3)), self.hand),
                shape=state[:, SHAPE],
                rotation=roma.rotmat_to_unitquat(turn)[..., [3, 0, 1, 2]],
                scale=state[:, LOG_SCALE].exp(),
                translation=state[:, TRANSLATION],
            )
        )
