"""Turn the weights of a training run into packaged ones, with a model card that says how they were made.

    python tools/package_weights.py runs/lite-3/weights.safetensors --recipe tools/train_lite.sh \
        --data "photos: …" --hardware "2 CPU cores, 65 minutes"

Writes densehand/weights/NAME.safetensors and .json. What they are worth is measured when all that goes with them is in
the card: tools/measure_card.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from densehand.network.zoo import open_model, save_weights, weights_path
from densehand.revision import commit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--recipe", required=True, help="the command or script that made the weights")
    parser.add_argument("--data", required=True, help="what they were trained on")
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", help="the commit that trained, where it is not the present one")
    parser.add_argument("--note", help="how the run differed from its recipe")
    options = parser.parse_args()

    network = open_model(str(options.weights), fuse=False)
    recipe = {"command": options.recipe, "commit": options.commit or commit(), "seed": options.seed,
              "data": options.data, "hardware": options.hardware}  # fmt: skip
    if options.note:
        recipe["note"] = options.note
    card: dict[str, Any] = {"recipe": recipe, "input_size": network.config.input_size}
    save_weights(network, weights_path(network.config.name), card=card)


if __name__ == "__main__":
    main()
