"""The hands of `tools/analyse_errors.py`: held-back photos, fixtures, rendered ones, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from densehand.attributes import (
    pose_group,
    self_hidden_group,
    shape_groups,
    sharpness,
    thirds,
    tone_group,
    typology_angle,
    view_group,
)
from densehand.camera import SHOWN, Crop
from densehand.errors import InputError
from densehand.evaluation.cases import FIXTURES, open_cases
from densehand.evaluation.errors import known_joints, known_keypoints
from densehand.hand.model import HandModel
from densehand.resample import crop_image

SEED = 20_261_121  # of the synthetic hands; training seeds are hashed pairs, so none equals it
RENDERED_TONES = ("I", "II", "III", "IV", "V", "VI")  # Fitzpatrick


@dataclass
class Cases:
    """n pictures of right hands, and what is known of each; NaN is what has no label."""

    images: Float[Tensor, "n 3 s s"]  # [0, 1]
    keypoints: Float[Tensor, "n 21 2"]  # crop units
    joints: Float[ndarray, "n 21 3"]  # camera frame, any unit
    true_joints: bool  # whether the joints are true ones, in metres
    was_left: Bool[ndarray, " n"]
    groups: dict[str, list[str]]
    seen: Bool[ndarray, "n 21"] | None = None  # neither hidden nor outside the picture, where that is known
    shown: float = 1.0  # side of the pictures over the house's crop, in whose pixels errors are told


def described(
    images: Float[Tensor, "n 3 s s"], keypoints: Float[Tensor, "n 21 2"], joints: Float[ndarray, "n 21 3"]
) -> dict[str, list[str]]:
    """The words of `densehand.attributes` for each picture."""
    pictures = (images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
    pixels = ((keypoints + 1) * (images.shape[-1] / 2)).numpy()
    pairs = list(zip(pictures, pixels, strict=True))
    return {
        "pose": [pose_group(j) for j in joints],
        "view": [view_group(j) for j in joints],
        "hides itself (proxy)": [self_hidden_group(j) for j in joints],
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
    rows = records.trusted()
    batch = augment(hand, records, rows, size, replace(PLAIN, zoom=(SHOWN, SHOWN)), torch.Generator().manual_seed(0))
    joints = batch.skeleton.numpy()
    left = photos.mirrored[rows].numpy()
    groups = described(batch.images, batch.keypoints, joints)
    groups |= {"source": [photos.sources[i] for i in rows.tolist()], "side": np.where(left, "left", "right").tolist()}
    return Cases(batch.images, batch.keypoints, joints, False, left, groups, shown=SHOWN)


def fixture_hands(folder: Path, size: int) -> Cases:
    """Measuring fixtures whose side and box are known. Raises InputError where there is none."""
    images, keypoints, joints, left, sources = [], [], [], [], []
    cases = list(open_cases(FIXTURES, folder))
    for case in cases:
        sample = case.sample
        if sample.problem is not None or case.box is None or sample.side is None or not known_keypoints(case).any():
            continue
        mirrored = sample.side == "left"
        crop = Crop.from_box(case.box, mirrored=mirrored).times(SHOWN)
        images.append(crop_image(sample.read_image(), crop, size))
        keypoints.append(crop.to_crop(case.labels))
        metric = np.full((21, 3), np.nan) if sample.joints_3d is None else sample.joints_3d * [1 - 2 * mirrored, 1, 1]
        joints.append(np.where(known_joints(case)[:, None], metric, np.nan))
        left.append(mirrored)
        sources.append(f"{case.part} {case.source}")
    if not images:
        raise InputError(f"{folder}: no hand of known side with 2D keypoints; give a folder with val2d and val3d.jsonl")
    if len(images) < len(cases):
        print(f"{folder}: {len(cases) - len(images)} of {len(cases)} hands left out: side or 2D keypoints not known")
    pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    points, stacked = torch.from_numpy(np.stack(keypoints)).float(), np.stack(joints)
    groups = described(pictures, points, stacked)
    groups |= {"source": sources, "side": np.where(left, "left", "right").tolist()}
    return Cases(pictures, points, stacked, True, np.array(left), groups, shown=SHOWN)


def synthetic_hands(hand: HandModel, size: int, count: int) -> Cases:
    """Rendered hands, every second one to be shown as a left hand when sides are judged."""
    from densehand.synth.poses import FAMILY_NAMES
    from densehand.synth.sampler import Synthesizer

    synthesizer = Synthesizer(hand, size=size, seed=SEED)
    parts = [synthesizer.sample(min(64, count - start)) for start in range(0, count, 64)]

    def whole(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    keypoints, seen = whole("keypoints"), whole("visible").numpy()
    metric = hand.skeleton(whole("pose"), whole("shape"), whole("rotation")).numpy()
    groups = described(whole("images"), keypoints, metric)
    names = (*FAMILY_NAMES, "anchor pose")
    groups["family"] = [names[i] for i in whole("family").tolist()]
    groups["rendered skin"] = [RENDERED_TONES[min(5, int(t * 6))] for t in whole("tone").tolist()]
    groups["seen"] = ["under 60 %" if v < 0.6 else "60 to 85 %" if v < 0.85 else "over 85 %" for v in seen.mean(1)]
    left = np.arange(count) % 2 == 1
    groups |= {**shape_groups(whole("shape").numpy()), "side": np.where(left, "left", "right").tolist()}
    return Cases(whole("images"), keypoints, metric, True, left, groups, seen)
