"""What refinement from several pictures gains over each picture alone, with a network's own answers.

    python tools/measure_joint_refine.py --hands 40 --fixtures FIXTURES --results results/joint_refinement.csv

Views: hands held still and rendered from six sides (`tools/measure_views.py`), 60° apart; each network answer refined
alone, then with its neighbours, 2, 3 or 6 views that share pose and shape, without cameras and with the true ones. All
rows are of the same pictures. Film: the frames of `FILM` among the measuring fixtures, each alone, then together with
one shape, without and with smoothing.

mesh_px: the mesh's projected joints, pixels of a 224-px crop. pa_mm: PA-MPJPE; root_mm: wrists laid together, so that
turn and size count. bone_mm: how far the 20 bones' lengths are off. accel: mean ‖second difference‖ of the joints
relative to the wrist, mm/frame², over frames without a gap between them; accel_error: the same of the difference from
the labels (docs/metrics.md).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from measure_views import SEED, hands_from_all_sides

from densehand.camera import HOUSE_PADDING
from densehand.evaluate import append_rows, labelled_box, read_fixture
from densehand.evaluation.errors import crop_pixel
from densehand.hand.keypoints import BONES
from densehand.hand.model import HandModel, quaternion_to_matrix
from densehand.images import read_image
from densehand.metrics import keypoint_error, pa_mpjpe, root_relative_error
from densehand.photo import HandBox
from densehand.pipeline import HandEstimator
from densehand.refine.cameras import KnownCamera
from densehand.refine.modes import FAST, FRAMES, VIEWS
from densehand.refine.views import refine_views
from densehand.result import Hand
from densehand.revision import commit
from densehand.synth import Synthesizer
from densehand.synth.batch import SynthBatch
from densehand.synth.config import SynthConfig
from densehand.synth.sampler import fit_weak_perspective

FILM = "rgbd_sequence"
TOGETHER = (2, 3, 6)  # views; each divides SIDES
SMOOTH = (20.0, 10.0, 5.0, 2.0)  # degrees a frame


@dataclass
class Seen:
    """A hand in a picture, the network's answer to it, and the truth: pixels, mm in the camera's axes, the camera."""

    found: Hand
    keypoints: Float[np.ndarray, "21 2"]
    joints: Float[np.ndarray, "21 3"]
    camera: KnownCamera | None = None


def errors(cases: Sequence[Seen], hands: Sequence[Hand]) -> dict[str, float]:
    """Mean errors of `hands`, one a case."""
    rows = []
    for case, hand in zip(cases, hands, strict=True):
        joints = hand.joints_3d * 1000.0
        pixel = crop_pixel(case.found.box.astype(float))
        rows.append(
            (
                keypoint_error(hand.project(hand.joints_3d), case.keypoints).mean() / pixel,
                pa_mpjpe(joints, case.joints),
                root_relative_error(joints, case.joints),
                np.abs(bones(joints) - bones(case.joints)).mean(),
            )
        )
    means = np.mean(rows, axis=0)
    return {name: round(float(v), 2) for name, v in zip(("mesh_px", "pa_mm", "root_mm", "bone_mm"), means, strict=True)}


def bones(joints: Float[np.ndarray, "*f 21 3"]) -> Float[np.ndarray, "*f 20"]:
    """Their lengths."""
    start, end = np.array(BONES).T
    return np.linalg.norm(joints[..., end, :] - joints[..., start, :], axis=-1)


# ---- views


def true_cameras(made: SynthBatch, model: HandModel) -> list[KnownCamera]:
    """The pinhole camera of each rendered picture; the world is the hand's own frame."""
    turn = quaternion_to_matrix(made.rotation)
    joints = model.skeleton(made.pose, made.shape, made.rotation)
    place = -joints.mean(1)
    place[:, 2] += made.camera_distance
    seen = joints + place[:, None]
    # what lies between the rays and the crop is a zoom and a shift
    zoom, shift = fit_weak_perspective(seen[..., :2] / seen[..., 2:], made.keypoints)
    half = made.images.shape[-1] / 2
    lens = half * torch.cat([zoom[:, None], zoom[:, None], shift + 1], dim=1)
    return [KnownCamera(*(value.double().numpy() for value in row)) for row in zip(lens, turn, place, strict=True)]


