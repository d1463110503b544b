"""The detector's weights file (safetensors, half precision) and the card beside it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor

from densehand.detect.model import DetectorNet
from densehand.errors import WeightsError

PACKAGED = Path(__file__).resolve().parent.parent / "weights" / "detector.safetensors"
REMEDY = "reinstall densehand, or train it: python -m densehand.detect.train --help"
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class DetectorCard:
    """What must be known of a detector's weights; stored as NAME.json beside NAME.safetensors."""

    model: str = "detector"
    sha256: str = ""
    bytes: int = 0
    storage: str = "fp16"
    licence: str = "Apache-2.0"
    input_size: int = 256  # pixels of the photo's longer side in the network's eye
    score_scale: float = 1.0  # calibration: score = sigmoid(scale · logit + bias), fitted on held-back pictures
    score_bias: float = 0.0
    recipe: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)

    def calibrate(self, centre_logit: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Raw logits of the centre map → logits of the probability that a hand is there."""
        return centre_logit * self.score_scale + self.score_bias


def save_net(net: DetectorNet, path: str | Path, card: DetectorCard) -> DetectorCard:
    """Write weights (floating point as fp16) and card; returns the card with hash and size filled in."""
    path = Path(path)
    state = {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items() if "num_batches" not in k}
    data = serialise_safetensors({k: v.detach().cpu().contiguous() for k, v in state.items()})
    values = asdict(card) | {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "storage": "fp16"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return DetectorCard(**values)


def load_net(path: str | Path | None = None) -> tuple[DetectorNet, DetectorCard]:
    """Network (float32, evaluation mode, CPU) and card; ``WeightsError`` if the file is missing or damaged."""
    path = PACKAGED if path is None else Path(path)
    card_path = path.with_suffix(".json")
    if not path.is_file() or not card_path.is_file():
        missing = card_path if path.is_file() else path
        raise WeightsError(f"{missing}: the detector's weights are not there; {REMEDY}")
    if path.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{path}: far too large for detector weights; {REMEDY}")
    try:
        values = json.loads(card_path.read_text(encoding="utf-8"))
        card = DetectorCard(**{f.name: values[f.name] for f in fields(DetectorCard)})
    except (ValueError, KeyError, TypeError):
        raise WeightsError(f"{card_path}: not a detector's card; {REMEDY}") from None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise WeightsError(f"{path}: not the file of {card_path.name} (its SHA-256 differs); {REMEDY}")
    net = DetectorNet()
    try:
        state = parse_safetensors(data)
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error}); {REMEDY}") from None
    wanted = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    if set(state) != set(wanted) or any(state[k].shape != v.shape for k, v in wanted.items()):
        raise WeightsError(f"{path}: weights of another network, not of this detector; {REMEDY}")
    net.load_state_dict({k: v.to(torch.float32) for k, v in state.items()}, strict=False)
    return net.eval(), card
