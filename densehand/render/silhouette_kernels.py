"""The compiled loops of `silhouette_numba.py`: one picture's coverage, and its gradient.

The steps are those of `silhouette.py` and `union.py`: edges where the number of faces k changes are cut at the lines
between pixels, ∫k is summed along the rows, and pixels in which outlines meet are united exactly. Loops instead of flat
lists let each row's sums stay in the processor's first cache and spare some 300 small tensor operations. Which faces
turn which way is decided in the vertices' own precision, so that both paths see the same outline; all that follows is
computed in float64.

All of it is in this one file: numba looks at a function's own file alone to see whether kept code is out of date.
"""

from __future__ import annotations

import numpy as np

from densehand.render.compiled import compiled

__all__ = ["draw", "pull"]

_TIE = 64 * float(np.finfo(np.float64).eps)
# one row a piece: from (x0, y0) down to (x1, y1) in its pixel, t along the whole edge, step of k from left to right,
# change of k down the pixel's left side and where
_X0, _Y0, _X1, _Y1, _T0, _T1, _JUMP, _LEFT, _LEFT_Y = range(9)


@compiled
def _outline(vertices, faces, ends, face, sign, near):
    """Vertex numbers (n 2), (x, y) of upper and lower end (n 4) and jump of k (n) of edges at which k changes."""
    turn = np.zeros(len(faces) + 1)  # the last for the places that pad the table
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        x, y = vertices[i, 0], vertices[i, 1]
        area = (vertices[k, 0] - x) * (vertices[j, 1] - y)
        area = area - (vertices[j, 0] - x) * (vertices[k, 1] - y)
        seen = abs(area) < np.inf
        for corner in (i, j, k):
            z = vertices[corner, 2]
            seen = seen and near < z and z < np.inf
        if seen:
            turn[f] = np.sign(area)
    jumps = np.zeros(len(ends))
    count = 0
    for e in range(len(ends)):
        for d in range(face.shape[1]):
            jumps[e] += turn[face[e, d]] * sign[e, d]
        count += jumps[e] != 0
    number, place, jump = np.empty((count, 2), np.int64), np.empty((count, 4)), np.empty(count)
    n = 0
    for e in range(len(ends)):
        if jumps[e] != 0:
            a, b = ends[e, 0], ends[e, 1]
            jump[n] = jumps[e]
            if vertices[a, 1] > vertices[b, 1]:
                a, b, jump[n] = b, a, -jumps[e]
            number[n, 0], number[n, 1] = a, b
            place[n, 0], place[n, 1] = vertices[a, 0], vertices[a, 1]
            place[n, 2], place[n, 3] = vertices[b, 0], vertices[b, 1]
            n += 1
    return number, place, jump


@compiled
def _within(value, limit):
    """The whole pixel of a coordinate; -1 stands for all before the picture (and nan), `limit` for all behind it."""
    if value >= limit:
        return limit
    return int(np.floor(value)) if value >= -1 else -1


@compiled
def _share(value):
    return min(max(value, 0.0), 1.0)


@compiled
def _cut(place, jump, height, width):
    """Pieces of the edges within pixels: numbers (p 4) edge, row, column, ends on the border; geometry (p 9)."""
    room = 0
    for e in range(len(place)):
        # rounded positions run from xa to xa + dx one way, and from there to xb, which may be another pixel
        first, far, last = place[e, 0], place[e, 0] + (place[e, 2] - place[e, 0]), place[e, 2]
        room += abs(_within(far, width) - _within(first, width)) + abs(_within(last, width) - _within(far, width))
        room += _within(place[e, 3], height) - _within(place[e, 1], height) + 1
    number, geometry = np.empty((room, 4), np.int32), np.empty((room, 9))
    p = 0
    for e in range(len(place)):
        xa, ya, xb, yb = place[e, 0], place[e, 1], place[e, 2], place[e, 3]
        dx, dy = xb - xa, yb - ya
        safe = dy if dy > 0 else 1.0
        start, stop = _within(ya, height), _within(yb, height)
        for row in range(max(start, 0), min(stop, height - 1) + 1):
            enters, leaves = row > start, row < stop  # through the row's upper, lower line
            ta = _share((row - ya) / safe) if enters else 0.0
            tb = _share((row + 1 - ya) / safe) if leaves else 1.0
            xs, ys = xa + ta * dx, 0.0 if enters else ya - row
            xe, ye = xa + tb * dx if leaves else xb, 1.0 if leaves else yb - row
            first, last = _within(xs, width), _within(xe, width)
            way = 1 if last >= first else -1
            span = 1.0 if xe == xs else xe - xs
            for column in range(first, last + way, way):
                if column == width:
                    continue
                inner, outer = column != first, column != last  # enters from, leaves to another column
                before, after = (column, column + 1) if way > 0 else (column + 1, column)
                u0 = _share((before - xs) / span) if inner else 0.0
                u1 = _share((after - xs) / span) if outer else 1.0
                g = geometry[p]
                g[_X0] = before - column if inner else _share(xs - column)
                g[_X1] = after - column if outer else _share(xe - column)
                g[_Y0], g[_Y1] = ys + u0 * (ye - ys), ye if u1 == 1 else ys + u1 * (ye - ys)
                g[_T0], g[_T1] = ta + u0 * (tb - ta), tb if u1 == 1 else ta + u1 * (tb - ta)
                g[_JUMP], g[_LEFT], g[_LEFT_Y] = jump[e], 0.0, g[_Y0] if way > 0 else g[_Y1]
                if way < 0 and outer:
                    g[_LEFT] = jump[e]
                elif way > 0 and inner:
                    g[_LEFT] = -jump[e]
                number[p, 0], number[p, 1], number[p, 2] = e, row, column
                number[p, 3] = int(inner or enters) + int(outer or leaves)
                p += 1
    return number[:p], geometry[:p]


