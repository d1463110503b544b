"""Where a model errs: errors by keypoint, pose, view, occlusion, skin, shape, sharpness, source, side; the worst hands.

    python tools/analyse_errors.py --photos PHOTOS --fixtures FIXTURES --out results/errors.csv --card \\
        --sheets docs/images --sheets-of synthetic

Photos: the held-back share of a folder with a 2D teacher (docs/training.md), so errors there are distances to the
teacher's keypoints, carried to ours. Fixtures: `val2d.jsonl` and `val3d.jsonl` with the labels of their data sets.
Synthetic: hands rendered from a seed that no training uses, with true labels. `HandEstimator` looks at every picture,
upright too where the hand is not, told that it is a right hand; sides are judged untold, as the picture is. `--card`
names the groups that are far worse than all hands together (`weak_by`) in the model's card. `--sheets` shows the worst
hands: photos and fixtures show people, so their sheets belong in no repository (`--sheets-of synthetic` leaves them
out).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from error_cases import Cases, fixture_hands, held_back_photos, synthetic_hands
from jaxtyping import Bool, Float
from numpy import ndarray

from densehand.attributes import UNKNOWN, judged, over_all, thirds
from densehand.camera import ERROR_CROP
from densehand.draw import draw_skeleton
from densehand.evaluate import append_rows
from densehand.evaluation.errors import aligned_error
from densehand.export import write_picture
from densehand.files import ensure_folder
from densehand.hand.keypoints import FINGERS, FINGERTIPS, KEYPOINT_NAMES, KNUCKLES
from densehand.hand.model import HandModel
from densehand.network.card import amend_card
from densehand.network.zoo import weights_path
from densehand.pipeline import HandEstimator
from densehand.revision import commit
from densehand.synth.sheet import contact_sheet

GROSS = 20.0  # px of a 224-px crop beyond which a hand, or a keypoint, counts as lost
RANKS = ("knuckle", "middle joint", "end joint", "tip")  # from each finger's first joint on
SHEETS = {"synthetic": "rendered", "photos": "photos", "fixtures": "fixtures"}
SHEET_COLUMNS, SHEET_ROWS, TILE = 8, 2, 120


@dataclass
class Errors:
    """Errors of n hands; NaN where there is no label."""

    px: Float[ndarray, "n 21"]  # px of a 224-px crop
    mm: Float[ndarray, "n 21"]  # after similarity alignment
    side_right: Bool[ndarray, " n"]
    confidence: Float[ndarray, " n"]  # mean of the keypoints'
    found: Float[ndarray, "n 21 2"]  # estimated keypoints, crop units


def errors_of(estimator: HandEstimator, cases: Cases) -> Errors:
    """What the estimator gets wrong of each hand, whose picture it takes for the crop."""
    pictures = (cases.images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    told, judged_as = [], []
    for picture, left in zip(pictures, cases.was_left, strict=True):
        seen = np.ascontiguousarray(picture[:, ::-1]) if left else picture
        (hand,), (untold,) = (
            estimator(p, side=side, whole_image=True) for p, side in ((picture, "right"), (seen, "auto"))
        )
        told.append(hand)
        judged_as.append(untold.side == ("left" if left else "right"))
    found = np.stack([hand.keypoints_2d for hand in told]) * (2 / pictures.shape[2]) - 1
    px = np.linalg.norm(found - cases.keypoints.numpy(), axis=-1) * (cases.shown * ERROR_CROP / 2)
    mm = np.full(px.shape, np.nan)
    if cases.true_joints:
        pairs = zip(told, cases.joints, strict=True)
        mm = np.stack([aligned_error(hand.joints_3d * 1000, joints * 1000) for hand, joints in pairs])
    return Errors(px, mm, np.array(judged_as), np.array([hand.evidence_weight.mean() for hand in told]), found)


def mean_known(values: Float[ndarray, "n k"]) -> Float[ndarray, " n"]:
    """The mean of each row's known values, NaN where it has none."""
    return np.ma.masked_invalid(values).mean(axis=1).filled(np.nan)


def table(cases: Cases, errors: Errors) -> list[dict[str, Any]]:
    """One row a group of hands.

    over_…: the group's figure over that of all hands (mean: of the 2D error). weak_by: figures in which it is weak
    (`densehand.attributes.judged`); unsure_by: those beyond the limit that few hands show, or perhaps chance.
    """
    error = mean_known(errors.px)
    measures = {
        "mean": error, "lost": (error > GROSS) * 1.0, "pa_mm": mean_known(errors.mm),
        "side_wrong": ~errors.side_right * 1.0,
    }  # fmt: skip
    sure = thirds(errors.confidence, ("low", "middling", "high"))
    rows = []
    for attribute, words in {"all": ["all"] * len(error), **cases.groups, "confidence (proxy)": sure}.items():
        for word in sorted(set(words), key=lambda w: -error[np.array(words) == w].mean()):
            chosen = np.array(words) == word
            over = {name: over_all(values, chosen) for name, values in measures.items()}
            verdict = {name: "" if word == UNKNOWN else judged(*found) for name, found in over.items()}
            rows.append({
                "attribute": attribute, "group": word, "hands": int(chosen.sum()),
                **figures(error, measures["pa_mm"], cases.seen, chosen),
                "side_right": round(float(errors.side_right[chosen].mean()), 3),
                **{f"over_{name}": "" if np.isnan(ratio) else round(ratio, 2) for name, (_, ratio, _) in over.items()},
                **{f"{how}_by": "+".join(name for name, found in verdict.items() if found == how)
                   for how in ("weak", "unsure")},
            })  # fmt: skip
    return rows


