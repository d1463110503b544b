"""Ego2Hands (Lin et al., 2020): hands seen from the head, with masks.

Layout (github.com/AlextheEngineer/Ego2Hands, `data_loaders/Ego2Hands.py`), folders below the given one:

    train   every NAME.png outside the evaluation folders but `*energy*` and `*vis*`: RGBA, a right hand cut out, the
            mask is alpha > 128
    test    eval_seq*_imgs/…/NAME.png with NAME_seg.png beside it: 50 left hand, 100 right hand (the loader divides
            by 50); a picture gives one sample a side that is there, the box is the mask's

No keypoints. Transparent pixels of the training pictures are shown over white.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import Dataset, guarded
from densehand.data.sample import MaskSource, Sample

_EVALUATION = "eval_seq*_imgs"
HANDS = (("left", 50, 99), ("right", 100, 149))
"""Side, lowest and highest value of its mask."""


def _evaluation(root: Path) -> Iterator[Path]:
    for folder in sorted(root.rglob(_EVALUATION)):
        yield from sorted(folder.rglob("*_seg.png"))


def _training(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.png")):
        inside = path.relative_to(root).parts[:-1]
        if not any(part.startswith("eval_seq") for part in inside) and not re.search("energy|vis", path.name):
            yield path


def _missing(root: Path, split: str) -> list[str]:
    if split == "test":
        return [] if any(_evaluation(root)) else [f"{_EVALUATION} with *_seg.png"]
    return [] if any(_training(root)) else ["pictures (*.png) of the training set"]


def _read(root: Path, split: str) -> Iterator[Sample]:
    if split == "train":
        for path in _training(root):
            name = path.relative_to(root).with_suffix("").as_posix()
            yield Sample(name, path, "right", mask=MaskSource(path, 129, 255, channel=3))
        return
    for mask in _evaluation(root):
        image = mask.with_name(mask.name.removesuffix("_seg.png") + ".png")
        for side, low, high in HANDS:
            name = f"{image.relative_to(root).with_suffix('').as_posix()}-{side}"
            sample = guarded(name, image, _sample, MaskSource(mask, low, high), side)
            if sample.problem is not None or sample.mask is not None:
                yield sample


def _sample(name: str, image: Path, source: MaskSource, side: str) -> Sample:
    rows, columns = np.nonzero(source.read())
    if not len(rows):
        return Sample(name, image, side)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)
    return Sample(name, image, side, box, mask=source)


DATASETS = (
    Dataset(
        name="ego2hands",
        title="Ego2Hands",
        splits=("train", "test"),
        has=("side", "box", "mask"),
        order="—",
        units="—",
        licence=common.UNVERIFIED,
        missing=_missing,
        read=_read,
    ),
)
