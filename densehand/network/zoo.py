"""Named models: build one, load one with the weights in the package, save one with its card.

A function's or entry's name is the model's name. Weights are one safetensors file beside one JSON card; the card holds the
file's SHA-256, how it was trained, its licence and its measured accuracy. Large models are stored as int8 with one scale per
output channel and are dequantised on load.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor, nn

from densehand.errors import DensehandError, InputError, WeightsError
from densehand.network.config import CONFIGS, DHPEConfig
from densehand.network.estimator import DHPE
from densehand.network.imagenet import load_imagenet_trunk

MODELS: dict[str, DHPEConfig] = CONFIGS
WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "weights"
MAX_WEIGHTS_BYTES = 200 * 2**20  # far above any model of ours: a larger file is not one
_SCALE_SUFFIX = "::scale"
_HAND_PREFIX = "hand."  # the hand model's tensors are assets, not weights


@dataclass(frozen=True)
class ModelCard:
    """What must be known of a weights file; stored as NAME.json beside NAME.safetensors."""

    model: str
    sha256: str
    bytes: int
    storage: str
    licence: str = "Apache-2.0"
    hand: str = "open"
    hand_fingerprint: str = ""
    input_size: int = 224
    recipe: dict[str, Any] = field(default_factory=dict)  # command, commit, data, seed, steps, hardware
    accuracy: dict[str, Any] = field(default_factory=dict)  # measured, by data set


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; ``InputError`` where it cannot be had."""
    if isinstance(device, torch.device):
        device = str(device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown device {device!r}; use auto, cpu or cuda") from None
    if resolved.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError(f"device {device!r}: this machine or this build of torch has no CUDA; use --device cpu or auto")
        if (resolved.index or 0) >= torch.cuda.device_count():
            raise InputError(f"device {device!r}: there are only {torch.cuda.device_count()} CUDA devices")
    elif resolved.type != "cpu":
        raise InputError(f"device {device!r} is not supported; use auto, cpu or cuda")
    return resolved


def get_config(name: str) -> DHPEConfig:
    """The configuration of a named model; ``InputError`` lists the names."""
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]


def build_model(name: str | DHPEConfig, hand: nn.Module | None = None, imagenet: bool = False) -> DHPE:
    """A new, untrained model in training mode; ``imagenet=True`` starts its trunk from ImageNet weights.

    ``hand`` defaults to the open hand. Convolutions are laid out channels-last, which is the faster layout on CPU and GPU.
    """
    config = name if isinstance(name, DHPEConfig) else get_config(name)
    model = DHPE(config, _default_hand() if hand is None else hand)
    if imagenet:
        model.evidence.trunk.load_state_dict(load_imagenet_trunk(config.backbone).state_dict())
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _default_hand() -> nn.Module:
    from densehand.hand import HandModel

    return HandModel.load("open")
