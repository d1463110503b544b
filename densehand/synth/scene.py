"""What a hand comes with: a forearm (bare or in a sleeve) and, in some pictures, something held.

Meshes are in camera axes, metres, relative to the wrist. All pictures of a batch share one topology.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from .chance import Draw

# rings of the forearm: the wrist's loop, then bare skin; the sleeve's first ring shares its place with the skin's last
_SKIN_RINGS = 3
_SLEEVE_RINGS = 3
_RINGS = 1 + _SKIN_RINGS + _SLEEVE_RINGS


@dataclass
class Forearm:
    """Tubes of n forearms, rings of L points each, the wrist's own loop (ring 0) left out.

    `along` metres from the wrist and `around` radians are for patterns.
    """

    vertices: Float[Tensor, "n v 3"]
    along: Float[Tensor, "n v"]
    around: Float[Tensor, " v"]


def tube_faces(loop: int, rings: int) -> Int[Tensor, "f 3"]:
    """Triangles between consecutive rings of `loop` points; outward where they turn right-handed about the tube."""
    ring, k = torch.meshgrid(torch.arange(rings - 1), torch.arange(loop), indexing="ij")
    a, b = ring * loop + k, ring * loop + (k + 1) % loop
    c, d = a + loop, b + loop
    return torch.stack([torch.stack([a, b, c], -1), torch.stack([b, d, c], -1)], dim=2).reshape(-1, 3)


def build_forearms(
    loop: Float[Tensor, "n l 3"],
    view: Float[Tensor, "n 3 3"],
    distance: Float[Tensor, " n"],
    generator: torch.Generator,
    sleeves: float = 0.55,
) -> Forearm:
    """Extrude the wrist's loop into forearms bent at the wrist: flattened there, rounder and thicker towards the elbow.

    loop: the wrist's opening as posed, camera axes relative to the wrist. view: hand frame → camera axes. distance:
    wrist to camera (m): an arm that comes towards the camera ends before it. sleeves: share of arms in one.
    """
    n, count, _ = loop.shape
    device, dtype = loop.device, loop.dtype
    draw = Draw(n, generator, dtype)
    uniform, gauss = draw.uniform, draw.gauss
    # down the arm in the hand frame (+y), bent in flexion (about x) and towards the little finger or the thumb (about
    # z)
    flexion, deviation = gauss(0.42).clamp(-1.1, 1.1), gauss(0.20).clamp(-0.5, 0.5)
    direction = torch.stack([deviation.sin(), flexion.cos() * deviation.cos(), flexion.sin() * deviation.cos()], dim=-1)
    direction = torch.einsum("nij,nj->ni", view, direction)
    length = uniform(0.16, 0.26)
    room = (distance - 0.10).clamp_min(0.02) / (-direction[:, 2]).clamp_min(1e-3)
    length = torch.minimum(length, room)

    centre = loop.mean(dim=1, keepdim=True)
    spokes = loop - centre
    down = direction[:, None]
    # the same spokes made perpendicular to the arm, then a circle of the same mean radius
    upright = spokes - (spokes * down).sum(-1, keepdim=True) * down
    radius = spokes.norm(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
    round_spokes = normalize(upright, dim=-1) * radius
    thickening = uniform(1.15, 1.55, 1, 1)

    bare = uniform(0, 1) < 1.0 - sleeves
    sleeve_start = torch.where(bare, 2.0 * length, uniform(0.04, 0.9) * length)
    dressed = sleeve_start < length
    skin_end = torch.where(dressed, sleeve_start, length)
    sleeve_gap = uniform(1.08, 1.45)
    rings, along = [], []
    for step in range(_RINGS - 1):
        if step < _SKIN_RINGS:
            s = skin_end * (0.3, 0.62, 1.0)[step]
            swell = torch.ones_like(s)
        else:
            # the cuff, its outer rim, and the far end; without a sleeve all three stay at the skin's end
            fraction = (0.0, 0.06, 1.0)[step - _SKIN_RINGS]
            s = torch.where(dressed, sleeve_start + fraction * (length - sleeve_start), length)
            swell = torch.where(dressed, sleeve_gap * (1.0 + 0.15 * fraction), torch.ones_like(s))
        share = (s / 0.22)[:, None, None]
        bend = (s / 0.035).clamp_max(1.0)[:, None, None]
        shape = torch.lerp(torch.lerp(spokes, upright, bend), round_spokes, (share * 0.8).clamp(0.0, 0.8))
        width = (1.0 + (thickening - 1.0) * share) * swell[:, None, None]
        rings.append(centre + s[:, None, None] * down + shape * width)
        along.append(s[:, None].expand(n, count))
    around = torch.arange(count, device=device, dtype=dtype).repeat(_RINGS - 1) * (2.0 * math.pi / count)
    return Forearm(torch.cat(rings, dim=1), torch.cat(along, dim=1), around)


def forearm_faces(
    loop: Int[Tensor, " l"], loop_points: Float[Tensor, "l 3"], first_vertex: int
) -> tuple[Int[Tensor, "f 3"], Bool[Tensor, " f"]]:
    """Outward faces of a forearm whose ring 0 is the hand's wrist `loop` and whose other rings start at `first_vertex`.

    loop_points: the loop at rest in the hand frame, arm towards +y. Also tells which faces are sleeve.
    """
    count = len(loop)
    faces = tube_faces(count, _RINGS).to(loop.device)
    spokes = loop_points - loop_points.mean(0)
    turn = torch.linalg.cross(spokes, spokes.roll(-1, 0)).sum(0)[1]
    # `tube_faces` faces outwards where the loop turns right-handed about the arm (+y)
    if turn < 0:
        faces = faces.flip(-1)
    numbers = torch.cat([loop, torch.arange(count * (_RINGS - 1), device=loop.device) + first_vertex])
    sleeve = torch.arange(len(faces), device=loop.device) >= 2 * count * _SKIN_RINGS
    return numbers[faces], sleeve


def sphere_topology() -> tuple[Float[Tensor, "v 2"], Int[Tensor, "f 3"]]:
    """Latitude and longitude (radians) of a sphere's vertices and its outward faces."""
    rings, segments = 9, 16
    latitude = torch.linspace(-0.5 * math.pi, 0.5 * math.pi, rings)
    longitude = torch.arange(segments) * (2.0 * math.pi / segments)
    angles = torch.stack(torch.meshgrid(latitude, longitude, indexing="ij"), dim=-1).reshape(-1, 2)
    return angles, tube_faces(segments, rings)


