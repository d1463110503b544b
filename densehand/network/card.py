"""Model cards: a weights file's SHA-256, how it was trained, licence and measured accuracy, as JSON beside it."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densehand.errors import WeightsError
from densehand.files import write_bytes
from densehand.network.calibration import Calibration
from densehand.network.quantise import check_ranges


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
    calibration: dict[str, Any] = field(default_factory=dict)  # of these weights' scores; empty: as they are
    weak_groups: dict[str, Any] = field(default_factory=dict)  # hands whose figures are far above all hands', by set
    activation_ranges: dict[str, Any] = field(default_factory=dict)  # of the graph's tensors; empty: runs in float32


def write_card(path: Path, record: dict[str, Any]) -> None:
    """Write a card whole or not at all."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    # lists of numbers, of which there are many, on one line each; within a text no line ends
    text = re.sub(
        r"\[\n[\s\d.,+\-eE]+\]", lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text
    )
    write_bytes(path, (text + "\n").encode())


def read_card(path: Path, name: str | None = None) -> ModelCard:
    """Of the model `name`, where that is given."""
    if not path.is_file():
        raise WeightsError(
            f"{path}: the card of model {name!r} is missing; choose a packaged model (densehand models), reinstall "
            "densehand, or train the model (densehand train --help)"
        )
    try:
        if path.stat().st_size > 2**20:
            raise ValueError("too long")
        card = ModelCard(**json.loads(path.read_bytes()))
        Calibration.from_card(card.calibration)  # a fault is told now, not when a photo is looked at
        check_ranges(card.activation_ranges)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: not a model card ({error}); reinstall densehand or write it anew") from None
    if name is not None and card.model != name:
        raise WeightsError(
            f"{path}: the card is of model {card.model!r}, not {name!r}; give that model's name or its own file"
        )
    return card


def card_beside(weights: str | os.PathLike[str]) -> ModelCard:
    """The card of a weights file; every fault of it is a ``WeightsError``."""
    path = Path(weights).with_suffix(".json")
    if not path.is_file():
        raise WeightsError(f"{weights}: no model card beside it ({path.name}); keep the two files together")
    return read_card(path)


def amend_card(weights: Path, **entries: Any) -> None:
    """Put entries (`accuracy`, `calibration`, `weak_groups`, `activation_ranges`) into the card beside a weights file,
    the rest as it is."""
    card = weights.with_suffix(".json")
    record = json.loads(card.read_bytes()) | entries
    ModelCard(**record)  # no other entries
    write_card(card, record)
