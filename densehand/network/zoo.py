"""Named models: build one, load one with the weights in the package, save one with its card.

Weights are one safetensors file beside one JSON card (`card.py`). `storage.py` says how weights are packed.
"""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor, nn

from densehand.errors import InputError, WeightsError
from densehand.files import write_bytes
from densehand.hand.model import HandModel
from densehand.network.backbone import ConvBN
from densehand.network.calibration import Calibration
from densehand.network.card import ModelCard, card_beside, read_card, write_card
from densehand.network.config import CONFIGS, DHPEConfig
from densehand.network.engine import EvidenceGraph, check_precision, engine
from densehand.network.estimator import DHPE
from densehand.network.fuse import fuse_batch_norms
from densehand.network.imagenet import load_imagenet_trunk
from densehand.network.quantise import check_ranges
from densehand.network.single import SingleRegressor
from densehand.network.storage import is_stored, pack, unpack

MODELS: dict[str, DHPEConfig] = CONFIGS
WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "weights"
CORRECTORS = ("regressor.corrector.", "side_corrector.")
MAX_WEIGHTS_BYTES = 200 * 2**20  # far above any model of ours: a larger file is not one


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; ``InputError`` if there is none."""
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
            raise InputError(
                f"device {device!r}: this machine or this build of torch has no CUDA; use --device cpu or auto"
            )
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

    ``hand`` defaults to the open hand. Convolutions are laid out channels-last, which is the faster layout on CPU and
    GPU.
    """
    config = name if isinstance(name, DHPEConfig) else get_config(name)
    model = DHPE(config, HandModel.load("open") if hand is None else hand)
    if imagenet:
        model.evidence.trunk.load_state_dict(load_imagenet_trunk(config.backbone).state_dict())
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def hand_fingerprint(hand: nn.Module) -> str:
    """SHA-256 of what h means: template, shape and pose directions, skinning weights, keypoints, mean pose.

    Weights belong to the hand they were trained with: `load_model` refuses a hand whose fingerprint is not the card's.
    """
    digest = hashlib.sha256()
    buffers = dict(hand.named_buffers())
    for name in ("template", "shape_dirs", "pose_dirs", "weights", "joint_regressor", "tip_selector", "mean_pose"):
        if name in buffers:
            digest.update(name.encode())
            # to a millionth, since the last bits of what is derived on loading differ between machines
            millionths = (buffers[name].detach().cpu().double() * 1e6).round().long()
            digest.update(millionths.numpy().tobytes())
    return digest.hexdigest()


def save_weights(
    model: DHPE,
    path: str | os.PathLike[str],
    storage: Literal["fp16", "int8"] | None = None,
    card: dict[str, Any] | None = None,
) -> ModelCard:
    """Write ``path`` (.safetensors) and the card beside it (.json); returns the card.

    ``storage`` defaults to the configuration's. ``card`` may give ``recipe``, ``accuracy``, ``licence``,
    ``calibration`` and ``input_size``; hash, size and hand fingerprint are filled in here. Each file appears whole or
    not at all.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: weights are written as .safetensors; choose such a name")
    storage = storage or model.config.storage
    if any(isinstance(m, ConvBN) and not isinstance(m.bn, nn.BatchNorm2d) for m in model.modules()):
        raise WeightsError(f"{path}: not written, as batch norms are folded in; load the model with fuse=False")
    hand, fingerprint = getattr(model.hand, "name", "open"), hand_fingerprint(model.hand)
    entries = {"storage": storage, "hand": hand, "hand_fingerprint": fingerprint} | (card or {})
    return write_model(path, model.config.name, pack(model, storage), **entries)


def write_model(path: Path, name: str, packed: dict[str, Tensor], **entries: Any) -> ModelCard:
    """Write what is packed and the card beside it; returns the card.

    Raises ``WeightsError`` rather than write values not finite.
    """
    for key, tensor in packed.items():
        if not torch.isfinite(tensor.float()).all():
            raise WeightsError(f"{path}: not written, {key} has values that are not finite or exceed 16-bit floats")
    data = serialise_safetensors(packed, metadata={"model": name})
    card = ModelCard(model=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), **entries)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    write_card(path.with_suffix(".json"), asdict(card))
    return card


def weights_path(model: str) -> Path:
    """Where the weights of a named model lie in the package; a file's own path (`FILE.safetensors`) stays it."""
    return Path(model) if model.endswith(".safetensors") else WEIGHTS_FOLDER / f"{get_config(model).name}.safetensors"