@compiled
def _insert(ascending, count, value):
    """Put a value into its place among the first `count`."""
    while count > 0 and ascending[count - 1] > value:
        ascending[count] = ascending[count - 1]
        count -= 1
    ascending[count] = value


@compiled
def _union(own, m, geometry, corner, head, tail, cuts):
    """Coverage of a pixel by the m pieces `own`, k = corner at its upper left; fills the pieces' head and tail."""
    value = 0.0
    for i in range(m):
        g = geometry[own[i]]
        dx, dy = g[_X1] - g[_X0], g[_Y1] - g[_Y0]
        count = 0
        for j in range(m):
            h = geometry[own[j]]
            ex, ey = h[_X1] - h[_X0], h[_Y1] - h[_Y0]
            cut = ((h[_X0] - g[_X0]) * ey - (h[_Y0] - g[_Y0]) * ex) / (dx * ey - dy * ex)
            if cut > 0 and cut < 1:
                _insert(cuts, count, cut)
                count += 1
        cuts[count] = 1.0
        low, total, late = 0.0, 0.0, 0.0
        for n in range(count + 1):
            high, middle = cuts[n], 0.5 * (low + cuts[n])
            qx, qy = g[_X0] + dx * middle, g[_Y0] + dy * middle
            k = corner
            for j in range(m):
                h = geometry[own[j]]
                k += h[_LEFT] * (h[_LEFT_Y] <= qy)  # from the very line that its piece counts
                if j != i and h[_Y0] <= qy and qy < h[_Y1]:
                    ex, ey = h[_X1] - h[_X0], h[_Y1] - h[_Y0]
                    beyond = (qx - h[_X0]) * ey - ex * (qy - h[_Y0])
                    # pieces in one line: the later one counts as the one to the right. `beyond` is distance × length
                    tie = _TIE * (abs(ex) + abs(ey))
                    if beyond > tie or (beyond >= -tie and j < i):
                        k += h[_JUMP]
            share = (int(k + g[_JUMP] > 0.5) - int(k > 0.5)) * (high - low)
            value += share * (1 - qx) * dy
            total += share
            late += share * (g[_T0] + middle * (g[_T1] - g[_T0]))
            low = high
        tail[own[i]] = late * (g[_T1] - g[_T0])
        head[own[i]] = total * (g[_T1] - g[_T0]) - tail[own[i]]
    # [k > 0] along the left side
    count = 0
    for j in range(m):
        if geometry[own[j], _LEFT] != 0:
            _insert(cuts, count, geometry[own[j], _LEFT_Y])
            count += 1
    cuts[count] = 1.0
    low = 0.0
    for n in range(count + 1):
        k = corner
        for j in range(m):
            k += geometry[own[j], _LEFT] * (geometry[own[j], _LEFT_Y] < 0.5 * (low + cuts[n]))
        value += (k > 0.5) * (cuts[n] - low)
        low = cuts[n]
    return _share(value)


