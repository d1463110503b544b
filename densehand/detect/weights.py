"""The detector's weights file and its card: the format of :mod:`densehand.network.zoo`, under the name "detector"."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise_safetensors
from torch import nn

from densehand.detect.model import DetectorNet
from densehand.errors import WeightsError
from densehand.files import write_bytes
from densehand.network.zoo import WEIGHTS_FOLDER, ModelCard, fill, load_state

NAME = "detector"
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
    path = Path(path)
    halves = {f"{name}.weight" for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    state = {
        name: (tensor.half() if name in halves else tensor).detach().cpu().contiguous()
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked") and not name.startswith("keypoints.")  # the auxiliary head stays
    }
    for name, tensor in state.items():
        if not torch.isfinite(tensor.float()).all():
            raise WeightsError(f"{path}: not written, {name} has values that are not finite; train again")
    data = serialise_safetensors(state, metadata={"model": NAME})
    filled = ModelCard(
        model=NAME,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        storage="fp16",
        hand="",
        input_size=INPUT_SIZE,
        **card,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    text = json.dumps(asdict(filled), indent=2, ensure_ascii=False) + "\n"
    write_bytes(path.with_suffix(".json"), text.encode())
    return filled


def load_net(path: str | Path | None = None) -> DetectorNet:
    """The network in evaluation mode on the CPU; ``path`` defaults to the package's weights.

    Raises ``WeightsError`` if the file or its card is missing, damaged or of another network.
    """
    path = WEIGHTS_FOLDER / f"{NAME}.safetensors" if path is None else Path(path)
    state, _ = load_state(path, NAME)
    net = DetectorNet()
    fill(net, state, path, NAME)
    return net.eval()
