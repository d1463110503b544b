"""Hard visibility: which face each pixel's centre sees, at what depth and where on the face.

Every face's box of pixels is tested at once: faces are grouped by the size of their box, so that a group is one dense
(faces, k, k) block of edge tests; boxes above `TILE` pixels are cut into tiles, and tiles the triangle misses are dropped first.
Time and memory therefore grow with the pixels covered, not with faces × pixels. The nearest hit is a minimum over integers
that carry the depth in their upper and the face in their lower half: independent of the order, hence deterministic, on every
device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densehand.errors import InputError

__all__ = ["Cull", "Fragments", "interpolate", "interpolate_vertices", "rasterise"]

Cull = Literal["none", "back", "front"]
TILE = 16
_GROUPS = (1, 2, 3, 4, 6, 8, 12, TILE)
_CANDIDATES = 1 << 22  # tests held at a time
_EMPTY = torch.iinfo(torch.int64).max


class Fragments(NamedTuple):
    """What the pixels' centres see.

    Attributes:
        face_index: (*b H W) int64, -1 where nothing is seen.
        depth: (*b H W) interpolated z, +inf where nothing is seen; differentiable.
        barycentric: (*b H W 3) weights of the face's corners (sum 1), 0 where nothing is seen; differentiable.
        covered: (n) positions of the seen pixels in the flattened face_index, ascending.
    """

    face_index: Int[Tensor, "*b H W"]
    depth: Float[Tensor, "*b H W"]
    barycentric: Float[Tensor, "*b H W 3"]
    covered: Int[Tensor, " n"]

    @property
    def mask(self) -> Tensor:
        """(*b H W) bool, whether the pixel's centre sees a face."""
        return self.face_index >= 0


class _Setup(NamedTuple):
    """Faces that can cover a pixel centre: weights of corners 1 and 2 as affine functions over the face's pixel box."""

    index: Tensor  # (n) picture · F + face
    corner: Tensor  # (n 2) first column and row of the box
    extent: Tensor  # (n 2) columns and rows of the box
    weights: Tensor  # (n 6) w1, w2 at the first pixel's centre; their steps along x; their steps along y


def rasterise(
    vertices: Float[Tensor, "*b V 3"],
    faces: Int[Tensor, "F 3"],
    size: tuple[int, int],
    *,
    cull: Cull = "none",
    near: float | None = None,
) -> Fragments:
    """The nearest face at every pixel's centre.

    Args:
        vertices: x, y in pixels (continuous: the centre of pixel (i, j) is (j+0.5, i+0.5)), z depth, smaller is nearer.
            Several meshes in a picture: concatenate their vertices and (shifted) faces.
        faces: corner indices, shared by the batch; outward normals by the right-hand rule (x right, y down, z forward).
        size: (height, width) in pixels.
        cull: "back" leaves out faces seen from behind (for closed meshes: the same picture in half the time), "front" those
            seen from the front.
        near: leave out faces with a corner at or in front of this depth.

    Faces without area, with a coordinate that is not finite, or outside the picture cover nothing. Depth is interpolated
    linearly on the screen. Equal depths go to the lower face number. Depth and barycentric carry gradients to the vertices.

    Raises:
        InputError: shapes do not fit, or a face names a vertex that is not there.
    """
    height, width = size
    _check(vertices, faces, size)
    batch = vertices.shape[:-2]
    flat = vertices.reshape(-1, *vertices.shape[-2:])
    with torch.no_grad():
        winner = _nearest(flat.detach(), faces, height, width, cull, near)
        covered = (winner >= 0).nonzero().squeeze(1)
        seen = winner[covered]
    picture, face = covered // (height * width), seen % max(faces.shape[0], 1)
    winner = torch.where(winner >= 0, winner % max(faces.shape[0], 1), winner)
    corners = flat.reshape(-1, 3)[faces[face] + (picture * flat.shape[1])[:, None]]
    column, row = covered % width, covered // width % height
    weights = _barycentric(corners[..., :2], torch.stack([column, row], dim=1).to(flat.dtype) + 0.5)
    z = (weights * corners[..., 2]).sum(dim=1)
    pixels = flat.shape[0] * height * width
    depth = flat.new_full((pixels,), torch.inf).index_put((covered,), z)
    barycentric = flat.new_zeros((pixels, 3)).index_put((covered,), weights)
    shape = (*batch, height, width)
    return Fragments(winner.reshape(shape), depth.reshape(shape), barycentric.reshape(*shape, 3), covered)


