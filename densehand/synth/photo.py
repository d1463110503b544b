"""What a camera does to a picture: blur, lost resolution, colour, noise and JPEG, on a batch and on its device.

All functions take and return pictures (n, 3, S, S), float, nominally sRGB in [0, 1]; per-picture strengths are tensors
(n,), so a batch needs no loop over pictures.
"""

from __future__ import annotations

import math
import random

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, pad

from .chance import Draw

# ITU-T T.81, Annex K
_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB in [0, 1] → linear light, by the power 2.2 (close enough for synthesis, and cheap)."""
    return srgb.clamp_min(0.0) ** 2.2


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light → sRGB by the power 1/2.2; negative light counts as none."""
    return linear.clamp_min(1e-6) ** (1.0 / 2.2)


def pixel_grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (1,1,s) and y (1,s,1) of the pixels' centres in crop units."""
    axis = (torch.arange(size, device=device) + 0.5) * (2.0 / size) - 1.0
    return axis.view(1, 1, -1), axis.view(1, -1, 1)


def gaussian_blur(images: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """Separable Gaussian blur of standard deviation `sigma` px, edges replicated.

    Sums of shifted views: on a CPU several times faster than single-channel convolutions.
    """
    radius = max(1, math.ceil(2.2 * sigma))
    weights = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(radius + 1)]
    total = weights[0] + 2.0 * sum(weights[1:])
    weights = [weight / total for weight in weights]
    for axis, border in ((-1, (radius, radius, 0, 0)), (-2, (0, 0, radius, radius))):
        length = images.shape[axis]
        padded = pad(images, border, mode="replicate")
        images = padded.narrow(axis, radius, length) * weights[0]
        for tap in range(1, radius + 1):
            images.add_(padded.narrow(axis, radius - tap, length), alpha=weights[tap])
            images.add_(padded.narrow(axis, radius + tap, length), alpha=weights[tap])
    return images


def defocus(images: Float[Tensor, "n 3 s s"], strength: Float[Tensor, " n"]) -> Float[Tensor, "n 3 s s"]:
    """Blend every picture between sharp (0), softly blurred (1; sigma 0.9 px) and strongly blurred (2;
    about 2.8 px).
    """
    soft = gaussian_blur(images, 0.9)
    strong = interpolate(gaussian_blur(avg_pool2d(soft, 2), 1.2), size=tuple(images.shape[-2:]), mode="bilinear")
    strength = strength.view(-1, 1, 1, 1)
    return torch.lerp(torch.lerp(images, soft, strength.clamp(0, 1)), strong, (strength - 1).clamp(0, 1))


