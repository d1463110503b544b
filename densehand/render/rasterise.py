"""Hard visibility: which face each pixel's centre sees, at what depth and where on the face.

Scan conversion, all faces at once: a face is cut at its middle corner into two trapezia, these into rows, and the rows
into pixels, each step one flat list. No pixel is tested that is not covered, so that time and memory grow with the
pixels covered (times the layers), not with faces × pixels. An edge is always evaluated from its upper end, so both its
faces see the same crossing: no cracks and no pixel twice. The nearest hit is a minimum over integers that carry the
depth in their upper and the face in their lower half: independent of the order, hence deterministic on every device.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densehand.errors import InputError

__all__ = ["Cull", "Fragments", "interpolate", "interpolate_vertices", "rasterise"]

Cull = Literal["none", "back", "front"]
_HITS = 1 << 23  # hits held at a time
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


class _Rows(NamedTuple):
    """Rows of pixels inside faces, (n) each."""

    face: Tensor  # int64
    first: Tensor  # int64, the first pixel's place among all pictures' pixels
    length: Tensor  # int64, pixels, positive
    depth: Tensor  # z at the first pixel's centre
    slope: Tensor  # dz/dx


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
        faces: corner indices, shared by the batch; outward normals by the right-hand rule.
        size: (height, width) in pixels.
        cull: "back" leaves out faces seen from behind (x right, y down, z forward; for closed meshes the same picture
            in little more than half the time), "front" those seen from the front.
        near: leave out faces with a corner at or in front of this depth.

    Faces without area, with a coordinate that is not finite, or outside the picture cover nothing. Depth is
    interpolated linearly on the screen and compared in float32; equal depths go to the lower face number. Depth and
    barycentric carry gradients to the vertices.

    Raises:
        InputError: shapes do not fit, or a face names a vertex that is not there.
    """
    height, width = size
    check_mesh(vertices, faces, size)
    batch = vertices.shape[:-2]
    flat = vertices.reshape(math.prod(batch), *vertices.shape[-2:])
    with torch.no_grad():
        winner = _nearest(flat.detach(), faces, height, width, cull, near)
        picture, row, column = (winner >= 0).view(-1, height, width).nonzero().unbind(dim=1)
        covered = (picture * height + row) * width + column
        corners = faces.index_select(0, winner.index_select(0, covered)) + (picture * flat.shape[1])[:, None]
    x, y, z = (axis.index_select(0, corners.reshape(-1)).view(-1, 3) for axis in flat.reshape(-1, 3).unbind(dim=1))
    weights = _barycentric(x, y, column.to(flat.dtype) + 0.5, row.to(flat.dtype) + 0.5)
    depth = flat.new_full(winner.shape, torch.inf).index_put((covered,), (weights * z).sum(dim=1))
    barycentric = flat.new_zeros((*winner.shape, 3)).index_put((covered,), weights)
    shape = (*batch, height, width)
    return Fragments(winner.view(shape), depth.view(shape), barycentric.view(*shape, 3), covered)


def interpolate(
    fragments: Fragments, face_attributes: Float[Tensor, "*b F 3 C"], background: float = 0.0
) -> Float[Tensor, "*b H W C"]:
    """Attributes given per face corner, (F 3 C) shared or (*b F 3 C), carried to the pixels; differentiable."""
    shared = face_attributes.ndim == 3
    table = face_attributes.reshape(-1, *face_attributes.shape[-2:])
    face = fragments.face_index.reshape(-1).index_select(0, fragments.covered)
    if not shared:
        face = face + _picture(fragments) * face_attributes.shape[-3]
    corners = 3 * face[:, None] + torch.arange(3, device=face.device)
    return _spread(fragments, table.reshape(-1, table.shape[-1]), corners, background)


def interpolate_vertices(
    fragments: Fragments,
    attributes: Float[Tensor, "*b V C"],
    faces: Int[Tensor, "F 3"],
    background: float = 0.0,
) -> Float[Tensor, "*b H W C"]:
    """Attributes given per vertex, (V C) shared or (*b V C), carried to the pixels; differentiable."""
    corners = faces.index_select(0, fragments.face_index.reshape(-1).index_select(0, fragments.covered))
    if attributes.ndim > 2:
        corners = corners + (_picture(fragments) * attributes.shape[-2])[:, None]
    return _spread(fragments, attributes.reshape(-1, attributes.shape[-1]), corners, background)