def keypoint_table(cases: Cases, errors: Errors) -> list[dict[str, Any]]:
    """One row a group of keypoints: each one, those of a finger, of a rank, and those seen or not where that is known.

    No group of people, so none is judged.
    """
    index = np.arange(21)
    fingers = {f: (index >= a) & (index <= b) for f, a, b in zip(FINGERS, KNUCKLES, FINGERTIPS, strict=True)}
    groups: dict[str, dict[str, Bool[ndarray, "..."]]] = {
        "keypoint": {name: index == i for i, name in enumerate(KEYPOINT_NAMES)},
        "finger": fingers,
        "joint": {rank: np.isin(index, np.array(KNUCKLES) + i) for i, rank in enumerate(RANKS)},
    }
    if cases.seen is not None:
        groups["keypoint is"] = {"seen": cases.seen, "hidden or outside": ~cases.seen}
    rows = []
    for attribute, members in groups.items():
        for word, member in members.items():
            chosen = np.isfinite(errors.px) & member
            if chosen.any():
                hands = int(chosen.any(axis=1).sum())
                found = figures(errors.px, errors.mm, cases.seen, chosen)
                rows.append({"attribute": attribute, "group": word, "hands": hands, **found})
    return rows


def figures(
    px: Float[ndarray, "*n"], mm: Float[ndarray, "*n"], seen: Bool[ndarray, "h 21"] | None, chosen: Bool[ndarray, "*n"]
) -> dict[str, Any]:
    """Figures of the chosen hands (or keypoints: n = (h, 21)) by their errors; "" where nothing is known.

    over_mean: their mean over that of all; share_of_error: their part of the sum of all errors; seen: share of
    keypoints neither hidden nor outside the picture.
    """
    own, aligned = px[chosen], mm[chosen & np.isfinite(mm)]
    return {
        "median_px": round(float(np.median(own)), 2),
        "mean_px": round(float(own.mean()), 2),
        "over_mean": round(float(own.mean() / np.nanmean(px)), 2),
        "share_of_error": round(float(own.sum() / np.nansum(px)), 3),
        "lost": round(float((own > GROSS).mean()), 3),
        "pa_mm": round(float(aligned.mean()), 2) if len(aligned) else "",
        "seen": "" if seen is None else round(float(seen[chosen].mean()), 2),
    }


def weak_groups(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Groups that the model's card names, the weakest first: "attribute: group" → hands, and the figures in which it is
    weak over those of all hands."""
    named: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["weak_by"]:
            over = {f"over_{name}": row[f"over_{name}"] for name in row["weak_by"].split("+")}
            named[f"{row['attribute']}: {row['group']}"] = {"hands": row["hands"], **over}
    return dict(sorted(named.items(), key=lambda item: -max(v for k, v in item[1].items() if k != "hands")))


def sheet(cases: Cases, errors: Errors) -> np.ndarray:
    """The worst hands: truth in thin white, estimate in colours, its error below."""
    error, tiles = mean_known(errors.px), []
    for i in np.argsort(-error)[: SHEET_COLUMNS * SHEET_ROWS]:
        picture = (cases.images[i].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        picture = np.ascontiguousarray(cv2.resize(picture, (TILE, TILE), interpolation=cv2.INTER_AREA))
        draw_skeleton(picture, (errors.found[i] + 1) * TILE / 2, np.ones(21))
        points = ((cases.keypoints[i].numpy() + 1) * TILE / 2).round()
        for x, y in points[np.isfinite(points).all(axis=1)].astype(int):
            cv2.circle(picture, (int(x), int(y)), 2, (255, 255, 255), 1, cv2.LINE_AA)
        cv2.putText(picture, f"{error[i]:.0f} px", (4, TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1)
        tiles.append(picture)
    return contact_sheet(tiles, SHEET_COLUMNS, ground=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--photos", type=Path, help="folder with labels.jsonl and crops/")
    parser.add_argument("--fixtures", type=Path, help="folder with val2d.jsonl and val3d.jsonl")
    parser.add_argument("--synthetic", type=int, default=500, help="number of rendered hands")
    parser.add_argument("--out", type=Path, help="results file (CSV) to add the rows to")
    parser.add_argument("--card", action="store_true", help="name weak groups in the packaged model's card")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of the worst hands, errors_SET.jpg")
    parser.add_argument("--sheets-of", nargs="+", choices=SHEETS, default=list(SHEETS), help="sets to draw, else all")
    options = parser.parse_args()
    hand = HandModel.load("open")
    estimator = HandEstimator(options.model, device="cpu", refine="off")
    network = estimator.network
    size = network.config.input_size
    sets = {"synthetic": synthetic_hands(hand, size, options.synthetic)} if options.synthetic else {}
    if options.photos:
        sets["photos"] = held_back_photos(options.photos, hand, size)
    if options.fixtures:
        sets["fixtures"] = fixture_hands(options.fixtures, size)
    weak: dict[str, dict[str, dict[str, float]]] = {}
    for name, cases in sets.items():
        errors = errors_of(estimator, cases)
        hands = table(cases, errors)
        rows = hands + keypoint_table(cases, errors)
        print("data", *hands[0], sep="\t")
        for row in rows:
            print(name, *(row.get(column, "") for column in hands[0]), sep="\t")
        weak[name] = weak_groups(hands)
        for group, figures in weak[name].items():
            print(f"weak in {name}: {group}:", ", ".join(f"{key} {value}" for key, value in figures.items()))
        if options.out:
            made = {"model": network.config.name, "commit": commit(), "data": name}
            append_rows(options.out, [{**made, **row} for row in rows])
        if options.sheets and name in options.sheets_of:
            write_picture(ensure_folder(options.sheets) / f"errors_{SHEETS[name]}.jpg", sheet(cases, errors))
    if options.card:
        amend_card(weights_path(network.config.name), weak_groups=weak)


if __name__ == "__main__":
    main()