def load_card(name: str) -> ModelCard:
    """The card of a named model's packaged weights."""
    return read_card(weights_path(name).with_suffix(".json"), name)


def available_models() -> list[str]:
    """Names of the models whose weights are in the package."""
    return [name for name in MODELS if weights_path(name).is_file()]


def load_state(path: str | os.PathLike[str], name: str) -> tuple[dict[str, Tensor], ModelCard]:
    """Checked, dequantised state dict of a weights file of model ``name``, and its card.

    Every fault of either file is a ``WeightsError`` that names the file and the remedy.
    """
    path = Path(path)
    card = read_card(path.with_suffix(".json"), name)
    remedy = "reinstall densehand or fetch the file again"
    if not path.is_file():
        raise WeightsError(f"{path}: the weights of model {name!r} are missing; {remedy}")
    size = path.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise WeightsError(f"{path}: {size} bytes are too many for a weights file; {remedy}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != card.sha256:
        fault = (
            f"truncated ({size} of {card.bytes} bytes)" if size < card.bytes else "damaged or changed (wrong SHA-256)"
        )
        raise WeightsError(f"{path}: the weights file is {fault}; {remedy}")
    try:
        return unpack(parse_safetensors(data)), card
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a safetensors file ({error}); {remedy}") from None


def fill(module: nn.Module, state: dict[str, Tensor], source: object, model: str) -> None:
    """Put `state` into a network of that model; ``WeightsError`` names the source of weights that are not its own.

    Weights without one of the correctors leave the network's as it was built, changing nothing.
    """
    wanted = {k: v.shape for k, v in module.state_dict().items() if is_stored(k)}
    absent = tuple(name for name in CORRECTORS if not any(k.startswith(name) for k in state))
    wanted = {k: shape for k, shape in wanted.items() if not k.startswith(absent)}
    odd = sorted(k for k in wanted.keys() | state.keys() if k not in state or state[k].shape != wanted.get(k))
    if odd:
        raise WeightsError(
            f"{source}: weights of another model, or version, than this {model!r} (first of {len(odd)} differences: "
            f"{odd[0]}); give weights of {model!r}, or reinstall densehand"
        )
    module.load_state_dict(state, strict=False)


def open_model(model: str, device: str | torch.device = "cpu", fuse: bool = True, precision: str = "auto") -> DHPE:
    """A named model, or the one that a weights file (`FILE.safetensors`) says it is of; see `load_model`."""
    if not model.endswith(".safetensors"):
        return load_model(model, device, fuse=fuse, precision=precision)
    return load_model(card_beside(model).model, device, path=model, fuse=fuse, precision=precision)


def load_model(
    name: str,
    device: str | torch.device = "cpu",
    path: str | os.PathLike[str] | None = None,
    hand: nn.Module | None = None,
    fuse: bool = True,
    precision: str = "auto",
) -> DHPE:
    """A named model with its weights, in evaluation mode on ``device``.

    ``path`` names another weights file (with its card beside it); the default is the package's. ``fuse`` folds batch
    norms into the convolutions and, on a CPU, runs them by ONNX Runtime where that is installed (faster; such a model
    cannot be trained on). ``precision`` "auto" lets ONNX Runtime use 8-bit integers on x86-64 where the card has the
    activations' ranges, which moves keypoints by half a pixel (docs/network.md); "float32" gives torch's outputs.
    Raises ``InputError`` for an unknown model or precision or a device that is not there, ``WeightsError`` for every
    fault of the file.
    """
    config, precision = get_config(name), check_precision(precision)
    target = resolve_device(device)
    path = Path(path) if path is not None else weights_path(config.name)
    state, card = load_state(path, config.name)
    model = build_model(replace(config, input_size=card.input_size), hand)
    if card.hand_fingerprint and card.hand_fingerprint != hand_fingerprint(model.hand):
        given = getattr(model.hand, "name", "given")
        raise WeightsError(
            f"{path}: trained with another hand model (named {card.hand!r}) than this one (named {given!r}); "
            "use weights trained with it, or the densehand they came with"
        )
    fill(model, state, path, name)
    model.eval()
    model.calibration = Calibration.from_card(card.calibration)
    if not fuse:
        return model.to(target)
    model = fuse_batch_norms(model).to(target)
    if target.type == "cpu":
        ranges = check_ranges(card.activation_ranges) if precision == "auto" else None
        model.engine = engine(config.name, EvidenceGraph(model.evidence), ranges)
        model.single = SingleRegressor(model.regressor, model.hand) if isinstance(model.hand, HandModel) else None
    return model
