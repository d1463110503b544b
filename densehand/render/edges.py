"""Edges of a mesh, and those of them that can be an outline on the screen."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["EdgeTable", "Outline", "edge_table", "outline"]


class EdgeTable(NamedTuple):
    """The mesh's edges and the faces at each.

    Attributes:
        faces: (F 3) the faces it was made from.
        ends: (E 2) vertex numbers, the lower first.
        face: (E D) faces at the edge, padded with F; D is the largest number of faces at an edge.
        sign: (E D) +1 where the face runs from the first end to the second, -1 the other way, 0 for padding.
    """

    faces: Int[Tensor, "F 3"]
    ends: Int[Tensor, "E 2"]
    face: Int[Tensor, "E D"]
    sign: Float[Tensor, "E D"]


_known: dict[int, tuple[weakref.ref[Tensor], int, EdgeTable]] = {}


def edge_table(faces: Int[Tensor, "F 3"]) -> EdgeTable:
    """The edges of a mesh, in any state (open, non-manifold, turned faces); remembered as long as the tensor lives."""
    if faces.is_inference():  # such a tensor does not say when it is changed
        return _build(faces)
    known = _known.get(id(faces))
    if known is not None and known[0]() is faces and known[1] == faces._version:
        return known[2]
    with torch.inference_mode(False):  # what is kept may be needed for gradients later
        table = _build(faces)
    key = id(faces)
    _known[key] = (weakref.ref(faces, lambda _: _known.pop(key, None)), faces._version, table)
    return table


def _build(faces: Int[Tensor, "F 3"]) -> EdgeTable:
    count = len(faces)
    start, end = faces.T.reshape(-1), faces.roll(-1, dims=1).T.reshape(-1)
    face = torch.arange(count, device=faces.device).repeat(3)
    sign = torch.where(start < end, 1.0, -1.0)
    proper = (start != end).nonzero().squeeze(1)
    pairs = torch.stack([torch.minimum(start, end), torch.maximum(start, end)], dim=1)[proper]
    ends, which, amount = torch.unique(pairs, dim=0, return_inverse=True, return_counts=True)
    order = which.argsort(stable=True)
    which = which[order]
    place = torch.arange(len(which), device=faces.device) - (amount.cumsum(0) - amount)[which]
    widest = int(amount.max()) if amount.numel() else 1
    faces_at = torch.full((len(ends), widest), count, dtype=torch.int64, device=faces.device)
    signs = torch.zeros((len(ends), widest), device=faces.device)
    faces_at[which, place] = face[proper][order]
    signs[which, place] = sign[proper][order]
    # faces is copied: the table must not keep the tensor alive that it is remembered for
    return EdgeTable(faces.detach().clone(), ends, faces_at, signs)


class Outline(NamedTuple):
    """Edges at which the number of faces over a point changes, (m) each, from the upper end a to the lower end b."""

    picture: Tensor
    a: Tensor  # vertex number among all pictures' vertices
    b: Tensor
    xa: Tensor
    ya: Tensor
    xb: Tensor
    yb: Tensor
    jump: Tensor  # number of faces right of the edge minus number left of it


def outline(vertices: Float[Tensor, "B V 3"], table: EdgeTable, near: float | None) -> Outline:
    """The edges across which the number of faces changes."""
    x, y, z = vertices.unbind(dim=2)
    i, j, k = table.faces.unbind(dim=1)
    x0, y0 = x.index_select(1, i), y.index_select(1, i)
    # positive where the face lies on the right of its edges
    area = (x.index_select(1, k) - x0) * (y.index_select(1, j) - y0)
    area -= (x.index_select(1, j) - x0) * (y.index_select(1, k) - y0)
    turn = torch.where(area.abs() < torch.inf, area.sign(), 0.0)
    if near is not None or not bool(z.isfinite().all()):
        depth = torch.stack([z.index_select(1, c) for c in (i, j, k)])
        keep = depth.isfinite().all(dim=0)
        if near is not None:
            keep &= depth.amin(dim=0) > near
        turn = torch.where(keep, turn, 0.0)
    turn = torch.cat([turn, turn.new_zeros(len(turn), 1)], dim=1)  # for the places that pad the table
    jump = turn.new_zeros(len(turn), len(table.ends))
    for face, sign in zip(table.face.unbind(1), table.sign.unbind(1), strict=True):
        jump = jump + turn.index_select(1, face) * sign
    picture, edge = jump.nonzero().unbind(dim=1)
    jump = jump.view(-1).index_select(0, picture * len(table.ends) + edge)
    a, b = (table.ends[:, end].index_select(0, edge) + picture * vertices.shape[1] for end in (0, 1))
    x, y = x.reshape(-1), y.reshape(-1)
    xa, ya, xb, yb = x.index_select(0, a), y.index_select(0, a), x.index_select(0, b), y.index_select(0, b)
    swap = ya > yb
    a, b = torch.where(swap, b, a), torch.where(swap, a, b)
    xa, xb = torch.where(swap, xb, xa), torch.where(swap, xa, xb)
    return Outline(picture, a, b, xa, torch.minimum(ya, yb), xb, torch.maximum(ya, yb), torch.where(swap, -jump, jump))
