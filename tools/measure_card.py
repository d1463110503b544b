"""Measure a packaged model on the fixtures, as its users get it, and write what it is worth into its card.

    python tools/measure_card.py dhpe-lite --fixtures FIXTURES

Without refinement, in labelled boxes. Adds the figures to results/estimator.csv too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from densehand.evaluate import append_rows, by_source, measure
from densehand.network.card import amend_card
from densehand.network.zoo import weights_path
from densehand.pipeline import HandEstimator
from densehand.revision import commit

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a packaged model")
    parser.add_argument("--fixtures", type=Path, required=True, help="folder with val2d.jsonl and val3d.jsonl")
    options = parser.parse_args()
    measured_at = commit()
    estimator = HandEstimator(options.model, device="cpu", refine=0)
    figures = {name: by_source(measure(estimator, options.fixtures, f"{name}.jsonl")) for name in ("val2d", "val3d")}
    accuracy = {name: {k: round(v, 3) for k, v in groups["all"].items()} for name, groups in figures.items()}
    amend_card(weights_path(options.model), accuracy=accuracy)
    rows = [
        {"model": options.model, "commit": measured_at, "refine": 0, "fixture": fixture, "source": source,
         **{k: round(v, 4) for k, v in values.items()}}
        for fixture, groups in figures.items() for source, values in groups.items()
    ]  # fmt: skip
    append_rows(ROOT / "results" / "estimator.csv", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
