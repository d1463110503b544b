"""`silhouette` for CPU tensors, compiled by numba: the same coverage model and gradients, one picture after another.

Imported only where numba is installed (`densehand[fast]`); the loops are in `silhouette_kernels.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from densehand.render import silhouette_kernels as kernels
from densehand.render.edges import EdgeTable
from densehand.render.union import LIMIT

__all__ = ["coverage"]

_FEW = 4  # pictures that are not worth starting threads for


def _each(function: Callable[[int], Any], count: int) -> list[Any]:
    """The function of every picture's number; batches on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), count)
    if count <= _FEW or threads < 2:
        return [function(i) for i in range(count)]
    # made for each call: threads kept alive would be lost, and waited for, in a forked process
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, range(count)))


class _Coverage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, vertices: Float[Tensor, "B V 3"], table: EdgeTable, size: tuple[int, int], near: float | None
    ) -> Float[Tensor, "B H W"]:
        mask = vertices.new_zeros(len(vertices), *size)
        points, pictures = vertices.detach().contiguous().numpy(), mask.numpy()
        faces, ends, face = (t.to(torch.int64).contiguous().numpy() for t in table[:3])
        sign = table.sign.contiguous().numpy()
        closest = points.dtype.type(-np.inf if near is None else near)
        ctx.outlines = _each(
            lambda i: kernels.draw(points[i], faces, ends, face, sign, closest, LIMIT, pictures[i]), len(points)
        )
        ctx.vertices = vertices.shape
        return mask

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, "B H W"]) -> tuple[Tensor, None, None, None]:
        result = torch.zeros(ctx.vertices, dtype=torch.float64)
        pictures, sums = gradient.contiguous().numpy(), result.numpy()
        _each(lambda i: kernels.pull(pictures[i], *ctx.outlines[i], sums[i]), len(sums))
        return result.to(gradient.dtype), None, None, None


def coverage(
    vertices: Float[Tensor, "B V 3"], table: EdgeTable, size: tuple[int, int], near: float | None
) -> Float[Tensor, "B H W"]:
    """`silhouette` of checked float32 or float64 CPU tensors."""
    mask: Tensor = _Coverage.apply(vertices, table, size, near)
    return mask
