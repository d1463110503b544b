"""How a network's weights are stored: which tensors, and in how many bits.

Large models' convolutions are int8 with one scale per output channel and are dequantised on load. `zoo.py` puts what
is packed here into a file.
"""

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

_SCALE_SUFFIX = "::scale"
_HAND_PREFIX = "hand."  # the hand model's tensors are assets, not weights


def is_stored(name: str) -> bool:
    """Whether a tensor of a state dict goes into the weights file: the hand model's do not, nor do step counters."""
    return not (name.startswith(_HAND_PREFIX) or name.endswith("num_batches_tracked"))


def quantise(weight: Float[Tensor, "o ..."]) -> tuple[Int8[Tensor, "o ..."], Float[Tensor, " o"]]:
    """int8 values and float32 scales, one for each output channel, symmetric: weight ≈ values · scale.

    The error is at most half a scale, that is a 254th of the channel's largest weight.
    """
    flat = weight.detach().float().flatten(1)
    scale = (flat.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    values = (flat / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
    return values.view(weight.shape), scale


def dequantise(values: Int8[Tensor, "o ..."], scale: Float[Tensor, " o"]) -> Float[Tensor, "o ..."]:
    """float32 weights of :func:`quantise`'s result."""
    return values.float() * scale.view(-1, *[1] * (values.ndim - 1))


def pack(model: nn.Module, storage: str) -> dict[str, Tensor]:
    """State dict as stored: convolution weights in int8 or fp16, linear layers' in fp16, all else in float32.

    A row of f_Ref holds a weight near one (identity on j) and thousands near zero: int8 would lose the small ones.
    """
    layers = {f"{name}.weight": m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    packed: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if not is_stored(name):
            continue
        tensor = tensor.detach().cpu().contiguous()
        if storage == "int8" and isinstance(layers.get(name), nn.Conv2d):
            packed[name], packed[name + _SCALE_SUFFIX] = quantise(tensor)
        else:
            packed[name] = tensor.half() if name in layers else tensor
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """float32 state dict from what :func:`pack` stores."""
    state = {}
    for name, tensor in packed.items():
        if name.endswith(_SCALE_SUFFIX):
            continue
        scale = packed.get(name + _SCALE_SUFFIX)
        state[name] = tensor.float() if scale is None else dequantise(tensor, scale)
    return state
