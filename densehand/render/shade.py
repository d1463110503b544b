"""Pictures from fragments: attributes, smooth normals, textures and light.

Everything is computed at covered pixels only and laid over the background at the end, so that the cost follows the
hand's area, not the picture's. Colours are plain numbers (no gamma is applied); all functions are differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from densehand.errors import InputError
from densehand.render.rasterise import Fragments, blend

__all__ = ["Lights", "Texture", "face_normals", "irradiance", "sample_texture", "shade", "vertex_normals"]


@dataclass(frozen=True)
class Lights:
    """Light on a batch of pictures; every field is shared (no batch dimension) or has the batch's dimension B.

    Attributes:
        ambient: (B? 3) light from everywhere.
        directions: (B? L 3) unit vectors towards each lamp (camera axes: a lamp at the camera is 0, 0, -1).
        colors: (B? L 3) of the lamps, Lambertian: colour · max(0, n·l).
        harmonics: (B? 9 3) radiance of the surroundings in real spherical harmonics of degree 0–2, as in `irradiance`
            (evaluated at the vertices and interpolated).
        specular: (B?) strength of Blinn and Phong's highlight in the lamps' colours, added without the albedo.
        shininess: (B?) its exponent.
    """

    ambient: Float[Tensor, "*b 3"] | None = None
    directions: Float[Tensor, "*b L 3"] | None = None
    colors: Float[Tensor, "*b L 3"] | None = None
    harmonics: Float[Tensor, "*b 9 3"] | None = None
    specular: Float[Tensor, "*b"] | None = None
    shininess: float | Float[Tensor, "*b"] = 32.0


@dataclass(frozen=True)
class Texture:
    """Pictures wrapped around the mesh.

    Attributes:
        images: (T h w C), one for all pictures (T = 1), one a picture (T = B) or a collection chosen from by `index`.
        uv: (U 2) in [0, 1], u to the right, v upwards (OBJ's convention: v = 0 is the image's lower edge).
        face_uv: (F 3) numbers of uv at each face's corners.
        index: (B) which image each picture takes.
    """

    images: Float[Tensor, "T h w C"]
    uv: Float[Tensor, "U 2"]
    face_uv: Int[Tensor, "F 3"]
    index: Int[Tensor, " B"] | None = None


def face_normals(vertices: Float[Tensor, "*b V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*b F 3"]:
    """Normals by the right-hand rule, as long as twice the face's area (x right, y down, z forward: outward ones of a
    face seen from the front point to the camera, -z)."""
    a, b, c = (vertices.index_select(-2, faces[:, k]) for k in range(3))
    return torch.linalg.cross(b - a, c - a)


def vertex_normals(vertices: Float[Tensor, "*b V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*b V 3"]:
    """Unit normals at the vertices, the mean of the faces around weighted by area; zero at vertices without a face.

    The axes must share one unit: for pixels with metric depth compute normals from the metric mesh instead.
    """
    normals = face_normals(vertices, faces)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total = total.index_add(-2, faces[:, k], normals)
    return functional.normalize(total, dim=-1, eps=torch.finfo(vertices.dtype).tiny ** 0.5)


BAND_GAIN = (1.0, *3 * (2 / 3,), *5 * (1 / 4,))
"""What a matt surface leaves of bands 0, 1, 2: the cosine kernel π, 2π/3, π/4, divided by π."""


def irradiance(
    normals: Float[Tensor, "*n 3"], harmonics: Float[Tensor, "*n 9 3"] | Float[Tensor, "9 3"]
) -> Float[Tensor, "*n 3"]:
    """Light that a matt surface sends back (irradiance / π) under surroundings given by spherical harmonics.

    harmonics: nine coefficients a channel in the order Y00; Y1-1, Y10, Y11; Y2-2, Y2-1, Y20, Y21, Y22, in x, y, z of
    the camera frame.
    Source: Ramamoorthi & Hanrahan, An Efficient Representation for Irradiance Environment Maps, 2001, eqs. 7, 8, 10.
    """
    basis = _irradiance_basis(normals)
    if harmonics.ndim == 2:
        return basis @ harmonics
    return (basis[..., None] * harmonics).sum(dim=-2)


def _irradiance_basis(normals: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 9"]:
    return harmonic_basis(normals) * normals.new_tensor(BAND_GAIN)


def harmonic_basis(normals: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 9"]:
    """The nine real spherical harmonics of bands 0 to 2 at unit vectors, in the order of `irradiance`."""
    x, y, z = normals.unbind(dim=-1)
    return torch.stack(
        [
            torch.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        dim=-1,
    )


def sample_texture(
    images: Float[Tensor, "T h w C"], uv: Float[Tensor, "n 2"], index: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "n C"]:
    """Bilinear texture look-up at n points, as `grid_sample` with border padding does it (align_corners=False).

    Args:
        images: (T h w C).
        uv: (n 2) in [0, 1], u to the right, v upwards; points outside take the border's colour.
        index: (n) the image each point looks into; the first if None.
    """
    height, width = images.shape[1:3]
    x = (uv[:, 0] * width - 0.5).clamp(0, width - 1)
    y = ((1 - uv[:, 1]) * height - 0.5).clamp(0, height - 1)
    x0, y0 = x.detach().floor().clamp(max=max(width - 2, 0)), y.detach().floor().clamp(max=max(height - 2, 0))
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    corner = y0.to(torch.int64) * width + x0.to(torch.int64)
    if index is not None:
        corner = corner + index * (height * width)
    right, down = (1 if width > 1 else 0), (width if height > 1 else 0)
    texels = images.reshape(-1, images.shape[-1])
    a, b, c, d = (texels.index_select(0, corner + shift) for shift in (0, right, down, down + right))
    return torch.lerp(torch.lerp(a, b, fx), torch.lerp(c, d, fx), fy)


def shade(
    fragments: Fragments,
    vertices: Float[Tensor, "*b V 3"],
    faces: Int[Tensor, "F 3"],
    *,
    lights: Lights | None = None,
    texture: Texture | None = None,
    colors: Float[Tensor, "*b V C"] | Float[Tensor, "*b C"] | None = None,
    normals: Float[Tensor, "*b V 3"] | None = None,
    background: float | Float[Tensor, "*b H W C"] | Float[Tensor, " C"] = 0.0,
    coverage: Float[Tensor, "*b H W"] | None = None,
    two_sided: bool = True,
) -> Float[Tensor, "*b H W C"]:
    """A picture of the mesh: albedo × (ambient + lamps + surroundings) + highlight.

    Args:
        fragments: of `rasterise` for these vertices and faces.
        vertices, faces: the mesh, screen space.
        lights: none leaves the albedo as it is.
        texture: albedo from images; multiplied with `colors` if both are given.
        colors: albedo per vertex, (V C) or (*b V C), or one a picture, (*b C) (told from (V C) by the picture's batch).
        normals: unit normals per vertex, (*b V 3); default `vertex_normals(vertices, faces)`.
        background: a number, a colour (C) or pictures (*b H W C).
        coverage: `silhouette`'s mask: the colour is laid over the background by it (anti-aliased outer edge). Pixels it
            covers in part although their centre sees nothing take the mean colour of their neighbours.
        two_sided: turn normals that look away from the camera (insides of open meshes).

    Returns:
        (*b H W C), C = 3 where lights are given.
    """
    batch = fragments.face_index.shape[:-2]
    height, width = fragments.face_index.shape[-2:]
    pictures = fragments.face_index.numel() // (height * width)
    picture = fragments.covered // (height * width)
    face = fragments.face_index.reshape(-1).index_select(0, fragments.covered)
    weights = fragments.barycentric.reshape(-1, 3).index_select(0, fragments.covered)
    corners = faces.index_select(0, face)

    albedo = _albedo(texture, colors, picture, face, corners, weights, batch)
    if albedo is None:
        albedo = weights.new_ones((len(face), 3))
    if lights is not None:
        if normals is None:
            normals = vertex_normals(vertices, faces)
        table, around = normals, None
        if lights.harmonics is not None:
            table = torch.cat([normals.expand(*vertices.shape), *_surroundings(normals, lights.harmonics)], dim=-1)
        values = blend(table.reshape(-1, table.shape[-1]), corners + _shift(picture, table, batch), weights)
        normal = functional.normalize(values[:, :3], dim=1, eps=torch.finfo(values.dtype).tiny ** 0.5)
        turn = torch.where((normal[:, 2:] > 0) & two_sided, -1.0, 1.0).to(normal.dtype)
        if lights.harmonics is not None:
            around = (values[:, 3:6] + turn * values[:, 6:]).clamp(min=0)
        albedo = _lit(albedo, turn * normal, around, lights, picture)
    return _over(albedo, fragments, background, coverage, pictures)


def _shift(picture: Tensor, table: Tensor, batch: torch.Size) -> Tensor | int:
    """Where a picture's rows begin in a flattened table (*b V C)."""
    return (picture * table.shape[-2])[:, None] if table.ndim > 2 and batch else 0


def _surroundings(normals: Float[Tensor, "*b V 3"], harmonics: Float[Tensor, "*b 9 3"]) -> tuple[Tensor, Tensor]:
    """The parts of `irradiance` at the vertices that stay and that change sign when the normal is turned."""
    basis = _irradiance_basis(normals)
    odd = slice(1, 4)
    even = torch.cat([basis[..., :1], basis[..., 4:]], dim=-1) @ torch.cat(
        [harmonics[..., :1, :], harmonics[..., 4:, :]], dim=-2
    )
    return even, basis[..., odd] @ harmonics[..., odd, :]


def _albedo(
    texture: Texture | None,
    colors: Tensor | None,
    picture: Tensor,
    face: Tensor,
    corners: Tensor,
    weights: Tensor,
    batch: torch.Size,
) -> Tensor | None:
    albedo = None
    if texture is not None:
        uv = blend(texture.uv, texture.face_uv.index_select(0, face), weights)
        index = texture.index
        if index is None and texture.images.shape[0] > 1:
            index = torch.arange(texture.images.shape[0], device=picture.device)
        albedo = sample_texture(texture.images, uv, None if index is None else index.index_select(0, picture))
    if colors is not None:
        if colors.shape[:-1] == batch:
            tint = colors.reshape(-1, colors.shape[-1]).index_select(0, picture)
        else:
            tint = blend(colors.reshape(-1, colors.shape[-1]), corners + _shift(picture, colors, batch), weights)
        albedo = tint if albedo is None else albedo * tint
    return albedo


def _lit(
    albedo: Tensor, normal: Float[Tensor, "n 3"], around: Tensor | None, lights: Lights, picture: Tensor
) -> Tensor:
    # column by column: short last dimensions are slow, and whole batches of lamps are small
    def at_pixels(value: Tensor) -> Tensor:
        """(n) or one number, of a value (B) or () of the lights."""
        return value.index_select(0, picture) if value.ndim and len(value) > 1 else value.reshape(())

    nx, ny, nz = normal.unbind(dim=1)
    light = [torch.zeros_like(nx) if around is None else around[:, c] for c in range(3)]
    highlight: list[Tensor] | None = None
    if lights.ambient is not None:
        light = [base + at_pixels(lights.ambient[..., c]) for c, base in enumerate(light)]
    if lights.directions is not None:
        colors = lights.colors if lights.colors is not None else torch.ones_like(lights.directions)
        half = functional.normalize(lights.directions + normal.new_tensor([0.0, 0.0, -1.0]), dim=-1)
        shininess = at_pixels(torch.as_tensor(lights.shininess, dtype=normal.dtype, device=normal.device))
        for lamp in range(lights.directions.shape[-2]):
            dx, dy, dz = (at_pixels(lights.directions[..., lamp, c]) for c in range(3))
            color = [at_pixels(colors[..., lamp, c]) for c in range(3)]
            cosine = (nx * dx + ny * dy + nz * dz).clamp(min=0)
            light = [torch.addcmul(base, cosine, c) for base, c in zip(light, color, strict=True)]
            if lights.specular is not None:
                hx, hy, hz = (at_pixels(half[..., lamp, c]) for c in range(3))
                lobe = (nx * hx + ny * hy + nz * hz).clamp(min=1e-6) ** shininess * (cosine > 0)
                lobe = lobe * at_pixels(lights.specular)
                before = highlight if highlight is not None else [torch.zeros_like(nx)] * 3
                highlight = [torch.addcmul(base, lobe, c) for base, c in zip(before, color, strict=True)]
    lit = albedo * torch.stack(light, dim=1)
    return lit if highlight is None else lit + torch.stack(highlight, dim=1)


def _over(
    colour: Tensor,
    fragments: Fragments,
    background: float | Tensor,
    coverage: Tensor | None,
    pictures: int,
) -> Tensor:
    height, width = fragments.face_index.shape[-2:]
    channels = colour.shape[1]
    behind = torch.as_tensor(background, dtype=colour.dtype, device=colour.device)
    behind = behind.expand(*fragments.face_index.shape, channels).reshape(-1, channels)
    picture = behind.clone().index_put((fragments.covered,), colour)
    shape = (*fragments.face_index.shape, channels)
    if coverage is None:
        return picture.reshape(shape)
    if coverage.shape != fragments.face_index.shape:
        raise InputError(f"coverage {tuple(coverage.shape)} is not of the pictures {tuple(fragments.face_index.shape)}")
    seen = fragments.mask.reshape(pictures, 1, height, width).to(colour.dtype)
    kernel = colour.new_tensor([[0.5, 1.0, 0.5], [1.0, 0.0, 1.0], [0.5, 1.0, 0.5]])[None, None]
    front = picture.reshape(pictures, height, width, channels).permute(0, 3, 1, 2) * seen
    total = functional.conv2d(front.reshape(-1, 1, height, width), kernel, padding=1).view_as(front)
    spread = total / functional.conv2d(seen, kernel, padding=1).clamp(min=0.25)
    front = torch.where(seen > 0, front, spread).permute(0, 2, 3, 1).reshape(shape)
    return torch.lerp(behind.reshape(shape), front, coverage[..., None].to(colour.dtype))
