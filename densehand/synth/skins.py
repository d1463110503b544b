"""Skin for synthetic hands: 20 packaged textures, every human tone, and the nails and creases those textures lack.

The textures (MakeHuman, CC0) only give a hand about 100 texels, so they are used as relative structure around a sampled
tone; creases, nails, blush and height come from `detail.py`, painted once per hand model in its UV space. All colours
are linear light.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from .chance import Draw
from .photo import to_linear

TEXTURE_SIZE = 512
PATCH = (180, 404, 290, 512)  # left, top, right, bottom px of the right hand in a MakeHuman body texture
MAP_SIZE = 288  # texels of the maps' sides: about 1.2 mm of skin each
# Typical back-of-hand colours of Fitzpatrick types I to VI, sRGB under a neutral light
TONES = ((244, 214, 194), (229, 186, 158), (205, 154, 120), (166, 114, 78), (112, 72, 49), (62, 40, 30))


def load_skin_patches(device: torch.device | str = "cpu") -> Float[Tensor, "k 3 h w"]:
    """The packaged hand patches, sRGB in [0, 1]."""
    path = resources.files("densehand.synth") / "assets" / "skins.webp"
    with path.open("rb") as file:
        stack = np.asarray(Image.open(file).convert("RGB"))
    height = PATCH[3] - PATCH[1]
    patches = torch.from_numpy(stack.copy()).view(-1, height, stack.shape[1], 3)
    return patches.permute(0, 3, 1, 2).to(device).float() / 255.0


def body_uv_to_map(uv: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
    """MakeHuman body UVs (v up) → coordinates of the hand's patch, 0 to 1, second coordinate down."""
    left, top, right, bottom = PATCH
    x = (uv[..., 0] * TEXTURE_SIZE - left) / (right - left)
    y = ((1.0 - uv[..., 1]) * TEXTURE_SIZE - top) / (bottom - top)
    return torch.stack([x, y], dim=-1)


def relative_albedo(
    patches: Float[Tensor, "k 3 h w"], palm: Float[Tensor, "s s"], inside: Tensor
) -> Float[Tensor, "k s s 3"]:
    """Structure of each texture: linear albedo over the mean of its own back (or, where `palm` is 1, of its palm)."""
    size = palm.shape[-1]
    linear = to_linear(interpolate(patches, size=(size, size), mode="bicubic", align_corners=False).clamp(0.02, 1.0))
    linear = linear.permute(0, 2, 3, 1)
    back_weight = ((1.0 - palm).clamp_min(0.0) ** 4 * inside)[..., None]
    palm_weight = (palm**4 * inside)[..., None]
    back_mean = (linear * back_weight).sum((1, 2)) / back_weight.sum((0, 1))
    palm_mean = (linear * palm_weight).sum((1, 2)) / palm_weight.sum((0, 1))
    mean = torch.lerp(back_mean[:, None, None], palm_mean[:, None, None], palm[..., None])
    return (linear / mean).clamp(0.5, 1.6)


