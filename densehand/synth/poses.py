"""Poses, shapes and viewpoints of synthetic hands.

A pose is drawn as anatomical angles (hand/anatomy.py): a family gives each finger's curl and the thumb's place, noise
varies them, and in some hands fingers of another family step in. The distal joint follows the middle one (one tendon
bends both), fingers spread less the more they are bent, and all angles stay within the model's limits. Poses where
fingers run through each other are avoided by drawing a few candidates and taking the first clean one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import resources

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical
from densehand.hand.keypoints import FINGERS
from densehand.hand.model import HandModel

from .chance import Draw

# MANO's joints run index, middle, little, ring, thumb
FINGER_ROWS = {"index": 0, "middle": 3, "ring": 9, "little": 6, "thumb": 12}

_FINGER_OF = [next(f for f, name in enumerate(FINGERS) if 0 <= r - FINGER_ROWS[name] < 3) for r in range(15)]

Curl = tuple[float, float]  # flexion of MCP and PIP, degrees
STRAIGHT: Curl = (0.0, 4.0)
EASY: Curl = (20.0, 28.0)
FIST: Curl = (82.0, 98.0)
HOOK: Curl = (5.0, 88.0)
BENT: Curl = (82.0, 8.0)
HALF: Curl = (42.0, 55.0)

# Thumb: CMC flexion (across the palm), CMC abduction (away from the palm), CMC twist, MCP flexion, IP flexion; degrees
THUMB_OUT = (-15.0, 5.0, 0.0, 0.0, 0.0)
THUMB_EASY = (6.0, 8.0, 0.0, 12.0, 16.0)
THUMB_ALONG = (12.0, -6.0, 0.0, 18.0, 12.0)
THUMB_ACROSS = (34.0, 14.0, 22.0, 42.0, 36.0)
THUMB_OVER = (32.0, 26.0, 22.0, 36.0, 50.0)
THUMB_UP = (-22.0, -4.0, 0.0, -4.0, -6.0)
THUMB_OPPOSED = (18.0, 36.0, 26.0, 14.0, 16.0)


@dataclass(frozen=True)
class Family:
    """A kind of pose: index, middle, ring and little curl, the thumb, how far fingers spread (degrees),
    spread of the noise.
    """

    name: str
    weight: float
    fingers: tuple[Curl, Curl, Curl, Curl]
    thumb: tuple[float, float, float, float, float]
    spread: float = 4.0
    noise: float = 9.0


FAMILIES: tuple[Family, ...] = (
    Family("open", 1.4, (STRAIGHT,) * 4, THUMB_OUT, 8.0, 6.0),
    Family("flat", 1.0, (STRAIGHT,) * 4, THUMB_ALONG, 0.0, 6.0),
    Family("spread", 1.0, (STRAIGHT,) * 4, THUMB_OUT, 18.0, 6.0),
    Family("relaxed", 2.0, (EASY, (24, 32), (28, 35), (30, 36)), THUMB_EASY, 4.0, 14.0),
    Family("half", 1.5, (HALF,) * 4, THUMB_EASY, 3.0, 18.0),
    Family("fist", 1.2, (FIST,) * 4, THUMB_OVER, 1.0, 7.0),
    Family("fist, thumb beside", 0.6, (FIST,) * 4, THUMB_ALONG, 1.0, 7.0),
    Family("point", 1.1, (STRAIGHT, FIST, FIST, FIST), THUMB_OVER, 2.0),
    Family("point, loose", 0.7, ((12, 18), HALF, (55, 70), (58, 70)), THUMB_EASY, 3.0, 12.0),
    Family("gun", 0.5, (STRAIGHT, FIST, FIST, FIST), THUMB_UP, 2.0),
    Family("two", 1.0, (STRAIGHT, STRAIGHT, FIST, FIST), THUMB_OVER, 11.0, 7.0),
    Family("two, crossed", 0.3, ((4, 8), (14, 12), FIST, FIST), THUMB_OVER, -14.0, 5.0),
    Family("three", 0.6, (STRAIGHT, STRAIGHT, STRAIGHT, FIST), THUMB_ACROSS, 9.0, 7.0),
    Family("three with thumb", 0.4, (STRAIGHT, STRAIGHT, FIST, FIST), THUMB_OUT, 9.0),
    Family("four", 0.7, (STRAIGHT,) * 4, THUMB_ACROSS, 7.0, 7.0),
    Family("thumb up", 0.9, (FIST,) * 4, THUMB_UP, 0.0, 7.0),
    Family("little finger", 0.3, (FIST, FIST, FIST, STRAIGHT), THUMB_OVER, 3.0),
    Family("horns", 0.3, (STRAIGHT, FIST, FIST, STRAIGHT), THUMB_OVER, 6.0),
    Family("call", 0.3, (FIST, FIST, FIST, STRAIGHT), THUMB_UP, 6.0),
    Family("claw", 0.7, (HOOK,) * 4, THUMB_EASY, 7.0, 10.0),
    Family("hook", 0.4, (HOOK,) * 4, THUMB_ALONG, 0.0, 8.0),
    Family("table", 0.4, (BENT,) * 4, THUMB_OPPOSED, 0.0, 8.0),
    Family("beak", 0.6, ((62, 22), (66, 20), (66, 20), (64, 24)), THUMB_OPPOSED, -4.0, 8.0),
    Family("cylinder", 1.3, ((52, 48), (54, 48), (56, 48), (58, 46)), THUMB_OPPOSED, 2.0, 9.0),
    Family("sphere", 0.9, ((34, 38), (36, 36), (36, 38), (34, 40)), THUMB_OPPOSED, 10.0, 8.0),
    Family("tight grip", 0.7, ((66, 80), (70, 82), (72, 82), (74, 80)), THUMB_OVER, 0.0, 8.0),
    Family("pen", 0.7, ((48, 42), (54, 50), (60, 62), (62, 66)), (20.0, 22.0, 16.0, 16.0, 22.0), 0.0, 7.0),
    Family("C", 0.5, ((36, 52), (36, 52), (38, 52), (38, 52)), THUMB_OPPOSED, 0.0, 8.0),
)
FAMILY_NAMES: tuple[str, ...] = tuple(family.name for family in FAMILIES)
GRASPS: tuple[str, ...] = ("cylinder", "sphere", "tight grip", "pen", "C", "beak", "half")

# Radii (m) of the fingers' three bones' flesh, thumb first, for the check against fingers in each other
_RADII = ((0.0130, 0.0105, 0.0090), (0.0092, 0.0080, 0.0070), (0.0092, 0.0082, 0.0072), (0.0088, 0.0076, 0.0068),
          (0.0080, 0.0068, 0.0060))  # fmt: skip
# Free fingers: degrees of flexion, evenly drawn; the distal joint bends by a share of the middle one's
_FREE_MCP, _FREE_PIP, _FREE_DIP = (-20.0, 95.0), (-2.0, 112.0), (0.1, 0.85)
_FREE_THUMB = ((-28.0, 42.0), (-25.0, 42.0), (-20.0, 32.0), (-12.0, 62.0), (-18.0, 88.0))  # as a family's thumb
_FREED = (0.75, 0.35, 0.35, 0.35, 0.35)  # chance of thumb … little finger in a hand with free fingers
_CANDIDATES = 3
_VIEW_SPREAD = 0.2  # rad about each axis
_OVERLAP_ALLOWED = 0.004  # m, summed over all pairs: flesh gives way


def load_anchor_poses() -> Float[Tensor, "k 15 3"]:
    """Packaged anatomical angles (radians) of contact poses and finger spelling, see tools/build_synth_poses.py."""
    path = resources.files("densehand.synth") / "assets" / "poses.npz"
    with path.open("rb") as file, np.load(file) as data:
        return torch.from_numpy(data["angles"].astype(np.float32))


def sample_angles(
    n: int,
    hand: HandModel,
    generator: torch.Generator,
    anchors: Float[Tensor, "k 15 3"] | None = None,
    share: float = 0.4,
    spread: float = 1.0,
    free: float = 0.0,
) -> tuple[Float[Tensor, "n 15 3"], Tensor]:
    """Draw n sets of anatomical angles (radians) within the limits, and the index of each one's family (n,).

    A `share` of them is drawn around `anchors`, known good poses; their family is len(FAMILIES). `spread`: how far from
    families and anchors, as a factor of the usual. In a share `free` of all hands some fingers are bent anyhow.
    """
    device, dtype = hand.limits_lower.device, hand.limits_lower.dtype

    draw = Draw(n, generator, dtype)
    uniform, gauss = draw.uniform, draw.gauss

    def draw_family() -> Tensor:
        return torch.multinomial(weights, n, replacement=True, generator=generator)

    weights = torch.tensor([family.weight for family in FAMILIES], device=device)
    curls = torch.tensor([family.fingers for family in FAMILIES], device=device, dtype=dtype)
    thumbs = torch.tensor([family.thumb for family in FAMILIES], device=device, dtype=dtype)
    spreads = torch.tensor([family.spread for family in FAMILIES], device=device, dtype=dtype)
    noises = torch.tensor([family.noise for family in FAMILIES], device=device, dtype=dtype)

    family = draw_family()
    guest = draw_family()
    swapped = (uniform(0, 1, 1) < 0.25) & (uniform(0, 1, 5) < 0.4)
    curl = torch.where(swapped[:, 1:, None], curls[guest], curls[family])
    thumb = torch.where(swapped[:, :1], thumbs[guest], thumbs[family])
    noise = noises[family][:, None] * (0.4 + uniform(0, 1, 1)) * spread

    # all fingers share a part of the noise; some hands are simply more closed than their family
    curl = (
        curl
        + noise[..., None] * (gauss(0.6, 1, 2) + gauss(0.8, 4, 2))
        + uniform(0.0, 12.0, 1, 1) * (uniform(0, 1, 1, 1) < 0.3)
    )
    mcp, pip = curl.unbind(-1)
    pip = torch.where(pip < 0, 0.3 * pip, pip)
    dip = pip * (0.6 + gauss(0.12, 4)) + gauss(2.0, 4)
    room = (1.0 - mcp.clamp_min(0.0) / 80.0).clamp(0.12, 1.0)
    fan = torch.tensor([1.0, 0.12, -0.6, -1.15], device=device, dtype=dtype)
    abduction = room * ((spreads[family][:, None] + gauss(3.0, 1)) * fan + gauss(2.5, 4))
    thumb = thumb + noise * torch.tensor([0.8, 0.8, 0.5, 0.8, 1.0], device=device, dtype=dtype) * gauss(1.0, 5)

    angles = torch.zeros(n, 15, 3, device=device, dtype=dtype)
    for column, finger in enumerate(FINGERS[1:]):
        row = FINGER_ROWS[finger]
        angles[:, row : row + 3, 0] = torch.stack([mcp[:, column], pip[:, column], dip[:, column]], dim=1)
        angles[:, row, 1] = abduction[:, column]
    angles[:, FINGER_ROWS["thumb"], :] = thumb[:, :3]
    angles[:, FINGER_ROWS["thumb"] + 1, 0] = thumb[:, 3]
    angles[:, FINGER_ROWS["thumb"] + 2, 0] = thumb[:, 4]
    angles = angles + gauss(1.0, 15, 3) * torch.tensor([0.0, 0.5, 1.5], device=device, dtype=dtype)
    angles = angles * (math.pi / 180)

    if anchors is not None and len(anchors):
        anchor = anchors.to(angles)[draw.index(len(anchors))]
        reach = torch.tensor([6.0, 2.5, 2.0], device=device, dtype=dtype) * (math.pi / 180) * spread
        near = anchor + reach * uniform(0, 1, 1, 1) * (gauss(0.5, 1, 3) + gauss(1.0, 15, 3))
        chosen = uniform(0, 1, 1, 1) < share
        angles = torch.where(chosen, near, angles)
        family = torch.where(chosen[:, 0, 0], len(FAMILIES), family)
    if free:
        freed = (uniform(0, 1, 1) < free) & (uniform(0, 1, 5) < torch.tensor(_FREED, device=device))
        angles = torch.where(freed[:, _FINGER_OF, None], free_angles(draw), angles)
    return torch.minimum(torch.maximum(angles, hand.limits_lower), hand.limits_upper), family


def free_angles(draw: Draw) -> Float[Tensor, "n 15 3"]:
    """Angles (radians) of fingers and thumbs that bend each joint anyhow, as no family's do: above all the thumb's tip,
    which known poses, fitted to pictures, hardly bend."""

    def evenly(ranges: tuple[tuple[float, float], ...]) -> Tensor:
        return torch.stack([draw.uniform(low, high) for low, high in ranges], 1)

    angles = draw.gauss(1.0, 15, 3) * torch.tensor([0.0, 0.5, 1.5], device=draw.device, dtype=draw.dtype)
    for finger in FINGERS[1:]:
        row = FINGER_ROWS[finger]
        mcp, pip, share = evenly((_FREE_MCP, _FREE_PIP, _FREE_DIP)).unbind(1)
        angles[:, row : row + 3, 0] += torch.stack([mcp, pip, share * pip], 1)
        angles[:, row, 1] += draw.gauss(6.0) * (1.0 - mcp.clamp_min(0.0) / 80.0).clamp(0.12, 1.0)
    thumb, row = evenly(_FREE_THUMB), FINGER_ROWS["thumb"]
    angles[:, row] += thumb[:, :3]
    angles[:, row + 1, 0] += thumb[:, 3]
    angles[:, row + 2, 0] += thumb[:, 4]
    return angles * (math.pi / 180)


def finger_overlap(joints: Float[Tensor, "*b 21 3"]) -> Float[Tensor, "*b"]:
    """By how much fingers run through each other and the palm: overlap of spheres along the bones, summed, metres.

    Radii suit an adult hand; `joints` in metres.
    """
    centres, radii, owner = [], [], []
    for finger in range(5):
        chain = joints[..., 1 + 4 * finger : 5 + 4 * finger, :]
        for bone in range(3):
            if finger == 0 and bone == 0:
                continue  # the thumb's metacarpal is part of the palm
            for place in (0.5, 0.95):
                centres.append(torch.lerp(chain[..., bone, :], chain[..., bone + 1, :], place))
                radii.append(_RADII[finger][bone])
                owner.append(finger)
    wrist = joints[..., 0, :]
    for knuckle in (5, 9, 13, 17):
        for place in (0.5, 0.8):
            centres.append(torch.lerp(wrist, joints[..., knuckle, :], place))
            radii.append(0.0115)
            owner.append(5)
    points = torch.stack(centres, dim=-2)
    radius = points.new_tensor(radii)
    mine = torch.tensor(owner, device=points.device)
    different = torch.triu(mine[:, None] != mine[None])
    reach = (0.85 * (radius[:, None] + radius[None])) * different
    # distances by the expanded square: one small matrix product a hand instead of a (p, p, 3) tensor
    square = (points * points).sum(-1)
    distance = (square[..., :, None] + square[..., None, :] - 2.0 * points @ points.mT).clamp_min(1e-10).sqrt()
    return (reach - distance).clamp_min(0.0).sum((-1, -2))


def sample_poses(
    n: int,
    hand: HandModel,
    generator: torch.Generator,
    anchors: Float[Tensor, "k 15 3"] | None = None,
    share: float = 0.4,
    spread: float = 1.0,
    free: float = 0.0,
) -> tuple[Float[Tensor, "n 45"], Tensor]:
    """Draw n poses (axis-angle) within the limits, hardly any with fingers in each other; and their families (n,)."""
    angles, family = sample_angles(n * _CANDIDATES, hand, generator, anchors, share, spread, free)
    pose = anatomical_to_pose(angles, hand)
    joints = hand.skeleton(pose, pose.new_zeros(len(pose), 10))
    overlap = finger_overlap(joints).view(_CANDIDATES, n)
    order = torch.arange(_CANDIDATES, device=overlap.device)[:, None]
    # the first clean candidate; where none is, the least bad
    choice = torch.where(overlap < _OVERLAP_ALLOWED, order * 1e-6, overlap).argmin(0)
    rows = choice * n + torch.arange(n, device=choice.device)
    return pose[rows], family[rows]


def poses_to_anchors(poses: Float[Tensor, "k 45"], hand: HandModel) -> Float[Tensor, "k 15 3"]:
    """Fitted poses (axis-angle) → anatomical angles clamped to the limits, for `sample_poses`."""
    angles = pose_to_anatomical(poses.to(hand.limits_lower), hand)
    return torch.minimum(torch.maximum(angles, hand.limits_lower), hand.limits_upper)


def sample_shapes(n: int, generator: torch.Generator, device: torch.device | str) -> Float[Tensor, "n 10"]:
    """Shapes, N(0, 1.2²) a direction, within ±3 standard deviations."""
    return (1.2 * torch.randn(n, 10, generator=generator, device=device)).clamp_(-3.0, 3.0)


def sample_rotations(
    n: int,
    generator: torch.Generator,
    device: torch.device | str,
    upright: float = 0.45,
    known: Float[Tensor, "k 4"] | None = None,
    known_share: float = 0.0,
) -> Float[Tensor, "n 4"]:
    """Viewpoints [w, x, y, z], hand frame → camera axes: over all rotations, a share `upright` with fingers roughly up.

    Upright hands turn evenly about the vertical, so palm, back and both edges are equally frequent. A share
    `known_share` takes the place of all these: viewpoints around `known` ones (unit quaternions), about 20° away.
    """
    draw = Draw(n, generator)
    uniform, gauss = draw.uniform, draw.gauss
    anyhow, spare = (torch.nn.functional.normalize(gauss(1.0, 4), dim=-1) for _ in range(2))
    # the arm's axis (+y of the hand) straight towards the camera hides the hand behind its sleeve: draw once more
    w, x, y, z = anyhow.unbind(-1)
    anyhow = torch.where((2.0 * (y * z + w * x) < -0.7)[:, None], spare, anyhow)
    zero = torch.zeros(n, device=device)
    yaw = torch.stack([zero, uniform(0.0, 2.0 * math.pi), zero], dim=-1)
    pitch = torch.stack([gauss(0.5), zero, zero], dim=-1)
    roll = torch.stack([zero, zero, gauss(0.7)], dim=-1)
    turns = [roma.rotvec_to_unitquat(axis) for axis in (roll, pitch, yaw)]
    up = roma.quat_xyzw_to_wxyz(roma.quat_product(roma.quat_product(turns[0], turns[1]), turns[2]))
    views = torch.where(uniform(0, 1, 1) < upright, up, anyhow)
    if known is None or not len(known) or not known_share:
        return views
    chosen = roma.quat_wxyz_to_xyzw(known[draw.index(len(known))])
    turned = roma.quat_product(roma.rotvec_to_unitquat(gauss(_VIEW_SPREAD, 3)), chosen)
    return torch.where(uniform(0, 1, 1) < known_share, roma.quat_xyzw_to_wxyz(turned), views)
