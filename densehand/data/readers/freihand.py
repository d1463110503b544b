"""FreiHAND (Zimmermann et al., ICCV 2019): 32,560 frames of hands before a green screen, in four versions each.

Layout (github.com/lmb-freiburg/freihand, `utils/fh_utils.py`):

    training_K.json  training_xyz.json  training_mano.json     lists, one entry a frame
    training/rgb/%08d.jpg   frame + n · version, n frames; versions: green screen, homogenised, sampled and
                            automatic colouring          training/mask/%08d.jpg   of the frames
    evaluation_K.json  evaluation/rgb/%08d.jpg            labels (evaluation_xyz.json …) came later; read where present

Joints: the house order, the wrist first, metres, camera frame; `uv = K · xyz / z`. MANO, 61 numbers: rotation 3 and
pose 45 (axis-angle, from the mean pose: `use_mean_pose`, no PCA), shape 10, and a weak-perspective place that is not
read. The labels are of MANO's right hand, so every side is "right".
Not verified: that the published evaluation labels are named and shaped as the training ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import MaskSource, Sample
from densehand.errors import InputError

VERSIONS = 4


def _missing(root: Path, split: str) -> list[str]:
    labels = ("training_K.json", "training_xyz.json", "training_mano.json")
    return common.absent(root, f"{split}/rgb", *(labels if split == "training" else ("evaluation_K.json",)))


def _read(root: Path, split: str) -> Iterator[Sample]:
    def load(kind: str) -> list | None:
        path = root / f"{split}_{kind}.json"
        return common.read_json(path, list) if path.is_file() else None

    cameras, joints, hands = load("K") or [], load("xyz"), load("mano")
    count = len(cameras)
    for kind, values in (("xyz", joints), ("mano", hands)):
        if values is not None and len(values) != count:
            raise InputError(f"{root}: {split}_{kind}.json has {len(values)} entries, {split}_K.json {count}")
    for version in range(VERSIONS if split == "training" else 1):
        if not (root / split / "rgb" / f"{count * version:08d}.jpg").is_file() and version:
            continue  # FreiHAND v1 and many copies hold the green-screen version alone
        for index in range(count):
            image = root / split / "rgb" / f"{index + count * version:08d}.jpg"
            mask = root / split / "mask" / f"{index:08d}.jpg" if split == "training" else None
            labels = (cameras[index], joints and joints[index], hands and hands[index])
            yield guarded(f"{split}/{image.stem}", image, _sample, *labels, mask)


def _sample(name: str, image: Path, camera: Any, xyz: Any, hand: Any, mask: Path | None) -> Sample:
    matrix = common.numbers(camera, (3, 3), "K")
    sample = Sample(name, image, side="right", camera=matrix)
    if mask is not None:
        sample.mask = MaskSource(mask)
    if xyz is not None:
        sample.joints_3d = common.numbers(xyz, (21, 3), "xyz")
        sample.keypoints_2d = common.project(sample.joints_3d, matrix)
        sample.box = common.tight(sample.keypoints_2d)
    if hand is not None:
        values = hand[0] if len(hand) == 1 else hand
        if len(values) != 61:
            raise BadLabel(f"MANO label of {len(values)} numbers, not 61")
        sample.hand = common.mano(values[:58], "from mean")
    return Sample(**vars(sample))


DATASETS = (
    Dataset(
        name="freihand",
        title="FreiHAND",
        splits=("training", "evaluation"),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera", "mask", "hand"),
        order="house",
        units="m",
        licence="research only",
        missing=_missing,
        read=_read,
    ),
)
