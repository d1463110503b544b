"""Nails, creases, blush and palm side of a hand model, painted once into its texture space from its joints at rest.

Works for any `HandModel`: where it has no UVs of the MakeHuman body (MANO), the hand at rest is projected flat, palm
and back side by side, and the packaged textures, which would not fit, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from densehand.hand.keypoints import BONES
from densehand.hand.model import HandModel
from densehand.render import interpolate, rasterise, vertex_normals

from .photo import gaussian_blur
from .skins import MAP_SIZE, body_uv_to_map

CHANNELS = ("palm", "nail", "nail_edge", "crease", "blush", "slope_x", "slope_y")
_CREASE_DEPTH = 0.0007  # m
_CREASE_WIDTH = 0.0008  # m, standard deviation of a line
# Keypoint → where lines cross the finger, metres along the bone from the joint: on the palm side, on the back
_PALM_LINES = {"mcp": (0.019, 0.022), "pip": (-0.0012, 0.0016), "dip": (0.0,), "thumb": (0.0, 0.003)}
_BACK_LINES = {"pip": (-0.005, -0.002, 0.0012, 0.0045), "dip": (-0.0015, 0.0015), "thumb": (-0.002, 0.002)}


@dataclass
class HandTexture:
    """Texture coordinates (0 to 1, y down) per face corner, and the painted maps, flat (MAP_SIZE², len(CHANNELS))."""

    face_uv: Float[Tensor, "f 3 2"]
    detail: Float[Tensor, "texels c"]
    inside: Float[Tensor, "s s"]  # 1 on texels of the surface
    has_body_uv: bool


def flat_uv(hand: HandModel) -> Float[Tensor, "f 3 2"]:
    """Texture coordinates for models without any: palm side in the left half, back in the right half."""
    corners = hand.template[hand.faces]
    low, high = hand.template.amin(0), hand.template.amax(0)
    place = (corners[..., :2] - low[:2]) / (high - low)[:2]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    back = (normal[:, 2] > 0).to(place)[:, None]
    return torch.stack([0.02 + 0.46 * place[..., 0] + 0.5 * back, 0.02 + 0.96 * place[..., 1]], dim=-1)


def paint_texture(hand: HandModel) -> HandTexture:
    """Paint the maps of a float32 hand model. Deterministic; 0.2 s on a CPU."""
    has_uv = bool(len(hand.face_uv))
    face_uv = body_uv_to_map(hand.uv[hand.face_uv]) if has_uv else flat_uv(hand)
    sheet = torch.cat([face_uv.reshape(-1, 2) * MAP_SIZE, torch.zeros_like(face_uv.reshape(-1, 2)[:, :1])], dim=-1)
    sheet_faces = torch.arange(len(sheet), device=sheet.device).view(-1, 3)
    fragments = rasterise(sheet, sheet_faces, (MAP_SIZE, MAP_SIZE))
    normals = vertex_normals(hand.template, hand.faces)
    surface = interpolate(fragments, torch.cat([hand.template, normals], dim=-1)[hand.faces])
    texels = surface.view(-1, 6)[fragments.covered]
    values = _paint(texels[:, :3], normalize(texels[:, 3:], dim=-1), hand)

    plane = values.new_zeros(MAP_SIZE * MAP_SIZE, values.shape[1])
    plane[fragments.covered] = values
    inside = fragments.mask.to(values)
    plane = _grow(plane.view(MAP_SIZE, MAP_SIZE, -1), inside)
    height = -_CREASE_DEPTH * plane[..., 3]
    slope_x = (height.roll(-1, 1) - height.roll(1, 1)) * (0.5 * MAP_SIZE)
    slope_y = (height.roll(-1, 0) - height.roll(1, 0)) * (0.5 * MAP_SIZE)
    detail = torch.cat([plane, slope_x[..., None], slope_y[..., None]], dim=-1)
    return HandTexture(face_uv, detail.view(MAP_SIZE * MAP_SIZE, -1).contiguous(), inside, has_uv)


def _grow(plane: Float[Tensor, "s s c"], inside: Float[Tensor, "s s"]) -> Tensor:
    """Carry values a few texels over the islands' edges, so that bilinear look-ups there find skin."""
    for _ in range(3):
        spread = gaussian_blur((plane * inside[..., None]).permute(2, 0, 1)[None], 1.0)[0].permute(1, 2, 0)
        weight = gaussian_blur(inside[None, None], 1.0)[0, 0]
        filled = spread / weight.clamp_min(1e-6)[..., None]
        plane = torch.where(inside[..., None] > 0, plane, filled * (weight[..., None] > 1e-3))
        inside = ((inside > 0) | (weight > 1e-3)).to(plane)
    return plane


def _bump(x: Tensor, width: float) -> Tensor:
    return torch.exp(-0.5 * (x / width) ** 2)


