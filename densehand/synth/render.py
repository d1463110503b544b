"""From posed meshes to lit, textured hands: two visibility passes, then shading of the covered pixels alone.

Screen-space meshes in, linear-light colour out. Skin: wrapped diffuse light (Green, GPU Gems 2004, ch. 16, red
scattering widest), a Blinn-Phong highlight from the lamp, a Fresnel rim from the environment; hollows are darkened by
comparing depths (Luft et al. 2006).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from densehand.render import rasterise
from densehand.render.shade import harmonic_basis

from .light import SceneLights
from .skins import MAP_SIZE, SkinLook, lookup

HAND, BARE_ARM, SLEEVE, OBJECT = range(4)
_NOISE_SIZE = 256
_WRAP = (0.30, 0.15, 0.10)


@dataclass
class Meshes:
    """Hand, forearm and object of n pictures in one vertex array; the topology is shared.

    points: camera axes, metres. screen: x, y px and z metres. faces: the first `hand_faces` are the hand's. part: HAND
    … OBJECT of each face. face_uv: texture coordinates, of the hand's faces only.
    """

    points: Float[Tensor, "n v 3"]
    screen: Float[Tensor, "n v 3"]
    normals: Float[Tensor, "n v 3"]
    faces: Int[Tensor, "f 3"]
    hand_faces: int
    part: Int[Tensor, " f"]
    face_uv: Float[Tensor, "g 3 2"]
    pattern: Float[Tensor, "n v 3"]  # forearm: (along m, around rad, 0); object: its own coordinates
    arm_skin: Float[Tensor, "n v 4"]  # relative albedo and palm side, of the forearm's vertices


@dataclass
class Covered:
    """The pixels that show anything: `pixel` in the flattened (n, s, s), `picture`, `face`, barycentric weights,
    depth (m).
    """

    pixel: Int[Tensor, " p"]
    picture: Int[Tensor, " p"]
    face: Int[Tensor, " p"]
    weights: Float[Tensor, "p 3"]
    depth: Float[Tensor, " p"]


@dataclass
class Visibility:
    """hand: depth of the hand alone (inf where none). front: depth of whatever is nearest. covered: its pixels."""

    hand: Float[Tensor, "n s s"]
    front: Float[Tensor, "n s s"]
    hand_seen: Bool[Tensor, "n s s"]
    covered: Covered


def see(meshes: Meshes, size: int) -> Visibility:
    """Who is seen where, the hand alone and with its arm and object."""
    split = meshes.hand_faces
    own = rasterise(meshes.screen, meshes.faces[:split], (size, size), cull="back")
    rest = rasterise(meshes.screen, meshes.faces[split:], (size, size), cull="back", near=0.05)
    hand_seen = own.mask & (own.depth <= rest.depth)
    front = torch.minimum(own.depth, rest.depth)
    face = torch.where(hand_seen, own.face_index, torch.where(rest.mask, rest.face_index + split, -1)).reshape(-1)
    pixel = (face >= 0).nonzero().squeeze(1)
    mine = hand_seen.reshape(-1)[pixel]
    weights = torch.where(mine[:, None], own.barycentric.reshape(-1, 3)[pixel], rest.barycentric.reshape(-1, 3)[pixel])
    covered = Covered(pixel, pixel // (size * size), face[pixel], weights, front.reshape(-1)[pixel])
    return Visibility(own.depth, front, hand_seen, covered)


def hollowness(depth: Float[Tensor, "n s s"], radius: int, reach: float) -> Float[Tensor, "n s s"]:
    """How much of a pixel's surroundings lies before it, 0 to 1: eight neighbours at `radius` px, full weight from
    `reach` m on, none from 5·reach on (what is that far before does not touch)."""
    total = torch.zeros_like(depth)
    padded = torch.nn.functional.pad(depth[:, None], (radius,) * 4, mode="replicate")[:, 0]
    size = depth.shape[-1]
    corner = round(0.7 * radius)
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        total += _before(depth, padded, radius * dy, radius * dx, radius, size, reach)
    for dy, dx in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        total += _before(depth, padded, corner * dy, corner * dx, radius, size, reach)
    return total / 8.0


def _occlusion(depth: Float[Tensor, "n s s"]) -> Float[Tensor, "n s s"]:
    """Ambient occlusion at two radii, 2 and 6 % of the side, found at half the resolution (it is soft anyway)."""
    half = depth[:, ::2, ::2].clamp_max(100.0)  # infinite where nothing is
    size = half.shape[-1]
    found = 0.65 * hollowness(half, max(1, round(0.02 * size)), 0.006)
    found += 0.5 * hollowness(half, max(2, round(0.06 * size)), 0.014)
    return interpolate(found[:, None], size=tuple(depth.shape[-2:]), mode="bilinear")[:, 0]


def _before(depth: Tensor, padded: Tensor, dy: int, dx: int, radius: int, size: int, reach: float) -> Tensor:
    neighbour = padded[:, radius + dy : radius + dy + size, radius + dx : radius + dx + size]
    step = (depth - neighbour) / reach
    return step.clamp(0.0, 1.0) * (2.5 - 0.5 * step).clamp(0.0, 1.0)


@dataclass
class Materials:
    """Linear colours of sleeve and object (n,2,3): two each, in stripes;
    `frequency` (n,2,2) of stripes along and around.
    """

    colours: Float[Tensor, "n 2 2 3"]
    frequency: Float[Tensor, "n 2 2"]
    gloss: Float[Tensor, "n 2"]


def shade(
    meshes: Meshes,
    view: Visibility,
    size: int,
    looks: SkinLook,
    materials: Materials,
    lights: SceneLights,
    albedo: Float[Tensor, "texels 3"],
    detail: Float[Tensor, "texels 7"],
    noise: Float[Tensor, "texels 4"],
) -> Float[Tensor, "p 3"]:
    """Linear colour of the covered pixels."""
    covered = view.covered
    picture, face, weights = covered.picture, covered.face, covered.weights[..., None]
    corners = meshes.faces[face] + (picture * meshes.points.shape[1])[:, None]
    normal = normalize((meshes.normals.reshape(-1, 3)[corners] * weights).sum(1), dim=-1)
    points = meshes.points.reshape(-1, 3)[corners]
    towards = -normalize((points * weights).sum(1), dim=-1)
    part = meshes.part[face]

    base = normal.new_zeros(len(face), 3)
    gloss = normal.new_zeros(len(face), 1)
    is_hand = (part == HAND).nonzero().squeeze(1)
    is_arm = (part == BARE_ARM).nonzero().squeeze(1)
    is_made = (part >= SLEEVE).nonzero().squeeze(1)

    # the hand: texture, painted detail, and their bumps
    uv_corners = meshes.face_uv[face[is_hand]]
    uv = (uv_corners * weights[is_hand]).sum(1)
    mine = picture[is_hand]
    structure = lookup(albedo, MAP_SIZE, uv, looks.texture[mine])
    painted = lookup(detail, MAP_SIZE, uv)
    grain = _grain(noise, 1.5 * uv + looks.noise_shift[mine])
    base[is_hand], gloss[is_hand] = _skin(structure, painted, grain, looks, mine)
    normal[is_hand] = _bumped(normal[is_hand], points[is_hand], uv_corners, painted[:, 5:], grain, looks, mine)

    # the bare forearm continues the skin of the wrist's loop
    mine = picture[is_arm]
    skin = (meshes.arm_skin.reshape(-1, 4)[corners[is_arm]] * weights[is_arm]).sum(1)
    pattern = (meshes.pattern.reshape(-1, 3)[corners[is_arm]] * weights[is_arm]).sum(1)
    place = torch.stack([0.5 + 0.16 * pattern[:, 1].cos(), pattern[:, 0] * 6.0], dim=-1) + looks.noise_shift[mine]
    grain = _grain(noise, place)
    painted = torch.cat([skin[:, 3:], torch.zeros_like(skin)], dim=-1)
    base[is_arm], gloss[is_arm] = _skin(skin[:, :3], painted, grain, looks, mine)

    mine = picture[is_made]
    pattern = (meshes.pattern.reshape(-1, 3)[corners[is_made]] * weights[is_made]).sum(1)
    kind = (part[is_made] == OBJECT).long()
    base[is_made], gloss[is_made] = _made(pattern, kind, materials, noise, mine)

    open_sky = (1.0 - _occlusion(view.front).reshape(-1)[covered.pixel]).clamp(0.15, 1.0)[:, None]
    wrap = normal.new_tensor(_WRAP) * (part < SLEEVE)[:, None]
    return _light(base, gloss, normal, towards, wrap, open_sky, lights, picture)


def _grain(noise: Tensor, place: Float[Tensor, "p 2"]) -> Float[Tensor, "p 4"]:
    """The tileable noise at `place` (1 is one tile), nearest texel: it needs no smoothing."""
    x, y = (place * _NOISE_SIZE).floor().long().remainder(_NOISE_SIZE).unbind(-1)
    return noise[y * _NOISE_SIZE + x]


def _skin(
    structure: Tensor, painted: Tensor, grain: Tensor, looks: SkinLook, picture: Tensor
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 1"]]:
    palm, nail, nail_edge, crease, blush = (painted[:, k : k + 1] for k in range(5))
    colour = torch.lerp(looks.back[picture], looks.palm[picture], palm) * structure ** looks.structure[picture]
    mottling = looks.mottling[picture]
    colour = colour * (1.0 + mottling * grain[:, 2:3])
    red = looks.blush[picture] * blush + 0.6 * mottling * grain[:, 3:4]
    colour = colour * torch.cat([1.0 + 0.04 * red, 1.0 - 0.20 * red, 1.0 - 0.18 * red], dim=-1)
    dark = looks.crease[picture] * crease
    colour = colour * torch.cat([1.0 - 0.30 * dark, 1.0 - 0.42 * dark, 1.0 - 0.45 * dark], dim=-1)
    cover = nail * looks.nail_cover[picture]
    colour = torch.lerp(colour, looks.nail[picture], cover)
    colour = torch.lerp(colour, colour.new_tensor([0.72, 0.68, 0.60]), 0.5 * nail_edge * (cover < 0.9))
    return colour, looks.gloss[picture] * (0.35 + 1.2 * nail)


def _bumped(
    normal: Tensor, points: Tensor, uv: Tensor, slope: Tensor, grain: Tensor, looks: SkinLook, picture: Tensor
) -> Float[Tensor, "p 3"]:
    """Normals bent by the painted height (its gradient carried from texture to surface) and by fine random bumps."""
    e1, e2 = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    du1, dv1 = (uv[:, 1] - uv[:, 0]).unbind(-1)
    du2, dv2 = (uv[:, 2] - uv[:, 0]).unbind(-1)
    flat = torch.linalg.cross(e1, e2)
    square = (flat * flat).sum(-1, keepdim=True).clamp_min(1e-16)
    along_1, along_2 = torch.linalg.cross(e2, flat) / square, torch.linalg.cross(flat, e1) / square
    # height changes by slope · duv along each edge; its surface gradient from those two
    rise_1 = (slope[:, 0] * du1 + slope[:, 1] * dv1)[:, None]
    rise_2 = (slope[:, 0] * du2 + slope[:, 1] * dv2)[:, None]
    strength = looks.bump[picture]
    gradient = strength * (rise_1 * along_1 + rise_2 * along_2).clamp(-1.5, 1.5)
    fine = torch.nn.functional.pad(0.07 * strength * grain[:, :2], (0, 1))
    return normalize(normal - gradient - fine, dim=-1)


def _made(
    pattern: Tensor, kind: Tensor, materials: Materials, noise: Tensor, picture: Tensor
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, "p 1"]]:
    """Cloth (kind 0) and held things (kind 1): two colours in soft stripes, and some unevenness."""
    colours = materials.colours[picture, kind]
    frequency = materials.frequency[picture, kind]
    wave = torch.sin(frequency[:, 0] * pattern[:, 0]) + torch.sin(frequency[:, 1] * pattern[:, 1])
    share = torch.sigmoid(5.0 * wave)[:, None]
    grain = _grain(noise, pattern[:, :2] * pattern.new_tensor([5.0, 0.3]))
    colour = torch.lerp(colours[:, 0], colours[:, 1], share) * (1.0 + 0.09 * grain[:, 2:3]).clamp_min(0.2)
    return colour, materials.gloss[picture, kind][:, None]


def _light(
    base: Tensor,
    gloss: Tensor,
    normal: Tensor,
    towards: Tensor,
    wrap: Tensor,
    open_sky: Tensor,
    lights: SceneLights,
    picture: Tensor,
) -> Float[Tensor, "p 3"]:
    turned = torch.einsum("pij,pj->pi", lights.turn[picture], normal)
    sky = torch.einsum("pk,pkc->pc", harmonic_basis(turned), lights.environment[picture]).clamp_min(0.03)
    lamp, colour = lights.lamp_direction[picture], lights.lamp_colour[picture]
    facing = (normal * lamp).sum(-1, keepdim=True)
    # light that enters lit skin leaves it a little beyond the shadow's edge, red light furthest
    diffuse = ((facing + wrap) / (1.0 + wrap)).clamp_min(0.0)
    soft_open = open_sky.sqrt()
    half = normalize(lamp + towards, dim=-1)
    shine = (normal * half).sum(-1, keepdim=True).clamp_min(0.0)
    highlight = gloss * (0.16 * shine**14 + 0.22 * shine**60) * (facing > 0)
    rim = (1.0 - (normal * towards).sum(-1, keepdim=True).clamp(0.0, 1.0)) ** 5
    matte = base * (sky * open_sky + colour * diffuse * soft_open)
    return matte + highlight * colour * soft_open + (0.02 + 0.25 * rim) * gloss * sky * open_sky
