"""What is behind and before the hand: photos or made-up scenes, skin-coloured shapes, other hands,
things in the way.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from .chance import Draw
from .photo import pixel_grid, to_srgb
from .skins import tone_colour


def photo_backdrops(photos: UInt8[Tensor, "m h w 3"], size: int, draw: Draw) -> Float[Tensor, "n 3 s s"]:
    """Random cut-outs of photos: turned, mirrored, at any zoom; sRGB."""
    picture = photos[draw.index(len(photos))].permute(0, 3, 1, 2).float() / 255.0
    zoom = torch.exp(draw.uniform(math.log(0.25), math.log(0.95)))
    angle = draw.gauss(0.25)
    flip = torch.where(draw.uniform(0, 1) < 0.5, -1.0, 1.0)
    row_x = torch.stack([flip * zoom * angle.cos(), -zoom * angle.sin()], dim=-1)
    row_y = torch.stack([flip * zoom * angle.sin(), zoom * angle.cos()], dim=-1)
    shift = draw.uniform(-1.0, 1.0, 2) * (1.0 - zoom)[:, None]
    affine = torch.cat([torch.stack([row_x, row_y], dim=1), shift[..., None]], dim=-1)
    grid = affine_grid(affine, [draw.n, 3, size, size], align_corners=False)
    return grid_sample(picture, grid, padding_mode="reflection", align_corners=False)


def made_up_backdrops(size: int, draw: Draw) -> Float[Tensor, "n 3 s s"]:
    """Gradients, soft blotches and grain around a few colours, in place of photos; sRGB."""
    total = draw.colour()[..., None, None].expand(-1, -1, size, size).contiguous()
    for cells, strength in ((2, 0.8), (5, 0.45), (12, 0.3), (40, 0.2)):
        noise = draw.gauss(1.0, 3, cells, cells)
        grey = noise.mean(1, keepdim=True) * 1.7
        noise = torch.lerp(noise, grey.expand_as(noise), 0.8) * draw.uniform(0.0, 0.4, 1, 1, 1) * strength
        total += interpolate(noise, size=(size, size), mode="bilinear", align_corners=True)
    return total.clamp_(0.0, 1.0)


def superellipses(
    size: int,
    centre: Float[Tensor, "n 2"],
    half_axes: Float[Tensor, "n 2"],
    angle: Float[Tensor, " n"],
    power: Float[Tensor, " n"],
) -> tuple[Float[Tensor, "n s s"], Float[Tensor, "n s s"], Float[Tensor, "n s s"]]:
    """Anti-aliased coverage of one superellipse a picture (power 2 ellipse, 8 rounded rectangle) and its own x,
    y (±1 inside).
    """
    x, y = pixel_grid(size, centre.device)
    cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    dx, dy = x - centre[:, 0].view(-1, 1, 1), y - centre[:, 1].view(-1, 1, 1)
    u = (cos * dx + sin * dy) / half_axes[:, 0].view(-1, 1, 1)
    v = (cos * dy - sin * dx) / half_axes[:, 1].view(-1, 1, 1)
    p = power.view(-1, 1, 1)
    radius = (u.abs().clamp_min(1e-4) ** p + v.abs().clamp_min(1e-4) ** p) ** (1.0 / p)
    edge = half_axes.amin(-1).view(-1, 1, 1) * (0.5 * size)
    return ((1.0 - radius) * edge + 0.5).clamp_(0.0, 1.0), u, v


def shape_layer(
    size: int, draw: Draw, centre: Tensor, half_axes: Tensor, skin_share: float, tone: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 1 s s"]]:
    """A shaded, sometimes striped or skin-coloured shape a picture: sRGB colour and coverage.
    Tones near the hand's own.
    """
    power = torch.where(
        draw.uniform(0, 1) < 0.6, torch.full((draw.n,), 2.0, device=draw.device), draw.uniform(3.0, 9.0)
    )
    coverage, u, v = superellipses(size, centre, half_axes, draw.uniform(0.0, math.pi), power)
    skin = to_srgb(tone_colour((tone + draw.gauss(0.12)).clamp(0.0, 1.0)) * torch.exp(draw.gauss(0.25, 1)))
    is_skin = draw.uniform(0, 1, 1) < skin_share
    colour = torch.where(is_skin, skin, draw.colour())
    other = torch.where(is_skin, colour * 0.97, torch.where(draw.uniform(0, 1, 1) < 0.4, draw.colour(), colour))
    stripe = torch.sigmoid(6.0 * torch.sin(draw.uniform(2.0, 14.0, 1, 1) * u + draw.uniform(0.0, 6.3, 1, 1)))[:, None]
    shade = (
        1.0
        + draw.gauss(0.12, 1, 1) * u
        + draw.gauss(0.12, 1, 1) * v
        - 0.25 * draw.uniform(0, 1, 1, 1) * (u * u + v * v)
    )
    mixed = torch.lerp(colour[..., None, None], other[..., None, None], stripe)
    return mixed * shade[:, None].clamp(0.3, 1.6), coverage[:, None]


def clutter(size: int, draw: Draw, tone: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """A shape behind the hand, half of them of skin (hands are mostly seen against faces, arms and bodies): sRGB colour
    (n, 3, s, s) and coverage (n, 1, s, s)."""
    half_axes = torch.exp(draw.uniform(math.log(0.12), math.log(0.9), 2))
    return shape_layer(size, draw, draw.uniform(-1.1, 1.1, 2), half_axes, 0.55, tone)


def occluders(
    size: int, draw: Draw, keypoints: Float[Tensor, "n 21 2"], tone: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 1 s s"]]:
    """A thing before the hand that covers at most about seven keypoints: sRGB colour and coverage."""
    target = keypoints[torch.arange(draw.n, device=draw.device), draw.index(21)]
    centre = target + draw.gauss(0.12, 2)
    distance = (keypoints - centre[:, None]).norm(dim=-1).sort(dim=-1).values
    limit = distance[:, 7].clamp_min(0.05)
    half_axes = torch.minimum(torch.exp(draw.uniform(math.log(0.08), math.log(0.6), 2)), limit[:, None])
    # bars reach further one way, where that keeps to the limit roughly
    bar = torch.where(draw.uniform(0, 1) < 0.3, 2.5, 1.0)
    half_axes = torch.stack([half_axes[:, 0] * bar, half_axes[:, 1] / bar.sqrt()], dim=-1)
    return shape_layer(size, draw, centre, half_axes, 0.3, tone)


def other_hands(layer: Float[Tensor, "m 4 s s"], source: Int[Tensor, " n"], draw: Draw) -> Float[Tensor, "n 4 s s"]:
    """Colour and coverage of the hands `source` of a layer, moved, turned and mostly mirrored."""
    zoom = torch.exp(draw.gauss(0.25))
    angle = draw.uniform(0.0, 2.0 * math.pi)
    flip = torch.where(draw.uniform(0, 1) < 0.75, -1.0, 1.0)
    heading = draw.uniform(0.0, 2.0 * math.pi)
    far = draw.uniform(0.35, 1.15)
    centre = torch.stack([heading.cos(), heading.sin()], dim=-1) * far[:, None]
    matrix = (
        torch.stack(
            [torch.stack([flip * angle.cos(), flip * angle.sin()], -1), torch.stack([-angle.sin(), angle.cos()], -1)],
            dim=1,
        )
        / zoom[:, None, None]
    )
    affine = torch.cat([matrix, -matrix @ centre[..., None]], dim=-1)
    grid = affine_grid(affine, [draw.n, 4, *layer.shape[-2:]], align_corners=False)
    return grid_sample(layer[source], grid, padding_mode="zeros", align_corners=False)
