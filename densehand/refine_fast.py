"""Fast testing refinement: the mesh drawn to the 2D skeleton by Levenberg-Marquardt, without a network in the loop.

    E = Σₖ cₖ ρ(‖pₖ − jₖ‖²) + Σₖ ((zₖ − zₖ⁰)/s_z)² + ‖(a − a⁰)/s_a‖² + ‖(β − β⁰)/s_β‖² + ‖(camera − camera⁰)/s_c‖²

over anatomical angles a (inside the joint limits), shape β and the weak perspective camera; p, z are the skeleton's
place in the crop, ⁰ is the regression's h, and ρ(d²) = d² / (s² + d²/r²) is Geman and McClure's (1987). j is the
refiner's last skeleton with its confidence c. What the evidence does not see - depth above all - stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical
from densehand.hand.articulate import ANGLES, LOG_SCALE, SHAPE, TRANSLATION, TURN, Articulation, place
from densehand.hand.levenberg import Local, minimise
from densehand.hand.model import HandModel, quaternion_to_matrix
from densehand.network.mesh import MeshParameters, decode, encode
from densehand.refined import Refined, weighted_distance


@dataclass(frozen=True)
class FastWeights:
    """What is worth one unit of energy: crop units, radians, standard deviations; chosen on synthetic hands."""

    pixel: float = 0.04  # s: error of a keypoint of confidence 1
    robust: float = 4.0  # r: beyond r·s a keypoint's pull fades
    depth: float = 0.1
    angle: float = 0.25
    shape: float = 1.0
    turn: float = 0.6
    scale: float = 0.3


@torch.no_grad()
def refine_fast(
    hand: HandModel,
    h: Float[Tensor, "b 63"],
    keypoints: Float[Tensor, "b 21 2"],
    confidence: Float[Tensor, "b 21"],
    weights: FastWeights | None = None,
    iterations: int = 5,
) -> Refined:
    """Draw each hand's projection towards 2D keypoints (crop units, confidence 0…1); a hand's energy never rises.

    No angle goes further beyond its limit than h had it. Keypoints that are not finite, or of confidence 0, do not
    pull; a hand whose h is not finite, or which no step improves, is given back as it was, bit for bit.
    """
    weights = weights or FastWeights()
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
        self.trust = h.new_zeros(62)
        self.trust[ANGLES], self.trust[SHAPE] = weights.angle**-2, weights.shape**-2
        self.trust[TURN], self.trust[LOG_SCALE] = weights.turn**-2, weights.scale**-2

    def look(self, state: Float[Tensor, "b 62"]) -> Local:
        points, by = place(self.articulation, state, self.base)
        energy, pull, flat = self.draw(points[..., :2])
        off = torch.cat([flat, points[..., 2:] - self.first[..., 2:]], dim=-1)
        energy = energy + (off[..., 2] / self.weights.depth).square().sum(-1)
        weight = torch.stack([pull, pull, torch.full_like(pull, self.weights.depth**-2)], dim=-1).flatten(1)
        weighted = by.flatten(1, 2) * weight[..., None]
        moved = state - self.start
        return Local(
            energy + (self.trust * moved.square()).sum(-1),
            (off.flatten(1)[:, None] @ weighted)[:, 0] + self.trust * moved,
            weighted.mT @ by.flatten(1, 2) + torch.diag(self.trust),
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
