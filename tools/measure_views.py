"""Does the same rendered hand come out the same from six sides? View inconsistency where the truth is known.

    python tools/measure_views.py --hands 60 --results results/views.csv

Hands in poses of all families, each held still and rendered from six sides, 60° apart about a vertical axis, the first
at random, tilted by up to 20°; another light, background and skin each time. The measure is that of `densehand evaluate
--consistency views` (docs/metrics.md): joints in a palm frame, their scatter over the six answers, in % of the distance
from wrist to middle knuckle. Two yardsticks: `shuffled`, the same answers dealt out to hands at random (what one
would get who does not recognise the hand at all), and `error`, their distance from the true joints in the same frame.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from densehand.evaluate import append_rows
from densehand.hand.model import HandModel
from densehand.metrics import palm_frame, view_consistency
from densehand.network.estimator import DHPE
from densehand.network.mesh import skeleton_in_crop
from densehand.network.zoo import open_model
from densehand.refine.fast import refine_fast
from densehand.revision import commit
from densehand.synth import Synthesizer
from densehand.synth.config import SynthConfig
from densehand.synth.poses import sample_poses, sample_shapes
from densehand.synth.retexture import GivenHands

SEED = 61_042  # no training's
SIDES = 6
TILT = math.radians(20)


def hands_from_all_sides(model: HandModel, maker: Synthesizer, count: int) -> GivenHands:
    """`count` hands, `SIDES` rows each."""
    draw = torch.Generator().manual_seed(SEED)
    pose, _ = sample_poses(
        count, model, draw, maker.anchors, maker.config.anchor_share, maker.config.pose_spread, maker.config.free_share
    )
    shape = sample_shapes(count, draw, "cpu")
    first = 2 * math.pi * torch.rand(count, 1, generator=draw)
    turn = first + torch.arange(SIDES) * (2 * math.pi / SIDES)
    yaw = torch.stack([torch.zeros_like(turn), turn, torch.zeros_like(turn)], -1).flatten(0, 1)
    tilt = TILT * (2 * torch.rand(count * SIDES, 3, generator=draw) - 1) * torch.tensor([1.0, 0.0, 1.0])
    seen = roma.quat_product(roma.rotvec_to_unitquat(tilt), roma.rotvec_to_unitquat(yaw))
    pose, shape = (value.repeat_interleave(SIDES, 0) for value in (pose, shape))
    return GivenHands(pose, shape, roma.quat_xyzw_to_wxyz(seen))


@torch.no_grad()
def answers(network: DHPE, images: Tensor, refine: bool) -> Tensor:
    """The 3D joints of right hands, crop units."""
    parts = []
    for part in images.split(32):
        estimate = network(part)
        h = estimate.parameters[-1]
        if refine:
            h = refine_fast(network.hand, h, estimate.keypoints_2d, estimate.keypoint_confidence).h
        parts.append(skeleton_in_crop(network.hand, h))
    return torch.cat(parts)


def scatter(joints: np.ndarray) -> tuple[float, float]:
    """Mean and median inconsistency (hands, sides, 21, 3), %."""
    found = [view_consistency(list(hand)).percent for hand in joints]
    return float(np.mean(found)), float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--hands", type=int, default=60)
    parser.add_argument("--plain", action="store_true", help="nothing held, nothing before the hand, no other hand")
    parser.add_argument("--results", type=Path, help="results file (CSV) to add a row to")
    chosen = parser.parse_args()
    network = open_model(chosen.model)
    model = HandModel.load("open")
    bare = SynthConfig(object_share=0.0, occluder_share=0.0, other_before=0.0)
    size = network.config.input_size
    maker = Synthesizer(model, size=size, seed=SEED, config=bare if chosen.plain else SynthConfig())
    given = hands_from_all_sides(model, maker, chosen.hands)
    images = [(maker.sample(len(part.pose), like=part).images * 255).round() / 255 for part in given.split(64)]
    truth = model.skeleton(given.pose, given.shape).unflatten(0, (chosen.hands, SIDES)).numpy()
    for refine in (False, True):
        joints = answers(network, torch.cat(images), refine).unflatten(0, (chosen.hands, SIDES)).numpy()
        error = [
            np.linalg.norm(palm_frame(a) - palm_frame(b), axis=-1).mean()
            for a, b in zip(joints.reshape(-1, 21, 3), truth.reshape(-1, 21, 3), strict=True)
        ]
        order = np.random.default_rng(SEED).permutation(chosen.hands * SIDES)
        (mean, median), (dealt, _) = scatter(joints), scatter(joints.reshape(-1, 21, 3)[order].reshape(joints.shape))
        wrong = round(100 * float(np.mean(error)), 2)
        row = {
            "model": Path(chosen.model).stem, "commit": commit(), "refine": "fast" if refine else "off",
            "hands": chosen.hands, "things": "no" if chosen.plain else "yes", "percent_mean": round(mean, 2),
            "percent_median": round(median, 2), "shuffled": round(dealt, 2), "error": wrong,
        }  # fmt: skip
        print("  ".join(f"{name} {value}" for name, value in row.items()))
        if chosen.results:
            append_rows(chosen.results, [row])


if __name__ == "__main__":
    main()
