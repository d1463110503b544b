"""Does the mesh bend a finger's joints as the hand bends them?

    python tools/measure_bends.py --fixtures FIXTURES --results results/bends.csv

Rendered hands of which some fingers, mostly the thumb, bend anyhow (`--synthesis.free-share`), and the fixtures' hands
of known 3D joints where a folder is given. For each joint the angle between its bones, estimated and true: the slope of
the line through them (1: as the hand bends; 0: the same whatever the hand does) and the mean difference in degrees.
Hidden fingers make any system's slopes less than 1; a slope near 0 is blindness. So rendered hands are told a second
time with the fingers alone of which all four keypoints are seen ("rendered, seen").
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from error_cases import fixture_hands
from jaxtyping import Bool, Float
from torch import Tensor

from densehand.camera import SHOWN
from densehand.errors import DensehandError
from densehand.evaluate import append_rows
from densehand.hand.keypoints import FINGERS, finger_bends
from densehand.hand.model import HandModel
from densehand.network.estimator import DHPE
from densehand.network.mesh import skeleton_in_crop
from densehand.network.zoo import open_model
from densehand.revision import commit
from densehand.synth import Synthesizer
from densehand.synth.config import SynthConfig

SEED = 88_019  # no training's
JOINTS = ("first", "second", "third")  # of a finger, from the palm


def rendered_hands(
    hand: HandModel, size: int, count: int
) -> tuple[Float[Tensor, "n 3 s s"], Float[Tensor, "n 21 3"], Bool[Tensor, "n 5"]]:
    """Pictures in [0, 1] of hands whose fingers bend anyhow, their joints, metres, and which fingers are seen whole."""
    config = SynthConfig(free_share=1.0, zoom=(SHOWN, SHOWN))
    made = Synthesizer(hand, size=size, seed=SEED, config=config)
    parts = [made.sample(min(50, count - start)) for start in range(0, count, 50)]
    joints = torch.cat([hand.skeleton(part.pose, part.shape) for part in parts])
    seen = torch.cat([part.visible for part in parts])[:, 1:].reshape(-1, len(FINGERS), 4).all(-1)
    return torch.cat([part.images for part in parts]), joints, seen


@torch.no_grad()
def estimated(network: DHPE, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 21 3"]:
    """Joints of the network's meshes, crop units."""
    parts = [network((part * 255).round() / 255).parameters[-1] for part in images.split(50)]
    return skeleton_in_crop(network.hand, torch.cat(parts))


def figures(
    found: Float[Tensor, "n 21 3"], true: Float[Tensor, "n 21 3"], told: Bool[Tensor, "n 5"] | None = None
) -> list[dict[str, Any]]:
    """For each joint of each finger: the slope of estimated over true bends, their mean distance, where the true ones
    lie (5 and 95 % of hands); degrees. ``told``: the fingers that count, by default all."""
    known = true.flatten(1).isfinite().all(1)
    counts = np.ones((len(true), len(FINGERS)), bool) if told is None else told.numpy()
    bends = [finger_bends(points.double()).rad2deg().numpy() for points in (found, true)]
    rows = []
    for i, finger in enumerate(FINGERS):
        for k, joint in enumerate(JOINTS):
            guess, truth = (b[known.numpy() & counts[:, i], i, k] for b in bends)
            low, high = np.percentile(truth, (5, 95))
            rows.append({
                "finger": finger, "joint": joint, "hands": len(truth), "true_5": f"{low:.0f}", "true_95": f"{high:.0f}",
                "slope": f"{np.polyfit(truth, guess, 1)[0]:.2f}", "error_deg": f"{np.abs(guess - truth).mean():.1f}",
            })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--fixtures", type=Path, help="folder with val2d.jsonl and val3d.jsonl")
    parser.add_argument("--hands", type=int, default=1000, help="rendered hands")
    parser.add_argument("--results", type=Path, help="results file (CSV) to add rows to")
    chosen = parser.parse_args()
    try:
        hand, network = HandModel.load("open"), open_model(chosen.model)
        images, joints, seen = rendered_hands(hand, network.config.input_size, chosen.hands)
        found = estimated(network, images)
        sets = {"rendered": figures(found, joints), "rendered, seen": figures(found, joints, seen)}
        if chosen.fixtures:
            cases = fixture_hands(chosen.fixtures, network.config.input_size)
            sets["val3d"] = figures(estimated(network, cases.images), torch.from_numpy(np.asarray(cases.joints)))
    except DensehandError as error:
        raise SystemExit(f"error: {error}") from error
    rows = []
    for name, told in sets.items():
        for row in told:
            print(name, *row.values(), sep="\t")
            rows.append({"model": Path(chosen.model).name, "commit": commit(), "set": name, **row})
    if chosen.results:
        append_rows(chosen.results, rows)


if __name__ == "__main__":
    main()