def interpolate(
    fragments: Fragments, face_attributes: Float[Tensor, "*b F 3 C"], background: float = 0.0
) -> Float[Tensor, "*b H W C"]:
    """Attributes given per face corner, (F 3 C) shared or (*b F 3 C), carried to the pixels; differentiable."""
    shared = face_attributes.ndim == 3
    table = face_attributes.reshape(-1, *face_attributes.shape[-2:])
    face = fragments.face_index.reshape(-1)[fragments.covered]
    if not shared:
        face = face + _picture(fragments) * face_attributes.shape[-3]
    return _spread(fragments, table[face], background)


def interpolate_vertices(
    fragments: Fragments,
    attributes: Float[Tensor, "*b V C"],
    faces: Int[Tensor, "F 3"],
    background: float = 0.0,
) -> Float[Tensor, "*b H W C"]:
    """Attributes given per vertex, (V C) shared or (*b V C), carried to the pixels; differentiable."""
    corners = faces[fragments.face_index.reshape(-1)[fragments.covered]]
    if attributes.ndim > 2:
        corners = corners + (_picture(fragments) * attributes.shape[-2])[:, None]
    return _spread(fragments, attributes.reshape(-1, attributes.shape[-1])[corners], background)


def _picture(fragments: Fragments) -> Tensor:
    height, width = fragments.face_index.shape[-2:]
    return fragments.covered // (height * width)


def _spread(fragments: Fragments, corners: Float[Tensor, "n 3 C"], background: float) -> Tensor:
    weights = fragments.barycentric.reshape(-1, 3)[fragments.covered]
    values = (weights[..., None].to(corners.dtype) * corners).sum(dim=1)
    plane = values.new_full((fragments.face_index.numel(), values.shape[1]), background)
    return plane.index_put((fragments.covered,), values).reshape(*fragments.face_index.shape, -1)


def _check(vertices: Tensor, faces: Tensor, size: tuple[int, int]) -> None:
    if vertices.ndim < 2 or vertices.shape[-1] != 3 or not vertices.is_floating_point():
        raise InputError(f"vertices to render are (*b V 3) floating point, not {tuple(vertices.shape)} {vertices.dtype}")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise InputError(f"faces are (F 3) integers, not {tuple(faces.shape)} {faces.dtype}")
    if size[0] < 1 or size[1] < 1:
        raise InputError(f"a picture of {size[0]} × {size[1]} pixels has none; give a positive height and width")
    # on a GPU the check would wait for the device; indexing raises there by itself
    if faces.device.type == "cpu" and faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < vertices.shape[-2]:
        raise InputError(f"a face names a vertex that is not among the {vertices.shape[-2]}")