def periodic_noise(size: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """(size, size) tileable Gaussian noise with amplitude spectrum 1/f^exponent, standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / frequency**exponent
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return noise / noise.std()


def noise_maps(device: torch.device | str, size: int = 256) -> Float[Tensor, "texels 4"]:
    """Tileable [∂height/∂x, ∂height/∂y, mottling, redness], each of deviation 1, flattened row by row."""
    rng = np.random.default_rng(7)
    height = periodic_noise(size, 0.6, rng)
    slopes = [np.roll(height, -1, axis) - np.roll(height, 1, axis) for axis in (1, 0)]
    channels = [slope / slope.std() for slope in slopes] + [
        periodic_noise(size, 0.8, rng),
        periodic_noise(size, 1.2, rng),
    ]
    return torch.from_numpy(np.stack(channels, axis=-1).reshape(-1, 4).astype(np.float32)).to(device)


def lookup(
    maps: Float[Tensor, "texels c"],
    size: int,
    xy: Float[Tensor, "p 2"],
    layer: Int[Tensor, " p"] | None = None,
) -> Float[Tensor, "p c"]:
    """Bilinear texture look-up at `xy` (0 to 1, x right and y down) of square maps stored flat, layer after layer.

    Rows of c numbers are gathered at once, which on a CPU is several times faster than `grid_sample` on planes.
    """
    position = (xy * size - 0.5).clamp(0.0, size - 1.001)
    corner = position.floor()
    fx, fy = (position - corner).split(1, dim=-1)
    x, y = corner.long().unbind(-1)
    texel = y * size + x
    if layer is not None:
        texel = texel + layer * (size * size)
    upper = torch.lerp(maps[texel], maps[texel + 1], fx)
    lower = torch.lerp(maps[texel + size], maps[texel + size + 1], fx)
    return torch.lerp(upper, lower, fy)


@dataclass
class SkinLook:
    """Skin of n hands; colours linear (n,3), strengths (n,1)."""

    texture: Int[Tensor, " n"]
    tone: Float[Tensor, " n"]  # 0 (Fitzpatrick I) to 1 (VI)
    back: Float[Tensor, "n 3"]
    palm: Float[Tensor, "n 3"]
    nail: Float[Tensor, "n 3"]
    nail_cover: Float[Tensor, "n 1"]  # how opaque the nail's own colour is
    structure: Float[Tensor, "n 1"]  # exponent on the texture's relative albedo
    mottling: Float[Tensor, "n 1"]
    blush: Float[Tensor, "n 1"]
    crease: Float[Tensor, "n 1"]
    bump: Float[Tensor, "n 1"]
    gloss: Float[Tensor, "n 1"]
    noise_shift: Float[Tensor, "n 2"]


def tone_colour(tone: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Linear colour of the back of the hand along Fitzpatrick I (0) … VI (1)."""
    anchors = to_linear(torch.tensor(TONES, device=tone.device, dtype=tone.dtype) / 255.0)
    place = tone.clamp(0.0, 1.0) * (len(TONES) - 1)
    low = place.floor().clamp_max(len(TONES) - 2).long()
    return torch.lerp(anchors[low], anchors[low + 1], (place - low)[:, None])


def sample_looks(
    n: int,
    darkness_of_texture: Float[Tensor, " k"],
    generator: torch.Generator,
    tones: tuple[float, float] = (0.0, 1.0),
) -> SkinLook:
    """Draw n skins, tones evenly over `tones`, all types. `darkness_of_texture` ranks textures,
    so dark tones mostly get dark-skinned ones.
    """
    draw = Draw(n, generator)
    uniform, gauss = draw.uniform, draw.gauss
    tone = uniform(*tones)
    back = tone_colour(tone) * torch.exp(gauss(0.10, 1) + gauss(0.05, 3))
    redness = gauss(0.06, 1)
    back = back * torch.cat([1.0 + redness, 1.0 - 0.5 * redness, 1.0 - redness], dim=1)
    # the palm has little melanin: the darker the skin, the more it differs
    bare = tone_colour(0.15 + 0.45 * tone) * back.new_tensor([1.05, 0.92, 0.90])
    palm = torch.lerp(back, bare, uniform(0.25, 0.75, 1)) * torch.exp(gauss(0.06, 1))
    # nearest texture in darkness, with enough slack that every texture meets many tones
    closeness = -(tone[:, None] - darkness_of_texture[None]).abs() / 0.15
    spin = -torch.log(-torch.log(uniform(0.0, 1.0, closeness.shape[1]).clamp(1e-6, 1 - 1e-6)))
    texture = (closeness + spin).argmax(dim=1)
    nail = palm * back.new_tensor([1.12, 1.0, 1.02]) + 0.05
    varnish = (uniform(0, 1, 1) < 0.08).float()
    nail = torch.lerp(nail, to_linear(uniform(0.05, 0.95, 3)), varnish)
    return SkinLook(
        texture=texture,
        tone=tone,
        back=back.clamp(0.01, 0.95),
        palm=palm.clamp(0.01, 0.95),
        nail=nail.clamp(0.01, 0.95),
        nail_cover=torch.maximum(uniform(0.2, 0.75, 1), varnish),
        structure=uniform(0.35, 0.95, 1),
        mottling=uniform(0.02, 0.09, 1),
        blush=uniform(0.0, 0.8, 1),
        crease=uniform(0.2, 1.0, 1),
        bump=uniform(0.3, 1.0, 1),
        gloss=uniform(0.1, 1.0, 1).square(),
        noise_shift=uniform(0.0, 1.0, 2),
    )
