"""FPHA, First-Person Hand Action benchmark (Garcia-Hernando et al., CVPR 2018): right hands with magnetic sensors.

Layout (github.com/guiggh/hand_pose_action, README):

    Video_files/Subject_S/ACTION/N/color/color_%04d.jpeg     1920×1080
    Hand_pose_annotation_v1_1/Subject_S/ACTION/N/skeleton.txt (or …_v1/): lines t x_1 y_1 z_1 … x_21 y_21 z_21

Joints: wrist (not palm), the five MCPs thumb to little, then PIP, DIP, TIP of each finger; millimetres in the depth
camera's frame, carried into the colour camera by the README's extrinsics. One set of intrinsics for all; lens
distortion is not documented. Splits: the README's cross-subject ones, subjects 1, 3, 4 for training. All hands are
taken as right, as public readers do (the sensors are on the right hand; the left may be in the picture, unlabelled).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import Sample
from densehand.hand.keypoints import to_house_order

CAMERA = common.intrinsics(1395.749023, 1395.749268, 935.732544, 540.681030)
ROTATION = np.array(
    [
        [0.999988496304, -0.00468848412856, 0.000982563360594],
        [0.00469115935266, 0.999985218048, -0.00273845880292],
        [-0.000969709653873, 0.00274303671904, 0.99999576807],
    ]
)
TRANSLATION = np.array([0.0257, 0.00122, 0.003902])  # metres

ORDER = (0, 1, 5, 9, 13, 17, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20)
"""The house keypoint of each published joint."""

SUBJECTS = {"train": (1, 3, 4), "test": (2, 5, 6)}
_LABELS = ("Hand_pose_annotation_v1_1", "Hand_pose_annotation_v1")


def _labels(root: Path) -> Path:
    return next((root / name for name in _LABELS if (root / name).is_dir()), root / _LABELS[0])


def _missing(root: Path, split: str) -> list[str]:
    labels = [] if _labels(root).is_dir() else [_LABELS[0]]
    return labels + common.absent(root, "Video_files")


def _read(root: Path, split: str) -> Iterator[Sample]:
    for subject in SUBJECTS[split]:
        for path in sorted((_labels(root) / f"Subject_{subject}").glob("*/*/skeleton.txt")):
            folder = path.parent.relative_to(_labels(root))
            for number, line in enumerate(common.lines_of(path), 1):
                yield guarded(f"{folder.as_posix()}:{number}", b"", _open, line, root / "Video_files" / folder)


def _open(name: str, _: bytes, line: str, folder: Path) -> Sample:
    frame, *values = line.split()
    image = folder / "color" / f"color_{int(float(frame)):04d}.jpeg"
    return guarded(name, image, _sample, values)


def _sample(name: str, image: Path, values: list[str]) -> Sample:
    if len(values) % 3:
        raise BadLabel(f"{len(values)} coordinates, not 63")
    published = common.numbers(np.array(values, dtype=float).reshape(-1, 3), (21, 3), "skeleton")
    joints = to_house_order(published, ORDER) / 1000 @ ROTATION.T + TRANSLATION
    keypoints = common.project(joints, CAMERA)
    return Sample(name, image, "right", common.tight(keypoints), keypoints, None, joints, None, CAMERA.copy())


DATASETS = (
    Dataset(
        name="fpha",
        title="FPHA",
        splits=("train", "test"),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera"),
        order="wrist, 5 MCPs, then PIP, DIP, TIP a finger",
        units="mm, depth camera",
        licence="academic research only",
        missing=_missing,
        read=_read,
    ),
)
