"""Photos' labels for the next round of training: what the teacher, the network and the hand model say together.

The paper's third idea: a teacher's 2D keypoints train a network; the network's mesh, fitted anew to the evidence, is a
better label than the teacher was. The teacher's 3D is not used here, so it cannot limit what is learnt; but for the
bend of the thumb's last joint, where it is asked for.

1. *Look*: the network's answers to a few crops of each photo (`densehand/views.py`), their mean, and their spread.
2. *Noise*: distance² between teacher and network grows with the network's own spread: c + b · spread² a keypoint.
   Nothing here tells whose c is; a third is taken to be the teacher's, the rest and the growth the network's.
3. *Fit*: the mesh drawn to both skeletons, each keypoint by its noise, robustly, near the network's answer under the
   covariance of its errors (`densehand/refine/fast.py`). The teacher leads first: the network gets its full say
   when the mesh has seen whether it can follow the teacher at all.
4. *Label*: the two skeletons' mean by their precision, less of a source that the mesh cannot follow. A keypoint's
   weight falls with the error to be expected, which where the two contradict each other is mostly their distance.
   A mesh is trusted where it explains its labels and teacher and network agree on most keypoints.

All lengths are in crop units of the house's crop (1.5 × the teacher's box: the box is 4/3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densehand.camera import HOUSE_PADDING
from densehand.data.fits import Fits, box_size, estimate_keypoint_map, house_crop, ramp
from densehand.errors import InputError
from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical
from densehand.hand.articulate import place
from densehand.hand.keypoints import finger_bends
from densehand.hand.levenberg import minimise
from densehand.hand.model import HandModel
from densehand.network.mesh import MeshParameters
from densehand.refine.fast import FastProblem, FastWeights
from densehand.views import Answers, View, consensus, from_crop, to_crop

LOOKS = (View(zoom=0.83, turn=-20), View(zoom=1.0, turn=20))
BOX = 2 / HOUSE_PADDING  # the box in the house's crop
LOT = 256  # hands fitted at a time
THUMB_TIP = 14  # the row of the thumb's last joint in anatomical angles
BENT_AT_REST = math.radians(8)  # about what the thumb's last two bones enclose where that joint's flexion is 0


@dataclass(frozen=True)
class Rule:
    """How evidence becomes labels; lengths in crop units.

    robust: beyond so many times its noise a keypoint's pull fades. lead: what the network's evidence counts while the
    teacher leads. together: a skeleton's errors go together, its keypoints count as so many fewer in the fit. share:
    the teacher's part of the noise that does not grow with the network's spread. floor: least noise of a source.
    doubt: what a source that the mesh cannot follow keeps of its say. expected: error at which a keypoint weighs a
    half. residual: of the mesh to its labels, trusted fully and not at all. agreeing: share of keypoints on which
    teacher and network agree, for no trust and for full. A mask asks for mask_trust, and mask_iou of the mask head and
    the network's mesh in the worst look. side: mean log-odds of a right hand below which the network contradicts the
    teacher's side.
    """

    robust: float = 4.0
    lead: float = 0.25
    together: float = 2.0
    share: float = 1 / 3
    floor: float = 0.02
    doubt: float = 0.1
    expected: float = 0.06
    residual: tuple[float, float] = (0.04, 0.107)
    agreeing: tuple[float, float] = (0.35, 0.75)
    mask_trust: float = 0.9
    mask_iou: float = 0.5
    side: float = -2.0


@dataclass
class Noise:
    """Variances of the sources by keypoint, and how the network's grows with its spread² over the looks."""

    teacher: Float[Tensor, "21"]
    network: Float[Tensor, "21"]
    growth: float


@dataclass
class Labelled:
    """The labels of n photos and what was found on the way.

    teacher: its keypoints where the hand model has its own, units of the picture. gap: mean distance of teacher and
    network. agreeing: share of keypoints on which they agree. followed: share of keypoints where the mesh follows the
    teacher. noise: of the sources. Lengths but `teacher` in shares of the box.
    """

    fits: Fits
    teacher: Float[Tensor, "n 21 2"]
    gap: Float[Tensor, " n"]
    agreeing: Float[Tensor, " n"]
    followed: Float[Tensor, " n"]
    noise: Noise


def measure_noise(gap: Float[Tensor, "n 21"], spread: Float[Tensor, "n 21"], share: float, floor: float) -> Noise:
    """Noise (mean squared lengths) from the distances of teacher and network and the spread of the network's looks.

    Least squares of gap² on spread², one slope for all keypoints, both cut at 0.3 so that lost hands do not decide.
    The constant c of a keypoint is then the one at which the median of gap² / (c + slope · spread²) is ln 2, as of
    squared lengths of Gaussian steps in a plane; the teacher's is `share` of it.
    """
    far, wide = gap.clamp_max(0.3).square(), spread.clamp_max(0.3).square()
    off, aside = far - far.mean(0), wide - wide.mean(0)
    growth = float(((off * aside).sum() / aside.square().sum().clamp_min(1e-12)).clamp(0.5, 4))
    common = far.mean(0).clamp_min(1e-12)
    for _ in range(40):
        common = (common * (far / (common + growth * wide)).median(0).values / math.log(2)).clamp_min(1e-12)
    least = torch.full_like(common, floor**2)
    return Noise(torch.maximum(share * common, least), torch.maximum((1 - share) * common, least), growth)


