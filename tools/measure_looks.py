"""Which crop of a hand the network should be shown, and what more looks at it are worth.

    python tools/measure_looks.py --photos PHOTOS --results results/looks.csv

Errors (pixels of a 224-px crop) of the 2D skeleton and of the mesh on held-back photos, against their labels, and on
rendered hands that no training drew: the crop that is shown, also of the same hands far away and blurred by motion,
crops of several sizes alone, their means (`--consensus`), the heat maps' say in the 2D skeleton, and the mirrored crop.
Of mirrored crops training teaches the heat maps and the side alone, so their keypoints are the heat maps'.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from densehand.camera import ERROR_CROP, SHOWN
from densehand.data.fits import house_crop
from densehand.data.records import Records
from densehand.errors import DensehandError
from densehand.evaluate import append_rows
from densehand.hand.model import HandModel
from densehand.network.estimator import DHPE, HEATMAPS_SAY
from densehand.network.zoo import open_model
from densehand.revision import commit
from densehand.synth import Synthesizer
from densehand.synth.photo import motion_blur
from densehand.train.stream import load_records
from densehand.views import CONSENSUS, VIEWS, View, look

SEED = 88_007  # no training's
ZOOMS = (1.2, 1.0, 0.95, 0.9, 0.85, 0.8, 0.75)  # of the house's crop
SMALL = 64  # pixels across a picture of a far hand, which then has about 40
MOVED = (0.05, 0.1)  # of the crop's side: how far a hand moves while it is pictured; 11 and 22 px of 224
SHARES = (0.1, 0.2, 0.33)  # of the mirrored crop in the mean
SAYS = (0.0, 0.25, 0.5, 0.75, 1.0)
LOOKED = tuple(dict.fromkeys((*(View(zoom=zoom) for zoom in ZOOMS), *CONSENSUS, *VIEWS)))  # the mirrored one is last


def photos(folder: Path, hand: HandModel, fits: str, count: int) -> Records:
    """Held-back photos whose fits are trusted, evenly drawn."""
    records = load_records(folder, hand, fits, "held-back")
    return records.select(records.trusted(count))


def error(points: Tensor, records: Records) -> tuple[float, float]:
    """Mean and median over hands of the distance from the labels, pixels of `ERROR_CROP`."""
    half, weight = house_crop(records.keypoints)[1], records.keypoint_weight
    off = (points - records.keypoints).norm(dim=-1) / half[:, None] * (ERROR_CROP / 2)
    each = (off * weight).sum(1) / weight.sum(1).clamp_min(1e-6)
    return float((off * weight).sum() / weight.sum()), float(each.median())


def far(pictures: Tensor) -> Tensor:
    """The pictures `SMALL` pixels wide, enlarged again."""
    small = interpolate(pictures, size=(SMALL, SMALL), mode="area").round()
    return interpolate(small, size=pictures.shape[-2:], mode="bilinear")


def moved(pictures: Tensor, half: Tensor, share: float) -> Tensor:
    """The pictures blurred along a line, by this share of the side of the hand's crop (half its side is given)."""
    angle = 2 * math.pi * torch.rand(len(pictures), generator=torch.Generator().manual_seed(SEED))
    way = 2 * share * half[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
    return motion_blur(motion_blur(pictures, way / 1.2), way / 6)  # five steps, each of five: 1 / 1.2 + 1 / 6 = 1


def of_bad_pictures(network: DHPE, records: Records) -> dict[str, tuple[float, float, float]]:
    """As `errors`, of the crop that is shown, of the same hands far away and moving."""
    whole, (centre, half) = records.images.permute(0, 3, 1, 2).float(), house_crop(records.keypoints)
    bad = {f"at {SMALL} px": far(whole)} | {f"moved by {share:g}": moved(whole, half, share) for share in MOVED}
    found = {}
    for name, pictures in bad.items():
        images = pictures.round().to(torch.uint8).permute(0, 2, 3, 1)
        answers = look(network, images, centre, half, (View(zoom=SHOWN),), masks=False)
        mesh, _ = error(answers.skeleton[0, ..., :2], records)
        found[f"crop × {SHOWN:g} {name}"] = (*error(answers.keypoints[0], records), mesh)
    return found


def errors(network: DHPE, records: Records) -> dict[str, tuple[float, float, float]]:
    """Mean and median error of the 2D skeleton and mean of the mesh's (NaN: there is none) of each way to look."""
    centre, half = house_crop(records.keypoints)
    answers = look(network, records.images, centre, half, LOOKED, masks=False)
    heat = answers.heat

    def mean_of(views: tuple[View, ...]) -> tuple[Tensor, float]:
        rows = [LOOKED.index(view) for view in views]
        sure = answers.confidence[rows, ..., None].clamp_min(1e-3)
        mesh = answers.skeleton[rows, ..., :2].mean(0)
        return (answers.keypoints[rows] * sure).sum(0) / sure.sum(0), error(mesh, records)[0]

    ways = {f"crop × {zoom:g}": mean_of((View(zoom=zoom),)) for zoom in ZOOMS}
    shown = LOOKED.index(View(zoom=SHOWN))
    sure, mixed, maxima = answers.confidence[shown, ..., None], answers.keypoints[shown], heat[shown]
    refined = (mixed - HEATMAPS_SAY * sure * maxima) / (1 - HEATMAPS_SAY * sure)  # before `Estimate.keypoints_2d` mixed
    ways |= {f"heat maps' say {say:g}": (torch.lerp(refined, maxima, say * sure), math.nan) for say in SAYS}
    ways |= {"consensus": mean_of(CONSENSUS), "paddings and turns": mean_of(VIEWS[:-1])}
    one, several = ways[f"crop × {SHOWN:g}"][0], ways["consensus"][0]
    ways |= {"heat maps": (maxima, math.nan), "mirrored heat maps": (heat[-1], math.nan)}
    for share in SHARES:
        for name, points in (("one", one), ("consensus", several)):
            ways[f"{name} + {share:g} mirrored"] = ((1 - share) * points + share * heat[-1], math.nan)
    return {name: (*error(points, records), mesh) for name, (points, mesh) in ways.items()}


def asked(description: str | None, hands: int) -> argparse.Namespace:
    """The options of a measurement on held-back photos and rendered hands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--photos", type=Path, help="folder with labels.jsonl and crops/")
    parser.add_argument("--fits", default="", help="file to keep the held-back photos' fits in")
    parser.add_argument("--hands", type=int, default=hands, help="of each kind")
    parser.add_argument("--results", type=Path, help="results file (CSV) to add rows to")
    return parser.parse_args()


def measured_sets(chosen: argparse.Namespace) -> dict[str, Records]:
    """Rendered hands and, where a folder is given, held-back photos. Ends the program where it cannot be used."""
    hand = HandModel.load("open")
    sets = {"rendered": Synthesizer(hand, size=320).records(chosen.hands, torch.Generator().manual_seed(SEED))}
    try:
        if chosen.photos:
            sets["photos"] = photos(chosen.photos, hand, chosen.fits, chosen.hands)
    except DensehandError as error:
        raise SystemExit(f"error: {error}") from error
    return sets


def main() -> None:
    chosen = asked(__doc__, hands=500)
    network, rows = open_model(chosen.model), []
    for name, records in measured_sets(chosen).items():
        for way, (mean, median, mesh) in (of_bad_pictures(network, records) | errors(network, records)).items():
            print(f"{name:10}{way:26}mean {mean:6.2f}  median {median:6.2f}  mesh {mesh:6.2f} px", flush=True)
            rows.append({
                "model": Path(chosen.model).name, "commit": commit(), "set": name, "hands": len(records), "looks": way,
                "mean_px": f"{mean:.3f}", "median_px": f"{median:.3f}", "mesh_px": f"{mesh:.3f}",
            })  # fmt: skip
    if chosen.results:
        append_rows(chosen.results, rows)


if __name__ == "__main__":
    main()
