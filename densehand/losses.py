"""The training terms of Baek et al. 2019, section 3.3, one function a term, each one number a sample.

Lengths are crop units (the crop is 2 wide). `robust=False` is the paper's squared norm; `robust=True` replaces it by
a smooth L1 norm that a wrong label cannot dominate. Sums run over joints as means, so that terms keep their size when
the number of joints changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from densehand.network.mesh import MeshParameters

MIDDLE_MCP = 9
KNEE = 0.05  # crop units: where a robust norm turns from quadratic to linear
SIGMA = 1.5  # cells: of the Gaussians of H*


def penalty(difference: Float[Tensor, "*b c"], robust: bool) -> Float[Tensor, "*b"]:
    """‖d‖² (the paper's), or its smooth L1 version: quadratic below `KNEE`, linear beyond, both in crop units."""
    squared = difference.square().sum(-1)
    if not robust:
        return squared
    return (squared + KNEE**2).sqrt() - KNEE


def weighted_mean(values: Float[Tensor, "b k"], weight: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Mean over keypoints with weights; hidden or unlabelled ones count nothing, and nothing is divided by 0."""
    return (values * weight).sum(-1) / values.shape[-1]


def normalised_skeleton(
    skeleton: Float[Tensor, "b 21 3"], reference: Float[Tensor, "b 21 2"] | None = None
) -> Float[Tensor, "b 21 3"]:
    """n(y) of eq. 8: origin at the middle finger's MCP, divided by 1.5 × the larger side of the tight 2D box.

    In crop units under weak perspective x, y and z share one unit, so one length divides all three (the paper's
    z-divisor, the box carried to metres at the MCP's depth, is the same length). `reference` gives the box, else
    the skeleton's own projection.
    """
    flat = skeleton[..., :2] if reference is None else reference
    box = (flat.amax(1) - flat.amin(1)).amax(-1).clamp_min(1e-3)
    return (skeleton - skeleton[:, MIDDLE_MCP : MIDDLE_MCP + 1]) / (1.5 * box)[:, None, None]


def articulation(
    skeleton: Float[Tensor, "b 21 3"], target: Float[Tensor, "b 21 3"], robust: bool = False
) -> Float[Tensor, " b"]:
    """L_Art (eq. 8): ‖n(y) − y*‖², both divided by the target's box, ×2 to stay in crop units."""
    reference = target[..., :2]
    difference = normalised_skeleton(skeleton, reference) - normalised_skeleton(target, reference)
    return penalty(2 * difference, robust).mean(-1)


def keypoints_2d(
    keypoints: Float[Tensor, "b 21 2"],
    target: Float[Tensor, "b 21 2"],
    weight: Float[Tensor, "b 21"],
    robust: bool = False,
) -> Float[Tensor, " b"]:
    """‖j − j*‖² for one 2D skeleton: a term of L_Ref (eq. 6), and the projected skeleton's own."""
    return weighted_mean(penalty(keypoints - target, robust), weight)


def gaussian_maps(target: Float[Tensor, "b 21 2"], side: int) -> Float[Tensor, "b 21 s s"]:
    """H*: Gaussians of `SIGMA` cells with peak 1 around keypoints given in crop units, on side × side cells."""
    centre = (target + 1) * side / 2
    cells = torch.arange(side, device=target.device, dtype=target.dtype) + 0.5
    x = torch.exp(-0.5 * ((cells - centre[..., :1]) / SIGMA).square())
    y = torch.exp(-0.5 * ((cells - centre[..., 1:]) / SIGMA).square())
    return y[..., :, None] * x[..., None, :]


def heatmaps(
    maps: Float[Tensor, "b 21 s s"],
    target: Float[Tensor, "b 21 2"],
    weight: Float[Tensor, "b 21"],
    activation: str = "linear",
) -> Float[Tensor, " b"]:
    """L_J2D (eq. 3): ‖H − H*‖² on raw maps ("linear"), or the cross-entropy of maps that are distributions
    ("softmax", logits given) to H* normalised to 1."""
    wanted = gaussian_maps(target, maps.shape[-1])
    if activation == "linear":
        return weighted_mean((maps - wanted).square().sum((-1, -2)), weight)
    share = wanted / wanted.sum((-1, -2), keepdim=True).clamp_min(1e-6)
    entropy = -(share * maps.flatten(2).log_softmax(-1).view_as(maps)).sum((-1, -2))
    return weighted_mean(entropy, weight)


def features(whole: Float[Tensor, "b d"], foreground: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """L_Feat (eq. 2): ‖f_Feat(x) − f_Feat(x ⊙ m*)‖², a mean over the feature's numbers."""
    return (whole - foreground).square().mean(-1)


def shape(mask: Float[Tensor, "b h w"], target: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """L_Sh (eq. 9): ‖m − m*‖², a mean over pixels."""
    return (mask - target).square().mean((-1, -2))


def hierarchical_weight(
    skeleton: Float[Tensor, "b 21 3"],
    target: Float[Tensor, "b 21 2"],
    weight: Float[Tensor, "b 21"],
    threshold: float = 0.1,
) -> Float[Tensor, " b"]:
    """λ of eq. 12, a sample: 1 where the projected skeleton is on average within τ of j*, else 0.

    τ is 0.1 crop units, 11 px of a 224-px crop: our reading, the paper's value is not at hand.
    """
    distance = (skeleton[..., :2] - target).detach().square().sum(-1).sqrt()
    known = weight > 0
    mean = (distance * known).sum(-1) / known.sum(-1).clamp_min(1)
    return ((mean < threshold) & known.any(-1)).to(skeleton.dtype)


def laplacian(
    vertices: Float[Tensor, "b v 3"], edges: Int[Tensor, "e 2"], rest: Float[Tensor, "v 3"]
) -> Float[Tensor, " b"]:
    """L_Lap: how far a mesh is less smooth, or smoother, than the one at rest, as a share of the latter's curvature.

    Mean over vertices of (‖δ‖ − ‖δ_rest‖)² over that of ‖δ_rest‖², δ a vertex's offset from the mean of its neighbours:
    a hand's own curvature costs nothing, however it is turned, and the unit of length does not matter. `vertices` and
    `rest` have the same one.
    """
    offset = neighbour_offset(vertices, edges).square().sum(-1)
    curvature = neighbour_offset(rest, edges).square().sum(-1)
    # the square root's slope stays finite where a vertex lies in the middle of its neighbours
    tiny = 1e-6 * curvature.mean()
    return ((offset + tiny).sqrt() - (curvature + tiny).sqrt()).square().mean(-1) / curvature.mean()


def neighbour_offset(points: Float[Tensor, "*b v 3"], edges: Int[Tensor, "e 2"]) -> Float[Tensor, "*b v 3"]:
    """Each vertex minus the mean of its neighbours (the uniform graph Laplacian)."""
    both = torch.cat([edges, edges.flip(1)])
    total = torch.zeros_like(points).index_add(-2, both[:, 0], points[..., both[:, 1], :])
    count = points.new_zeros(points.shape[-2]).index_add(0, both[:, 0], torch.ones_like(both[:, 0]).to(points))
    return points - total / count.clamp_min(1)[:, None]


def mesh_edges(faces: Int[Tensor, "f 3"]) -> Int[Tensor, "e 2"]:
    """Each undirected edge of a triangle mesh once."""
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return pairs.sort(-1).values.unique(dim=0)


def rotation_distance(
    rotation: Float[Tensor, "b 4"], target: Float[Tensor, "b 4"], robust: bool = True
) -> Float[Tensor, " b"]:
    """Smooth distance of unit quaternions up to sign: the smaller of ‖q − q*‖ and ‖q + q*‖, or its square."""
    same = (rotation - target).square().sum(-1)
    other = (rotation + target).square().sum(-1)
    nearest = torch.minimum(same, other)
    return ((nearest + 0.01).sqrt() - 0.1) if robust else nearest


def hand_parameters(
    found: MeshParameters,
    pose: Float[Tensor, "b 45"],
    shape: Float[Tensor, "b 10"],
    rotation: Float[Tensor, "b 4"],
    trust: Float[Tensor, " b"],
    robust: bool = False,
) -> dict[str, Float[Tensor, " b"]]:
    """How far pose, shape and rotation lie from labels of which `trust` (0 to 1) is to be believed.

    "shape_prior" draws a shape whose label is not believed to the mean hand.
    """
    return {
        "pose": penalty((found.pose - pose).unflatten(-1, (15, 3)), robust).mean(-1) * trust,
        "shape_prior": (found.shape - shape * trust[:, None]).square().mean(-1),
        "rotation": rotation_distance(found.rotation, rotation, robust) * trust,
    }


def yes_no(logit: Float[Tensor, " b"], target: Float[Tensor, " b"], weight: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Binary cross-entropy of the side and hand-presence heads."""
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none") * weight


def mask_head(
    logits: Float[Tensor, "b s s"], mask: Float[Tensor, "b h w"], known: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Cross-entropy of the coarse mask head to the mask averaged over its cells."""
    wanted = F.interpolate(mask[:, None], size=logits.shape[-2:], mode="area")[:, 0]
    return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((-1, -2)) * known
