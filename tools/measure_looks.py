"""What more looks at a hand are worth: one crop, the mean of five (`--consensus`), and the mirrored crop with them.

    python tools/measure_looks.py --photos PHOTOS --results results/looks.csv

2D errors (pixels of a 224-px crop) on held-back photos, against their labels, and on rendered hands that no training
drew. Of mirrored crops training teaches the heat maps and the side alone, so their keypoints are the heat maps'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from densehand.camera import ERROR_CROP
from densehand.data.fits import house_crop
from densehand.data.records import Records
from densehand.errors import DensehandError
from densehand.evaluate import append_rows
from densehand.hand.model import HandModel
from densehand.network.estimator import DHPE
from densehand.network.zoo import open_model
from densehand.revision import commit
from densehand.synth import Synthesizer
from densehand.train.stream import load_records
from densehand.views import VIEWS, consensus, look

SEED = 88_007  # no training's
SHARES = (0.1, 0.2, 0.33)  # of the mirrored crop in the mean


def photos(folder: Path, hand: HandModel, fits: str, count: int) -> Records:
    """Held-back photos whose fits are trusted, evenly drawn."""
    records = load_records(folder, hand, fits, "held-back")
    return records.select(records.trusted(count))


def errors(network: DHPE, records: Records) -> dict[str, tuple[float, float]]:
    """Mean and median error of each way to look."""
    centre, half = house_crop(records.keypoints)
    answers = look(network, records.images, centre, half, VIEWS, masks=False)
    mirrored = next(k for k, view in enumerate(VIEWS) if view.flip)
    one, (_, five, _), flip = answers.keypoints[0], consensus(answers), answers.heat[mirrored]
    weight = records.keypoint_weight

    def error(points: Tensor) -> tuple[float, float]:
        off = (points - records.keypoints).norm(dim=-1) / half[:, None] * (ERROR_CROP / 2)
        return float((off * weight).sum() / weight.sum()), float(
            ((off * weight).sum(1) / weight.sum(1).clamp_min(1e-6)).median()
        )

    ways = {"one": one, "five": five, "heat maps": answers.heat[0], "mirrored heat maps": flip}
    ways |= {f"one + {s:g} mirrored": (1 - s) * one + s * flip for s in SHARES}
    ways |= {f"five + {s:g} mirrored": (1 - s) * five + s * flip for s in SHARES}
    return {name: error(points) for name, points in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--photos", type=Path, help="folder with labels.jsonl and crops/")
    parser.add_argument("--fits", default="", help="file to keep the held-back photos' fits in")
    parser.add_argument("--hands", type=int, default=200, help="of each kind")
    parser.add_argument("--results", type=Path, help="results file (CSV) to add rows to")
    chosen = parser.parse_args()
    network, hand = open_model(chosen.model), HandModel.load("open")
    sets = {"rendered": Synthesizer(hand, size=320).records(chosen.hands, torch.Generator().manual_seed(SEED))}
    try:
        if chosen.photos:
            sets["photos"] = photos(chosen.photos, hand, chosen.fits, chosen.hands)
    except DensehandError as error:
        raise SystemExit(f"error: {error}") from error
    rows = []
    for name, records in sets.items():
        for way, (mean, median) in errors(network, records).items():
            print(f"{name:10}{way:22}mean {mean:6.2f}  median {median:6.2f} px", flush=True)
            rows.append({
                "model": Path(chosen.model).name, "commit": commit(), "set": name, "hands": len(records), "looks": way,
                "mean_px": f"{mean:.3f}", "median_px": f"{median:.3f}",
            })  # fmt: skip
    if chosen.results:
        append_rows(chosen.results, rows)


if __name__ == "__main__":
    main()
