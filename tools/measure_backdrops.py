"""Does a network lean on the rooms in its training photos? Held-back photos as they are and before other pictures.

    python tools/measure_backdrops.py --photos PHOTOS --backgrounds BACKGROUNDS [WEIGHTS ...]

Every hand is kept by the outline of the hand model fitted to the teacher's keypoints (with a soft seam and a band for
the forearm, `data/augment.py`) and put before a piece of a background that is held back. Errors against the
teacher's keypoints carried to ours, pixels of a 224-px crop.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from densehand.data.fits import known_fits
from densehand.data.photos import load_photos
from densehand.data.records import records_from_photos
from densehand.evaluation.scores import unseen_background
from densehand.hand.model import HandModel
from densehand.network.zoo import open_model
from densehand.train.stream import load_backgrounds
from densehand.train.validate import PLAIN, HeldBackPhotos

SHOWN = ("refined_median", "refined_mean", "mesh_mean", "side")
GOOD = 0.04  # residual of a fit, as a share of the hand's box, whose outline may stand for the hand's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["dhpe-lite"], help="names of models or weights files")
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.jsonl and crops/")
    parser.add_argument("--backgrounds", type=Path, required=True, help="folder of pictures without hands")
    parser.add_argument("--fits", default="", help="file to keep the held-back photos' fits in")
    options = parser.parse_args()
    hand, photos = HandModel.load("open"), load_photos(options.photos, "held-back")
    fits = known_fits(options.fits, hand, photos)
    records = records_from_photos(photos, replace(fits, masked=fits.residual < GOOD), hand=hand)
    records = records.select(records.masks.flatten(1).any(1).bool())
    backgrounds = load_backgrounds(options.backgrounds, wanted=unseen_background)
    for name in options.models:
        network = open_model(name)
        for what, how in (("as they are", PLAIN), ("before other backgrounds", replace(PLAIN, backdrop=1.0))):
            found = HeldBackPhotos(records, hand, network.config.input_size, how=how, backgrounds=backgrounds)(network)
            shown = "  ".join(f"{key} {found[key]:.2f}" for key in SHOWN)
            print(f"{Path(name).stem:12} {what:25} {shown}")


if __name__ == "__main__":
    main()
