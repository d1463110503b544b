"""Stereo Tracking Benchmark (Zhang et al., 2016): one left hand before six backgrounds, two cameras.

Layout (github.com/lmb-freiburg/hand3d, `data/stb/create_db.m`; github.com/hassony2/obman_train):

    labels/B1Counting_BB.mat          handPara 3×21×1500, millimetres, in the left stereo camera
    B1Counting/BB_left_%d.png  BB_right_%d.png    (or below images/); B1…B6, Counting and Random

Order: the PALM, not the wrist, then little to thumb, each from the palm to the tip. The wrist is not labelled: the
value kept for it is `2 · palm − middle_mcp` (the palm taken as the middle between wrist and middle knuckle, as
hand3d does for RHD) and is marked invalid and not visible. Right stereo pictures: x − 120.054 mm, same intrinsics.
All hands are left (hand3d). B1 is the test split, B2–B6 train. The Kinect-like pictures (`SK_*`) are not read.
The .mat files need scipy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import Dataset, guarded
from densehand.data.sample import Sample
from densehand.errors import DependencyError, InputError
from densehand.hand.keypoints import to_house_order

CAMERA = common.intrinsics(822.79041, 822.79041, 318.47345, 250.31296)
BASELINE = 0.120054  # metres
MIDDLE_MCP = 9
_BACKGROUNDS = {"train": range(2, 7), "test": range(1, 2)}


def _sequences(split: str) -> list[str]:
    return [f"B{number}{kind}" for number in _BACKGROUNDS[split] for kind in ("Counting", "Random")]


def _pictures(root: Path, sequence: str) -> Path:
    return root / "images" / sequence if (root / "images" / sequence).is_dir() else root / sequence


def _missing(root: Path, split: str) -> list[str]:
    labels = common.absent(root, *(f"labels/{sequence}_BB.mat" for sequence in _sequences(split)))
    return labels + [sequence for sequence in _sequences(split) if not _pictures(root, sequence).is_dir()]


def _read(root: Path, split: str) -> Iterator[Sample]:
    for sequence in _sequences(split):
        joints = _load(root / "labels" / f"{sequence}_BB.mat")
        for number in range(joints.shape[2]):
            for side in ("left", "right"):
                image = _pictures(root, sequence) / f"BB_{side}_{number}.png"
                yield guarded(f"{sequence}/{image.stem}", image, _sample, joints[:, :, number].T, side == "right")


def _load(path: Path) -> np.ndarray:
    """3×J×n, millimetres."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DependencyError("STB's .mat labels need scipy: pip install scipy") from error
    try:
        values = np.asarray(loadmat(path)["handPara"], dtype=float)
    except Exception as error:  # scipy raises many kinds for damaged files
        raise InputError(f"{path}: array handPara cannot be read ({error}); fetch the file again") from error
    if values.ndim != 3 or len(values) != 3:
        raise InputError(f"{path}: handPara is {values.shape}, not 3×21×n; fetch the file again")
    return values


def _sample(name: str, image: Path, millimetres: np.ndarray, right_camera: bool) -> Sample:
    joints = to_house_order(common.numbers(millimetres, (21, 3), "handPara"), "stb") / 1000
    joints[0] = 2 * joints[0] - joints[MIDDLE_MCP]
    joints -= (BASELINE if right_camera else 0.0, 0.0, 0.0)
    keypoints, valid = common.project(joints, CAMERA), np.arange(21) > 0
    return Sample(
        name=name,
        image=image,
        side="left",
        box=common.tight(keypoints),
        keypoints_2d=keypoints,
        visible=valid,
        joints_3d=joints,
        joints_valid=valid.copy(),
        camera=CAMERA.copy(),
    )


DATASETS = (
    Dataset(
        name="stb",
        title="STB",
        splits=("train", "test"),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera"),
        order="palm, then little to thumb, each palm to tip",
        units="mm",
        licence=common.UNVERIFIED,
        missing=_missing,
        read=_read,
    ),
)
