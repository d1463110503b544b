"""Anti-aliased masks with exact gradients at the outer outline.

Coverage model: a pixel's value is the area of its unit square that the union of all projected faces covers. Nothing is
blurred, and the value depends on the outer outline alone: gradients are zero at edges inside the mask (a finger before
the palm) and exact along the outline (the boundary integral of the outline's normal speed).

How: turn every face to positive orientation on the screen. The number of faces over a point, k, is then a winding
number of the few edges where orientation changes (fold edges between front and back faces, borders of open meshes).
Their pieces within pixels give ∫k exactly, by the accumulation used to fill letters; faces inside never matter. A
pixel crossed by one chain of equal edges has k in {k0, k0 + n} and its coverage follows from ∫k; pixels in which
outlines meet or fold are left to `union`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from densehand.errors import DependencyError, InputError
from densehand.render.edges import EdgeTable, Outline, edge_table, outline
from densehand.render.rasterise import check_mesh
from densehand.render.union import LIMIT, union

__all__ = ["Backend", "silhouette"]

Backend = Literal["auto", "torch", "numba"]


class _Pieces(NamedTuple):
    """Parts of edges within one pixel, (p) each; x, y from the pixel's upper left corner, in [0, 1]."""

    edge: Tensor
    pixel: Tensor  # row-major place among all pictures' pixels
    x0: Tensor
    y0: Tensor
    x1: Tensor
    y1: Tensor
    t0: Tensor  # where along the edge the piece begins and ends
    t1: Tensor
    jump: Tensor
    left: Tensor  # change of k down the pixel's left side where the piece crosses it, else 0
    left_y: Tensor  # and the place where it does
    ends: Tensor  # how many of its ends lie on the pixel's border (not at a vertex)


def silhouette(
    vertices: Float[Tensor, "*b V 3"],
    faces: Int[Tensor, "F 3"] | EdgeTable,
    size: tuple[int, int],
    *,
    near: float | None = None,
    backend: Backend = "auto",
) -> Float[Tensor, "*b H W"]:
    """Share of each pixel's square that the mesh covers, differentiable in x and y.

    Args:
        vertices: x, y in pixels, z depth (screen space, as in `rasterise`). z has no gradient.
        faces: corner indices, or `edge_table(faces)` to spare the look-up. Closed or open, any orientation.
        size: (height, width) in pixels.
        near: leave out faces with a corner at or in front of this depth.
        backend: "torch" runs on every device; "numba" is compiled on its first use, for float32 and float64 on the
            CPU; "auto" takes numba where it is installed and can be used, else torch. Same values and gradients up to
            rounding.

    Faces without area or with a coordinate that is not finite are left out. Cost follows the outline's length in
    pixels. In pixels crossed by more than `union.LIMIT` pieces (meshes a few pixels small) min(∫k / n, 1) stands for
    the union.

    Raises:
        InputError: shapes do not fit, a face names a vertex that is not there, or the backend cannot do this tensor.
        DependencyError: numba is asked for and not installed.
    """
    table = faces if isinstance(faces, EdgeTable) else edge_table(faces)
    check_mesh(vertices, table.faces, size)
    flat = vertices.reshape(math.prod(vertices.shape[:-2]), *vertices.shape[-2:])
    mask = _path(flat, backend)(flat, table, size, near)
    return mask.view(*vertices.shape[:-2], *size)


def _path(vertices: Tensor, backend: Backend) -> Callable[..., Tensor]:
    """The backend's function of (vertices, table, size, near)."""
    if backend not in get_args(Backend):
        raise InputError(f"no backend {backend!r} of the silhouette; use one of {', '.join(get_args(Backend))}")
    fits = vertices.device.type == "cpu" and vertices.dtype in (torch.float32, torch.float64)
    if backend == "numba" and not fits:
        kind = f"{vertices.dtype} on {vertices.device}"
        raise InputError(f'backend "numba" renders float32 and float64 on the CPU, not {kind}; use "auto" or "torch"')
    compiled = _compiled() if fits and backend != "torch" else None
    if backend == "numba" and compiled is None:
        raise DependencyError('backend "numba" needs numba: pip install "densehand[fast]", or use "auto"')
    return compiled or _Coverage.apply


