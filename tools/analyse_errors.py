"""Where a model errs: errors by pose, view, skin, sharpness, source and side, with the worst pictures.

    python tools/analyse_errors.py --photos PHOTOS --out results/errors.csv --sheets docs/images

Photos: the held-back share of a folder with a 2D teacher (docs/training.md), so errors there are distances to the
teacher's keypoints, carried to ours. Synthetic: hands rendered from a seed that no training uses, with true labels.
Every picture is shown to the network as a right hand; `side` is judged as the picture is. `--card` names the groups
whose mean error is over 1.25 times that of all hands in the model's card.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from densehand.attributes import pose_group, sharpness, thirds, tone_group, typology_angle, view_group
from densehand.camera import ERROR_CROP
from densehand.draw import draw_skeleton
from densehand.evaluate import append_rows
from densehand.export import write_picture
from densehand.files import ensure_folder
from densehand.hand.model import HandModel
from densehand.metrics import pa_mpjpe
from densehand.network.estimator import DHPE
from densehand.network.mesh import decode
from densehand.network.zoo import WEIGHTS_FOLDER, amend_card, open_model
from densehand.revision import commit

SEED = 20_261_121  # of the synthetic hands; training seeds are hashed pairs, so none equals it
GROSS = 20.0  # px of a 224-px crop beyond which a hand counts as lost
WEAK, FEW = 1.25, 20  # times the mean error from which on a group is named in the card; fewer hands tell too little
RENDERED_TONES = ("I", "II", "III", "IV", "V", "VI")  # Fitzpatrick


@dataclass
class Cases:
    """n pictures of right hands with labels in crop units, and what is known of each."""

    images: torch.Tensor  # n 3 s s, [0, 1]
    keypoints: torch.Tensor  # n 21 2
    joints: np.ndarray  # n 21 3, camera frame, any unit
    metric: np.ndarray | None  # n 21 3 in metres, where labels are true
    was_left: np.ndarray  # n
    groups: dict[str, list[str]]


def described(images: torch.Tensor, keypoints: torch.Tensor, joints: np.ndarray) -> dict[str, list[str]]:
    """The words of `densehand.attributes` for each picture."""
    pictures = (images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    pixels = ((keypoints + 1) * (images.shape[-1] / 2)).numpy()
    pairs = list(zip(pictures, pixels, strict=True))
    return {
        "pose": [pose_group(j) for j in joints],
        "view": [view_group(j) for j in joints],
        "skin as seen": [tone_group(typology_angle(*pair)) for pair in pairs],
        "sharpness": thirds(np.array([sharpness(*pair) for pair in pairs]), ("blurred", "middling", "sharp")),
    }


def held_back_photos(folder: Path, hand: HandModel, size: int) -> Cases:
    """Held-back photos whose fit explains the teacher's keypoints."""
    from densehand.data.augment import augment
    from densehand.data.fits import fit_photos
    from densehand.data.photos import load_photos
    from densehand.data.records import records_from_photos
    from densehand.train.validate import PLAIN

    photos = load_photos(folder, "held-back")
    records = records_from_photos(photos, fit_photos(hand, photos.keypoints, photos.world))
    rows = torch.nonzero(records.trust > 0.5).flatten()
    batch = augment(hand, records, rows, size, PLAIN, torch.Generator().manual_seed(0))
    joints = batch.skeleton.numpy()
    left = photos.mirrored[rows].numpy()
    groups = described(batch.images, batch.keypoints, joints)
    groups["source"] = [photos.sources[i] for i in rows.tolist()]
    groups["side"] = ["left" if x else "right" for x in left]
    return Cases(batch.images, batch.keypoints, joints, None, left, groups)


def synthetic_hands(hand: HandModel, size: int, count: int) -> Cases:
    """Rendered hands, every second one to be shown as a left hand when sides are judged."""
    from densehand.synth.poses import FAMILY_NAMES
    from densehand.synth.sampler import Synthesizer

    synthesizer = Synthesizer(hand, size=size, seed=SEED)
    parts = [synthesizer.sample(min(64, count - start)) for start in range(0, count, 64)]

    def whole(name: str) -> torch.Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    keypoints, visible = whole("keypoints"), whole("visible").float().mean(1)
    metric = hand.skeleton(whole("pose"), whole("shape"), whole("rotation")).numpy()
    groups = described(whole("images"), keypoints, metric)
    names = (*FAMILY_NAMES, "anchor pose")
    groups["family"] = [names[i] for i in whole("family").tolist()]
    groups["rendered skin"] = [RENDERED_TONES[min(5, int(t * 6))] for t in whole("tone").tolist()]
    groups["seen"] = ["under 60 %" if v < 0.6 else "60 to 85 %" if v < 0.85 else "over 85 %" for v in visible.tolist()]
    groups["size of the hand"] = thirds(whole("shape")[:, 0].numpy(), ("small", "middling", "large"))
    left = np.arange(count) % 2 == 1
    groups["side"] = ["left" if x else "right" for x in left]
    return Cases(whole("images"), keypoints, metric, metric, left, groups)


