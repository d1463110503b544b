"""Make the next round's labels of photos from a teacher's 2D and a network's answers (docs/selflabel.md).

    python tools/self_label.py --photos PHOTOS --model WEIGHTS --out fits-1.npz [--before fits.npz] [--sheet DIR]
    densehand train --fits fits-1.npz --photos PHOTOS ...

Prints what was kept and how far labels moved. `--looks FILE` keeps the network's answers, the slow part, and
reads them again where they are there. Of several networks (`--model A B`) all looks count alike: where the networks
differ, both are believed less.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from densehand.camera import in_plane
from densehand.data.fits import Fits, evenly, house_crop, project_fits, render_masks
from densehand.data.held_back import ESTIMATOR, frame_number
from densehand.data.photos import PhotoSet, load_photos
from densehand.data.records import records_from_photos
from densehand.draw import draw_skeleton
from densehand.errors import DensehandError, InputError
from densehand.evaluate import append_rows
from densehand.export import write_picture
from densehand.files import ensure_folder, write_atomically
from densehand.hand.fit import aligned_error
from densehand.hand.keypoints import palm_turn
from densehand.hand.model import HandModel
from densehand.network.mesh import MeshParameters
from densehand.network.zoo import open_model
from densehand.revision import commit
from densehand.synth.sheet import contact_sheet
from densehand.train.selflabel import LOOKS, Labelled, label_photos, moved
from densehand.views import Answers, look

TESTED = 300  # photos on which the labels of single looks are compared
LOT = 256  # photos looked at between two words of progress
MASKS, MASK_TILE, TILE = 40, 150, 200  # masks on their sheet; side of its pictures and of those of labels, pixels


def look_at(model: str, photos: PhotoSet, size: int) -> Answers:
    """A network's answers to the looks at all photos, crops of `size`², turned upright by the teacher's keypoints."""
    network = open_model(model, precision="float32")
    network.config = replace(network.config, input_size=size or network.config.input_size)
    turn = -palm_turn(photos.keypoints).nan_to_num()
    turned = photos.keypoints @ in_plane(turn).mT
    centre, half = house_crop(turned)
    centre = (centre[:, None] @ in_plane(turn))[:, 0]
    parts, began = [], time.monotonic()
    for rows in torch.arange(len(photos)).split(LOT):
        parts.append(look(network, photos.images[rows], centre[rows], half[rows], LOOKS, 16, turn=turn[rows]))
        print(f"looked at {int(rows[-1]) + 1} of {len(photos)}, {time.monotonic() - began:.0f} s", flush=True)
    return Answers.join(parts)


def keep_looks(answers: Answers, path: Path) -> None:
    """All of the answers but their views in one .npz."""
    arrays = answers.mesh._asdict() | {k: v for k, v in vars(answers).items() if k not in ("mesh", "views")}
    with write_atomically(path) as temporary:
        np.savez_compressed(temporary, **{k: v.numpy() for k, v in arrays.items()})


def read_looks(path: Path) -> Answers:
    """What `keep_looks` wrote."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {k: torch.from_numpy(archive[k]) for k in archive.files}
        mesh = MeshParameters(*(arrays.pop(name) for name in MeshParameters._fields))
        return Answers(mesh=mesh, views=LOOKS * (len(arrays["keypoints"]) // len(LOOKS)), **arrays)
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise InputError(f"{path}: no answers that can be read; delete the file to look again") from error


def between_looks(
    hand: HandModel, photos: PhotoSet, answers: Answers, believed: torch.Tensor, world: torch.Tensor | None
) -> dict[str, float]:
    """How far two looks lie apart: of the network and of labels made of either; % of the box and mm after alignment."""
    rows = evenly(len(photos), TESTED)
    mesh = MeshParameters(*(value[:, rows] for value in answers.mesh))
    few = replace(answers, mesh=mesh, **{
        k: v[:, rows] for k, v in vars(answers).items() if k not in ("mesh", "views")
    })  # fmt: skip
    world = None if world is None else world[rows]
    one, other = (label_photos(hand, photos.keypoints[rows], few, believed[rows], k, world).fits for k in (0, 1))

    def apart(first: Any, second: Any) -> float:
        a, b = (hand.skeleton(m.pose, m.shape, m.rotation) for m in (first, second))
        return float(aligned_error(a, b).mean()) * 1000

    meshes = [MeshParameters(*(value[k] for value in mesh)) for k in (0, 1)]
    return {
        "looks_px": 100 * float(moved(few.keypoints[0], few.keypoints[1]).mean()),
        "labels_px": 100 * float(moved(one.labels, other.labels).mean()),
        "looks_mm": apart(*meshes),
        "labels_mm": apart(one, other),
    }


def account(made: Labelled, photos: PhotoSet, before: Fits | None) -> dict[str, float]:
    """What was kept, how well the sources agree, how far labels moved. Shares, and % of the box."""
    fits, noise = made.fits, made.noise
    assert fits.trust is not None and fits.keypoint_weight is not None and fits.masked is not None
    figures = {
        "photos": float(len(photos)),
        "trusted": float((fits.trust > 0.5).float().mean()),
        "untrusted": float((fits.trust == 0).float().mean()),
        "weight": float(fits.keypoint_weight.mean()),
        "masks": float(fits.masked.float().mean()),
        "gap_median": 100 * float(made.gap.median()),
        "gap_mean": 100 * float(made.gap.mean()),
        "agreeing": float(made.agreeing.mean()),
        "followed": float(made.followed.mean()),
        "noise_teacher": 75 * float(noise.teacher.sqrt().mean()),
        "noise_network": 75 * float(noise.network.sqrt().mean()),
        "growth": noise.growth,
        "from_teacher": 100 * float(moved(fits.labels, made.teacher).mean()),
    }
    if before is not None:
        old = records_from_photos(photos, before)
        far = moved(fits.labels, before.labels)
        figures |= {
            "trusted_before": float((old.trust > 0.5).float().mean()),
            "weight_before": float(old.keypoint_weight.mean()),
            "moved": 100 * float(far.mean()),
            "moved_over_5": float((far > 0.05).float().mean()),
        }
    return figures


def differing(made: Labelled, photos: PhotoSet, count: int) -> list[int]:
    """Photos whose labels lie farthest from the teacher, one of each stretch of neighbouring frames."""
    chosen: dict[tuple[str, int], int] = {}
    for index in moved(made.fits.labels, made.teacher).mean(1).argsort(descending=True).tolist():
        number = frame_number(Path(photos.names[index]).stem.split("_")[0])
        chosen.setdefault((photos.sources[index], ESTIMATOR.block(number)), index)
    return list(chosen.values())[:count]


def tile(picture: np.ndarray, points: torch.Tensor, words: str) -> np.ndarray:
    """A skeleton (units of the picture) over its photo."""
    drawn = np.ascontiguousarray(cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA))
    draw_skeleton(drawn, ((points + 1) * TILE / 2).numpy(), np.ones(21))
    cv2.putText(drawn, words, (4, TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1, cv2.LINE_AA)
    return drawn


def sheet(hand: HandModel, made: Labelled, photos: PhotoSet, rows: list[int]) -> np.ndarray:
    """For each photo: the teacher, the new label, the new mesh's skeleton; three photos a line of nine."""
    mesh = project_fits(hand, made.fits)
    weight = made.fits.keypoint_weight
    assert weight is not None and made.fits.trust is not None
    tiles = []
    for number, i in enumerate(rows):
        picture = photos.images[i].numpy()
        tiles += [
            tile(picture, made.teacher[i], f"{number} teacher"),
            tile(picture, made.fits.labels[i], f"label w {float(weight[i].mean()):.2f}"),
            tile(picture, mesh[i], f"mesh trust {float(made.fits.trust[i]):.2f}"),
        ]
    return contact_sheet(tiles, 9, ground=0)


def mask_sheet(hand: HandModel, fits: Fits, photos: PhotoSet) -> np.ndarray | None:
    """Photos, evenly drawn of those with a mask, darkened outside it."""
    assert fits.masked is not None
    rows = fits.masked.nonzero().squeeze(1)
    rows = rows[evenly(len(rows), MASKS)]
    known = {k: v for k, v in vars(fits).items() if v is not None}
    few = Fits(**{k: v if k == "keypoint_map" else v[rows] for k, v in known.items()})
    masks = render_masks(hand, few)
    if masks is None:
        return None
    tiles = []
    for picture, mask in zip(photos.images[rows].numpy(), masks.numpy(), strict=True):
        shown = cv2.resize(picture, (MASK_TILE, MASK_TILE), interpolation=cv2.INTER_AREA).astype(np.float32)
        inside = cv2.resize(mask, (MASK_TILE, MASK_TILE), interpolation=cv2.INTER_LINEAR)[..., None] / 255
        tiles.append((shown * (0.35 + 0.65 * inside)).astype(np.uint8))
    return contact_sheet(tiles, 10, ground=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.jsonl and crops/")
    parser.add_argument("--split", default="train", choices=("train", "held-back", "all"))
    parser.add_argument(
        "--model", nargs="+", default=["dhpe-lite"], help="name of a model, or a weights file; of several the mean"
    )
    parser.add_argument("--size", type=int, default=0, help="side of the crops that it looks at; 0: its own")
    parser.add_argument(
        "--teachers-thumb", action="store_true",
        help="take the bend of the thumb's last joint from the teacher's 3D, as a network may hardly bend it",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the labels, .npz, for densehand train --fits")
    parser.add_argument("--before", type=Path, help="the last round's, to compare with")
    parser.add_argument("--looks", type=Path, help="file to keep the network's answers in")
    parser.add_argument("--sheet", type=Path, help="folder for pictures of labels and masks")
    parser.add_argument("--results", type=Path, help="results file (CSV) to add a row to")
    parser.add_argument("--name", default="", help="what the row is called")
    options = parser.parse_args()
    try:
        run(options)
    except DensehandError as error:
        raise SystemExit(f"error: {error}") from error


def run(options: argparse.Namespace) -> None:
    """All of the tool. Errors: InputError where files cannot be used."""
    hand, photos = HandModel.load("open"), load_photos(options.photos, options.split)
    before = Fits.load(options.before) if options.before else None
    if before is not None:
        before.check(photos.names, options.before)
    if options.looks and options.looks.is_file():
        answers = read_looks(options.looks)
    else:
        answers = Answers.together([look_at(model, photos, options.size) for model in options.model])
        if options.looks:
            keep_looks(answers, options.looks)
    believed = photos.score > 0.5
    world = photos.world if options.teachers_thumb else None
    made = label_photos(hand, photos.keypoints, answers, believed, world=world)
    made.fits.save(options.out, photos.names)
    figures = account(made, photos, before) | between_looks(hand, photos, answers, believed, world)
    for name, value in figures.items():
        print(f"{name:16}{value:10.4g}")
    if options.results:
        row = {
            "name": options.name,
            "model": "+".join(Path(model).name for model in options.model),
            "commit": commit(),
            "size": options.size,
        }
        append_rows(options.results, [row | {k: f"{v:.4g}" for k, v in figures.items()}])
    if options.sheet:
        folder = ensure_folder(options.sheet)
        pictures = {
            "labels": sheet(hand, made, photos, differing(made, photos, 24)),
            "masks": mask_sheet(hand, made.fits, photos),
        }
        for name, picture in pictures.items():
            if picture is not None:
                write_picture(folder / f"{name}.png", picture)


if __name__ == "__main__":
    main()
