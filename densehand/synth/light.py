"""Light for synthetic hands: environments as nine spherical harmonics, and one lamp.

Directions are unit vectors in camera axes (x right, y down, z forward). An environment's irradiance at a normal n is a
quadratic polynomial in n (Ramamoorthi & Hanrahan, "An efficient representation for irradiance environment maps",
SIGGRAPH 2001), so a matte surface costs nine multiplications a pixel. Brightness is relative: the mean irradiance of an
environment is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from densehand.render.shade import BAND_GAIN, harmonic_basis

from .chance import Draw

BRIGHTEST = 30.0  # what a texel of a map may count, over the mean
LUMINANCE = (0.2126, 0.7152, 0.0722)


def irradiance_coefficients(radiance: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "9 3"]:
    """Nine irradiance coefficients per channel of an equirectangular map (first row up = camera −y), mean luminance 1.

    `BRIGHTEST` times the mean radiance is the most a texel may count: a bare sun would make the quadratic ring below
    zero.
    """
    if radiance.ndim != 3 or radiance.shape[-1] != 3:
        raise ValueError(f"expected an H×W×3 radiance map, got {radiance.shape}")
    height, width = radiance.shape[:2]
    radiance = np.minimum(np.nan_to_num(radiance, posinf=6e4), BRIGHTEST * radiance.mean())
    theta = (np.arange(height) + 0.5) / height * np.pi
    phi = (np.arange(width) + 0.5) / width * 2.0 * np.pi
    theta, phi = np.meshgrid(theta, phi, indexing="ij")
    x, y, z = np.sin(theta) * np.sin(phi), -np.cos(theta), np.sin(theta) * np.cos(phi)
    area = np.sin(theta) * (np.pi / height) * (2.0 * np.pi / width)
    basis = harmonic_basis(torch.from_numpy(np.stack([x, y, z], axis=-1))).numpy()
    coefficients = np.einsum("hwk,hwc,hw->kc", basis, radiance, area) * np.array(BAND_GAIN)[:, None]
    mean_luminance = coefficients[0] @ np.array(LUMINANCE) * 0.282095
    return coefficients / mean_luminance


def load_environments(device: torch.device | str = "cpu") -> Float[Tensor, "n 9 3"]:
    """The packaged environments (CC0), as irradiance coefficients with mean luminance 1."""
    path = resources.files("densehand.synth") / "assets" / "environments.npz"
    with path.open("rb") as file, np.load(file) as data:
        return torch.from_numpy(data["coefficients"]).to(device)


def even_light(device: torch.device | str = "cpu") -> Float[Tensor, "1 9 3"]:
    """In place of environments: white light of irradiance 1 from all sides."""
    coefficients = torch.zeros(1, 9, 3, device=device)
    coefficients[:, 0] = 1.0 / 0.282095
    return coefficients


@dataclass
class SceneLights:
    """Light of n pictures: `environment` (n,9,3), the `turn` (n,3,3) camera → environment axes, and a lamp with
    `lamp_direction` (n,3, unit, towards the lamp) and `lamp_colour` (n,3, irradiance on a facing surface)."""

    environment: Float[Tensor, "n 9 3"]
    turn: Float[Tensor, "n 3 3"]
    lamp_direction: Float[Tensor, "n 3"]
    lamp_colour: Float[Tensor, "n 3"]


def warmth_to_colour(warmth: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3"]:
    """A light's tint, −1 (blue sky) to 1 (candle), luminance about 1."""
    return torch.stack([1.0 + 0.35 * warmth, 1.0 - 0.02 * warmth, 1.0 - 0.45 * warmth], dim=-1)


def sample_lights(environments: Float[Tensor, "m 9 3"], n: int, generator: torch.Generator) -> SceneLights:
    """Draw n lights: two environments mixed, turned about the vertical and tilted,
    and a lamp mostly from above and the front.
    """
    draw = Draw(n, generator)
    first, second = (draw.index(len(environments)) for _ in range(2))
    mix = draw.uniform(-0.8, 0.8, 1, 1).clamp(0.0, 1.0)
    environment = torch.lerp(environments[first], environments[second], mix)
    # half of the rooms are greyer than the maps, which are mostly strongly tinted
    grey = environment @ environment.new_tensor(LUMINANCE)
    environment = torch.lerp(environment, grey[..., None].expand_as(environment), draw.uniform(0.0, 0.9, 1, 1))
    yaw = draw.uniform(0.0, 2.0 * torch.pi)
    forward = normalize(torch.stack([yaw.sin(), draw.gauss(0.35), yaw.cos()], dim=-1), dim=-1)
    up = torch.stack([draw.gauss(0.35), -torch.ones_like(yaw), draw.gauss(0.35)], dim=-1)
    right = normalize(torch.linalg.cross(-up, forward), dim=-1)
    turn = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    lamp = draw.gauss(1.0, 3) + turn.new_tensor([0.0, -0.7, -0.7])
    strength = draw.uniform(0, 1, 1).pow(1.5) * 2.2 * (draw.uniform(0, 1, 1) < 0.85)
    return SceneLights(environment, turn, normalize(lamp, dim=-1), strength * warmth_to_colour(draw.gauss(0.35)))