class JointProblem(FastProblem):
    """The energy of the fast refinement with several skeletons as evidence: (points, variance) each."""

    def __init__(self, hand: HandModel, h: Tensor, sources: list[tuple[Tensor, Tensor]], robust: float) -> None:
        points, _ = sources[0]
        super().__init__(hand, h, points, torch.ones_like(points[..., 0]), FastWeights(robust=robust))
        self.sources, self.robust = sources, robust

    def draw(self, points: Float[Tensor, "b 21 2"]) -> tuple[Tensor, Tensor, Tensor]:
        energy, total, pulled = (
            points.new_zeros(len(points)),
            torch.zeros_like(points[..., 0]),
            torch.zeros_like(points),
        )
        for target, variance in self.sources:
            off = points - target
            square = off.square().sum(-1) / variance
            fade = 1 + square / self.robust**2
            pull = 1 / (variance * fade.square())
            energy = energy + (square / fade).sum(-1)
            total, pulled = total + pull, pulled + pull[..., None] * off
        return energy, total, pulled / total[..., None]


def draw_together(
    hand: HandModel,
    h: Float[Tensor, "b 63"],
    teacher: tuple[Tensor, Tensor],
    network: tuple[Tensor, Tensor],
    keypoint_map: Float[Tensor, "21 21"],
    rule: Rule,
) -> tuple[Float[Tensor, "b 63"], Float[Tensor, "b 21 2"], Float[Tensor, "b 21 2"]]:
    """The mesh drawn to both skeletons, (points, variance) each; its projection; the teacher carried to our keypoints.

    The teacher's points are its own; they are carried over by the network's skeleton first, by the mesh's then.
    """
    seen, variance = teacher
    first = seen + network[0] - keypoint_map @ network[0]
    variance, second = variance * rule.together, (network[0], network[1] * rule.together)
    problem = JointProblem(hand, h, [(first, variance), (second[0], second[1] / rule.lead)], 3 * rule.robust)
    state = minimise(problem.look, problem.start, problem.lower, problem.upper, problem.stride, 8, 1e-3).state
    points = place(problem.articulation, state, problem.base)[0][..., :2]
    carried = seen + points - keypoint_map @ points
    problem.sources, problem.robust = [(carried, variance), second], rule.robust
    state = minimise(problem.look, state, problem.lower, problem.upper, problem.stride, 8, 1e-3).state
    points = place(problem.articulation, state, problem.base)[0][..., :2]
    return problem.parameters(state), points, seen + points - keypoint_map @ points


def with_teachers_thumb(hand: HandModel, mesh: MeshParameters, world: Float[Tensor, "n 21 3"]) -> MeshParameters:
    """The meshes with the thumb's last joint bent as in the teacher's 3D keypoints (any unit, right hands).

    For networks that hardly bend it: 2D alone does not tell the bend of a thumb before the palm, so fits near such a
    network's answer would go on saying that thumbs are straight.
    """
    bend = finger_bends(world)[:, 0, 2].nan_to_num()
    angles = pose_to_anatomical(mesh.pose, hand)
    low, high = hand.limits_lower[THUMB_TIP, 0], hand.limits_upper[THUMB_TIP, 0]
    angles[:, THUMB_TIP, 0] = (bend.to(angles) - BENT_AT_REST).clamp(low.to(angles), high.to(angles))
    return mesh._replace(pose=anatomical_to_pose(angles, hand))