def blend(
    table: Float[Tensor, "r C"], corners: Int[Tensor, "n 3"], weights: Float[Tensor, "n 3"]
) -> Float[Tensor, "n C"]:
    """Rows of a table at three corners, weighted."""
    first, second, third = (table.index_select(0, corners[:, k]) for k in range(3))
    weights = weights.to(table.dtype)
    return torch.addcmul(torch.addcmul(first * weights[:, :1], second, weights[:, 1:2]), third, weights[:, 2:])


def _picture(fragments: Fragments) -> Tensor:
    height, width = fragments.face_index.shape[-2:]
    return fragments.covered // (height * width)


def _spread(fragments: Fragments, table: Tensor, corners: Tensor, background: float) -> Tensor:
    weights = fragments.barycentric.reshape(-1, 3).index_select(0, fragments.covered)
    values = blend(table, corners, weights)
    plane = values.new_full((fragments.face_index.numel(), values.shape[1]), background)
    return plane.index_put((fragments.covered,), values).reshape(*fragments.face_index.shape, -1)


def check_mesh(vertices: Tensor, faces: Tensor, size: tuple[int, int]) -> None:
    """Raise InputError where vertices, faces and size are not a picture's."""
    if vertices.ndim < 2 or vertices.shape[-1] != 3 or not vertices.is_floating_point():
        raise InputError(f"vertices to render are (*b V 3) floating point, not {tuple(vertices.shape)}")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise InputError(f"faces are (F 3) integers, not {tuple(faces.shape)} {faces.dtype}")
    if size[0] < 1 or size[1] < 1:
        raise InputError(f"a picture of {size[0]} × {size[1]} pixels has none; give a positive height and width")
    # on a GPU the check would wait for the device; indexing raises there by itself
    count = vertices.shape[-2]
    if faces.device.type == "cpu" and faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < count:
        raise InputError(f"a face names a vertex that is not among the {count}")


def _barycentric(x: Float[Tensor, "n 3"], y: Float[Tensor, "n 3"], px: Tensor, py: Tensor) -> Float[Tensor, "n 3"]:
    x0, y0 = x[:, 0], y[:, 0]
    ax, ay, bx, by = x[:, 1] - x0, y[:, 1] - y0, x[:, 2] - x0, y[:, 2] - y0
    px, py, area = px - x0, py - y0, ax * by - bx * ay
    w1, w2 = (px * by - bx * py) / area, (ax * py - px * ay) / area
    return torch.stack([1 - w1 - w2, w1, w2], dim=1)


def _nearest(
    vertices: Float[Tensor, "B V 3"], faces: Tensor, height: int, width: int, cull: Cull, near: float | None
) -> Int[Tensor, " B*H*W"]:
    """Number of the nearest face at each pixel, -1 where there is none."""
    pixels = vertices.shape[0] * height * width
    winner = torch.full((pixels,), _EMPTY, dtype=torch.int64, device=vertices.device)
    rows = _rows(vertices, faces, height, width, cull, near)
    total = rows.length.cumsum(0)
    for low, high in _portions(total):
        count = rows.length[low:high]
        hits = int(total[high - 1] - total[low] + count[0])
        counter = torch.arange(hits, device=count.device)
        row = torch.repeat_interleave(torch.arange(low, high, device=count.device), count, output_size=hits)
        along = counter - (total - rows.length - (total[low] - count[0])).index_select(0, row)
        depth = rows.depth.index_select(0, row) + rows.slope.index_select(0, row) * along.to(rows.depth.dtype)
        key = (_ordered(depth) << 32) | rows.face.index_select(0, row)
        winner.scatter_reduce_(0, rows.first.index_select(0, row) + along, key, "amin")
    return torch.where(winner == _EMPTY, -1, winner & 0xFFFFFFFF)


def _portions(total: Tensor) -> list[tuple[int, int]]:
    """Rows in stretches of about `_HITS` pixels, so that stacks of large faces do not exhaust the memory."""
    if total.numel() == 0:
        return []
    if int(total[-1]) <= _HITS:
        return [(0, total.numel())]
    bounds = torch.arange(_HITS, int(total[-1]), _HITS, device=total.device)
    ends = [0, *torch.unique(torch.searchsorted(total, bounds) + 1).tolist(), total.numel()]
    return [(low, high) for low, high in pairwise(ends) if low < high]


def _ordered(depth: Tensor) -> Int[Tensor, " n"]:
    """Depth as an integer of 32 bits with the same order (float32 is sign and magnitude: turned over if negative)."""
    bits = (depth.to(torch.float32) + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)