def motion_blur(images: Float[Tensor, "n 3 s s"], motion: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3 s s"]:
    """Average five copies shifted along `motion` (crop units: the picture is 2 wide), edges replicated."""
    n, _, height, width = images.shape
    identity = torch.eye(2, 3, device=images.device, dtype=images.dtype).expand(n, 2, 3)
    grid = torch.nn.functional.affine_grid(identity, [n, 3, height, width], align_corners=False)
    total = torch.zeros_like(images)
    for share in (-0.5, -0.25, 0.0, 0.25, 0.5):
        shift = motion * share
        total += grid_sample(images, grid + shift[:, None, None], padding_mode="border", align_corners=False)
    return total / 5


def lose_resolution(images: Float[Tensor, "n 3 s s"], size: int, smooth: bool = True) -> Float[Tensor, "n 3 s s"]:
    """Shrink to `size` and enlarge again, as if the hand had been that small in its photo."""
    small = interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return interpolate(small, size=tuple(images.shape[-2:]), mode="bilinear" if smooth else "nearest")


def develop(
    images: Float[Tensor, "n 3 s s"],
    gain: Float[Tensor, "n 3"],
    saturation: Float[Tensor, " n"],
    contrast: Float[Tensor, " n"],
    gamma: Float[Tensor, " n"],
) -> Float[Tensor, "n 3 s s"]:
    """White balance, saturation (0 grey, 1 unchanged) and contrast about mid-grey as one colour matrix, then gamma."""
    n, _, height, width = images.shape
    luma = images.new_tensor(_TO_YCC[0]).expand(3, 3)
    matrix = torch.lerp(luma, torch.eye(3, device=images.device), saturation.view(-1, 1, 1))
    matrix = matrix * gain[:, None, :] * contrast.view(-1, 1, 1)
    offset = (0.45 * (1.0 - contrast)).view(-1, 1, 1)
    flat = torch.baddbmm(offset, matrix, images.reshape(n, 3, -1)).clamp_(1e-4, 1.0)
    return flat.pow_(gamma.view(-1, 1, 1)).view(n, 3, height, width)


def sensor_noise(
    images: Float[Tensor, "n 3 s s"], read: Float[Tensor, " n"], shot: Float[Tensor, " n"], generator: torch.Generator
) -> Float[Tensor, "n 3 s s"]:
    """Gaussian noise of standard deviation read + shot·√I, half of it in blotches of two pixels,
    as left by demosaicing.
    """
    height, width = images.shape[-2:]
    fine = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    coarse = fine[..., : (height + 1) // 2, : (width + 1) // 2]
    fine = 0.75 * fine + interpolate(coarse.flip(-1), size=(height, width), mode="nearest")
    spread = read.view(-1, 1, 1, 1) + shot.view(-1, 1, 1, 1) * images.clamp_min(0.0).sqrt()
    return images + fine * spread


def _dct_matrix(device: torch.device, dtype: torch.dtype) -> Float[Tensor, "8 8"]:
    k = torch.arange(8, device=device, dtype=dtype)
    matrix = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * 0.5
    matrix[0] /= math.sqrt(2.0)
    return matrix


def jpeg(images: Float[Tensor, "n 3 s s"], quality: Float[Tensor, " n"]) -> Float[Tensor, "n 3 s s"]:
    """The losses of a JPEG of `quality` 5–98 (libjpeg's scale): 8×8 DCT, quantisation by Annex K's tables, halved
    chroma.

    Everything but the entropy coding, which loses nothing. Sides that are no multiple of 16 are padded for the while.
    """
    n, _, height, width = images.shape
    padded = pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
    full_h, full_w = padded.shape[-2:]
    to_ycc = images.new_tensor(_TO_YCC)
    ycc = (to_ycc @ (padded.reshape(n, 3, -1) * 255.0)).view(n, 3, full_h, full_w)
    scale = torch.where(quality < 50, 50.0 / quality, 2.0 - 0.02 * quality).view(-1, 1, 1, 1, 1)
    luma = _quantise_blocks(ycc[:, :1] - 128.0, images.new_tensor(_LUMA_TABLE), scale) + 128.0
    chroma = _quantise_blocks(avg_pool2d(ycc[:, 1:], 2), images.new_tensor(_CHROMA_TABLE), scale)
    chroma = interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    flat = torch.cat([luma, chroma], dim=1).reshape(n, 3, -1)
    rgb = (torch.linalg.inv(to_ycc) @ flat).view(n, 3, full_h, full_w) / 255.0
    return rgb[..., :height, :width].clamp(0.0, 1.0)


def _quantise_blocks(planes: Tensor, table: Float[Tensor, "8 8"], scale: Float[Tensor, "n 1 1 1 1"]) -> Tensor:
    n, c, height, width = planes.shape
    dct = _dct_matrix(planes.device, planes.dtype)
    # height-wise, then width-wise: (n, c·h/8, 8, w/8, 8)
    blocks = planes.reshape(n, c * height // 8, 8, width // 8, 8)
    step = (table.view(1, 1, 8, 1, 8) * scale).round().clamp_(1.0, 255.0)
    coefficients = torch.einsum("ua,nhawb,vb->nhuwv", dct, blocks, dct)
    coefficients = (coefficients / step).round_() * step
    return torch.einsum("ua,nhuwv,vb->nhawb", dct, coefficients, dct).reshape(n, c, height, width)


def phone(
    images: Float[Tensor, "n 3 s s"],
    smooth: Float[Tensor, " n"],
    sharpen: Float[Tensor, " n"],
    shade: Float[Tensor, " n"],
) -> Float[Tensor, "n 3 s s"]:
    """What phones and webcams do: noise smoothed away (0 to 1), edges sharpened with halos (0: not), corners darker by
    the share `shade`. The crop is taken for the whole photo. May leave [0, 1].
    """
    n, size = len(images), images.shape[-1]
    smooth, sharpen, shade = (value.view(n, 1, 1, 1) for value in (smooth, sharpen, shade))
    flat = torch.lerp(images, gaussian_blur(images, 0.9), smooth)
    flat = torch.lerp(gaussian_blur(flat, 1.3), flat, 1.0 + sharpen)
    x, y = pixel_grid(size, images.device)
    return flat * (1.0 - 0.5 * shade * (y**2 + x**2))


def photograph(
    images: Float[Tensor, "n 3 s s"], generator: torch.Generator, chance: random.Random, phones: float = 0.0
) -> Float[Tensor, "n 3 s s"]:
    """Degrade clean pictures the way cameras, phones and web sites do, each picture in its own way.

    phones: share of the pictures that go through `phone`.

    Strengths are drawn per picture from `generator`; what must be one value for a slice of the batch (sizes, slices)
    from `chance`, on the host, so that nothing waits for the device.
    """
    n, size = len(images), images.shape[-1]
    draw = Draw(n, generator)
    uniform, gauss = draw.uniform, draw.gauss
    images = defocus(images, (uniform(-1.0, 1.3) + (uniform(0, 1) < 0.12) * uniform(0.0, 1.0)).clamp(0.0, 2.0))
    motion = gauss(0.06, 2)
    for rows in _some(n, 0.12, chance):
        images[rows] = motion_blur(images[rows], motion[rows])
    for rows in _some(n, 0.12, chance) + _some(n, 0.12, chance):
        small = max(8, round(size * chance.uniform(0.25, 0.75)))
        images[rows] = lose_resolution(images[rows], small, smooth=chance.random() < 0.8)
    images = develop(
        images,
        gain=torch.exp(gauss(0.06, 3) + gauss(0.09, 1)),
        saturation=torch.where(uniform(0, 1) < 0.05, 0.0 * uniform(0, 1), uniform(0.55, 1.35)),
        contrast=torch.exp(gauss(0.10)),
        gamma=torch.exp(gauss(0.16)),
    )
    noisy = uniform(0.0, 1.0) ** 3
    images = sensor_noise(images, 0.003 + 0.014 * noisy, 0.02 * noisy, generator)
    quality = torch.where(uniform(0, 1) < 0.3, uniform(15, 50), uniform(50, 97))
    if phones:
        chosen = (uniform(0, 1) < phones).float()
        images = phone(
            images, chosen * uniform(0.0, 0.9), chosen * uniform(0.2, 1.6), chosen * uniform(-0.2, 0.5).clamp_min(0.0)
        )
    return jpeg(images.clamp(0.0, 1.0), quality)


def _some(n: int, share: float, chance: random.Random) -> list[slice]:
    """About `share`·n rows as a run at a random place, or no run (a run costs no gather;
    the rows' order means nothing).
    """
    count = min(n, int(share * n + chance.random()))
    start = chance.randrange(n - count + 1)
    return [slice(start, start + count)] if count else []