@torch.no_grad()
def label_photos(
    hand: HandModel,
    keypoints: Float[Tensor, "n 21 2"],
    answers: Answers,
    believed: Bool[Tensor, " n"] | None = None,
    only: int | None = None,
    world: Float[Tensor, "n 21 3"] | None = None,
) -> Labelled:
    """Labels of n right hands from a teacher's keypoints and a network's answers to `house_crop`s of them.

    Both are in units of the stored pictures. believed: hands whose labels count at all (default: every one). only: take
    this look's answer in place of the looks' mean, to see how much depends on it. world: the teacher's 3D keypoints,
    whose bend of the thumb's last joint is then taken in place of the network's (`with_teachers_thumb`).

    Raises InputError where the answers are of other hands, of a single look, or hardly any hand is seen alike.
    """
    rule, count = Rule(), len(keypoints)
    if answers.keypoints.shape[1] != count:
        raise InputError(f"answers on {answers.keypoints.shape[1]} hands for {count} photos; look at them again")
    if len(answers.keypoints) < 2:
        raise InputError("one look says nothing of the network's noise; give at least two views")
    mesh, found, _ = consensus(answers)
    spread = (answers.keypoints - found).norm(dim=-1).square().mean(0).sqrt()
    if only is not None:
        mesh, found = MeshParameters(*(value[only] for value in answers.mesh)), answers.keypoints[only]
    if world is not None:
        mesh = with_teachers_thumb(hand, mesh, world)
    numbers = (keypoints, found, spread, mesh.pose, mesh.shape, mesh.rotation, mesh.scale, mesh.translation)
    finite = torch.cat([value.reshape(count, -1) for value in numbers], 1).isfinite().all(1)
    keypoints = torch.where(finite[:, None, None], keypoints, 0.0)  # hands without numbers keep harmless ones
    centre, half = house_crop(keypoints)

    def to_house(points: Tensor) -> Tensor:
        kept = torch.where(finite[:, None, None], points, 0.0)
        return ((kept - centre[:, None]) / half[:, None, None]).double()

    teacher, network = to_house(keypoints), to_house(found)
    h = torch.where(finite[:, None], to_crop(mesh, centre, half), 0.0).double()
    spread = torch.where(finite[:, None], spread / half[:, None], 1.0).double()
    alike = finite & ((teacher - network).norm(dim=-1).mean(1) < 0.07 * BOX)
    if int(alike.sum()) < 10:
        raise InputError(f"teacher and network agree on {int(alike.sum())} hands of {count}: train longer first")
    keypoint_map = estimate_keypoint_map(network[finite], teacher[finite], alike[finite].double())
    gap = (teacher - keypoint_map @ network).norm(dim=-1)
    noise = measure_noise(gap[finite], spread[finite], rule.share, rule.floor)
    network_noise = noise.network + noise.growth * spread.square()
    fitted, points, carried = h.clone(), network.clone(), teacher.clone()
    for rows in finite.nonzero().squeeze(1).split(LOT):
        fitted[rows], points[rows], carried[rows] = draw_together(
            hand, h[rows], (teacher[rows], noise.teacher.expand(len(rows), 21)),
            (network[rows], network_noise[rows]), keypoint_map, rule,
        )  # fmt: skip
    return _judge(
        keypoints, fitted, points, carried, network, noise, network_noise, keypoint_map, answers,
        finite if believed is None else finite & believed, rule,
    )  # fmt: skip


def _judge(
    keypoints: Tensor, fitted: Tensor, points: Tensor, carried: Tensor, network: Tensor, noise: Noise,
    network_noise: Tensor, keypoint_map: Tensor, answers: Answers, believed: Tensor, rule: Rule,
) -> Labelled:  # fmt: skip
    """Labels, weights and trust of fits that are done."""
    centre, half = house_crop(keypoints)
    apart = (carried - network).norm(dim=-1)
    say, doubts = [], []
    for source, variance in ((carried, noise.teacher), (network, network_noise)):
        far = (points - source).square().sum(-1) / (rule.robust**2 * variance)
        doubts.append((1 + far) ** -2)
        say.append(doubts[-1].clamp_min(rule.doubt) / variance)
    total = say[0] + say[1]
    share = say[0] / total
    labels = share[..., None] * carried + (1 - share[..., None]) * network
    expected = 1 / total + share * (1 - share) * apart.square()
    agrees = apart < 3 * (noise.teacher + network_noise.clamp_max(4 * noise.network)).sqrt()
    agreeing = agrees.double().mean(1)
    residual = (points - labels).norm(dim=-1).mean(1)
    present = (answers.present.amin(0) > 0.5) & (answers.right.mean(0) > rule.side)
    trust = ramp(residual, rule.residual[1], rule.residual[0]) * ramp(agreeing, *rule.agreeing) * (believed & present)
    weight = believed[:, None] / (1 + expected / rule.expected**2)
    # where nothing agrees nobody knows who is right
    weight = weight * (0.2 + 0.8 * ramp(agreeing, 0.0, rule.agreeing[0]))[:, None]
    mesh = from_crop(fitted.to(keypoints), centre, half)
    fits = Fits(
        mesh.pose, mesh.shape, mesh.rotation, mesh.scale, mesh.translation[:, :2], (residual / BOX).to(keypoints),
        keypoint_map.to(keypoints), labels.to(keypoints) * half[:, None, None] + centre[:, None],
        weight.to(keypoints), trust.to(keypoints), (trust >= rule.mask_trust) & (answers.iou.amin(0) >= rule.mask_iou),
    )  # fmt: skip
    teacher = carried.to(keypoints) * half[:, None, None] + centre[:, None]
    return Labelled(
        fits, teacher, (apart.mean(1) / BOX).to(keypoints), agreeing.to(keypoints), doubts[0].gt(0.5).float().mean(1),
        noise,
    )  # fmt: skip


def moved(labels: Float[Tensor, "n 21 2"], before: Float[Tensor, "n 21 2"]) -> Float[Tensor, "n 21"]:
    """How far labels lie from earlier ones, as shares of the earlier ones' box."""
    return (labels - before).norm(dim=-1) / box_size(before)[:, None]