@torch.no_grad()
def errors_of(network: DHPE, hand: HandModel, cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean 2D error (px of a 224-px crop), PA-MPJPE (mm or NaN), side right, and estimated keypoints of each hand."""
    points, right, aligned = [], [], []
    for start in range(0, len(cases.images), 32):
        part = slice(start, start + 32)
        images, left = cases.images[part], torch.from_numpy(cases.was_left[part])
        estimate = network(images)
        points.append(estimate.keypoints[-1])
        shown = torch.where(left[:, None, None, None], images.flip(-1), images)
        right.append((network(shown).side_logit > 0) == ~left)
        h = decode(estimate.parameters[-1])
        joints = hand.skeleton(h.pose, h.shape, h.rotation).numpy() * 1000
        truth = None if cases.metric is None else cases.metric[part] * 1000
        aligned += (
            [np.nan] * len(joints) if truth is None else [pa_mpjpe(a, b) for a, b in zip(joints, truth, strict=True)]
        )
    found = torch.cat(points)
    error = (found - cases.keypoints).norm(dim=-1).mean(-1).numpy() * (ERROR_CROP / 2)
    return error, np.array(aligned), torch.cat(right).numpy(), found.numpy()


def table(cases: Cases, error: np.ndarray, aligned: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """One row a group; `share_of_error` is the group's part of the sum of all hands' errors."""
    rows = []
    share = error / error.sum()
    for attribute, words in {"all": ["all"] * len(error), **cases.groups}.items():
        for word in sorted(set(words), key=lambda w: -error[np.array(words) == w].mean()):
            chosen = np.array(words) == word
            rows.append({
                "attribute": attribute, "group": word, "hands": int(chosen.sum()),
                "median_px": round(float(np.median(error[chosen])), 2),
                "mean_px": round(float(error[chosen].mean()), 2),
                "over_mean": round(float(error[chosen].mean() / error.mean()), 2),
                "share_of_error": round(float(share[chosen].sum()), 3),
                "lost": round(float((error[chosen] > GROSS).mean()), 3),
                "pa_mm": "" if np.isnan(aligned).all() else round(float(np.nanmean(aligned[chosen])), 2),
                "side_right": round(float(right[chosen].mean()), 3),
            })  # fmt: skip
    return rows


def weak_groups(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Groups that the model's card names: "attribute: group" → hands, and mean error over that of all."""
    return {
        f"{row['attribute']}: {row['group']}": {"hands": row["hands"], "over_mean": row["over_mean"]}
        for row in sorted(rows, key=lambda row: -row["over_mean"])
        if row["over_mean"] > WEAK and row["hands"] >= FEW
    }


def sheet(cases: Cases, found: np.ndarray, error: np.ndarray, count: int = 24, tile: int = 160) -> np.ndarray:
    """The worst hands: truth in thin white, estimate in colours, its error below."""
    tiles = []
    for i in np.argsort(-error)[:count]:
        picture = (cases.images[i].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        picture = np.ascontiguousarray(cv2.resize(picture, (tile, tile), interpolation=cv2.INTER_AREA))
        draw_skeleton(picture, (found[i] + 1) * tile / 2, np.ones(21))
        for x, y in ((cases.keypoints[i].numpy() + 1) * tile / 2).round().astype(int):
            cv2.circle(picture, (int(x), int(y)), 2, (255, 255, 255), 1, cv2.LINE_AA)
        cv2.putText(picture, f"{error[i]:.0f} px", (4, tile - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1)
        tiles.append(picture)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 8)
    return np.vstack([np.hstack(tiles[i : i + 8]) for i in range(0, len(tiles), 8)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--photos", type=Path, help="folder with labels.jsonl and crops/")
    parser.add_argument("--synthetic", type=int, default=500, help="number of rendered hands")
    parser.add_argument("--out", type=Path, help="results file (CSV) to add the rows to")
    parser.add_argument("--card", action="store_true", help="name weak groups in the packaged model's card")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of the worst hands")
    options = parser.parse_args()
    hand = HandModel.load("open")
    network = open_model(options.model)
    size = network.config.input_size
    sets = {"synthetic": synthetic_hands(hand, size, options.synthetic)} if options.synthetic else {}
    if options.photos:
        sets["photos"] = held_back_photos(options.photos, hand, size)
    weak: dict[str, dict[str, dict[str, float]]] = {}
    for name, cases in sets.items():
        error, aligned, right, found = errors_of(network, hand, cases)
        rows = table(cases, error, aligned, right)
        for row in rows:
            print(name, *(f"{value}" for value in row.values()), sep="\t")
        weak[name] = weak_groups(rows)
        if options.out:
            append_rows(
                options.out, [{"model": network.config.name, "commit": commit(), "data": name, **r} for r in rows]
            )
        if options.sheets:
            write_picture(ensure_folder(options.sheets) / f"worst_{name}.png", sheet(cases, found, error))
    if options.card:
        amend_card(WEIGHTS_FOLDER / f"{network.config.name}.safetensors", weak_groups=weak)


if __name__ == "__main__":
    main()