@cache
def _compiled() -> Callable[..., Tensor] | None:
    """The path through numba, None where numba is not installed or refuses this numpy."""
    try:
        from densehand.render.silhouette_numba import coverage
    except ImportError:
        return None
    return coverage


class _Coverage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vertices: Float[Tensor, "B V 3"], table: EdgeTable, size: tuple[int, int], near: float | None
    ) -> Float[Tensor, "B H W"]:
        height, width = size
        edges = outline(vertices, table, near)
        pieces, accumulated = _cut(edges, vertices.shape[0], height, width)
        mask, head, tail = _cover(pieces, accumulated)
        ctx.save_for_backward(edges.a, edges.b, edges.xb - edges.xa, edges.yb - edges.ya, *pieces[:2], head, tail)
        ctx.shape = vertices.shape
        return mask.view(-1, height, width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "B H W"]) -> tuple[Tensor, None, None, None]:
        a, b, dx, dy, edge, pixel, head, tail = ctx.saved_tensors
        pull = gradient.reshape(-1).index_select(0, pixel)
        pull_a = torch.zeros_like(dx).index_add_(0, edge, pull * head)
        pull_b = torch.zeros_like(dx).index_add_(0, edge, pull * tail)
        count = ctx.shape[0] * ctx.shape[1]
        # an edge that moves by (u, v) takes (u·dy - v·dx) from the area on its right
        x = dx.new_zeros(count).index_add_(0, a, -pull_a * dy).index_add_(0, b, -pull_b * dy)
        y = dx.new_zeros(count).index_add_(0, a, pull_a * dx).index_add_(0, b, pull_b * dx)
        return torch.stack([x, y, torch.zeros_like(x)], dim=1).view(ctx.shape), None, None, None


def _cut(edges: Outline, pictures: int, height: int, width: int) -> tuple[_Pieces, Tensor]:
    """Edges cut at the lines between pixels, and ∫k's increments: (pictures · height · (width + 1)) along each row."""
    device, dtype = edges.xa.device, edges.xa.dtype
    # 1. rows: pieces within [0, height)
    dx, dy = edges.xb - edges.xa, edges.yb - edges.ya
    start, stop = edges.ya.floor().clamp(-1, height), edges.yb.floor().clamp(-1, height)
    first, last = start.clamp(min=0), stop.clamp(max=height - 1)
    amount = (last - first + 1).clamp(min=0).to(torch.int64)
    edge, place = _repeat(amount)
    first, start, stop, xa, ya, xb, yb, ddx, ddy = (
        v.index_select(0, edge) for v in (first, start, stop, edges.xa, edges.ya, edges.xb, edges.yb, dx, dy)
    )
    row = first + place.to(dtype)
    enters, leaves = row > start, row < stop  # through the row's upper, lower line
    safe = torch.where(ddy > 0, ddy, 1.0)
    ta = torch.where(enters, ((row - ya) / safe).clamp(0, 1), 0.0)
    tb = torch.where(leaves, ((row + 1 - ya) / safe).clamp(0, 1), 1.0)
    xs = xa + ta * ddx
    xe = torch.where(leaves, xa + tb * ddx, xb)
    ys = torch.where(enters, 0.0, ya - row)
    ye = torch.where(leaves, 1.0, yb - row)
    # 2. columns: -1 stands for everything left of the picture, width for everything right of it
    cs, ce = xs.floor().clamp(-1, width), xe.floor().clamp(-1, width)
    part, place = _repeat((ce - cs).abs().to(torch.int64) + 1)
    across = place.to(dtype)
    cs, ce, xs, xe, ys, ye, ta, tb, row, enters, leaves, edge = (
        v.index_select(0, part) for v in (cs, ce, xs, xe, ys, ye, ta, tb, row, enters, leaves, edge)
    )
    forward = (ce >= cs).to(dtype)
    column = cs + across * (2 * forward - 1)
    inner, outer = across > 0, column != ce  # enters from, leaves to another column
    span = torch.where(xe == xs, 1.0, xe - xs)
    u0 = torch.where(inner, ((column + 1 - forward - xs) / span).clamp(0, 1), 0.0)
    u1 = torch.where(outer, ((column + forward - xs) / span).clamp(0, 1), 1.0)
    x0 = torch.where(inner, 1 - forward, (xs - column).clamp(0, 1))
    x1 = torch.where(outer, forward, (xe - column).clamp(0, 1))
    y0, y1 = torch.lerp(ys, ye, u0), torch.lerp(ys, ye, u1)
    jump = edges.jump.index_select(0, edge)
    inside_row = edges.picture.index_select(0, edge) * height + row.to(torch.int64)
    # 3. ∫k right of each piece: its own pixel's share, the rest from the next pixel on
    cover = jump * (y1 - y0)
    mean = torch.where(column < 0, 0.0, 0.5 * (x0 + x1))
    cell = inside_row * (width + 1) + column.clamp(0, width).to(torch.int64)
    sums = torch.zeros(pictures * height * (width + 1) + 1, dtype=dtype, device=device)
    sums.index_add_(0, cell, cover * (1 - mean)).index_add_(0, cell + 1, cover * mean * (column < width))
    left = jump * ((outer & (forward == 0)).to(dtype) - (inner & (forward > 0)).to(dtype))
    ends = (inner | enters).to(torch.int64) + (outer | leaves).to(torch.int64)
    pixel = inside_row * width + column.to(torch.int64)
    pieces = _Pieces(
        edge,
        pixel,
        x0,
        y0,
        x1,
        y1,
        torch.lerp(ta, tb, u0),
        torch.lerp(ta, tb, u1),
        jump,
        left,
        torch.where(forward > 0, y0, y1),
        ends,
    )
    visible = ((column >= 0) & (column < width)).nonzero().squeeze(1)
    pieces = _Pieces(*(v.index_select(0, visible) for v in pieces))
    return pieces, sums[:-1].view(-1, width + 1)[:, :width].cumsum(dim=1).view(-1)


