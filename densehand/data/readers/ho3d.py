"""HO-3D v2 and v3 (Hampali et al., CVPR 2020): right hands with YCB objects.

Layout (github.com/shreyashampali/ho3d, `vis_HO3D.py`, `utils/vis_utils.py`, `pred.py`):

    train.txt  evaluation.txt        lines SEQUENCE/FRAME
    SPLIT/SEQUENCE/rgb/FRAME.png     (v2; .jpg in v3)
    SPLIT/SEQUENCE/meta/FRAME.pkl    camMat 3×3, handJoints3D 21×3 (evaluation: the wrist alone), handPose 48,
                                     handBeta 10, handBoundingBox [x0, y0, x1, y1] (evaluation)

Joints: MANO's 16, then the tips of thumb, index, middle, ring, little (`jointsMapManoToSimple`); the wrist, not the
palm. Metres in OpenGL's camera frame (y up, z backward), turned here to y down, z forward; 2D by projection. MANO:
axis-angle from the flat hand (`flat_hand_mean=True`). Frames without annotation hold None and give samples without
labels. The pickles are read by `hand/safe_pickle.py`, in which nothing but arrays exists.
Not verified: the masks (`seg`), which are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import Sample
from densehand.hand.keypoints import to_house_order
from densehand.hand.safe_pickle import as_numbers

MAX_META = 2**20
OPENGL = np.diag([1.0, -1.0, -1.0])


def _missing(root: Path, split: str) -> list[str]:
    return common.absent(root, f"{split}.txt", split)


def _read(root: Path, split: str, suffix: str) -> Iterator[Sample]:
    for line in common.lines_of(root / f"{split}.txt"):
        yield guarded(f"{split}/{line.strip()}", b"", _open, root / split, line.strip(), suffix)


def _open(name: str, nothing: bytes, folder: Path, line: str, suffix: str) -> Sample:
    sequence, _, frame = line.partition("/")
    meta = common.inside(folder, f"{sequence}/meta/{frame}.pkl")
    return guarded(name, folder / sequence / "rgb" / f"{frame}{suffix}", _sample, meta)


def _sample(name: str, image: Path, path: Path) -> Sample:
    meta = common.read_pickle(path, MAX_META)
    if not isinstance(meta, dict):
        raise BadLabel(f"{path}: holds no dictionary; fetch it again")

    def get(key: str) -> np.ndarray | None:
        return None if meta.get(key) is None else as_numbers(meta[key]).astype(float)

    joints, camera, box = get("handJoints3D"), get("camMat"), get("handBoundingBox")
    if joints is None:
        return Sample(name, image)
    camera = common.numbers(camera, (3, 3), "camMat")
    valid = np.ones(21, dtype=bool)
    if joints.size == 3:  # evaluation: the wrist
        points = np.full((21, 3), np.nan)
        points[0], valid[1:] = joints.reshape(3), False
    else:
        points = to_house_order(common.numbers(joints, (21, 3), "handJoints3D"), "ho3d")
    points = points @ OPENGL
    keypoints = common.project(points, camera)
    pose, shape = get("handPose"), get("handBeta")
    hand = None
    if pose is not None and shape is not None:
        hand = common.mano(np.concatenate([pose.ravel(), shape.ravel()]), "absolute", OPENGL)
    box = common.tight(keypoints, valid) if box is None else common.numbers(box.ravel(), (4,), "handBoundingBox")
    return Sample(name, image, "right", box, keypoints, valid, points, valid.copy(), camera, None, hand)


DATASETS = tuple(
    Dataset(
        name=f"ho3d_{version}",
        title=f"HO-3D {version}",
        splits=("train", "evaluation"),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera", "hand"),
        order="MANO's 16 joints, then 5 tips",
        units="m, OpenGL axes",
        licence="academic research only",
        missing=_missing,
        read=partial(_read, suffix=suffix),
    )
    for version, suffix in (("v2", ".png"), ("v3", ".jpg"))
)