def _rows(
    vertices: Float[Tensor, "B V 3"], faces: Tensor, height: int, width: int, cull: Cull, near: float | None
) -> _Rows:
    half_picture, half_face, half_first, half_count, long, short = _trapezia(vertices, faces, height, cull, near)
    total = int(half_count.sum())
    device = vertices.device
    half = torch.repeat_interleave(torch.arange(half_count.numel(), device=device), half_count, output_size=total)
    start = half_first - (half_count.cumsum(0) - half_count)
    row = start.index_select(0, half) + torch.arange(total, device=device)
    y = row.to(vertices.dtype) + 0.5
    xa, za = _crossing(long, half, y)
    xb, zb = _crossing(short, half, y)
    left, right = torch.minimum(xa, xb), torch.maximum(xa, xb)
    # pixel centres in [left, right)
    first = (left - 0.5).ceil_().clamp_(0, width)
    count = (right - 0.5).ceil_().clamp_(0, width) - first
    some = (count > 0).nonzero().squeeze(1)
    half, row, first, count = (v.index_select(0, some) for v in (half, row, first, count))
    xa, xb, za, zb = (v.index_select(0, some) for v in (xa, xb, za, zb))
    slope = (zb - za) / (xb - xa)
    place = (half_picture.index_select(0, half) * height + row) * width + first.to(torch.int64)
    face = half_face.index_select(0, half)
    return _Rows(face, place, count.to(torch.int64), za + slope * (first + 0.5 - xa), slope)


def _crossing(edge: tuple[Tensor, ...], half: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x and z at which the edge of each half face crosses the height y."""
    x0, y0, z0, x_slope, z_slope = (v.index_select(0, half) for v in edge)
    down = y - y0
    return x0 + down * x_slope, z0 + down * z_slope


def _trapezia(
    vertices: Tensor, faces: Tensor, height: int, cull: Cull, near: float | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Upper and lower halves of the faces to draw, split at the middle corner: (picture, face, first row, rows, long
    edge, short edge); an edge is (x, y, z) of its upper end, dx/dy and dz/dy."""
    corners = faces.T.reshape(-1)
    x, y, z = (
        axis.index_select(1, corners).view(vertices.shape[0], 3, faces.shape[0]) for axis in vertices.unbind(dim=2)
    )
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    size = area.abs() if cull == "none" else (-area if cull == "back" else area)
    # comparisons with NaN are false, so that faces which are not finite fall out here
    keep = (size > 0) & (size < torch.inf) & (z.sum(dim=1).abs() < torch.inf)
    if near is not None:
        keep &= z.amin(dim=1) > near
    low, high = _centre_row(y.amin(dim=1), height), _centre_row(y.amax(dim=1), height)
    keep &= low < high
    picture, face = keep.nonzero().unbind(dim=1)
    chosen = picture * (3 * faces.shape[0]) + face
    corner = [[axis.reshape(-1).index_select(0, chosen + k * faces.shape[0]) for axis in (x, y, z)] for k in range(3)]
    for i, j in ((0, 1), (1, 2), (0, 1)):  # corners from top to bottom
        swap = corner[i][1] > corner[j][1]
        for axis in range(3):
            a, b = corner[i][axis], corner[j][axis]
            corner[i][axis], corner[j][axis] = torch.where(swap, b, a), torch.where(swap, a, b)
    top, middle, bottom = corner
    rows = [_centre_row(c[1], height).to(torch.int64) for c in corner]
    long = _edge(top, bottom)
    upper, lower = _edge(top, middle), _edge(middle, bottom)
    return (
        picture.repeat(2),
        face.repeat(2),
        torch.cat(rows[:2]),
        torch.cat([rows[1] - rows[0], rows[2] - rows[1]]),
        tuple(v.repeat(2) for v in long),
        tuple(torch.cat(pair) for pair in zip(upper, lower, strict=True)),
    )


def _centre_row(y: Tensor, height: int) -> Tensor:
    """First row whose centre is at or below y."""
    return (y - 0.5).ceil().clamp(0, height)


def _edge(start: list[Tensor], end: list[Tensor]) -> tuple[Tensor, ...]:
    # a level edge meets no row or lies in one only by rounding; its slope is then never used beyond its ends
    down = (end[1] - start[1]).clamp(min=torch.finfo(start[1].dtype).tiny)
    return start[0], start[1], start[2], (end[0] - start[0]) / down, (end[2] - start[2]) / down