def _repeat(amount: Int[Tensor, " n"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """(number of the item, count from 0 within the item) of items repeated `amount` times."""
    total = int(amount.sum())
    item = torch.repeat_interleave(torch.arange(len(amount), device=amount.device), amount, output_size=total)
    start = amount.cumsum(0) - amount
    return item, torch.arange(total, device=amount.device) - start.index_select(0, item)


def _cover(pieces: _Pieces, accumulated: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage of all pixels, and each piece's ∫(1-t) and ∫t over its part on the outer outline, times the step of
    [k > 0] across it from left to right."""
    pixel, jump, size = pieces.pixel, pieces.jump, pieces.jump.abs().to(torch.int64)
    local = jump * (pieces.y1 - pieces.y0) * (1 - 0.5 * (pieces.x0 + pieces.x1)) + pieces.left * (1 - pieces.left_y)
    # relative to k at the pixel's upper left corner, so that no rounding is carried along the row
    inside = torch.zeros_like(accumulated).index_add_(0, pixel, local).index_select(0, pixel)
    corner = (accumulated.index_select(0, pixel) - inside).round_()
    # four sums in one integer: ends on the border, pieces, |jump| and |jump|²
    packed = pieces.ends + (1 << 15) + (size << 31) + (size * size << 47)
    stats = torch.zeros_like(accumulated, dtype=torch.int64).index_add_(0, pixel, packed).index_select(0, pixel)
    ends, pieces_here = stats & 0x7FFF, (stats >> 15) & 0xFFFF
    jumps, squares = (stats >> 31) & 0xFFFF, stats >> 47
    step = jump.abs()
    lowest = corner - torch.where(inside < 0, step, 0.0)
    outer = lowest == 0
    value = torch.where(outer, ((corner + inside) / step).clamp(0, 1), (lowest > 0).to(step.dtype))
    visible = torch.where(outer, jump.sign(), 0.0) * (pieces.t1 - pieces.t0)
    middle = 0.5 * (pieces.t0 + pieces.t1)
    head, tail = visible * (1 - middle), visible * middle

    meeting = ((ends > 2) | (pieces_here > 2) | (pieces_here * squares != jumps * jumps)) & (pieces_here <= LIMIT)
    chosen = meeting.nonzero().squeeze(1)
    if chosen.numel():
        here = [v.index_select(0, chosen) for v in (pixel, pieces_here, corner, *pieces[2:11])]
        for target, exact in zip((value, head, tail), union(*here), strict=True):
            target.index_copy_(0, chosen, exact)
    return accumulated.round().clamp_(0, 1).index_put_((pixel,), value), head, tail
