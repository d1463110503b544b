"""Learn the prior of the fast refinement: the covariance of a model's errors on synthetic hands.

    python tools/build_refine_prior.py [--seeds 700] [--hands 300] [--out densehand/hand/assets/refine_prior.npz]

The seeds are none of training's and not the one that `densehand bench refine` measures on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from densehand.bench.refine import HELD_OUT
from densehand.files import write_atomically
from densehand.hand.model import HandModel
from densehand.network.zoo import open_model
from densehand.refine.prior import error_covariance, state_errors
from densehand.synth import Synthesizer
from densehand.synth.config import FREE_SHARE, SynthConfig

OUT = Path(__file__).resolve().parent.parent / "densehand" / "hand" / "assets" / "refine_prior.npz"
BATCH = 20


@torch.no_grad()
def errors_of(model: str, seed: int, hands: int) -> torch.Tensor:
    """State errors (hands, 62) of a model on the first hands of a seed."""
    network = open_model(model)
    hand = HandModel.load("open")
    config = SynthConfig(free_share=FREE_SHARE)
    maker = Synthesizer(hand, size=network.config.input_size, seed=seed, config=config)
    parts = []
    for _ in range(0, hands, BATCH):
        made = maker.sample(BATCH)
        h = network((made.images * 255).round() / 255).parameters[-1]
        parts.append(state_errors(hand, h.double(), made.parameters.double()))
    return torch.cat(parts)[:hands]


def save(errors: torch.Tensor, model: str, path: Path) -> None:
    """Write the asset, whole or not at all."""
    covariance = error_covariance(errors).numpy().astype(np.float32)
    with write_atomically(path) as temporary:
        np.savez_compressed(temporary, covariance=covariance, hands=len(errors), model=model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite")
    parser.add_argument("--seeds", default="700", help="comma-separated")
    parser.add_argument("--hands", type=int, default=300, help="of each seed")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    seeds = [int(word) for word in arguments.seeds.split(",")]
    if HELD_OUT in seeds:
        parser.error(f"{HELD_OUT} is the seed of the measured hands")
    errors = torch.cat([errors_of(arguments.model, seed, arguments.hands) for seed in seeds])
    save(errors, arguments.model, arguments.out)
    print(f"{arguments.out}: {len(errors)} hands, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
