"""The detector's weights file and its card: the format of :mod:`densehand.network.zoo`, under the name "detector"."""

from pathlib import Path
from typing import Any

import torch

from densehand.detect.model import DetectorNet
from densehand.network.card import ModelCard
from densehand.network.quantise import Ranges, check_ranges
from densehand.network.storage import pack
from densehand.network.zoo import WEIGHTS_FOLDER, fill, load_state, write_model

NAME = "detector"
PACKAGED = WEIGHTS_FOLDER / f"{NAME}.safetensors"
INPUT_SIZE = 256  # pixels of the photo's longer side in the network's eye


def calibrated(net: DetectorNet, scale: float, bias: float, side_scale: float = 1.0) -> DetectorNet:
    """Make the centre logit ``scale · logit + bias`` and the side logit ``side_scale`` times its own, in place."""
    with torch.no_grad():
        for head, factor, shift in ((net.centre, scale, bias), (net.side, side_scale, 0.0)):
            assert head.bias is not None
            head.weight.mul_(factor)
            head.bias.mul_(factor).add_(shift)
    return net


def save_net(net: DetectorNet, path: str | Path, **card: Any) -> ModelCard:
    """Write ``path`` (.safetensors; convolutions in half precision) and the card beside it (.json).

    ``card`` may give ``recipe``, ``accuracy`` and ``licence``. Raises ``WeightsError`` rather than write values not
    finite.
    """
    # the auxiliary head of training stays behind
    packed = {name: tensor for name, tensor in pack(net, "fp16").items() if not name.startswith("keypoints.")}
    return write_model(Path(path), NAME, packed, storage="fp16", hand="", input_size=INPUT_SIZE, **card)


def load(path: str | Path | None = None) -> tuple[DetectorNet, Ranges]:
    """The network in evaluation mode on the CPU, and the ranges of its activations by its card, which 8-bit integers
    need (empty where the card has none); ``path`` defaults to the package's weights.

    Raises ``WeightsError`` if the file or its card is missing, damaged or of another network.
    """
    path = Path(path or PACKAGED)
    state, card = load_state(path, NAME)
    net = DetectorNet()
    unknown = {f"turn.{name}": value for name, value in net.turn.state_dict().items()}  # of weights without a turn
    fill(net, unknown | state, path, NAME)
    return net.eval(), check_ranges(card.activation_ranges)


def load_net(path: str | Path | None = None) -> DetectorNet:
    """``load``'s network alone."""
    return load(path)[0]
