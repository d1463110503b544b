"""The mean of several weights files of one model: a start for further training that stands on all of them.

python tools/average_weights.py runs/a/weights.safetensors runs/b/weights.safetensors --out runs/mean.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from densehand.errors import InputError
from densehand.network.card import card_beside
from densehand.network.zoo import build_model, load_state, save_weights


def mean_of(states: list[dict[str, torch.Tensor]], shares: list[float]) -> dict[str, torch.Tensor]:
    """The mean of each floating-point entry, weighted by shares; the first file's others.

    Raises InputError where the files differ, or there is not one positive share for each.
    """
    if len(shares) != len(states) or min(shares) <= 0:
        raise InputError(f"{len(shares)} shares for {len(states)} files; give a positive number for each")
    part = torch.tensor(shares) / sum(shares)
    first = states[0]
    for state in states[1:]:
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in first.items()}:
            raise InputError("the files are of different networks; average weights of one model")
    return {
        name: torch.tensordot(part, torch.stack([state[name].float() for state in states]), 1)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--shares", type=float, nargs="+", help="how much each counts; by default all alike")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    name = card_beside(options.weights[0]).model
    size = card_beside(options.weights[-1]).input_size
    shares = options.shares or [1.0] * len(options.weights)
    states = [load_state(path, name)[0] for path in options.weights]
    network = build_model(name)
    network.load_state_dict(mean_of(states, shares), strict=False)
    command = " ".join(["python tools/average_weights.py", *map(str, options.weights), "--shares", *map(str, shares)])
    save_weights(network, options.out, card={"recipe": {"command": command}, "input_size": size})


if __name__ == "__main__":
    main()
