"""H2O (Kwon et al., ICCV 2021): two hands and an object, four fixed cameras and one on the head.

Layout (github.com/taeinkwon/h2odataset, github.com/taeinkwon/h2oplayer):

    subjectS/SEQUENCE/N/camC/rgb/%06d.png
    subjectS/SEQUENCE/N/camC/hand_pose/%06d.txt      128 numbers: 1 (annotated: 1, else 0) + 21 × (x, y, z) of the
                                                     left hand, then the same of the right
    subjectS/SEQUENCE/N/camC/cam_intrinsics.txt      fx, fy, cx, cy, width, height

Joints: metres, camera frame; the wrist (not the palm), then five fingers, each from the palm to the tip, as H2OPlayer
draws them. Splits by subject and sequence, as the README lists them. The sets that are downloaded in parts (one view,
poses alone) are read as far as they go.
Not verified: that the first of the five fingers is the thumb (no document names them), and whether the MANO poses
(`hand_pose_MANO`) are absolute or from the mean pose, so these are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import Sample

_KINDS = ("h1", "h2", "k1", "k2", "o1", "o2")
SEQUENCES = {
    "train": [f"subject{s}/{k}" for s in (1, 2) for k in _KINDS] + [f"subject3/{k}" for k in _KINDS[:3]],
    "val": [f"subject3/{k}" for k in _KINDS[3:]],
    "test": [f"subject4/{k}" for k in _KINDS],
}
HANDS = (("left", 0), ("right", 64))
"""Side, and where its 64 numbers begin."""


def _missing(root: Path, split: str) -> list[str]:
    missing = common.absent(root, *SEQUENCES[split])
    if len(missing) < len(SEQUENCES[split]):  # a part of the set may be enough
        return []
    return [f"one of {', '.join(missing)}"]


def _read(root: Path, split: str) -> Iterator[Sample]:
    for sequence in SEQUENCES[split]:
        for label in sorted((root / sequence).glob("*/cam[0-9]/hand_pose/*.txt")):
            view = label.parent.parent
            image = view / "rgb" / f"{label.stem}.png"
            for side, start in HANDS:
                name = f"{view.relative_to(root).as_posix()}/{label.stem}-{side}"
                sample = guarded(name, image, _sample, label, side, start)
                if sample.problem is not None or sample.joints_3d is not None:
                    yield sample


def _sample(name: str, image: Path, label: Path, side: str, start: int) -> Sample:
    values = numbers_of(label, 2**16)
    if values.shape != (128,):
        raise BadLabel(f"{label}: {values.size} numbers, not 128")
    if values[start] != 1:
        return Sample(name, image, side)  # not annotated
    fx, fy, cx, cy = numbers_of(label.parent.parent / "cam_intrinsics.txt", 2**16)[:4]
    camera = common.intrinsics(fx, fy, cx, cy)
    joints = values[start + 1 : start + 64].reshape(21, 3)
    keypoints = common.project(joints, camera)
    return Sample(name, image, side, common.tight(keypoints), keypoints, None, joints, None, camera)


def numbers_of(path: Path, limit: int) -> Float[np.ndarray, " n"]:
    """All numbers of a text file, parted by blanks. Raises BadLabel, InputError."""
    try:
        return np.array(common.read_bytes(path, limit).split(), dtype=float)
    except ValueError as error:
        raise BadLabel(f"{path}: not a file of numbers ({error})") from error


DATASETS = (
    Dataset(
        name="h2o",
        title="H2O",
        splits=("train", "val", "test"),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera"),
        order="wrist, then five fingers palm to tip",
        units="m",
        licence=common.UNVERIFIED,
        missing=_missing,
        read=_read,
    ),
)
