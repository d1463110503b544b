"""What each choice of a training (optimiser, pictures, augmentation, objective, heads) is worth (docs/training.md).

    python tools/measure_choices.py --photos PHOTOS --backgrounds BACKGROUNDS --fits FITS --csv results/choices.csv
    python tools/measure_choices.py --csv results/choices.csv --summarise

Each row is a short training from ImageNet's trunk with one option changed, measured on the held-back share of a folder
of photos and on rendered hands. FITS: the hand model fits of the training photos. A row and seed that the file holds
already is not measured again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from densehand.ablation import compare
from densehand.ablation.choices import BASE, CHOICES, FIGURES, Measurement, shared_of
from densehand.hand.model import HandModel
from densehand.train.stream import load_records


def summary(path: Path) -> str:
    """The table of a results file."""
    titles = {name: choice.title for name, choice in CHOICES.items()}
    return compare.table(compare.stored(path), titles, FIGURES, list(shared_of(BASE)), "usual")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder with labels.jsonl and crops/")
    parser.add_argument("--photo-fits", default="", help="file to keep the held-back photos' fits in")
    parser.add_argument("--backgrounds", type=Path, help="hand-free pictures")
    parser.add_argument("--fits", default="", help="fits of the training photos")
    parser.add_argument("--csv", type=Path, required=True, help="results file to add to")
    parser.add_argument("--rows", default=",".join(CHOICES), help="rows, with commas")
    parser.add_argument("--seeds", default="0,1", help="seeds, with commas")
    parser.add_argument("--steps", type=int, default=BASE.steps, help="steps of a row")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--summarise", action="store_true", help="print the table of the results file instead")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if not given.summarise:
        if given.photos is None or given.backgrounds is None:
            parser.error("give --photos DIR and --backgrounds DIR, or --summarise")
        places = {"photos": str(given.photos), "backgrounds": str(given.backgrounds), "fits": given.fits}
        base = replace(BASE, steps=given.steps, warmup=max(1, given.steps // 10), **places)
        held_back = load_records(given.photos, HandModel.load("open"), given.photo_fits, "held-back")
        run = Measurement(base, held_back).run
        compare.measure_rows(given.csv, given.rows.split(","), CHOICES, [int(s) for s in given.seeds.split(",")], run)
    print(summary(given.csv))


if __name__ == "__main__":
    main()
