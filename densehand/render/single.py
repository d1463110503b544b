"""What the pixels of one picture of one mesh see, in numpy and without gradients.

`rasterise` with its attributes for a picture that is only looked at: scan conversion by the same steps and the same
arithmetic in float32, so that the same pixels see the same faces. It is several times faster on a CPU because it leaves
out what cannot be seen of a closed mesh, carries attributes along the rows of pixels instead of by each pixel's
weights, and lists rows by length: their first pixels, their second ones and so on then lie side by side, and no pixel
has to look its row up. Batches, gradients and GPUs need `rasterise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32, Integer

from densehand.errors import InputError

__all__ = ["Seen", "part_around", "see"]

_HALF = np.float32(0.5)
_BAND = 1 << 17  # pixels of a band, whose lists then stay in the processor's cache


class Seen(NamedTuple):
    """What the pixels' centres see in a band of the picture.

    Attributes:
        rows: of the picture.
        column: (h W) a column of `values` and of `depth`, -1 where nothing is seen.
        values: (C n) attributes; those of pixels of faces that another one hides are among them.
        depth: (n) of the same pixels.
    """

    rows: slice
    column: Int32[np.ndarray, "h W"]
    values: Float32[np.ndarray, "C n"]
    depth: Float32[np.ndarray, " n"]


class _Rows(NamedTuple):
    """Rows of pixels inside faces, band by band and in a band the longest first; (r) each."""

    row: Int32[np.ndarray, " r"]
    first: Int32[np.ndarray, " r"]  # column of the first pixel
    length: Int32[np.ndarray, " r"]  # pixels, positive
    start: Float32[np.ndarray, "D r"]  # attributes and, last, the depth at the first pixel's centre
    step: Float32[np.ndarray, "D r"]  # and their change from pixel to pixel


def part_around(
    vertices: Float[np.ndarray, "V 3"], size: tuple[int, int], margin: int = 0
) -> tuple[slice, slice] | None:
    """Rows and columns of a picture (height, width) around a mesh in its pixels, so many more on all sides.

    None where the mesh lies outside the picture.
    """
    low = np.floor(vertices[:, :2].min(axis=0)) - margin
    high = np.ceil(vertices[:, :2].max(axis=0)) + margin
    (left, top), (right, bottom) = (np.clip(end, 0, size[::-1]).astype(int).tolist() for end in (low, high))
    return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None


def see(
    vertices: Float[np.ndarray, "V 3"],
    faces: Integer[np.ndarray, "F 3"],
    size: tuple[int, int],
    attributes: Float[np.ndarray, "V C"],
) -> Iterator[Seen]:
    """The nearest face at every pixel's centre, and the vertices' attributes there, band by band from the top.

    Args:
        vertices: x, y in pixels (continuous: the centre of pixel (i, j) is (j+0.5, i+0.5)), z depth, smaller is nearer.
        faces: corner indices, outward normals by the right-hand rule.
        size: (height, width) in pixels.
        attributes: per vertex.

    As `rasterise(vertices, faces, size)` with `interpolate_vertices`; of a closed mesh with `cull="back"`, which shows
    another face only where a surface is folded through itself. Which of two faces at equal depth is seen is not said.

    Raises:
        InputError: a face names a vertex that is not there.
    """
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise InputError(f"a face names a vertex that is not among the {len(vertices)}")
    height, width = size
    high = max(1, _BAND // width)
    with np.errstate(all="ignore"):  # faces that are not finite fall out
        rows = _rows(vertices.astype(np.float32), faces, size, attributes.astype(np.float32), high)
    cuts = np.searchsorted(rows.row // high, np.arange(-(-height // high) + 1))
    for top, begin, end in zip(range(0, height, high), cuts, cuts[1:], strict=False):
        part = slice(top, min(top + high, height))
        place, values = _pixels(_Rows(*(each[..., begin:end] for each in rows)), top, width)
        column = _nearest(place, values[-1], (part.stop - top) * width)
        yield Seen(part, column.reshape(-1, width), values[:-1], values[-1])


def _rows(vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int], attributes: np.ndarray, high: int) -> _Rows:
    """Rows for bands of `high` rows of the picture."""
    height, width = size
    x, y, z = corner = vertices.T.take(faces.T, axis=1)  # axes, corners, faces
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    shown = -area if _closed(faces.tobytes(), faces.dtype.str) else np.abs(area)
    # comparisons with NaN are false, so that faces which are not finite fall out here
    keep = (shown > 0) & (shown < np.inf) & (np.abs(z.sum(axis=0)) < np.inf)
    keep &= _centre_row(y.min(axis=0), height) < _centre_row(y.max(axis=0), height)
    kept = np.flatnonzero(keep)
    (x, y, _), area = corner[:, :, kept], area[kept]

    down = y.argsort(axis=0, kind="stable")
    top, middle, bottom = np.take_along_axis(corner[:, :, kept], down[None], axis=1).swapaxes(0, 1)
    ends = [_centre_row(each[1], height).astype(np.int32) for each in (top, middle, bottom)]
    begin, rows = np.concatenate(ends[:2]), np.concatenate([ends[1] - ends[0], ends[2] - ends[1]])
    half = np.repeat(np.arange(len(rows)), rows)  # upper and lower halves of the faces, one list
    row = (begin - (rows.cumsum() - rows)).take(half) + np.arange(len(half))
    face = np.tile(np.arange(len(kept)), 2).take(half)
    py = row.astype(np.float32) + _HALF
    xa, za = _crossing(_edge(top, bottom), face, py)
    xb, zb = _crossing(np.concatenate([_edge(top, middle), _edge(middle, bottom)], axis=1), half, py)
    # pixel centres in [left, right)
    first = np.ceil(np.minimum(xa, xb) - _HALF).clip(0, width)
    length = (np.ceil(np.maximum(xa, xb) - _HALF).clip(0, width) - first).astype(np.int32)

    some = np.flatnonzero(length)
    order = row[some] // high * (width + 1) + (width - length[some])
    some = some[order.astype(np.min_scalar_type((height // high + 1) * (width + 1))).argsort(kind="stable")]
    row, face, first, length, py, xa, za, xb, zb = (
        each.take(some) for each in (row, face, first, length, py, xa, za, xb, zb)
    )
    px, slope = first + _HALF, (zb - za) / (xb - xa)
    # attributes are linear on the face: from its first corner by their slopes along x and y
    base, *others = (attributes.T.take(faces[kept, k], axis=1) for k in range(3))
    to_second, to_third = (other - base for other in others)
    along_x = (to_second * (y[2] - y[0]) - to_third * (y[1] - y[0])) / area
    along_y = (to_third * (x[1] - x[0]) - to_second * (x[2] - x[0])) / area
    right, lower = px - x[0].take(face), py - y[0].take(face)
    start, step = (np.empty((len(base) + 1, len(face)), np.float32) for _ in range(2))
    for c in range(len(base)):
        step[c] = along_x[c].take(face)
        start[c] = base[c].take(face) + step[c] * right + along_y[c].take(face) * lower
    start[-1], step[-1] = za + slope * (px - xa), slope
    return _Rows(row.astype(np.int32), first.astype(np.int32), length, start, step)


def _pixels(rows: _Rows, top: int, width: int) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, "D n"]]:
    """Places of a band's pixels in it and their values: the rows' first pixels, their second ones and so on."""
    first = (rows.row - top) * width + rows.first
    longer = len(rows.length) - np.bincount(rows.length).cumsum()[:-1]  # how many rows have a k-th pixel
    place = np.empty(longer.sum(), np.int32)
    values = np.empty((len(rows.start), len(place)), np.float32)
    done = longer[0] if len(longer) else 0
    place[:done], values[:, :done] = first, rows.start
    before = rows.start
    for k, count in enumerate(longer[1:].tolist(), start=1):
        part = slice(done, done + count)
        np.add(first[:count], np.int32(k), out=place[part])
        before = np.add(before[:, :count], rows.step[:, :count], out=values[:, part])
        done += count
    return place, values


def _nearest(place: Int32[np.ndarray, " n"], depth: Float32[np.ndarray, " n"], pixels: int) -> Int32[np.ndarray, " p"]:
    """Number of the nearest hit at each pixel, -1 where there is none."""
    winner = np.full(pixels, -1, np.int32)
    number = np.arange(len(place), dtype=np.int32)
    winner[place] = number
    loser = np.flatnonzero(winner.take(place) != number)
    while len(loser):  # some of those that are nearer take their places, until none is
        loser = loser[depth.take(loser) < depth.take(winner.take(place.take(loser)))]
        winner[place.take(loser)] = loser
    return winner


@lru_cache(maxsize=8)
def _closed(faces: bytes, kind: str) -> bool:
    """Whether each edge is run through once in each direction, so that no ray meets a back before a front."""
    corners = np.frombuffer(faces, kind).reshape(-1, 3).astype(np.int64)
    start, end = corners.ravel(), np.roll(corners, -1, axis=1).ravel()
    count = 1 + int(corners.max(initial=0))
    forth = np.sort(start * count + end)
    return bool((forth[1:] > forth[:-1]).all() and (forth == np.sort(end * count + start)).all())


def _centre_row(y: Float32[np.ndarray, "*n"], height: int) -> Float32[np.ndarray, "*n"]:
    """First row whose centre is at or below y."""
    return np.ceil(y - _HALF).clip(0, height)


def _edge(start: Float32[np.ndarray, "3 n"], end: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, "5 n"]:
    """x, y, z of the upper end, dx/dy and dz/dy."""
    # a level edge meets no row or lies in one only by rounding; its slope is then never used beyond its ends
    down = np.maximum(end[1] - start[1], np.finfo(np.float32).tiny)
    return np.concatenate([start, (end[0:3:2] - start[0:3:2]) / down])


def _crossing(edge: Float32[np.ndarray, "5 n"], which: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and z at which edges cross the heights y."""
    x0, y0, z0, x_slope, z_slope = (each.take(which) for each in edge)
    down = y - y0
    return x0 + down * x_slope, z0 + down * z_slope
