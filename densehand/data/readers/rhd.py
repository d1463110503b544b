"""Rendered Handpose Dataset (Zimmermann and Brox, ICCV 2017): 41,258 + 2,728 rendered people, both hands labelled.

Layout (github.com/lmb-freiburg/hand3d, `create_binary_db.py`, `data/BinaryDbReader.py`), in RHD_published_v2:

    training/anno_training.pickle   evaluation/anno_evaluation.pickle
                                    {number: {"xyz": 42×3, "uv_vis": 42×3, "K": 3×3}}
    SPLIT/color/%05d.png  SPLIT/mask/%05d.png     mask: 0 background, 1 person, 2–17 left hand, 18–33 right hand

Keypoints 0–20 are the left hand, 21–41 the right: the wrist (not the palm), then thumb to little, each from the tip
to the palm. Metres, camera frame; `visible` as published. A hand of which nothing is visible gives no sample. The
pickle is read by `hand/safe_pickle.py`, in which nothing but arrays exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densehand.data.readers import common
from densehand.data.readers.common import Dataset, guarded
from densehand.data.sample import MaskSource, Sample
from densehand.errors import InputError
from densehand.hand.keypoints import to_house_order
from densehand.hand.safe_pickle import as_numbers

MAX_PICKLE = 2**30
HANDS = (("left", slice(0, 21), 2, 17), ("right", slice(21, 42), 18, 33))
"""Side, its keypoints of the 42, the first and last value of its mask."""


def _missing(root: Path, split: str) -> list[str]:
    return common.absent(root, f"{split}/anno_{split}.pickle", f"{split}/color")


def _read(root: Path, split: str) -> Iterator[Sample]:
    path = root / split / f"anno_{split}.pickle"
    try:
        labels = common.read_pickle(path, MAX_PICKLE)
    except common.BadLabel as error:
        raise InputError(str(error)) from error
    if not isinstance(labels, dict):
        raise InputError(f"{path}: holds no dictionary; fetch it again")
    for number, label in labels.items():
        if not isinstance(number, int):
            raise InputError(f"{path}: {number!r} is no sample number; fetch the file again")
        image = root / split / "color" / f"{number:05d}.png"
        for side, part, low, high in HANDS:
            mask = MaskSource(root / split / "mask" / f"{number:05d}.png", low, high)
            sample = guarded(f"{split}/{number:05d}-{side}", image, _sample, label, side, part, mask)
            if sample.problem is not None or (sample.visible is not None and sample.visible.any()):
                yield sample


def _sample(name: str, image: Path, label: Any, side: str, part: slice, mask: MaskSource) -> Sample:
    uv = common.numbers(as_numbers(label["uv_vis"]), (42, 3), "uv_vis")
    xyz = common.numbers(as_numbers(label["xyz"]), (42, 3), "xyz")
    uv, xyz = to_house_order(uv[part], "rhd"), to_house_order(xyz[part], "rhd")
    return Sample(
        name=name,
        image=image,
        side=side,
        box=common.tight(uv[:, :2], uv[:, 2] == 1),
        keypoints_2d=uv[:, :2],
        visible=uv[:, 2] == 1,
        joints_3d=xyz,
        camera=common.numbers(as_numbers(label["K"]), (3, 3), "K"),
        mask=mask,
    )


DATASETS = (
    Dataset(
        name="rhd",
        title="RHD",
        splits=("training", "evaluation"),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera", "mask"),
        order="wrist, then each finger tip to palm; 42: left, right",
        units="m",
        licence=common.UNVERIFIED,
        missing=_missing,
        read=_read,
    ),
)
