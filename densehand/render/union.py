"""The exact union of faces within single pixels in which outlines meet, cross or fold.

Within a pixel the number of faces over a point, k, jumps at a few straight pieces of edges. Each piece is cut where
the others' lines cross it; between cuts k beside it is constant, so that the step of [k > 0] across it is known. The
union's area is then the boundary integral of these steps, ∫ step · (1 - x) dy, plus [k > 0] along the left side.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["LIMIT", "union"]

LIMIT = 64  # pieces in a pixel
_WIDTHS = (4, 8, 16, 32, LIMIT)  # pixels are done together that have up to so many
_HELD = 1 << 23  # comparisons held at a time


def union(
    pixel: Int[Tensor, " p"],
    pieces: Int[Tensor, " p"],
    corner: Float[Tensor, " p"],
    *geometry: Float[Tensor, " p"],
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Coverage of each piece's pixel, and ∫(1-t) and ∫t over the piece times the step of [k > 0] across it.

    Args:
        pixel: number of the piece's pixel; all pieces of a pixel are here.
        pieces: how many there are, at most `LIMIT`.
        corner: k at the pixel's upper left corner.
        geometry: x0, y0, x1, y1 (from that corner, y0 ≤ y1), t0, t1 (along the whole edge), jump (k on the right less k
            on the left), left and left_y (change of k down the pixel's left side, and where).
    """
    value, head, tail = (torch.empty_like(corner) for _ in range(3))
    order = pixel.argsort(stable=True)
    pieces = pieces.index_select(0, order)
    smaller = 0
    for width in _WIDTHS:
        chosen = order.index_select(0, ((pieces > smaller) & (pieces <= width)).nonzero().squeeze(1))
        smaller = width
        if chosen.numel():
            own = [v.index_select(0, chosen) for v in (pixel, corner, *geometry)]
            for target, result in zip((value, head, tail), _same_width(width, *own), strict=True):
                target.index_copy_(0, chosen, result)
    return value, head, tail


def _same_width(width: int, pixel: Tensor, corner: Tensor, *geometry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`union` for pieces sorted by pixel, at most `width` in each."""
    _, group, amount = torch.unique_consecutive(pixel, return_inverse=True, return_counts=True)
    first = amount.cumsum(0) - amount
    place = torch.arange(len(group), device=group.device) - first.index_select(0, group)
    groups = len(amount)
    table = place * groups + group
    # (width, groups): pixels last, so that every operation runs along memory; pads have no extent and no jump
    padded = [v.new_zeros(width * groups).index_copy_(0, table, v).view(width, groups) for v in geometry]
    corner = corner.index_select(0, first)
    value, head, tail = corner.clone(), *(corner.new_empty(width, groups) for _ in range(2))
    size = max(_HELD // width**3, 1)
    for low in range(0, groups, size):
        part = slice(low, low + size)
        value[part], head[:, part], tail[:, part] = _pixels(corner[part], *(v[:, part] for v in padded))
    return value.index_select(0, group), head.view(-1).index_select(0, table), tail.view(-1).index_select(0, table)


def _pixels(
    corner: Float[Tensor, " g"],
    x0: Float[Tensor, "m g"],
    y0: Tensor,
    x1: Tensor,
    y1: Tensor,
    t0: Tensor,
    t1: Tensor,
    jump: Tensor,
    left: Tensor,
    left_y: Tensor,
) -> tuple[Float[Tensor, " g"], Float[Tensor, "m g"], Float[Tensor, "m g"]]:
    m = len(x0)
    dx, dy = x1 - x0, y1 - y0
    # cuts of piece i (first index) by the line of piece j (second), 1 where there is none, and always once (j = i)
    ox, oy = x0[None] - x0[:, None], y0[None] - y0[:, None]
    cross = dx[:, None] * dy[None] - dy[:, None] * dx[None]
    cut = (ox * dy[None] - oy * dx[None]) / cross
    high = torch.where((cut > 0) & (cut < 1), cut, 1.0).sort(dim=1).values
    low = torch.cat([torch.zeros_like(high[:, :1]), high[:, :-1]], dim=1)
    middle = 0.5 * (low + high)
    # k left of piece i in the middle of each of its intervals: (j, i, interval, g)
    qx, qy = torch.addcmul(x0[:, None], dx[:, None], middle), torch.addcmul(y0[:, None], dy[:, None], middle)
    bx, by, ex, ey = (v[:, None, None] for v in (x0, y0, dx, dy))
    beyond = (qx - bx) * ey - ex * (qy - by)
    # pieces in one line: the later one counts as the one to the right. `beyond` is an area, distance × length
    tie = 64 * torch.finfo(x0.dtype).eps * (ex.abs() + ey.abs())
    number = torch.arange(m, device=x0.device)
    earlier = (number[:, None] < number[None])[:, :, None, None]
    right = (beyond > tie) | ((beyond >= -tie) & earlier)
    right &= (by <= qy) & (qy < y1[:, None, None])
    right &= (number[:, None] != number[None])[:, :, None, None]
    # a change of the left side counts from the very line that its piece does
    k = (right * jump[:, None, None] + (left_y[:, None, None] <= qy) * left[:, None, None]).sum(dim=0) + corner
    step = (k + jump[:, None] > 0.5).to(k.dtype) - (k > 0.5).to(k.dtype)
    share = step * (high - low)
    value = (share * (1 - qx)).sum(dim=1).mul(dy).sum(dim=0)
    t = torch.lerp(t0[:, None], t1[:, None], middle)
    weight = share * (t1 - t0)[:, None]
    tail = (weight * t).sum(dim=1)
    head = weight.sum(dim=1) - tail

    # [k > 0] along the left side
    bound = torch.where(left != 0, left_y, 1.0).sort(dim=0).values
    bound = torch.cat([torch.zeros_like(bound[:1]), bound, torch.ones_like(bound[:1])])
    middle = 0.5 * (bound[1:] + bound[:-1])
    k = ((left_y[:, None] < middle[None]) * left[:, None]).sum(dim=0) + corner
    value = value + ((k > 0.5) * (bound[1:] - bound[:-1])).sum(dim=0)
    return value.clamp(0, 1), head, tail
