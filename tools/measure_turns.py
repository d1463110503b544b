"""What it is worth that hands which do not stand upright are looked at again, turned so (densehand/looks.py).

    python tools/measure_turns.py --photos PHOTOS --results results/turns.csv

Held-back photos and rendered hands, as they lie and turned by any angle, half of them mirrored; `HandEstimator` in
their labelled boxes, without refinement: errors (pixels of a 224-px crop) of the 2D skeleton and of the mesh, and the
share of sides that are right, with the second look and without.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from measure_looks import SEED, asked, measured_sets

from densehand import looks
from densehand.camera import ERROR_CROP, HOUSE_PADDING, in_plane
from densehand.data.augment import look_up
from densehand.data.records import Records
from densehand.evaluate import append_rows
from densehand.metrics import side_accuracy, tight_box
from densehand.photo import HandBox, Photo
from densehand.pipeline import HandEstimator
from densehand.revision import commit

SIDE, ROOM = 448, 1.4  # of the photos made, pixels, and over the side of the stored picture: corners stay inside
NEVER = 2 * math.pi  # no turn is larger


def turned(
    records: Records, angle: Float[torch.Tensor, " n"]
) -> tuple[UInt8[np.ndarray, "n s s 3"], Float[np.ndarray, "n 21 2"]]:
    """The stored pictures turned by these angles (radians), every second one mirrored, and their keypoints, pixels."""
    turn = in_plane(angle)
    back = torch.cat([ROOM * turn.mT, torch.zeros(len(turn), 2, 1)], -1)
    parts = [
        look_up(records.images[rows], back[rows], torch.full((len(rows),), ROOM), SIDE)
        for rows in torch.arange(len(turn)).split(50)
    ]
    pictures = (torch.cat(parts).permute(0, 2, 3, 1) * 255).round().byte().numpy()
    points = ((records.keypoints @ turn.mT / ROOM + 1) * (SIDE / 2)).numpy()
    pictures[1::2], points[1::2, :, 0] = pictures[1::2, :, ::-1].copy(), SIDE - points[1::2, :, 0]
    return pictures, points


def measure(estimator: HandEstimator, records: Records, angle: Float[torch.Tensor, " n"]) -> dict[str, float]:
    pictures, points = turned(records, angle)
    boxes = [tight_box(hand) for hand in points]
    shown = [Photo(p, [HandBox(tuple(map(float, box)))]) for p, box in zip(pictures, boxes, strict=True)]
    found = [hands[0] for start in range(0, len(shown), 16) for hands in estimator.estimate(shown[start : start + 16])]
    weight = records.keypoint_weight.numpy()
    unit = np.array([HOUSE_PADDING * (box[2:] - box[:2]).max() / ERROR_CROP for box in boxes])

    def error(said: list[np.ndarray]) -> np.ndarray:
        off = np.linalg.norm(np.stack(said) - points, axis=-1) / unit[:, None]
        return (off * weight).sum(1) / weight.sum(1)

    flat, mesh = error([h.keypoints_2d for h in found]), error([h.project(h.joints_3d) for h in found])
    sides = side_accuracy([h.side for h in found], [("right", "left")[k % 2] for k in range(len(found))])
    return {
        "mean_px": float(flat.mean()), "median_px": float(np.median(flat)), "mesh_px": float(mesh.mean()),
        "side_right": sides,
    }  # fmt: skip


def main() -> None:
    chosen = asked(__doc__, hands=500)
    torch.set_num_threads(1)
    estimator = HandEstimator(chosen.model, device="cpu", refine="off")
    rows, usual = [], looks.ASKEW
    for name, records in measured_sets(chosen).items():
        anyhow = (2 * torch.rand(len(records), generator=torch.Generator().manual_seed(SEED)) - 1) * math.pi
        for lie, angle in (("as they lie", torch.zeros(len(records))), ("any angle", anyhow)):
            for look, looks.ASKEW in (("as it lies", NEVER), ("upright", usual)):
                figures = measure(estimator, records, angle)
                print(f"{name:10}{lie:13}{look:12}", *(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)
                rows.append({
                    "model": Path(chosen.model).name, "commit": commit(), "set": name, "hands": len(records),
                    "turned": lie, "second_look": look, **{k: f"{v:.4f}" for k, v in figures.items()},
                })  # fmt: skip
    if chosen.results:
        append_rows(chosen.results, rows)


if __name__ == "__main__":
    main()