def rendered(estimator: HandEstimator, count: int) -> list[Seen]:
    """`count` hands of `SIDES` pictures each, in their order; each picture is the network's crop."""
    model, size = estimator.hand, estimator.network.config.input_size
    maker = Synthesizer(model, size=size, seed=SEED, config=SynthConfig(centre_jitter=0.0, zoom=(1.0, 1.0)))
    given = hands_from_all_sides(model, maker, count)
    edge = size * (1 - 1 / HOUSE_PADDING) / 2
    box = HandBox((edge, edge, size - edge, size - edge), "right")
    cases: list[Seen] = []
    for part in given.split(60):
        made = maker.sample(len(part.pose), like=part)
        joints = 1000 * model.skeleton(made.pose, made.shape, made.rotation).numpy()
        pictures = (made.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        points = (made.keypoints.numpy() + 1) * (size / 2)
        for picture, *truth in zip(pictures, points, joints, true_cameras(made, model), strict=True):
            cases.append(Seen(estimator(picture, [box])[0], *truth))
    return cases


def measure_views(cases: Sequence[Seen], model: HandModel) -> list[dict[str, Any]]:
    """Rows of a hand's views, `SIDES` after each other: alone, and with the neighbours."""
    found = [case.found for case in cases]
    rows = [{"what": "off"} | errors(cases, found)]
    rows.append({"what": FAST} | errors(cases, [refine_views(model, [hand], FAST)[0] for hand in found]))
    for known in (False, True):
        for count in TOGETHER:
            hands: list[Hand] = []
            for start in range(0, len(cases), count):
                part = cases[start : start + count]
                cameras = [case.camera for case in part if case.camera is not None] if known else None
                hands += refine_views(model, [case.found for case in part], VIEWS, cameras)
            rows.append({"what": f"{count} views" + ", cameras" * known} | errors(cases, hands))
    return rows


# ---- films


def film(estimator: HandEstimator, folder: Path) -> tuple[list[Seen], Bool[np.ndarray, " t"]]:
    """The frames of `FILM`, and which three that follow one another (t = frames − 2) have no gap between them.

    A frame's time is the first number in its file name.
    """
    rows = [row for row in read_fixture(folder, "val3d.jsonl") if row["source"] == FILM]
    times = np.array([int(re.findall(r"\d+", Path(row["image"]).name)[0]) for row in rows])
    cases = []
    for row in rows:
        (hand,) = estimator(read_image(folder / row["image"]), [HandBox(labelled_box(row), row["side"])])
        cases.append(Seen(hand, np.asarray(row["keypoints_px"]), np.asarray(row["joints_mm"])))
    gaps = np.diff(times)
    close = gaps < 1.5 * np.median(gaps)
    return cases, close[1:] & close[:-1]


def measure_film(cases: Sequence[Seen], even: Bool[np.ndarray, " t"], model: HandModel) -> list[dict[str, Any]]:
    """Rows of a film's frames: alone, together, smoothed. The labels' own restlessness in a row of its own."""

    def bend(joints: Float[np.ndarray, "t 21 3"]) -> Float[np.ndarray, "s 21 3"]:
        return np.diff(joints - joints[:, :1], n=2, axis=0)[even]

    def mean(bends: Float[np.ndarray, "s 21 3"]) -> float:
        return round(float(np.linalg.norm(bends, axis=-1).mean()), 2)

    truth = bend(np.stack([case.joints for case in cases]))
    found = [case.found for case in cases]
    ways = {
        "off": found,
        FAST: [refine_views(model, [hand], FAST)[0] for hand in found],
        FRAMES: refine_views(model, found, FRAMES),
    }
    for degrees in SMOOTH:
        ways[f"{FRAMES}, {degrees:g}°"] = refine_views(model, found, FRAMES, smooth=math.radians(degrees))
    rows: list[dict[str, Any]] = [{"what": "labels", "accel": mean(truth)}]
    for name, hands in ways.items():
        own = bend(np.stack([hand.joints_3d * 1000.0 for hand in hands]))
        rows.append({"what": name} | errors(cases, hands) | {"accel": mean(own), "accel_error": mean(own - truth)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--hands", type=int, default=40, help="rendered hands of six views each; 0: none")
    parser.add_argument("--fixtures", type=Path, help="folder with val3d.jsonl: measure its film too")
    parser.add_argument("--results", type=Path, help="results file (CSV) to add the rows to")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    estimator = HandEstimator(chosen.model, device="cpu", refine="off")
    measured: dict[str, list[dict[str, Any]]] = {}
    if chosen.hands:
        cases = rendered(estimator, chosen.hands)
        measured["views"] = measure_views(cases, estimator.hand)
    if chosen.fixtures:
        measured["film"] = measure_film(*film(estimator, chosen.fixtures), estimator.hand)
    about = {"model": estimator.name, "commit": commit()}
    for data, rows in measured.items():
        for row in rows:
            print(f"{data}  " + "  ".join(f"{name} {value}" for name, value in row.items()))
    if chosen.results:
        append_rows(chosen.results, [about | {"data": data} | row for data, rows in measured.items() for row in rows])


if __name__ == "__main__":
    main()
