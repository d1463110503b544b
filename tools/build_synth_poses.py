"""Known good poses around which synthesis draws: fingers that touch (solved for), and finger spelling (fitted to
recordings).

    python tools/build_synth_poses.py --letters asl_letters_mediapipe.npz

`--letters`: npz with `xyz` (N, 21, 3) MediaPipe landmarks of single hands (MIT/CC0) and `label` (N,). Writes
`densehand/synth/assets/poses.npz`: anatomical angles (K, 15, 3) in radians, float16, and the source of each.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densehand.hand.anatomy import anatomical_to_pose, pose_to_anatomical, relaxed_angles
from densehand.hand.fit import aligned_error, fit_skeleton
from densehand.hand.model import HandModel
from densehand.synth.poses import (
    EASY,
    FINGER_ROWS,
    FIST,
    HALF,
    STRAIGHT,
    THUMB_ACROSS,
    THUMB_EASY,
    THUMB_OPPOSED,
    THUMB_OVER,
    Curl,
    finger_overlap,
)  # fmt: skip

ASSETS = Path(__file__).resolve().parents[1] / "densehand" / "synth" / "assets"
PINCHED: Curl = (48.0, 42.0)
BESIDE = (8.0, 0.0, 10.0, 24.0, 30.0)

# name: (finger curls, thumb, contacts); a contact is (keypoint a, keypoint b, share a → b, other a, other b, share, gap
# in mm)
Contact = tuple[int, int, float, int, int, float, float]


def _pinch(finger: int, *others: Curl) -> tuple[tuple[Curl, ...], tuple[float, ...], list[Contact]]:
    curls = [*others]
    curls.insert(finger, PINCHED)
    tip = 8 + 4 * finger
    return tuple(curls), THUMB_OPPOSED, [(3, 4, 0.85, tip - 1, tip, 0.8, 13.0)]


CONTACTS: dict[str, tuple[tuple[Curl, ...], tuple[float, ...], list[Contact]]] = {
    "ok": _pinch(0, STRAIGHT, STRAIGHT, STRAIGHT),
    "pinch, relaxed": _pinch(0, EASY, (28, 35), (30, 36)),
    "pinch, closed": _pinch(0, HALF, (60, 75), (70, 85)),
    "pinch, fist": _pinch(0, FIST, FIST, FIST),
    "pinch middle": _pinch(1, STRAIGHT, STRAIGHT, STRAIGHT),
    "pinch ring": _pinch(2, STRAIGHT, STRAIGHT, STRAIGHT),
    "pinch little": _pinch(3, STRAIGHT, STRAIGHT, STRAIGHT),
    "tripod": (
        (PINCHED, PINCHED, HALF, (50, 60)), THUMB_OPPOSED,
        [(3, 4, 0.85, 7, 8, 0.8, 14.0), (3, 4, 0.85, 11, 12, 0.8, 14.0)],
    ),
    "beak": (
        (PINCHED, PINCHED, PINCHED, PINCHED), THUMB_OPPOSED,
        [(3, 4, 0.85, 7, 8, 0.8, 14.0), (3, 4, 0.85, 11, 12, 0.8, 14.0), (3, 4, 0.85, 15, 16, 0.8, 20.0)],
    ),
    "key": (((50, 70), (60, 80), (65, 82), (70, 80)), BESIDE, [(3, 4, 0.8, 6, 7, 0.4, 16.0)]),
    "across": ((STRAIGHT, STRAIGHT, STRAIGHT, STRAIGHT), THUMB_ACROSS, [(3, 4, 0.9, 13, 14, 0.05, 20.0)]),
    "across, far": ((STRAIGHT, STRAIGHT, STRAIGHT, STRAIGHT), THUMB_ACROSS, [(3, 4, 0.9, 17, 18, 0.0, 19.0)]),
    "fist, over middle": ((FIST, FIST, FIST, FIST), THUMB_OVER, [(3, 4, 0.8, 10, 11, 0.5, 17.0)]),
    "fist, over index": ((FIST, FIST, FIST, FIST), THUMB_OVER, [(3, 4, 0.8, 6, 7, 0.5, 17.0)]),
    "fist, beside": ((FIST, FIST, FIST, FIST), BESIDE, [(3, 4, 0.8, 5, 6, 0.8, 17.0)]),
    "point": ((STRAIGHT, FIST, FIST, FIST), THUMB_OVER, [(3, 4, 0.8, 10, 11, 0.5, 17.0)]),
    "two": ((STRAIGHT, STRAIGHT, FIST, FIST), THUMB_OVER, [(3, 4, 0.8, 14, 15, 0.5, 17.0)]),
    "three": ((STRAIGHT, STRAIGHT, STRAIGHT, FIST), THUMB_ACROSS, [(3, 4, 0.8, 18, 19, 0.5, 16.0)]),
    "little": ((FIST, FIST, FIST, STRAIGHT), THUMB_OVER, [(3, 4, 0.8, 10, 11, 0.5, 17.0)]),
    "horns": ((STRAIGHT, FIST, FIST, STRAIGHT), THUMB_OVER, [(3, 4, 0.8, 10, 11, 0.5, 17.0)]),
    "hold": (((60, 60), (60, 60), (62, 60), (64, 58)), THUMB_OPPOSED, [(3, 4, 0.8, 11, 12, 0.5, 30.0)]),
    "rest": ((EASY, (24, 32), (28, 35), (30, 36)), THUMB_EASY, [(3, 4, 0.8, 6, 7, 0.2, 22.0)]),
}  # fmt: skip


def preset(curls: tuple[Curl, ...], thumb: tuple[float, ...]) -> Tensor:
    """(15, 3) angles in radians of given curls (index … little) and thumb (degrees)."""
    angles = torch.zeros(15, 3)
    for finger, (mcp, pip) in zip(("index", "middle", "ring", "little"), curls, strict=True):
        angles[FINGER_ROWS[finger] : FINGER_ROWS[finger] + 3, 0] = torch.tensor([mcp, pip, 0.6 * pip])
    row = FINGER_ROWS["thumb"]
    angles[row] = torch.tensor(thumb[:3])
    angles[row + 1, 0], angles[row + 2, 0] = thumb[3], thumb[4]
    return angles * (math.pi / 180)


def solve_contacts(hand: HandModel, variants: int) -> tuple[Tensor, list[str]]:
    """Angles near each preset in which the contacts hold and fingers stay out of each other; bad ones are dropped."""
    generator = torch.Generator().manual_seed(0)
    found, names = [], []
    for name, (curls, thumb, contacts) in CONTACTS.items():
        start = preset(curls, thumb).expand(variants, 15, 3)
        noise = torch.randn(variants, 15, 3, generator=generator) * torch.tensor([0.14, 0.04, 0.02])
        goal = torch.minimum(torch.maximum(start + noise, hand.limits_lower), hand.limits_upper)
        angles = goal.clone().requires_grad_(True)
        # the fingers that do not touch keep their place
        optimiser = torch.optim.Adam([angles], lr=0.02)

        def gaps(joints: Tensor, contacts: list[Contact] = contacts) -> Tensor:
            errors = []
            for a, b, s, c, d, t, gap in contacts:
                distance = (torch.lerp(joints[:, a], joints[:, b], s) - torch.lerp(joints[:, c], joints[:, d], t)).norm(
                    dim=-1
                )
                errors.append(distance - gap / 1000)
            return torch.stack(errors, dim=1)

        for _ in range(250):
            inside = torch.minimum(torch.maximum(angles, hand.limits_lower), hand.limits_upper)
            joints = hand.skeleton(anatomical_to_pose(inside, hand), torch.zeros(variants, 10))
            loss = (
                4e4 * gaps(joints).square().sum()
                + 40.0 * finger_overlap(joints).sum()
                + 0.6 * (angles - goal).square().sum()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            inside = torch.minimum(torch.maximum(angles, hand.limits_lower), hand.limits_upper)
            joints = hand.skeleton(anatomical_to_pose(inside, hand), torch.zeros(variants, 10))
            worst, overlap = gaps(joints).abs().amax(1), finger_overlap(joints)
            good = (worst < 0.005) & (overlap < 0.006)
        gap, through = 1000 * worst.median(), 1000 * overlap.median()
        print(f"{name:18s} {int(good.sum()):3d}/{variants}  gap {gap:.1f} mm  overlap {through:.1f} mm")
        found.append(inside[good])
        names += [name] * int(good.sum())
    return torch.cat(found), names


def fit_letters(hand: HandModel, xyz: np.ndarray, labels: np.ndarray, each: int) -> tuple[Tensor, list[str]]:
    """Angles of `each` recordings of every letter, of whichever side fits better,
    those that fit within 10 % of the palm.
    """
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == letter))[:each] for letter in np.unique(labels)])
    points = torch.from_numpy(xyz[rows]).double()
    mirrored = points * points.new_tensor([-1.0, 1.0, 1.0])
    angles, errors = [], []
    for candidate in (points, mirrored):
        fits = [
            fit_skeleton(hand, part, iterations=14, shape_weight=0.02, pose_weight=0.04) for part in candidate.split(64)
        ]
        pose = torch.cat([fit.pose for fit in fits])
        fitted = torch.cat([fit.keypoints for fit in fits])
        palm = (candidate[:, 9] - candidate[:, 0]).norm(dim=-1)
        errors.append(aligned_error(fitted, candidate).mean(-1) / palm)
        angles.append(pose_to_anatomical(pose, hand.double()))
    hand.float()
    better = (errors[1] < errors[0]).long()
    error = torch.minimum(*errors)
    chosen = torch.stack(angles)[better, torch.arange(len(rows))].float()
    joints = hand.skeleton(anatomical_to_pose(chosen, hand), torch.zeros(len(chosen), 10))
    good = (error < 0.10) & (finger_overlap(joints) < 0.012)
    share, middle = better.float().mean(), error.median()
    print(f"letters: {int(good.sum())} of {len(rows)} fit, {share:.2f} mirrored, median error {middle:.3f} palms")
    return chosen[good], [f"letter {label}" for label in labels[rows][good.numpy()]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--letters", type=Path, required=True)
    parser.add_argument("--each", type=int, default=20, help="recordings of each letter")
    parser.add_argument("--variants", type=int, default=24, help="of each contact pose")
    parser.add_argument("--out", type=Path, default=ASSETS / "poses.npz")
    arguments = parser.parse_args()
    hand = HandModel.load("open")
    contacts, contact_names = solve_contacts(hand, arguments.variants)
    with np.load(arguments.letters) as data:
        letters, letter_names = fit_letters(hand, data["xyz"].astype(np.float64), data["label"], arguments.each)
    relaxed = relaxed_angles().float()[None]
    angles = torch.cat([relaxed, contacts, letters]).numpy().astype(np.float16)
    np.savez_compressed(arguments.out, angles=angles, source=np.array(["relaxed", *contact_names, *letter_names]))
    print(f"{len(angles)} poses, {arguments.out.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
