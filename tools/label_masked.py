"""Label photos that come with a mask and nothing else, for the 2D, 3D and shape terms of training (docs/selflabel.md).

    python tools/label_masked.py --photos DIR --pattern "train_*.jpg" --out masked [--model WEIGHTS] [--sheet FILE]
    densehand data check --dataset densehand masked
    densehand train --config FILE …  # a [[dataset]] table in FILE: name = "densehand", root = "masked", weight = 0.07

Beside each picture lies its mask, NAME.png: white the hand, perhaps with its forearm. The network finds the hand and
looks at it several times; the mean of its meshes is then drawn onto the mask (the paper's L_Sh, through the renderer)
without leaving the 2D evidence. Kept are hands whose mesh fills its mask in the end; the mask itself, cut off where the
mesh ends at the wrist, is the label's. Prints what was kept and how the meshes fitted before and after.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densehand.camera import HOUSE_PADDING, Crop
from densehand.data.augment import from_wrist
from densehand.data.labelled import AROUND
from densehand.data.photos import STORED_SIZE, Skipped
from densehand.data.sample import MaskSource
from densehand.draw import draw_skeleton
from densehand.errors import DensehandError, InputError
from densehand.export import write_picture
from densehand.files import ensure_folder, write_atomically
from densehand.images import read_image
from densehand.losses import penalty
from densehand.metrics import mask_iou, tight_box
from densehand.network.estimator import DHPE
from densehand.network.mesh import decode, encode, skeleton_in_crop
from densehand.network.zoo import open_model
from densehand.pipeline import HandEstimator
from densehand.resample import crop_image, crop_mask
from densehand.synth.sheet import contact_sheet
from densehand.views import CONSENSUS, consensus, look, soft_iou

SIDE = 112  # of the pictures in which silhouettes are compared
HOUSE = HOUSE_PADDING / AROUND  # half side of the network's crop, in units of the stored square
LOT = 32
SHOWN, TILE = 48, 200  # pictures in the sheet, and their side


@dataclass
class Masked:
    """A picture, its mask and the hand found in it; the stored square around the hand, a right hand."""

    path: Path
    image: np.ndarray
    mask: Bool[np.ndarray, "H W"]
    side: str
    crop: Crop
    picture: np.ndarray
    cut: Float[np.ndarray, "s s"]  # the mask in the square, 0 … 1


def find(estimator: HandEstimator, path: Path) -> Masked | str:
    """The hand under the mask, or why there is none."""
    image = read_image(path)
    mask = MaskSource(path.with_suffix(".png")).read()
    if mask.shape != image.shape[:2]:
        return "mask of another size"
    found = [(mask_iou(hand.mask(mask.shape), mask), hand) for hand in estimator(image)] if mask.any() else []
    filled, best = max(found, key=itemgetter(0), default=(0.0, None))
    if best is None or filled < 0.3:
        return "no hand found under the mask"
    crop = Crop.from_box(tight_box(best.keypoints_2d), AROUND, mirrored=best.side == "left")
    return Masked(
        path, image, mask, best.side, crop, crop_image(image, crop, STORED_SIZE),
        crop_mask(mask, crop, SIDE).astype(np.float32) / 255,
    )  # fmt: skip


def hand_side(skeleton: Float[Tensor, "b 21 3"]) -> Bool[Tensor, "b s s"]:
    """Pixels of the square that do not lie behind the wrist."""
    return from_wrist(skeleton[..., :2], SIDE)[0] < 0


def draw_onto(
    network: DHPE, h: Float[Tensor, "b 63"], mask: Float[Tensor, "b s s"], evidence: Float[Tensor, "b 21 2"], steps: int
) -> tuple[Float[Tensor, "b 63"], Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Meshes (units of the square) drawn onto their masks; their overlap before and after."""
    start = h.detach()
    inside = hand_side(skeleton_in_crop(network.hand, start)).float()
    mask = mask * inside
    h = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([h], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    before = torch.zeros(len(h))
    for step in range(steps):
        filled = soft_iou(network.render_mask(h, SIDE) * inside, mask)
        before = filled.detach() if step == 0 else before
        left = penalty(skeleton_in_crop(network.hand, h)[..., :2] - evidence, robust=True).mean(-1)
        moved = (h[:, :45] - start[:, :45]).square().sum(1) / 0.25 + h[:, 45:55].square().sum(1) / 4
        energy = (1 - filled) + 8 * left + 0.02 * moved
        optimiser.zero_grad(set_to_none=True)
        energy.sum().backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return h.detach(), before, soft_iou(network.render_mask(h, SIDE) * inside, mask)


def label(network: DHPE, lot: list[Masked], steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """h in units of the squares, and overlap before and after, of some hands."""
    images = torch.from_numpy(np.stack([m.picture for m in lot]))
    centre, half = torch.zeros(len(lot), 2), torch.full((len(lot),), HOUSE)
    mesh, points, _ = consensus(look(network, images, centre, half, CONSENSUS, masks=False))
    mask = torch.from_numpy(np.stack([m.cut for m in lot]))
    return draw_onto(network, encode(mesh), mask, points, steps)


def row(network: DHPE, found: Masked, h: Float[Tensor, " 63"], folder: Path) -> dict:
    """The label of one hand; writes its picture and mask."""
    vertices, joints = (v[0].numpy() for v in network.mesh(h[None]))
    points, outline = found.crop.to_image(joints[:, :2]), found.crop.to_image(vertices[:, :2])
    arm = points[0] - points[9]
    arm = arm / np.linalg.norm(arm)
    end = ((outline - points[0]) @ arm).max()
    y, x = np.mgrid[: found.mask.shape[0], : found.mask.shape[1]] + 0.5
    hand = found.mask & ((x - points[0, 0]) * arm[0] + (y - points[0, 1]) * arm[1] < end)
    name = found.path.stem
    write_picture(folder / f"{name}.png", np.repeat(hand[..., None].astype(np.uint8) * 255, 3, axis=2))
    with write_atomically(folder / found.path.name) as temporary:
        temporary.write_bytes(found.path.read_bytes())
    metres = joints / float(decode(h).scale) * ((-1, 1, 1) if found.side == "left" else (1, 1, 1))
    metres = metres - metres[0]
    return {
        "image": found.path.name, "mask": f"{name}.png", "side": found.side,
        "keypoints_px": points.astype(float).round(2).tolist(), "joints_m": metres.astype(float).round(5).tolist(),
    }  # fmt: skip


def sheet(folder: Path, rows: list[dict]) -> np.ndarray:
    """Labelled hands darkened outside their masks, with their skeletons."""
    tiles = []
    for label in rows[:: max(1, len(rows) // SHOWN)][:SHOWN]:
        points = np.array(label["keypoints_px"])
        crop = Crop.from_box(tight_box(points))
        shown = crop_image(read_image(folder / label["image"]), crop, TILE)
        mask = crop_mask(MaskSource(folder / label["mask"]).read(), crop, TILE) > 127
        shown[~mask] //= 3
        draw_skeleton(shown, crop.to_pixels(points, TILE), np.ones(21))
        tiles.append(shown)
    return contact_sheet(tiles, 8)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with NAME.jpg and NAME.png")
    parser.add_argument("--pattern", default="*.jpg", help="which pictures of it")
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--steps", type=int, default=60, help="steps in which meshes are drawn onto masks")
    parser.add_argument("--least", type=float, default=0.85, help="overlap of mesh and mask that a label asks for")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures, masks and labels.jsonl")
    parser.add_argument("--sheet", type=Path, help="a picture of the labels")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except DensehandError as error:
        raise SystemExit(f"error: {error}") from error


def run(options: argparse.Namespace) -> None:
    """All of the tool. Errors: InputError where files cannot be used or no hand fits its mask."""
    network, folder, skipped = open_model(options.model, precision="float32"), ensure_folder(options.out), Skipped()
    network.requires_grad_(False)
    estimator = HandEstimator(network)
    lot: list[Masked] = []
    rows: list[dict] = []
    overlaps: list[Tensor] = []

    def finish() -> None:
        h, before, after = label(network, lot, options.steps)
        overlaps.append(torch.stack([before, after], 1))
        for found, mine, filled in zip(lot, h, after, strict=True):
            if filled < options.least:
                skipped.add("meshes that do not fill their mask", found.path.name)
            else:
                rows.append(row(network, found, mine, folder))
        print(f"{sum(map(len, overlaps))} hands drawn onto their masks", flush=True)
        lot.clear()

    for path in sorted(options.photos.glob(options.pattern)):
        try:
            found = find(estimator, path)
        except InputError as error:
            found = str(error)
        if isinstance(found, str):
            skipped.add(found, path.name)
            continue
        lot.append(found)
        if len(lot) == LOT:
            finish()
    if lot:
        finish()
    if not rows:
        raise InputError(f"{options.photos}: no hand that fits its mask ({skipped or 'no picture'})")
    with write_atomically(folder / "labels.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(label) + "\n" for label in rows))
    before, after = torch.cat(overlaps).mean(0).tolist()
    print(f"kept {len(rows)}; overlap of mesh and mask {before:.3f} before, {after:.3f} after; left out: {skipped}")
    if options.sheet:
        write_picture(options.sheet, sheet(folder, rows))


if __name__ == "__main__":
    main()
