"""Turn the weights of a training run into packaged ones: measured, with a model card that says how they were made.

    python tools/package_weights.py runs/lite-3/weights.safetensors --fixtures FIXTURES --recipe tools/train_lite.sh \
        --data "photos: …" --hardware "2 CPU cores, 65 minutes"

Adds the figures to results/estimator.csv and writes densehand/weights/NAME.safetensors and .json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from densehand.evaluate import append_rows, by_source, measure
from densehand.network.zoo import WEIGHTS_FOLDER, amend_card, open_model, save_weights
from densehand.pipeline import HandEstimator
from densehand.revision import commit

ROOT = Path(__file__).resolve().parent.parent


def measured(weights: Path, fixtures: Path, refine: int) -> dict[str, dict[str, Any]]:
    """Figures of both fixture files, of all hands and of each source."""
    estimator = HandEstimator(str(weights), device="cpu", refine=refine)
    return {name: by_source(measure(estimator, fixtures, f"{name}.jsonl")) for name in ("val2d", "val3d")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--fixtures", type=Path, required=True)
    parser.add_argument("--recipe", required=True, help="the command or script that made the weights")
    parser.add_argument("--data", required=True, help="what they were trained on")
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", help="the commit that trained, where it is not the present one")
    parser.add_argument("--note", help="how the run differed from its recipe")
    options = parser.parse_args()

    network = open_model(str(options.weights), fuse=False)
    name, measured_at = network.config.name, commit()
    recipe = {"command": options.recipe, "commit": options.commit or measured_at, "seed": options.seed,
              "data": options.data, "hardware": options.hardware}  # fmt: skip
    if options.note:
        recipe["note"] = options.note
    target = WEIGHTS_FOLDER / f"{name}.safetensors"
    card: dict[str, Any] = {"recipe": recipe, "input_size": network.config.input_size}
    save_weights(network, target, card=card)  # the figures below are those of the file as stored
    figures = measured(target, options.fixtures, refine=0)
    amend_card(target, accuracy={f: {k: round(v, 3) for k, v in g["all"].items()} for f, g in figures.items()})
    rows = [
        {"model": name, "commit": measured_at, "refine": 0, "fixture": fixture, "source": source,
         **{k: round(v, 4) for k, v in values.items()}}
        for fixture, groups in figures.items() for source, values in groups.items()
    ]  # fmt: skip
    append_rows(ROOT / "results" / "estimator.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
