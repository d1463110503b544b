"""What each part of the synthetic hands does to the error on photos, and a sheet of the variants (docs/synth.md).

    python tools/measure_synthesis.py --photos PHOTOS --backgrounds BACKGROUNDS --fits FITS --csv results/synthesis.csv
    python tools/measure_synthesis.py --csv results/synthesis.csv --summarise
    python tools/measure_synthesis.py --sheet docs/images/synth_variants.jpg

Each row is trained on synthetic hands alone, from the packaged weights, and measured on the held-back share of a folder
of photos (docs/training.md). FITS: the hand model fits of the training photos (`densehand train --fits`), whose poses
and views are drawn around. A row and seed that the file holds already is not measured again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from densehand.ablation.compare import measure_rows, stored
from densehand.ablation.synthesis import VARIANTS, Measurement, Options, known_hands, synthesizer, table
from densehand.data.fits import Fits
from densehand.files import write_bytes
from densehand.hand.model import HandModel
from densehand.network.zoo import weights_path
from densehand.synth.sheet import contact_sheet, to_uint8
from densehand.train.stream import load_backgrounds, load_records

SHOWN, SIDE, LABEL = 8, 128, 150  # pictures a row of the sheet, their side and the label's width, px


def sheet() -> np.ndarray:
    """The same hands in every variant, over made-up backdrops; variants that differ by photos alone are left out."""
    hand, rows = HandModel.load("open"), []
    for name, variant in VARIANTS.items():
        if (not variant.changes and name != "all") or "view_share" in variant.changes:
            continue
        batch = synthesizer(variant, hand, SIDE).sample(SHOWN, torch.Generator().manual_seed(4))
        pictures = contact_sheet(to_uint8(batch), SHOWN)
        label = np.full((SIDE, LABEL, 3), 255, np.uint8)
        cv2.putText(label, name, (8, SIDE // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
        rows.append(np.hstack([label, pictures]))
    return np.vstack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder with labels.jsonl and crops/")
    parser.add_argument("--photo-fits", default="", help="file to keep the held-back photos' fits in")
    parser.add_argument("--backgrounds", type=Path, help="hand-free pictures to put behind the hands")
    parser.add_argument("--fits", type=Path, help="fits of the training photos")
    parser.add_argument("--start", type=Path, default=weights_path("dhpe-lite"))
    parser.add_argument("--csv", type=Path, help="results file to add to")
    parser.add_argument("--rows", default=",".join(VARIANTS), help="rows, with commas")
    parser.add_argument("--seeds", default="0,1", help="seeds, with commas")
    for name, value in vars(Options()).items():
        parser.add_argument(f"--{name}" if name != "photos" else "--count", dest=f"option_{name}", type=type(value),
                            default=value)  # fmt: skip
    parser.add_argument("--sheet", type=Path, help="write a picture (.jpg) of the variants instead")
    parser.add_argument("--summarise", action="store_true", help="print the table of the results file instead")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.sheet is not None:
        picture = cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR)
        write_bytes(given.sheet, cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 72])[1].tobytes())
        return
    if given.csv is None:
        parser.error("give --csv FILE or --sheet FILE")
    if given.summarise:
        print(table(stored(given.csv)))
        return
    if given.photos is None:
        parser.error("give --photos DIR")
    options = Options(**{name: getattr(given, f"option_{name}") for name in vars(Options())})
    real = load_records(given.photos, HandModel.load("open"), given.photo_fits, "held-back")
    backgrounds = None if given.backgrounds is None else load_backgrounds(given.backgrounds)
    known = None if given.fits is None else known_hands(Fits.load(given.fits))
    measurement = Measurement(real, given.start, options, backgrounds, known)
    print(f"before: {measurement.before}", flush=True)
    measure_rows(given.csv, given.rows.split(","), VARIANTS, [int(s) for s in given.seeds.split(",")], measurement.run)
    print(table(stored(given.csv)))


if __name__ == "__main__":
    main()