def _barycentric(corners: Float[Tensor, "n 3 2"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    (x0, y0), (x1, y1), (x2, y2) = (corners[:, k].unbind(dim=1) for k in range(3))
    px, py = points.unbind(dim=1)
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    # from one corner, as in the visibility test: the three weights then sum to one also on slivers
    w1 = ((px - x0) * (y2 - y0) - (x2 - x0) * (py - y0)) / area
    w2 = ((x1 - x0) * (py - y0) - (px - x0) * (y1 - y0)) / area
    return torch.stack([1 - w1 - w2, w1, w2], dim=1)


def _nearest(
    vertices: Float[Tensor, "B V 3"], faces: Tensor, height: int, width: int, cull: Cull, near: float | None
) -> Int[Tensor, " B*H*W"]:
    """Picture · F + face of the nearest face at each pixel, -1 where there is none."""
    count = faces.shape[0]
    setup, z = _set_up(vertices, faces, height, width, cull, near)
    winner = torch.full((vertices.shape[0] * height * width,), _EMPTY, dtype=torch.int64, device=vertices.device)
    for owner, column, row, w1, w2 in _hits(setup):
        za, zb, zc = z[owner].unbind(dim=1)
        depth = za + w1 * (zb - za) + w2 * (zc - za)
        # slivers may extrapolate: no point of a face lies outside its corners' depths
        depth = torch.minimum(torch.maximum(depth, torch.minimum(torch.minimum(za, zb), zc)), torch.maximum(za, zb).maximum(zc))
        index = setup.index[owner]
        picture = index // count
        pixel = (picture * height + row) * width + column
        winner.scatter_reduce_(0, pixel, (_ordered(depth) << 32) | index, "amin")
    return torch.where(winner == _EMPTY, -1, winner & 0xFFFFFFFF)


def _ordered(depth: Tensor) -> Int[Tensor, " n"]:
    """Depth as an integer of 32 bits with the same order (float32: the sign-magnitude bits, turned over if negative)."""
    bits = (depth.to(torch.float32) + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)


def _set_up(
    vertices: Tensor, faces: Tensor, height: int, width: int, cull: Cull, near: float | None
) -> tuple[_Setup, Float[Tensor, "n 3"]]:
    corners = vertices.unbind(dim=2)
    (x0, x1, x2), (y0, y1, y2), (z0, z1, z2) = (
        [axis.index_select(1, faces[:, k]).reshape(-1) for k in range(3)] for axis in corners
    )
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    # the pixels whose centres the box holds: ceil(min - ½) … floor(max - ½)
    left = (torch.minimum(torch.minimum(x0, x1), x2) - 0.5).ceil().clamp(min=0)
    right = (torch.maximum(torch.maximum(x0, x1), x2) - 0.5).floor().clamp(max=width - 1)
    top = (torch.minimum(torch.minimum(y0, y1), y2) - 0.5).ceil().clamp(min=0)
    bottom = (torch.maximum(torch.maximum(y0, y1), y2) - 0.5).floor().clamp(max=height - 1)
    # comparisons with NaN are false, so faces that are not finite fall out here
    keep = (left <= right) & (top <= bottom) & ((z0 + z1 + z2).abs() < torch.inf)
    size = area.abs() if cull == "none" else (-area if cull == "back" else area)
    keep &= (size > 0) & (size < torch.inf)
    if near is not None:
        keep &= torch.minimum(torch.minimum(z0, z1), z2) > near
    index = keep.nonzero().squeeze(1)
    columns = torch.stack([x0, y0, x1, y1, x2, y2, area, left, right, top, bottom, z0, z1, z2])[:, index]
    x0, y0, x1, y1, x2, y2, area, left, right, top, bottom = columns[:11].unbind(dim=0)
    px, py = left + 0.5 - x0, top + 0.5 - y0
    ax, ay, bx, by = (x1 - x0) / area, (y1 - y0) / area, (x2 - x0) / area, (y2 - y0) / area
    weights = torch.stack([px * by - bx * py, ax * py - px * ay, by, -ay, -bx, ax], dim=1)
    corner = torch.stack([left, top], dim=1).to(torch.int64)
    extent = torch.stack([right - left, bottom - top], dim=1).to(torch.int64) + 1
    return _Setup(index, corner, extent, weights), columns[11:].T.contiguous()


def _hits(setup: _Setup) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """(face's place in the setup, column, row, w1, w2) of pixel centres within faces."""
    longest = setup.extent.amax(dim=1)
    smaller = 0
    for k in _GROUPS:
        chosen = ((longest > smaller) & (longest <= k)).nonzero().squeeze(1)
        smaller = k
        if chosen.numel():
            yield from _test(chosen, setup.corner[chosen], setup.extent[chosen], setup.weights[chosen], k)
    large = (longest > TILE).nonzero().squeeze(1)
    for part in _split(large, setup.extent):
        owner, corner, extent, weights = _tiles(part, setup)
        yield from _test(owner, corner, extent, weights, TILE)


def _split(large: Tensor, extent: Tensor) -> Iterator[Tensor]:
    """Large faces in groups whose tiles together stay within bounds."""
    if large.numel():
        tiles = ((extent[large] + TILE - 1) // TILE).prod(dim=1)
        group = tiles.cumsum(0) // (_CANDIDATES // 16)
        yield from torch.split(large, torch.unique_consecutive(group, return_counts=True)[1].tolist())


def _tiles(owner: Tensor, setup: _Setup) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The boxes of large faces cut into TILE × TILE tiles, without the tiles that lie wholly beyond one edge."""
    across = (setup.extent[owner] + TILE - 1) // TILE
    amount = across.prod(dim=1)
    which = torch.repeat_interleave(torch.arange(owner.numel(), device=owner.device), amount)
    place = torch.arange(which.numel(), device=owner.device) - (amount.cumsum(0) - amount)[which]
    offset = torch.stack([place % across[which, 0], place // across[which, 0]], dim=1) * TILE
    owner = owner[which]
    weights = setup.weights[owner]
    step = offset.to(weights.dtype)
    first = weights[:, :2] + weights[:, 2:4] * step[:, :1] + weights[:, 4:] * step[:, 1:]
    # highest value each weight reaches on the tile
    rise = (weights[:, 2:4].clamp(min=0) + weights[:, 4:].clamp(min=0)) * (TILE - 1)
    fall = (weights[:, 2:4].sum(1).clamp(max=0) + weights[:, 4:].sum(1).clamp(max=0)) * (TILE - 1)
    tolerance = _tolerance(weights)
    meets = ((first + rise) >= -tolerance).all(dim=1) & (first.sum(1) + fall <= 1 + tolerance)
    weights = torch.cat([first, weights[:, 2:]], dim=1)[meets]
    owner, offset = owner[meets], offset[meets]
    return owner, setup.corner[owner] + offset, (setup.extent[owner] - offset).clamp(max=TILE), weights


def _tolerance(weights: Tensor) -> float:
    # closes the cracks that rounding opens between two faces at their common edge
    return 32 * torch.finfo(weights.dtype).eps


def _test(
    owner: Tensor, corner: Tensor, extent: Tensor, weights: Tensor, k: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Edge tests of every face at the k × k pixels from the corner of its box."""
    tolerance = _tolerance(weights)
    place = torch.arange(k, device=owner.device)
    step = place.to(weights.dtype)
    limit = max(_CANDIDATES // (k * k), 1)
    for low in range(0, owner.numel(), limit):
        part = slice(low, low + limit)
        w, size = weights[part], extent[part]
        w1 = ((w[:, 0, None] + w[:, 4, None] * step)[:, :, None] + (w[:, 2, None] * step)[:, None, :]).reshape(len(w), -1)
        w2 = ((w[:, 1, None] + w[:, 5, None] * step)[:, :, None] + (w[:, 3, None] * step)[:, None, :]).reshape(len(w), -1)
        inside = (torch.minimum(w1, w2) >= -tolerance) & (w1 + w2 <= 1 + tolerance)
        inside &= ((place < size[:, 1, None])[:, :, None] & (place < size[:, 0, None])[:, None, :]).reshape(len(w), -1)
        hit = inside.reshape(-1).nonzero().squeeze(1)
        face, pixel = hit // (k * k), hit % (k * k)
        start = corner[part][face]
        yield (
            owner[part][face],
            start[:, 0] + pixel % k,
            start[:, 1] + pixel // k,
            w1.reshape(-1)[hit],
            w2.reshape(-1)[hit],
        )