@compiled
def _pixel(first, following, number, geometry, k, head, tail, own, cuts):
    """Coverage of the pixel whose pieces are a chain from `first`, k its mean number of faces."""
    inside, ends, jumps, squares, m = 0.0, 0, 0.0, 0.0, 0
    step, p = 0.0, first
    while p >= 0:
        g = geometry[p]
        inside += g[_JUMP] * (g[_Y1] - g[_Y0]) * (1 - 0.5 * (g[_X0] + g[_X1])) + g[_LEFT] * (1 - g[_LEFT_Y])
        step = abs(g[_JUMP])
        jumps, squares, ends = jumps + step, squares + step * step, ends + number[p, 3]
        if m < len(own):
            own[m] = p
        m, p = m + 1, following[p]
    # relative to k at the pixel's upper left corner, so that no rounding is carried along the row
    corner = np.rint(k - inside)
    if (ends > 2 or m > 2 or m * squares != jumps * jumps) and m <= len(own):
        return _union(own, m, geometry, corner, head, tail, cuts)
    value, p = 0.0, first
    while p >= 0:
        g = geometry[p]
        step = abs(g[_JUMP])
        lowest = corner - step if inside < 0 else corner
        value = _share((corner + inside) / step) if lowest == 0 else 1.0 * (lowest > 0)
        visible = np.sign(g[_JUMP]) * (g[_T1] - g[_T0]) if lowest == 0 else 0.0
        tail[p] = visible * 0.5 * (g[_T0] + g[_T1])
        head[p] = visible - tail[p]
        p = following[p]
    return value


@compiled
def _fill(number, geometry, limit, mask):
    """Write a picture (zero before) and return each piece's ∫(1-t) and ∫t over its part on the outer outline."""
    height, width = mask.shape
    pieces = len(number)
    head, tail = np.zeros(pieces), np.zeros(pieces)
    # pieces of a row, then of a pixel, as chains in the pieces' order
    row_first, row_last, row_next = np.full(height, -1), np.empty(height, np.int64), np.full(pieces, -1)
    for p in range(pieces):
        row = number[p, 1]
        if row_first[row] < 0:
            row_first[row] = p
        else:
            row_next[row_last[row]] = p
        row_last[row] = p
    first, last, following = np.full(width, -1), np.empty(width, np.int64), np.full(pieces, -1)
    sums, own, cuts = np.zeros(width + 1), np.empty(limit, np.int64), np.empty(limit + 1)
    for row in range(height):
        low, high, p = width, 0, row_first[row]
        while p >= 0:
            column, g = number[p, 2], geometry[p]
            cover = g[_JUMP] * (g[_Y1] - g[_Y0])
            if column < 0:
                sums[0] += cover
                low = 0
            else:
                mean = 0.5 * (g[_X0] + g[_X1])
                sums[column] += cover * (1 - mean)
                sums[column + 1] += cover * mean
                if first[column] < 0:
                    first[column] = p
                else:
                    following[last[column]] = p
                last[column] = p
                low, high = min(low, column), max(high, column + 1)
            p = row_next[p]
        k = 0.0
        for column in range(low, min(high + 1, width)):
            k += sums[column]
            sums[column] = 0.0
            if first[column] < 0:
                mask[row, column] = _share(np.rint(k))
            else:
                mask[row, column] = _pixel(first[column], following, number, geometry, k, head, tail, own, cuts)
                first[column] = -1
        sums[width] = 0.0
        if np.rint(k) > 0:
            mask[row, high + 1 :] = 1.0
    return head, tail


@compiled
def draw(vertices, faces, ends, face, sign, near, limit, mask):
    """Write a picture's coverage into `mask` (H W, zero before); what `pull` needs is returned.

    Args:
        vertices: (V 3) x, y in pixels, z depth.
        faces, ends, face, sign: the fields of `EdgeTable`.
        near: faces with a corner at or in front of this depth are left out.
        limit: number of pieces in a pixel up to which they are united exactly.
    """
    number, place, jump = _outline(vertices, faces, ends, face, sign, near)
    pieces, geometry = _cut(place, jump, mask.shape[0], mask.shape[1])
    head, tail = _fill(pieces, geometry, limit, mask)
    return number, place, pieces, head, tail


@compiled
def pull(gradient, number, place, pieces, head, tail, result):
    """Add to the vertices' gradient: an edge that moves by (u, v) takes (u·dy - v·dx) from the area on its right."""
    for p in range(len(pieces)):
        e, row, column = pieces[p, 0], pieces[p, 1], pieces[p, 2]
        if column < 0:
            continue
        dx, dy = place[e, 2] - place[e, 0], place[e, 3] - place[e, 1]
        pull_a, pull_b = gradient[row, column] * head[p], gradient[row, column] * tail[p]
        result[number[e, 0], 0] -= pull_a * dy
        result[number[e, 0], 1] += pull_a * dx
        result[number[e, 1], 0] -= pull_b * dy
        result[number[e, 1], 1] += pull_b * dx