def superquadric(angles: Float[Tensor, "v 2"], power: Float[Tensor, "n 2"]) -> Float[Tensor, "n v 3"]:
    """Points of superquadrics with half-axes 1 (Barr 1981): powers (1, 1) a ball, (0.1, 1) a cylinder about z, (0.1,
    0.1) a box.
    """

    def signed(x: Tensor, exponent: Tensor) -> Tensor:
        return torch.where(x.abs() < 1e-6, torch.zeros_like(x), x.sign() * x.abs() ** exponent)

    latitude, longitude = angles[None, :, 0], angles[None, :, 1]
    north, east = power[:, :1], power[:, 1:]
    ring = signed(latitude.cos(), north)
    return torch.stack(
        [ring * signed(longitude.cos(), east), ring * signed(longitude.sin(), east), signed(latitude.sin(), north)],
        dim=-1,
    )


def build_objects(
    joints: Float[Tensor, "n 21 3"], held: Bool[Tensor, " n"], angles: Float[Tensor, "v 2"], generator: torch.Generator
) -> tuple[Float[Tensor, "n v 3"], Float[Tensor, "n v 3"]]:
    """Things in the hand: cylinders, balls, boxes across the palm, pens between thumb and index finger.

    Sized so that they touch the inside of the grasp. Where `held` is false the object is a point at infinity, which
    draws nothing. Returns the vertices and their coordinates in the object's own frame, half-axes 1 (for patterns).
    """
    draw = Draw(len(joints), generator, joints.dtype)
    uniform = draw.uniform
    knuckles = joints[:, [5, 9, 13, 17]]
    across = normalize(knuckles[:, 0] - knuckles[:, 3], dim=-1)
    finger = normalize(knuckles.mean(1) - joints[:, 0], dim=-1)
    palm_side = normalize(torch.linalg.cross(across, finger), dim=-1)  # of a right hand: out of the palm
    middles = joints[:, [6, 10, 14, 18]].mean(1)
    tips = joints[:, [7, 11, 15, 19]].mean(1)
    palm = torch.lerp(joints[:, 0], knuckles.mean(1), 0.8)

    # the largest ball that palm, middle and last bones leave room for
    centre = torch.lerp(palm + 0.03 * palm_side, (palm + middles + tips) / 3, 0.6)
    reach = torch.stack([(centre - part).norm(dim=-1) for part in (palm, middles, tips)]).amin(0)
    radius = (reach - 0.008).clamp(0.008, 0.055) * uniform(0.9, 1.15)
    kind = draw.index(4)  # cylinder, ball, box, pen
    one = torch.ones_like(radius)
    length = torch.where(kind == 1, radius, uniform(0.04, 0.12))
    half_axes = torch.stack([radius, radius * torch.where(kind == 2, uniform(0.4, 1.0), one), length], dim=-1)
    power = torch.stack([torch.where(kind == 1, one, 0.12 * one), torch.where(kind == 2, 0.15 * one, one)], dim=-1)
    axis = across
    # a pen: thin, through the gap between the tips of thumb and index finger, over the index knuckle
    grip = 0.5 * (joints[:, 4] + torch.lerp(joints[:, 7], joints[:, 8], 0.5))
    pen_axis = normalize(grip - torch.lerp(joints[:, 5], joints[:, 2], 0.25), dim=-1)
    pen = (kind == 3)[:, None]
    thin = torch.stack([uniform(0.0035, 0.006), uniform(0.0035, 0.006), uniform(0.06, 0.08)], dim=-1)
    axis = torch.where(pen, pen_axis, axis)
    centre = torch.where(pen, grip - 0.045 * pen_axis, centre)
    half_axes = torch.where(pen, thin, half_axes)

    axis = normalize(axis + draw.gauss(0.12, 3), dim=-1)
    side = normalize(torch.linalg.cross(axis, finger + 0.01), dim=-1)
    frame = torch.stack([side, torch.linalg.cross(axis, side), axis], dim=-1)
    unit = superquadric(angles, power)
    vertices = torch.einsum("nij,nvj->nvi", frame, unit * half_axes[:, None]) + centre[:, None]
    return torch.where(held[:, None, None], vertices, torch.inf), unit
