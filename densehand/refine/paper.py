"""Testing refinement (Baek et al. 2019, section 3.4, eq. 13): gradient steps on h against the 2D evidence.

    h ← h − γ ∇ₕ ( ‖[y(h)]_xy − j_ref‖² + ‖f_Feat(x) − f_Feat(x ⊙ m(h))‖² + L_Lap )

No label is used: j_ref is the refiner's last skeleton, weighted by its confidence, and m(h) is the rendered mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densehand import losses
from densehand.network.estimator import DHPE, Estimate
from densehand.network.mesh import NUM_PARAMETERS, POSE, ROTATION, SCALE, SHAPE, TRANSLATION, decode, skeleton_in_crop
from densehand.network.together import Together
from densehand.refine.modes import PAPER_STEPS
from densehand.refine.refined import Refined, weighted_distance

STILL = 1e-3
"""A hand whose gradient step would move no number of h further than this has converged."""


@dataclass(frozen=True)
class RefineWeights:
    """Weights of the terms. Skeleton: a sum over keypoints in crop units; features: a sum over F's numbers; Laplacian:
    a share of the hand's curvature at rest.

    pose and shape hold h near the regression (our addition: what the 2D evidence does not see stays as it was).
    """

    skeleton: float = 1.0
    features: float = 0.02
    laplacian: float = 1.0
    pose: float = 0.02
    shape: float = 0.02


# γ differs by parameter: one radian of a finger moves two or three keypoints by 0.3 crop units, one unit of translation
# moves all 21 by 1. With one γ for all, either the pose would stand still or the translation swing.
STEPS = ((POSE, 0.15), (SHAPE, 0.1), (ROTATION, 0.05), (SCALE, 0.02), (TRANSLATION, 0.01))


def step_sizes(like: Tensor) -> Float[Tensor, " 63"]:
    """γ for each of the 63 parameters."""
    gamma = like.new_zeros(NUM_PARAMETERS)
    for part, value in STEPS:
        gamma[part] = value
    return gamma


def refinement_energy(
    network: DHPE | Together,
    images: Float[Tensor, "b 3 s s"],
    estimate: Estimate,
    h: Float[Tensor, "b 63"],
    weights: RefineWeights,
    edges: Int[Tensor, "e 2"],
) -> Float[Tensor, " b"]:
    """The energy of eq. 13, one number a hand. The costly terms are left out where their weight is 0."""
    target, confidence = estimate.keypoints[-1], estimate.keypoint_confidence
    skeleton = skeleton_in_crop(network.hand, h)
    distance = (skeleton[..., :2] - target).square().sum(-1)
    energy = weights.skeleton * (confidence * distance).sum(-1)
    start = estimate.parameters[-1]
    energy = energy + weights.pose * (h[:, POSE] - start[:, POSE]).square().sum(-1)
    energy = energy + weights.shape * (h[:, SHAPE] - start[:, SHAPE]).square().sum(-1)
    if weights.features:
        mask = network.render_mask(h, images.shape[-1])
        inside = network.extract_features(images * mask[:, None])
        energy = energy + weights.features * (inside - estimate.features).square().sum(-1)
    if weights.laplacian:
        vertices = network.mesh(h)[0] / decode(h).scale[:, None, None]
        hand = network.hand
        energy = energy + weights.laplacian * losses.laplacian(vertices, edges, hand.template)
    return energy


@torch.inference_mode(False)  # the steps need gradients, whatever the caller does without
@torch.no_grad()
def refine_estimate(
    network: DHPE | Together,
    images: Float[Tensor, "b 3 s s"],
    estimate: Estimate,
    steps: int = PAPER_STEPS,
    weights: RefineWeights | None = None,
    watch: Callable[[Float[Tensor, "b 63"]], None] = lambda h: None,
) -> Refined:
    """The hands after at most `steps` steps of gradient descent; a hand's energy never rises.

    A step that would raise it is not taken and the hand's γ is cut to a fifth; after a step that was taken γ grows
    again, up to `step_sizes` (the paper has one fixed γ, which the feature term of a network trained without L_Feat
    makes overshoot). `estimate` is the network's on the same images. The network's weights are left alone.
    `watch` is given h after every step.
    """
    weights = weights or RefineWeights()
    images, estimate = plain(images), estimate.each(plain)
    edges = losses.mesh_edges(network.hand.faces)

    def look(h: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            energy = refinement_energy(network, images, estimate, h, weights, edges)
            (gradient,) = torch.autograd.grad(energy.sum(), h)
        return energy.detach(), torch.nan_to_num(gradient)

    h = start = estimate.parameters[-1]
    gamma = step_sizes(h)
    pace = torch.ones_like(h[:, :1])
    energy, gradient = before, _ = look(h)
    count = torch.zeros_like(energy, dtype=torch.long)
    for _ in range(steps):
        moved = h - pace * gamma * gradient
        there, slope = look(moved)
        taken = (there < energy)[:, None]
        h, gradient = torch.where(taken, moved, h), torch.where(taken, slope, gradient)
        energy = torch.minimum(energy, there.nan_to_num(torch.inf))
        pace = torch.where(taken, (pace * 1.5).clamp(max=1.0), pace / 5)
        count = count + taken[:, 0]
        watch(h)
    first, last = (skeleton_in_crop(network.hand, v)[..., :2] for v in (start, h))
    return Refined(
        h=h,
        steps=count,
        converged=(gamma * gradient).abs().amax(-1) <= STILL,
        before=before,
        after=energy,
        moved=(last - first).norm(dim=-1).mean(-1),
        residual=weighted_distance(last, estimate.keypoints[-1], estimate.keypoint_confidence),
    )


def plain(value: Tensor) -> Tensor:
    """Without its graph; a copy where it was made in inference mode, as such a tensor cannot take part in gradients."""
    return value.clone() if value.is_inference() else value.detach()
