"""The soft silhouette of SoftRas: a reference for speed and for what blur costs, used by nothing but the benchmark.

Source: Liu, Li, Chen, Li, "Soft Rasterizer: A Differentiable Renderer for Image-based 3D Reasoning" (2019), their
probability maps and silhouette aggregation. A face covers a pixel with probability p = sigmoid(±d² / σ), d being the
distance from the pixel's centre to the face's border and the sign positive inside; the mask is 1 - Π(1 - p). This takes
a mesh's faces for independent of each other: its outline swells, and where it folds or gaps are narrow more so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from densehand.render.rasterise import check_mesh

__all__ = ["soft_silhouette"]

_PAIRS = 1 << 17  # of a face and a pixel, held at a time
_LEAST = 1e-4  # probabilities that are left out
_Shape = tuple[int, int, int]  # pictures, height, width


def soft_silhouette(
    vertices: Float[Tensor, "B V 3"], faces: Int[Tensor, "F 3"], size: tuple[int, int], sigma: float = 1.0
) -> Float[Tensor, "B H W"]:
    """Blurred mask, differentiable once, in x and y; z is not looked at.

    Args:
        vertices: x, y in pixels, z depth.
        faces: corner indices. Faces without area, or whose x or y are not finite, are left out.
        size: (height, width) in pixels.
        sigma: the paper's σ in square pixels.

    A face is seen by the pixels of its bounding box, grown by the distance at which p has fallen to `_LEAST`.

    Raises:
        InputError: shapes do not fit, or a face names a vertex that is not there.
    """
    check_mesh(vertices, faces, size)
    triangles = vertices[:, faces, :2].flatten(0, 1)
    a, b = (triangles[:, k] - triangles[:, 0] for k in (1, 2))
    area = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs()
    proper = ((area > 0) & (area < torch.inf)).nonzero().squeeze(1)
    shape = (len(vertices), *size)
    outside = _LogOutside.apply(triangles.index_select(0, proper), proper // len(faces), shape, sigma)
    return -torch.expm1(outside).view(shape)


class _LogOutside(torch.autograd.Function):
    """Σ log(1 - p) at each pixel. Backward computes the terms anew, so that a stretch of them is the most ever held."""

    @staticmethod
    def forward(
        ctx: Any, triangles: Float[Tensor, "n 3 2"], picture: Int[Tensor, " n"], shape: _Shape, sigma: float
    ) -> Float[Tensor, " B*H*W"]:
        ctx.save_for_backward(triangles, picture)
        ctx.shape, ctx.sigma = shape, sigma
        sums = triangles.new_zeros(math.prod(shape))
        for some, face, x, y, pixel in _pairs(triangles, picture, shape, sigma):
            sums.index_add_(0, pixel, logsigmoid(_signed_square(triangles[some], face, x, y) / -sigma))
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Float[Tensor, " B*H*W"]) -> tuple[Tensor, None, None, None]:
        triangles, picture = ctx.saved_tensors
        pull = torch.zeros_like(triangles)
        for some, face, x, y, pixel in _pairs(triangles, picture, ctx.shape, ctx.sigma):
            with torch.enable_grad():
                leaf = triangles[some].detach().requires_grad_()
                terms = logsigmoid(_signed_square(leaf, face, x, y) / -ctx.sigma)
            (pull[some],) = torch.autograd.grad(terms, leaf, gradient.index_select(0, pixel))
        return pull, None, None, None


def _pairs(
    triangles: Float[Tensor, "n 3 2"], picture: Int[Tensor, " n"], shape: _Shape, sigma: float
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
    """Stretches of triangles with their pixels: which triangles, then of each pair (m) the triangle's place in the
    stretch, the pixel's centre x, y and its place among all pictures' pixels."""
    margin = math.sqrt(sigma * math.log(1 / _LEAST - 1))
    limit = triangles.new_tensor(shape[:0:-1])
    low = (triangles.amin(dim=1) - margin - 0.5).ceil().clamp(min=0).minimum(limit).to(torch.int64)
    high = (triangles.amax(dim=1) + margin + 0.5).floor().clamp(min=0).minimum(limit).to(torch.int64)
    wide = (high - low)[:, 0]
    count = (high - low).clamp(min=0).prod(dim=1)
    stretch = (count.cumsum(0) - 1) // _PAIRS  # a stretch holds one triangle's pixels more than that at most
    begin = 0
    for length in torch.unique_consecutive(stretch, return_counts=True)[1].tolist():
        some = slice(begin, begin + length)
        begin += length
        amount = count[some]
        face = torch.repeat_interleave(torch.arange(length, device=count.device), amount)
        place = torch.arange(len(face), device=count.device) - (amount.cumsum(0) - amount).index_select(0, face)
        across = wide[some].index_select(0, face)
        column = low[some, 0].index_select(0, face) + place % across
        row = low[some, 1].index_select(0, face) + place // across
        pixel = (picture[some].index_select(0, face) * shape[1] + row) * shape[2] + column
        yield some, face, column.to(triangles.dtype) + 0.5, row.to(triangles.dtype) + 0.5, pixel


def _signed_square(
    triangles: Float[Tensor, "n 3 2"], face: Int[Tensor, " m"], x: Float[Tensor, " m"], y: Float[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """Squared distance from points to the border of their triangle, positive inside and negative outside."""
    corner_x, corner_y = triangles.permute(2, 1, 0).index_select(2, face)  # (3 m) each
    side_x, side_y = corner_x.roll(-1, 0) - corner_x, corner_y.roll(-1, 0) - corner_y
    to_x, to_y = x - corner_x, y - corner_y
    with torch.no_grad():  # at the nearest point the distance does not change along the side
        square = (side_x**2 + side_y**2).clamp(min=torch.finfo(x.dtype).tiny)
        along = ((to_x * side_x + to_y * side_y) / square).clamp(0, 1)
        cross = side_x * to_y - side_y * to_x
        inside = (cross >= 0).all(dim=0) | (cross <= 0).all(dim=0)
    distance = ((to_x - along * side_x) ** 2 + (to_y - along * side_y) ** 2).amin(dim=0)
    return torch.where(inside, distance, -distance)
