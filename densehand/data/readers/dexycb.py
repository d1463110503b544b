"""DexYCB (Chao et al., CVPR 2021): ten people grasping YCB objects, eight cameras.

Layout (github.com/NVlabs/dex-ycb-toolkit, README and `dex_ycb_toolkit/dex_ycb.py`):

    SUBJECT/SEQUENCE/meta.yml                               num_frames, mano_sides, mano_calib
    SUBJECT/SEQUENCE/SERIAL/color_%06d.jpg  labels_%06d.npz joint_3d 1×21×3, joint_2d 1×21×2, pose_m 1×51, seg H×W
    calibration/intrinsics/SERIAL_640x480.yml               color: fx, fy, ppx, ppy
    calibration/mano_NAME/mano.yml                          betas

Joints: the house order, the wrist first; camera frame, metres (the toolkit projects them beside meshes in metres);
all −1 where there is no visible hand or annotation: such pictures give samples without labels. `pose_m`: rotation 3,
45 PCA coefficients added to the mean pose, translation 3 (not read); all 0: none. `seg`: 255 is the hand. Splits:
s0 (default), s1 unseen subjects, s2 unseen views, s3 unseen grasped objects, each train, val, test. Pictures of one
subject alone can be read: the split's other subjects may be absent. Needs PyYAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import HandParameters, MaskSource, Sample, read_npz_array
from densehand.errors import DependencyError, InputError

SUBJECTS = (
    "20200709-weiy", "20200813-ceppner", "20200820-amousavian", "20200903-ynarang", "20200908-yux",
    "20200918-ftozetoramos", "20200928-ahanda", "20201002-dieterf", "20201015-ychao", "20201022-lmanuelli",
)  # fmt: skip
SERIALS = (
    "836212060125", "839512060362", "840412060917", "841412060263",
    "932122060857", "932122060861", "932122061900", "932122062010",
)  # fmt: skip
_ALL, _VIEWS, _SEQUENCES = range(10), range(8), range(100)


def _split(split: str) -> tuple[list[str], list[str], set[int]]:
    """Subjects, serials and the places of sequences (of a subject's, sorted) of a split such as "s0_train"."""
    setup, part = split.split("_")
    subjects, views, sequences = list(_ALL), list(_VIEWS), set(_SEQUENCES)
    if setup == "s0":
        subjects = {"train": list(_ALL), "val": [0, 1], "test": list(range(2, 10))}[part]
        sequences = {i for i in _SEQUENCES if (i % 5 == 4) != (part == "train")}
    elif setup == "s1":
        subjects = {"train": [0, 1, 2, 3, 4, 5, 9], "val": [6], "test": [7, 8]}[part]
    elif setup == "s2":
        views = {"train": list(range(6)), "val": [6], "test": [7]}[part]
    else:
        objects = {"val": (3, 19), "test": (7, 11, 15), "train": (3, 7, 11, 15, 19)}[part]
        sequences = {i for i in _SEQUENCES if (i // 5 in objects) != (part == "train")}
    return [SUBJECTS[i] for i in subjects], [SERIALS[i] for i in views], sequences


def _missing(root: Path, split: str) -> list[str]:
    subjects, serials, _ = _split(split)
    none = [] if any((root / s).is_dir() for s in subjects) else [f"one of {', '.join(subjects)}"]
    return none + common.absent(root, *(f"calibration/intrinsics/{serial}_640x480.yml" for serial in serials))


def _read(root: Path, split: str) -> Iterator[Sample]:
    subjects, serials, chosen = _split(split)
    cameras = {serial: _camera(root, serial) for serial in serials}
    for subject in subjects:
        folders = sorted(path for path in (root / subject).glob("*") if path.is_dir())
        for place, folder in enumerate(folders):
            if place not in chosen:
                continue
            meta = _yaml(folder / "meta.yml")
            try:
                side, count = meta["mano_sides"][0], int(meta["num_frames"])
                betas = _yaml(root / "calibration" / f"mano_{meta['mano_calib'][0]}" / "mano.yml")["betas"]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise InputError(f"{folder}/meta.yml: lacks {error}; fetch it again") from error
            for serial in serials:
                for frame in range(count):
                    image = folder / serial / f"color_{frame:06d}.jpg"
                    name = f"{subject}/{folder.name}/{serial}/{frame:06d}"
                    yield guarded(name, image, _sample, frame, side, betas, cameras[serial])


def _yaml(path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise DependencyError("DexYCB's .yml files need PyYAML: pip install pyyaml") from error
    try:
        return yaml.safe_load(common.read_bytes(path, 2**20))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({error}); fetch it again") from error


def _camera(root: Path, serial: str) -> np.ndarray:
    path = root / "calibration" / "intrinsics" / f"{serial}_640x480.yml"
    try:
        color = _yaml(path)["color"]
        return common.intrinsics(color["fx"], color["fy"], color["ppx"], color["ppy"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: lacks {error}; fetch it again") from error


def _sample(name: str, image: Path, frame: int, side: str, betas: Any, camera: np.ndarray) -> Sample:
    path = image.with_name(f"labels_{frame:06d}.npz")
    joints, points = read_npz_array(path, "joint_3d"), read_npz_array(path, "joint_2d")
    if (joints == -1).all():
        return Sample(name, image, camera=camera.copy())
    if len(joints) != 1 or len(points) != 1:
        raise BadLabel(f"{len(joints)} hands, not 1")
    keypoints = common.numbers(points[0], (21, 2), "joint_2d")
    pose = common.numbers(read_npz_array(path, "pose_m"), (1, 51), "pose_m")[0]
    shape = common.numbers(betas, (10,), "betas")
    return Sample(
        name=name,
        image=image,
        side=side,
        box=common.tight(keypoints),
        keypoints_2d=keypoints,
        joints_3d=common.numbers(joints[0], (21, 3), "joint_3d"),
        camera=camera.copy(),
        mask=MaskSource(path, 255, 255, key="seg"),
        hand=HandParameters("mano", pose[3:48], shape, pose[:3], "pca") if pose.any() else None,
    )


DATASETS = (
    Dataset(
        name="dexycb",
        title="DexYCB",
        splits=tuple(f"{setup}_{part}" for setup in ("s0", "s1", "s2", "s3") for part in ("train", "val", "test")),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera", "mask", "hand"),
        order="house",
        units="m",
        licence="CC-BY-NC 4.0 (not verified)",
        missing=_missing,
        read=_read,
    ),
)
