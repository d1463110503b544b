"""Turn an estimator's scores into probabilities: fit the calibration of its weights, and judge it (docs/confidence.md).

    python tools/calibrate_estimator.py WEIGHTS --photos PHOTOS --backgrounds BACKGROUNDS [--fixtures FOLDER] [--write]

WEIGHTS: a weights file or a packaged model's name. Hands: held-back photos and rendered ones; pictures without: cuts of
BACKGROUNDS, and parts of the photos' frames where nobody marked a hand. All figures are of maps fitted on other
pictures (five folds; a film or photo lies in one). The fixtures are measured only. With --write the map fitted on all
goes into the model card, the figures to results/calibration.csv, the diagram to docs/images/reliability.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from densehand.charts import draw
from densehand.evaluate import append_rows, measure, score_figures, summary
from densehand.evaluation.calibrating import fit_all, judge, panels
from densehand.evaluation.scores import Looks, background_looks, frame_looks, photo_looks, synthetic_looks
from densehand.files import write_bytes
from densehand.network.calibration import Calibration
from densehand.network.card import amend_card
from densehand.network.zoo import load_state, open_model, weights_path
from densehand.pipeline import HandEstimator
from densehand.revision import commit

ROOT = Path(__file__).resolve().parent.parent


def gather(makers: dict[str, Callable[[], Looks]]) -> dict[str, Looks]:
    """The looks of each set, with what they took."""
    found = {}
    for name, make in makers.items():
        begun = time.monotonic()
        found[name] = make()
        print(f"{name}: {len(found[name])} pictures, {time.monotonic() - begun:.0f} s", flush=True)
    return found


def fixture_rows(weights: Path, calibration: Calibration, folder: Path) -> list[dict[str, Any]]:
    """Keypoints' scores on the measuring fixtures, raw and calibrated; sides, which no scale changes."""
    estimator = HandEstimator(str(weights), device="cpu", refine="off")
    estimator.network.calibration = Calibration()
    rows: list[dict[str, Any]] = []
    for name in ("val2d", "val3d"):
        hands = [h for h in measure(estimator, folder, f"{name}.jsonl") if h.keypoints_score is not None]
        fitted = [replace(h, keypoints_score=calibration.keypoints(np.asarray(h.keypoints_score))) for h in hands]
        eces = {"ece_raw": score_figures(hands)["score_ece"], "ece": score_figures(fitted)["score_ece"]}
        known = sum(int(np.isfinite(hand.errors["px"]).sum()) for hand in hands)
        rows.append({"score": "keypoint", "data": name, "count": known, **eces})
        rows.append({"score": "side", "data": name, "count": len(hands), "right": summary(hands)["side_right"]})
    return rows


def short(value: Any) -> Any:
    return round(float(value), 4) if isinstance(value, float) else value


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a weights file, or the name of a packaged model")
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.jsonl, crops/, frames.jsonl")
    parser.add_argument("--backgrounds", type=Path, required=True, help="folder of hand-free pictures")
    parser.add_argument("--fixtures", type=Path, help="folder of the measuring fixtures")
    parser.add_argument("--hands", type=int, default=300, help="most held-back photos")
    parser.add_argument("--rendered", type=int, default=160, help="number of rendered hands")
    parser.add_argument("--empty", type=int, default=240, help="most pictures of each hand-free set")
    parser.add_argument("--write", action="store_true", help="write the card, the rows and the picture")
    parser.add_argument("--csv", type=Path, default=ROOT / "results" / "calibration.csv")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "reliability.png")
    options = parser.parse_args(arguments)

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    path = weights_path(options.weights)
    network = open_model(str(path))
    _, card = load_state(path, network.config.name)
    hands = gather({
        "photos": lambda: photo_looks(network, options.photos, options.hands),
        "rendered": lambda: synthetic_looks(network, options.rendered),
    })  # fmt: skip
    empty = gather({
        "backgrounds": lambda: background_looks(network, options.backgrounds, options.empty),
        "frames": lambda: frame_looks(network, options.photos, options.empty),
    })  # fmt: skip
    calibration = replace(fit_all(hands, empty), readily=network.calibration.readily)
    rows = judge(hands, empty)
    if options.fixtures:
        rows += fixture_rows(path, calibration, options.fixtures)
    made = {"model": card.model, "weights": card.sha256[:12], "commit": commit()}
    rows = [{**made, **{name: short(value) for name, value in row.items()}} for row in rows]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items() if name not in made and value != ""))
    for name, looks in empty.items():
        scores = calibration.keypoints(looks.confidence)
        print(f"{name}: mean keypoint score {looks.confidence.mean():.3f} raw, {scores.mean():.3f} calibrated")
    print(json.dumps(calibration.to_card()))
    if options.write:
        made = {"command": "tools/calibrate_estimator.py", "commit": commit()}
        amend_card(path, calibration={**calibration.to_card(), **made})
        append_rows(options.csv, rows)
        write_bytes(options.picture, draw(panels(hands, empty)))
        print(f"written: {path.with_suffix('.json')}, {options.csv}, {options.picture}")


if __name__ == "__main__":
    main()