def _paint(points: Float[Tensor, "t 3"], normals: Float[Tensor, "t 3"], hand: HandModel) -> Float[Tensor, "t 5"]:
    """Palm side, nail, its free edge, crease and blush of texels at rest positions `points`, metres."""
    zero = points.new_zeros
    keypoints = hand.skeleton(zero(45), zero(10))
    start = keypoints[[parent for parent, _ in BONES]]
    end = keypoints[[child for _, child in BONES]]
    length = (end - start).norm(dim=-1)
    along = (end - start) / length[:, None]
    # which way each bone's palm side faces: where flexion moves its end (bones of the palm: towards −z)
    volar = points.new_tensor([0.0, 0.0, -1.0]).repeat(20, 1)
    joint_of_bone = {
        1: 12,
        2: 13,
        3: 14,
        5: 0,
        6: 1,
        7: 2,
        9: 3,
        10: 4,
        11: 5,
        13: 9,
        14: 10,
        15: 11,
        17: 6,
        18: 7,
        19: 8,
    }
    for bone, joint in joint_of_bone.items():
        volar[bone] = torch.linalg.cross(hand.joint_axes[joint, 0].float(), along[bone])
    volar[0] = normalize(volar[0] + volar[1], dim=0)

    offset = points[:, None] - start[None]
    place = (offset * along).sum(-1)
    nearest_on_bone = offset - (torch.minimum(place.clamp_min(0.0), length))[..., None] * along
    bone = nearest_on_bone.norm(dim=-1).argmin(dim=1)
    row = torch.arange(len(points), device=points.device)
    palm = torch.sigmoid((normals * volar[bone]).sum(-1) / 0.16)

    crease, blush, nail, nail_edge = (zero(len(points)) for _ in range(4))
    for finger in range(5):
        joints = range(1 + 4 * finger, 4 + 4 * finger)
        mine = (bone // 4) == finger
        for keypoint, kind in zip(joints, ("mcp", "pip", "dip"), strict=True):
            name = kind if finger else "thumb"
            s = ((points - keypoints[keypoint]) * along[keypoint]).sum(-1)  # bone `keypoint` starts at this keypoint
            if finger == 0 and kind == "mcp":
                continue
            waver = 0.0008 * torch.sin(points @ points.new_tensor([900.0, 130.0, 700.0]) + keypoint)
            for lines, side in ((_PALM_LINES.get(name, ()), palm), (_BACK_LINES.get(name, ()), 0.6 * (1.0 - palm))):
                for line in lines:
                    crease = torch.maximum(crease, mine * side * _bump(s - line + waver, _CREASE_WIDTH))
            blush = torch.maximum(blush, mine * 0.6 * (1.0 - palm) * _bump(s, 0.006))
        tip_bone = 3 + 4 * finger
        mine = bone == tip_bone
        s = place[:, tip_bone] / length[tip_bone]
        blush = torch.maximum(blush, mine * 0.8 * torch.sigmoid((s - 0.5) / 0.12) * palm)
        across = torch.linalg.cross(volar[tip_bone], along[tip_bone])
        w = (offset[:, tip_bone] * across).sum(-1)
        half_width = 0.68 * torch.where(mine & (s > 0.3), w.abs(), zero(1)).amax()
        # a rounded rectangle on the back of the last bone
        outline = (w / half_width).abs() ** 4 + ((s - 0.72) / 0.27).abs() ** 4
        plate = torch.sigmoid((1.0 - outline) / 0.2) * (mine & (palm < 0.4))
        nail = torch.maximum(nail, plate)
        nail_edge = torch.maximum(nail_edge, plate * torch.sigmoid((s - 0.91) / 0.02))
    crease = torch.maximum(crease, palm * _palm_lines(points, keypoints) * (place[row, bone] < length[bone] + 0.01))
    return torch.stack([palm, nail, nail_edge, crease, blush], dim=-1)


def _palm_lines(points: Float[Tensor, "t 3"], keypoints: Float[Tensor, "21 3"]) -> Float[Tensor, " t"]:
    """Heart, head and life line: quadratic curves through points given by the knuckles, seen from the palm."""
    wrist, thumb, index, middle, ring, little = keypoints[[0, 1, 5, 9, 13, 17], :2]
    edge = little + 0.35 * (little - ring)
    radial = torch.lerp(wrist, index, 0.80) + 0.28 * (index - middle)
    curves = (
        (torch.lerp(wrist, edge, 0.82), torch.lerp(wrist, ring, 0.84), torch.lerp(index, middle, 0.5)),
        (radial, torch.lerp(wrist, middle, 0.74), torch.lerp(wrist, edge, 0.55)),
        (radial, torch.lerp(wrist, ring, 0.62), torch.lerp(wrist, thumb, 0.12) + 0.1 * (ring - wrist)),
    )
    t = torch.linspace(0.0, 1.0, 40, device=points.device)[:, None]
    lines = torch.cat([(1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c for a, b, c in curves])
    distance = torch.cdist(points[:, :2].contiguous(), lines).amin(dim=1)
    return 0.9 * _bump(distance, 1.2 * _CREASE_WIDTH)
