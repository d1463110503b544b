"""Depthwise convolutions whose gradients are fast on CPUs, too.

oneDNN has no fast kernels for some of them: the weights' gradient of a 5×5 kernel takes ten times as long as that of a
3×3 one, and in bfloat16 the pictures' gradient of a strided one a hundred times as long as the convolution. The same
sums are had from what is fast: a 5×5 kernel's gradient is that of four 3×3 ones, which together cover it; a picture's
gradient is a convolution with the kernel turned round, or is taken in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALL = 16  # pixels a side of the maps on which a 5×5 kernel's gradient is slow in float32, too


def depthwise(conv: nn.Conv2d, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """``conv(x)``, a depthwise convolution without a bias that `is_slow`, with fast gradients."""
    weight = conv.weight
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        x, weight = x.to(kind), weight.to(kind)
    found: Tensor = _Depthwise.apply(x, weight, conv.stride[0], conv.padding[0])
    return found


def is_slow(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether this is a convolution for `depthwise` whose gradients are wanted on a CPU and are faster by it."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or not conv.weight.requires_grad:
        return False
    if conv.bias is not None or not conv.groups == conv.in_channels == conv.out_channels:
        return False
    if torch.is_autocast_enabled("cpu"):
        return conv.kernel_size in ((3, 3), (5, 5))
    return conv.kernel_size == (5, 5) and conv.stride == (1, 1) and max(x.shape[-2:]) <= SMALL


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        y = gradients[0].contiguous(memory_format=torch.channels_last)
        of_x = _of_pictures(x, weight, y, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        of_weight = _of_weight(x, weight.shape[-1], y, ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None, None


def _gradients(x: Tensor, weight: Tensor, y: Tensor, stride: int, padding: int, wanted: list[bool]) -> Any:
    """torch's own: of pictures and weight."""
    pair = [stride] * 2, [padding] * 2, [1, 1]
    return torch.ops.aten.convolution_backward(y, x, weight, None, *pair, False, [0, 0], len(weight), [*wanted, False])


def _of_pictures(x: Tensor, weight: Tensor, y: Tensor, stride: int, padding: int) -> Tensor:
    if stride == 1:
        return F.conv2d(y, weight.flip(2, 3), None, 1, weight.shape[-1] - 1 - padding, 1, len(weight))
    wide = torch.promote_types(x.dtype, torch.float32)
    found: Tensor = _gradients(x.to(wide), weight.to(wide), y.to(wide), stride, padding, [True, False])[0]
    return found.to(x.dtype)


def _of_weight(x: Tensor, kernel: int, y: Tensor, stride: int, padding: int) -> Tensor:
    def of(part: Tensor, pad: int) -> Tensor:
        found: Tensor = _gradients(part, y.new_empty(y.shape[1], 1, 3, 3), y, stride, pad, [False, True])[1]
        return found

    if kernel == 3:
        return of(x, padding)
    padded = F.pad(x, [padding] * 4)
    height, width = (stride * (side - 1) + 3 for side in y.shape[-2:])
    whole = y.new_empty(y.shape[1], 1, 5, 5)
    for top in (0, 2):
        for left in (0, 2):
            part = padded[:, :, top : top + height, left : left + width]
            whole[:, :, top : top + 3, left : left + 3] = of(part.contiguous(memory_format=torch.channels_last), 0)
    return whole
