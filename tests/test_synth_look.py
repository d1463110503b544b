"""Light, skin and what cameras do to pictures."""

import random

import cv2
import numpy as np
import pytest
import torch

from densehand.hand.model import HandModel
from densehand.render import vertex_normals
from densehand.render.shade import harmonic_basis
from densehand.synth import light, photo, skins
from densehand.synth.detail import CHANNELS, paint_texture
from densehand.synth.render import _grain, hollowness


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- light


def test_constant_environment_lights_every_side_alike():
    coefficients = torch.from_numpy(light.irradiance_coefficients(np.full((32, 64, 3), 5.0))).float()
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator()), dim=-1)
    torch.testing.assert_close(harmonic_basis(normals) @ coefficients, torch.ones(50, 3), atol=5e-3, rtol=0)


def test_irradiance_agrees_with_summing_the_sky():
    """Naive twin: cosine-weighted sum over all texels of a soft environment, bright above and reddish to the right."""
    height, width = 48, 96
    theta = (np.arange(height) + 0.5) / height * np.pi
    phi = (np.arange(width) + 0.5) / width * 2 * np.pi
    theta, phi = np.meshgrid(theta, phi, indexing="ij")
    directions = np.stack([np.sin(theta) * np.sin(phi), -np.cos(theta), np.sin(theta) * np.cos(phi)], -1)
    radiance = 1.0 + np.maximum(0, -directions[..., 1:2]) * [1, 1, 1] + 0.5 * directions[..., :1] * [1, 0, 0]
    area = np.sin(theta) * (np.pi / height) * (2 * np.pi / width)
    normals = np.random.default_rng(0).standard_normal((20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    expected = (
        np.stack([(np.maximum(0, directions @ n) * area)[..., None] * radiance for n in normals]).sum((1, 2)) / np.pi
    )
    found = (
        harmonic_basis(torch.from_numpy(normals)) @ torch.from_numpy(light.irradiance_coefficients(radiance))
    ).numpy()
    ratio = expected / found
    np.testing.assert_allclose(ratio / ratio.mean(), 1.0, atol=0.05)


def test_environment_of_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="H×W×3"):
        light.irradiance_coefficients(np.ones((4, 4)))


def test_packaged_environments_are_bright_and_never_dark():
    environments = light.load_environments()
    assert environments.shape == (12, 9, 3)
    normals = torch.nn.functional.normalize(torch.randn(200, 3, generator=generator()), dim=-1)
    shown = torch.einsum("pk,nkc->npc", harmonic_basis(normals), environments)
    mean = shown.mean(1) @ torch.tensor(light.LUMINANCE)
    assert ((mean > 0.7) & (mean < 1.3)).all()


def test_lights_turn_rigidly():
    lights = light.sample_lights(light.load_environments(), 64, generator())
    identity = lights.turn @ lights.turn.mT
    torch.testing.assert_close(identity, torch.eye(3).expand(64, 3, 3), atol=1e-5, rtol=0)
    assert (torch.linalg.det(lights.turn) > 0.99).all()
    assert (lights.lamp_colour >= 0).all()


# --- skin


def test_tones_are_spread_evenly_over_all_types():
    looks = skins.sample_looks(3000, torch.linspace(0, 1, 20), generator())
    share = torch.histc(looks.tone, 6, 0, 1) / 3000
    assert (share > 0.13).all()
    luminance = looks.back @ torch.tensor(light.LUMINANCE)
    assert luminance.min() < 0.04 and luminance.max() > 0.6
    assert torch.corrcoef(torch.stack([luminance, looks.tone]))[0, 1] < -0.9


def test_palms_are_lighter_the_darker_the_skin():
    looks = skins.sample_looks(3000, torch.linspace(0, 1, 20), generator())
    ratio = (looks.palm / looks.back).mean(1)
    assert ratio[looks.tone > 0.8].median() > 1.5 * ratio[looks.tone < 0.2].median()


def test_every_texture_meets_several_tones():
    looks = skins.sample_looks(4000, torch.linspace(0, 1, 20), generator())
    for texture in range(20):
        assert looks.tone[looks.texture == texture].std() > 0.08


def test_lookup_agrees_with_grid_sample():
    maps = torch.rand(3, 16, 16, 2, generator=generator())
    xy = torch.rand(200, 2, generator=generator(1))
    layer = torch.randint(3, (200,), generator=generator(2))
    found = skins.lookup(maps.reshape(-1, 2), 16, xy, layer)
    for k in range(3):
        grid = (2 * xy[layer == k] - 1)[None, None]
        picture = maps[k].permute(2, 0, 1)[None]
        expected = torch.nn.functional.grid_sample(picture, grid, align_corners=False, padding_mode="border")[0, :, 0].T
        torch.testing.assert_close(found[layer == k], expected, atol=2e-3, rtol=0)


def test_noise_tiles_repeat_without_a_seam():
    noise = skins.noise_maps("cpu", 64).view(64, 64, 4)
    torch.testing.assert_close(noise.std((0, 1)), torch.ones(4), atol=0.02, rtol=0)
    mottling = noise[..., 2]
    step, seam = (mottling[1:] - mottling[:-1]).std(), (mottling[0] - mottling[-1]).std()
    assert seam < 1.3 * step
    place = torch.tensor([[0.3, 0.7], [1.3, -1.3]])
    first, again = _grain(noise.reshape(-1, 4).repeat(16, 1), place)  # any map of 256² texels
    assert torch.equal(first, again)


def test_painted_nails_lie_at_the_fingertips_on_the_back():
    hand = HandModel.load("open")
    texture = paint_texture(hand)
    detail = texture.detail[:, : len(CHANNELS)]
    assert torch.isfinite(detail).all()
    uv = texture.face_uv.mean(1)
    nail = skins.lookup(detail, skins.MAP_SIZE, uv)[:, CHANNELS.index("nail")]
    palm = skins.lookup(detail, skins.MAP_SIZE, uv)[:, CHANNELS.index("palm")]
    centres = hand.template[hand.faces].mean(1)
    joints = hand.skeleton(torch.zeros(45), torch.zeros(10))
    to_tip = torch.cdist(centres[nail > 0.5], joints[[4, 8, 12, 16, 20]])
    assert to_tip.amin(1).max() < 0.025
    assert set(to_tip.argmin(1).tolist()) == {0, 1, 2, 3, 4}
    assert palm[nail > 0.5].max() < 0.5
    # the palm side of the flat hand faces −z
    normals = vertex_normals(hand.template, hand.faces)[hand.faces].mean(1)
    fingers = centres[:, 1] < -0.1
    assert torch.corrcoef(torch.stack([palm[fingers], -normals[fingers, 2]]))[0, 1] > 0.8


def test_hollowness_marks_what_lies_behind_its_surroundings():
    depth = torch.full((1, 21, 21), 0.5)
    depth[:, :, 10] = 0.505
    found = hollowness(depth, 2, 0.005)
    assert found[0, 10, 10] > 0.5 and found[0, 10, 9] == 0 and found[0, 10, 2] == 0
    # a far step is another thing, not a hollow
    assert hollowness(torch.where(depth > 0.5, 0.9, 0.5), 2, 0.005).max() == 0


# --- camera effects


@pytest.fixture(scope="module")
def pictures():
    smooth = torch.rand(4, 3, 12, 12, generator=generator())
    return torch.nn.functional.interpolate(smooth, size=(96, 96), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("quality", [20, 60, 92])
def test_jpeg_loses_what_libjpeg_loses(pictures, quality):
    source = (pictures[0].permute(1, 2, 0) * 255).round()
    coded = cv2.imencode(".jpg", source.byte().numpy()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = torch.from_numpy(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32))
    found = photo.jpeg(source.permute(2, 0, 1)[None] / 255, torch.tensor([float(quality)]))[0].permute(1, 2, 0) * 255
    loss, difference = (expected - source).abs().mean(), (found - expected).abs().mean()
    assert difference < 0.45 * loss + 0.5
    assert abs((found - source).abs().mean() - loss) < 0.15 * loss + 0.3


def test_jpeg_takes_any_size():
    picture = torch.rand(2, 3, 37, 51, generator=generator())
    assert photo.jpeg(picture, torch.tensor([50.0, 90.0])).shape == picture.shape


def test_blur_agrees_with_opencv(pictures):
    found = photo.gaussian_blur(pictures[:1], 1.3)[0].permute(1, 2, 0).numpy()
    expected = cv2.GaussianBlur(pictures[0].permute(1, 2, 0).numpy(), (7, 7), 1.3, borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_defocus_of_strength_zero_is_nothing_and_more_is_softer(pictures):
    strength = torch.tensor([0.0, 0.5, 1.0, 2.0])
    same = pictures[:1].expand(4, -1, -1, -1)
    found = photo.defocus(same, strength)
    assert torch.equal(found[0], same[0])
    detail = (found[..., 1:] - found[..., :-1]).abs().mean((1, 2, 3))
    assert (detail[1:] < detail[:-1]).all()


def test_develop_without_change_is_identity(pictures):
    one = torch.ones(4)
    found = photo.develop(pictures, torch.ones(4, 3), one, one, one)
    torch.testing.assert_close(found, pictures, atol=2e-4, rtol=0)
    grey = photo.develop(pictures, torch.ones(4, 3), 0 * one, one, one)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-5, rtol=0)


def test_noise_has_the_asked_strength():
    flat = torch.full((2, 3, 128, 128), 0.25)
    found = photo.sensor_noise(flat, torch.tensor([0.02, 0.0]), torch.tensor([0.0, 0.04]), generator())
    spread = (found - flat).std((1, 2, 3))
    torch.testing.assert_close(spread, torch.tensor([0.025, 0.025]), atol=0.003, rtol=0)


@pytest.mark.parametrize("size", [64, 100])
def test_photograph_is_finite_in_range_and_repeatable(size):
    picture = torch.rand(9, 3, size, size, generator=generator())
    first, again = (photo.photograph(picture.clone(), generator(3), random.Random(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == picture.shape and torch.isfinite(first).all() and first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, photo.photograph(picture.clone(), generator(4), random.Random(4)))
