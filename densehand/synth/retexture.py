"""A photographed hand's skin on another mesh: what the photo shows is carried over, the rest is rendered.

A seed is a photo with the mesh fitted to it. Vertices are the same points of the skin on every mesh of a hand model,
so a pixel of a new picture looks up where its point of the skin lies in the photo, and takes its colour from there if
the photo shows it: on the picture, turned to the camera, not behind another finger, not at the outline (a fit is off by
a few pixels, and the background would be painted on) and not far from the skin's colour (a thing in front of the hand).
Elsewhere the rendered skin stays, tinted so that both agree where both are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from densehand.hand.model import HandModel
from densehand.network.mesh import MeshParameters
from densehand.render import rasterise
from densehand.render.rasterise import blend
from densehand.render.shade import sample_texture, vertex_normals

from .photo import to_linear, to_srgb
from .render import BARE_ARM, Covered, Meshes

OUTLINE = 0.018  # of the photo's side: so near to the outline nothing is taken over
SAME_DEPTH = 0.006  # metres: a point further behind the nearest surface is hidden
FACING = (0.15, 0.45)  # cosine to the camera: nothing is taken below the first, all above the second
CHROMA, BRIGHTNESS = 0.45, 1.3  # log distance from the skin's colour up to which a pixel is skin for sure
PRIOR = 0.05  # share of the hand's pixels that the photo's median skin counts in the tint


@dataclass
class Seeds:
    """m photos and what they show of their hands.

    images: sRGB in [0, 1]. screen: vertices, x and y in pixels of the photo, z metres from the wrist. facing: cosine
    of each vertex's normal to the direction to the camera. depth: metres, inf beside the hand. trusted: how surely a
    pixel shows skin, 0 to 1. skin: median colour of the hand, linear.
    """

    images: Float[Tensor, "m s s 3"]
    screen: Float[Tensor, "m v 3"]
    facing: Float[Tensor, "m v"]
    depth: Float[Tensor, "m s s"]
    trusted: Float[Tensor, "m s s"]
    skin: Float[Tensor, "m 3"]

    def at(
        self, row: Int[Tensor, " p"], place: Float[Tensor, "p 3"], facing: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "p 3"], Float[Tensor, " p"]]:
        """Colour (sRGB) and trust of points of the hands `row`, given as in `screen` and `facing`."""
        size = self.images.shape[1]
        x, y = place[:, 0], place[:, 1]
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        column, line = x.long().clamp(0, size - 1), y.long().clamp(0, size - 1)
        pixel = (row * size + line) * size + column
        in_view = place[:, 2] <= self.depth.flatten()[pixel] + SAME_DEPTH
        turned = ((facing - FACING[0]) / (FACING[1] - FACING[0])).clamp(0, 1)
        weight = self.trusted.flatten()[pixel] * turned * (inside & in_view)
        return sample_texture(self.images, torch.stack([x, size - y], dim=1) / size, row), weight


@torch.no_grad()
def look_at_seeds(hand: HandModel, images: UInt8[Tensor, "m s s 3"], parameters: MeshParameters) -> Seeds:
    """Photos (uint8 RGB) with the right hands fitted to them, parameters in units of the photo ([-1, 1] over it)."""
    size = images.shape[1]
    vertices = hand(parameters.pose, parameters.shape, parameters.rotation).vertices
    flat = parameters.scale[:, None, None] * vertices[..., :2] + parameters.translation[:, None, :2]
    screen = torch.cat([(flat + 1) * (size / 2), vertices[..., 2:]], dim=-1)
    facing = -vertex_normals(vertices, hand.faces)[..., 2]
    seen = rasterise(screen, hand.faces, (size, size), cull="back")
    pictures = images.float() / 255
    trusted = _inner(seen.mask, max(1, round(OUTLINE * size)))
    blank = torch.zeros_like(pictures[:, 0, 0])
    seeds = Seeds(pictures, screen, facing, seen.depth, trusted, blank)
    row = torch.arange(len(images), device=images.device)[:, None].expand(facing.shape).reshape(-1)
    colour, weight = seeds.at(row, screen.reshape(-1, 3), facing.reshape(-1))
    linear = to_linear(colour).where(weight[:, None] > 0.5, torch.nan).view(*facing.shape, 3)
    # where the photo shows nothing of the hand there is no median: mid-brown, and nothing will be taken over
    seeds.skin = linear.nanmedian(1).values.nan_to_num(0.25)
    seeds.trusted = trusted * _skin_like(to_linear(pictures), seeds.skin)
    return seeds


@dataclass
class GivenHands:
    """n hands to be shown by `Synthesizer.sample`, in its own skins."""

    pose: Float[Tensor, "n 45"]
    shape: Float[Tensor, "n 10"]
    rotation: Float[Tensor, "n 4"]

    def split(self, size: int) -> list[GivenHands]:
        """At most `size` of the hands after each other, to be shown in their own skins."""
        parts = zip(self.pose.split(size), self.shape.split(size), self.rotation.split(size), strict=True)
        return [GivenHands(*part) for part in parts]

    def paint(self, colour: Float[Tensor, "p 3"], meshes: Meshes, covered: Covered) -> Float[Tensor, "p 3"]:
        """The rendered sRGB colours of the covered pixels as they are."""
        return colour


@dataclass
class Likeness(GivenHands):
    """n hands to be shown by `Synthesizer.sample`, each with the skin of one seed (`index`)."""

    seeds: Seeds
    index: Int[Tensor, " n"]

    def paint(self, colour: Float[Tensor, "p 3"], meshes: Meshes, covered: Covered) -> Float[Tensor, "p 3"]:
        """The rendered sRGB colours of the covered pixels, with the photo's skin on hand and bare forearm."""
        mine = (covered.face < meshes.hand_faces).nonzero().squeeze(1)
        skin = (meshes.part[covered.face] <= BARE_ARM).nonzero().squeeze(1)
        picture = covered.picture[mine]
        photo, weight = self.shown(picture, meshes.faces[covered.face[mine]], covered.weights[mine])
        linear = to_linear(colour)
        gain = self._tint(linear[mine], to_linear(photo), weight, picture)
        painted = colour.clone()
        painted[skin] = to_srgb((linear[skin] * gain[covered.picture[skin]]).clamp_max(1.0))
        painted[mine] = torch.lerp(painted[mine], photo, weight[:, None])
        return painted

    def shown(
        self, picture: Int[Tensor, " p"], corners: Int[Tensor, "p 3"], weights: Float[Tensor, "p 3"]
    ) -> tuple[Float[Tensor, "p 3"], Float[Tensor, " p"]]:
        """What the seed's photo shows of points of the hand (corners of a face and their weights): colour, trust."""
        row = self.index[picture]
        table = torch.cat([self.seeds.screen, self.seeds.facing[..., None]], dim=-1)
        place = blend(table.flatten(0, 1), corners + (row * table.shape[1])[:, None], weights)
        return self.seeds.at(row, place[:, :3], place[:, 3])

    def _tint(
        self, rendered: Float[Tensor, "p 3"], photo: Float[Tensor, "p 3"], weight: Tensor, picture: Tensor
    ) -> Float[Tensor, "n 3"]:
        """Gain of each picture's rendered skin: its colour becomes the photo's, where the photo shows the hand at all,
        else its mean colour becomes the photo's median skin."""
        n = len(self.index)

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(n, 3).index_add_(0, picture, values)

        count = torch.bincount(picture, minlength=n)[:, None].clamp_min(1)
        mean = total(rendered) / count
        prior = PRIOR * count
        known = total(photo * weight[:, None]) + prior * self.seeds.skin[self.index]
        return (known / (total(rendered * weight[:, None]) + prior * mean).clamp_min(1e-6)).clamp(0.1, 8.0)


def _inner(mask: Tensor, radius: int) -> Float[Tensor, "m s s"]:
    """1 inside the mask, falling to 0 at `radius` pixels from its outline and beyond it."""
    outside = max_pool2d(1 - mask[:, None].float(), 2 * radius + 1, stride=1, padding=radius)
    soft = avg_pool2d(1 - outside, 3, stride=1, padding=1)
    return soft[:, 0] * (1 - outside[:, 0])


def _skin_like(linear: Float[Tensor, "m s s 3"], skin: Float[Tensor, "m 3"]) -> Float[Tensor, "m s s"]:
    """1 for colours near the skin's, 0 for far ones; brightness, which light changes, may differ more than hue."""
    ratio = linear.clamp_min(1e-3).log() - skin.clamp_min(1e-3).log()[:, None, None]
    brightness = ratio.mean(-1)
    chroma = (ratio - brightness[..., None]).norm(dim=-1)
    far = torch.maximum(chroma / CHROMA, brightness.abs() / BRIGHTNESS)
    return (2 * (1.5 - far)).clamp(0, 1)
