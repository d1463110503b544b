"""Shading: textures against grid_sample, light against its definition, pictures over backgrounds, gradients."""

import math

import numpy as np
import pytest
import torch
import trimesh
from torch.nn import functional

from densehand.errors import InputError
from densehand.render import (
    Lights,
    Texture,
    irradiance,
    rasterise,
    sample_texture,
    shade,
    silhouette,
    vertex_normals,
)


def sphere(size: float, subdivisions: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return torch.tensor(mesh.vertices) * size * 0.4 + size / 2, torch.tensor(np.asarray(mesh.faces))


def quad(z: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A square over pixels 2…10 that shows its front (normal -z)."""
    vertices = torch.tensor([[2.0, 2, z], [10, 2, z], [10, 10, z], [2, 10, z]], dtype=torch.float64)
    return vertices, torch.tensor([[0, 2, 1], [0, 3, 2]])


def test_normals_of_a_sphere_point_outwards() -> None:
    vertices, faces = sphere(2.0)
    normals = vertex_normals(vertices.expand(3, -1, -1), faces)
    assert normals.shape == (3, len(vertices), 3)
    outward = functional.normalize(vertices - 1.0, dim=1)
    assert (normals * outward).sum(dim=-1).min() > 0.998
    lonely = vertex_normals(torch.cat([vertices, vertices[:1]]), faces)
    assert lonely[-1].abs().max() == 0


def test_texture_look_up_equals_grid_sample() -> None:
    torch.manual_seed(0)
    for height, width in ((7, 5), (1, 4), (1, 1)):
        images = torch.rand(3, height, width, 2, dtype=torch.float64)
        uv = torch.rand(50, 2, dtype=torch.float64) * 1.4 - 0.2
        index = torch.randint(0, 3, (50,))
        grid = torch.stack([uv[:, 0] * 2 - 1, 1 - uv[:, 1] * 2], dim=1)
        every = functional.grid_sample(
            images.permute(0, 3, 1, 2), grid.expand(3, 1, 50, 2), padding_mode="border", align_corners=False
        )
        expected = every[index, :, 0, torch.arange(50)]
        torch.testing.assert_close(sample_texture(images, uv, index), expected)
    images, uv = torch.rand(1, 4, 4, 2, dtype=torch.float64), torch.rand(6, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(sample_texture, (images.requires_grad_(), uv.requires_grad_()))


def test_irradiance_is_the_integral_over_the_surroundings() -> None:
    torch.manual_seed(1)
    coefficients = torch.randn(9, 3, dtype=torch.float64)
    n = 400  # directions on a fine grid, weighted by solid angle
    theta = (torch.arange(n).double() + 0.5) * math.pi / n
    phi = (torch.arange(2 * n).double() + 0.5) * math.pi / n
    theta, phi = torch.meshgrid(theta, phi, indexing="ij")
    d = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1).view(-1, 3)
    solid = (theta.sin() * (math.pi / n) ** 2).view(-1)
    x, y, z = d.unbind(dim=1)
    one = torch.ones_like(x)
    harmonics = torch.stack(
        [
            0.5 * math.sqrt(1 / math.pi) * one,
            *(math.sqrt(3 / (4 * math.pi)) * c for c in (y, z, x)),
            *(0.5 * math.sqrt(15 / math.pi) * c for c in (x * y, y * z)),
            0.25 * math.sqrt(5 / math.pi) * (3 * z * z - 1),
            0.5 * math.sqrt(15 / math.pi) * x * z,
            0.25 * math.sqrt(15 / math.pi) * (x * x - y * y),
        ],
        dim=1,
    )
    radiance = harmonics @ coefficients
    normals = functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=1)
    cosine = (normals @ d.T).clamp(min=0)
    expected = (cosine * solid) @ radiance / math.pi
    torch.testing.assert_close(irradiance(normals, coefficients), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(irradiance(normals, coefficients.expand(5, 9, 3)), irradiance(normals, coefficients))


def test_light_on_a_flat_face() -> None:
    vertices, faces = quad()
    fragments = rasterise(vertices, faces, (12, 12), cull="back")
    direction = functional.normalize(torch.tensor([[0.0, 0.6, -0.8]], dtype=torch.float64), dim=1)
    lights = Lights(
        ambient=torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64),
        directions=direction,
        colors=torch.tensor([[1.0, 0.5, 0.25]], dtype=torch.float64),
        specular=torch.tensor(0.5, dtype=torch.float64),
        shininess=8.0,
    )
    color = torch.tensor([0.9, 0.8, 0.7], dtype=torch.float64)
    picture = shade(fragments, vertices, faces, lights=lights, colors=color, background=0.25)
    half = functional.normalize(direction[0] + torch.tensor([0.0, 0, -1], dtype=torch.float64), dim=0)
    highlight = 0.5 * lights.colors[0] * (-half[2]) ** 8
    expected = color * (lights.ambient + 0.8 * lights.colors[0]) + highlight
    assert fragments.mask.sum() == 64
    torch.testing.assert_close(picture[fragments.mask], expected.expand(64, 3))
    assert (picture[~fragments.mask] == 0.25).all()
    behind = Lights(directions=-direction, specular=torch.tensor(1.0, dtype=torch.float64))
    assert shade(fragments, vertices, faces, lights=behind)[fragments.mask].abs().max() == 0


def test_back_faces_are_lit_from_both_sides_or_not() -> None:
    vertices, faces = quad()
    front, turned = (rasterise(vertices, f, (12, 12)) for f in (faces, faces.flip(1)))
    harmonics = torch.randn(9, 3, dtype=torch.float64).abs()
    lights = Lights(directions=torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64), harmonics=harmonics)
    expected = shade(front, vertices, faces, lights=lights)
    torch.testing.assert_close(shade(turned, vertices, faces.flip(1), lights=lights), expected)
    dark = shade(turned, vertices, faces.flip(1), lights=lights, two_sided=False)
    normal = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(dark[5, 5], irradiance(normal, harmonics).clamp(min=0))


def test_batches_equal_single_pictures() -> None:
    torch.manual_seed(2)
    vertices, faces = sphere(20.0, 2)
    vertices = vertices + torch.rand(3, 1, 3, dtype=torch.float64) * 4
    uv = torch.rand(len(faces) * 3, 2, dtype=torch.float64)
    face_uv = torch.arange(len(uv)).view(-1, 3)
    images = torch.rand(4, 6, 6, 3, dtype=torch.float64)
    index = torch.tensor([2, 0, 3])
    fields = {
        "ambient": torch.rand(3, 3).double(),
        "directions": functional.normalize(torch.randn(3, 2, 3).double(), dim=-1),
        "colors": torch.rand(3, 2, 3).double(),
        "harmonics": torch.rand(3, 9, 3).double(),
        "specular": torch.rand(3).double(),
        "shininess": torch.tensor([4.0, 16.0, 64.0]).double(),
    }
    background, tint = torch.rand(3, 24, 24, 3).double(), torch.rand(3, 3).double()
    fragments = rasterise(vertices, faces, (24, 24))
    coverage = silhouette(vertices, faces, (24, 24))
    texture = Texture(images, uv, face_uv, index)
    many = shade(
        fragments,
        vertices,
        faces,
        lights=Lights(**fields),
        texture=texture,
        colors=tint,
        background=background,
        coverage=coverage,
    )
    for k in range(3):
        single = shade(
            rasterise(vertices[k], faces, (24, 24)),
            vertices[k],
            faces,
            lights=Lights(**{name: value[k] for name, value in fields.items()}),
            texture=Texture(images[index[k]][None], uv, face_uv),
            colors=tint[k],
            background=background[k],
            coverage=coverage[k],
        )
        torch.testing.assert_close(many[k], single)
    assert torch.equal(many[coverage == 0], background[coverage == 0])


def test_coverage_blends_the_outer_edge() -> None:
    vertices, faces = quad()
    vertices = vertices + torch.tensor([0.25, 0.0, 0.0], dtype=torch.float64)
    fragments, coverage = rasterise(vertices, faces, (12, 12)), silhouette(vertices, faces, (12, 12))
    color = torch.tensor([0.8], dtype=torch.float64)
    picture = shade(fragments, vertices, faces, colors=color, background=0.4, coverage=coverage)[..., 0]
    # the columns at both ends: three quarters (centre seen) and one quarter (colour of the neighbour)
    torch.testing.assert_close(picture[5, 1:12].tolist(), [0.4, 0.7] + [0.8] * 7 + [0.5, 0.4])
    with pytest.raises(InputError, match="coverage"):
        shade(fragments, vertices, faces, coverage=coverage[:4])


def test_shading_is_differentiable() -> None:
    torch.manual_seed(3)
    vertices, faces = sphere(8.0, 1)
    colors = torch.rand(len(vertices), 3, dtype=torch.float64, requires_grad=True)
    ambient = torch.rand(3, dtype=torch.float64, requires_grad=True)
    harmonics = (torch.rand(9, 3, dtype=torch.float64) + torch.eye(9, 3).double()).requires_grad_()
    vertices.requires_grad_()

    def picture(v: torch.Tensor, c: torch.Tensor, a: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        fragments = rasterise(v, faces, (8, 8), cull="back")
        return shade(fragments, v, faces, lights=Lights(ambient=a, harmonics=h), colors=c)

    assert torch.autograd.gradcheck(picture, (vertices, colors, ambient, harmonics), fast_mode=True)
