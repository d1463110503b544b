"""Dexter+Object (Sridhar et al., ECCV 2016): six sequences of a hand with a cuboid, five fingertips labelled.

Layout (public readers agree on it; the set's own documentation could not be reached):

    data/SEQUENCE/color/*.png                       sorted by name, one a line of the labels
    data/SEQUENCE/annotations/SEQUENCE3D.txt        lines "x, y, z; x, y, z; …": the tips thumb to little

Millimetres in the DEPTH camera's frame with x and y reversed (negated here, so that x is right and y down); z = 32001
marks a tip that is not labelled. Only the tips of `joints_3d` are valid, and they are in the depth camera's frame.
Not verified, so left None: the side (one reader takes all hands as left) and the way into the colour picture (two
readers use the same calibration with offsets that differ by some 75 pixels).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import Sample
from densehand.errors import InputError
from densehand.hand.keypoints import FINGERTIPS

SEQUENCES = ("Grasp1", "Grasp2", "Occlusion", "Rigid", "Pinch", "Rotate")
UNLABELLED = 32001


def _missing(root: Path, split: str) -> list[str]:
    return common.absent(root, *(f"data/{s}/{part}" for s in SEQUENCES for part in ("color", f"annotations/{s}3D.txt")))


def _read(root: Path, split: str) -> Iterator[Sample]:
    for sequence in SEQUENCES:
        folder = root / "data" / sequence
        lines = common.lines_of(folder / "annotations" / f"{sequence}3D.txt")
        images = sorted(path for path in (folder / "color").iterdir() if path.suffix.lower() in (".png", ".jpg"))
        if len(images) != len(lines):
            raise InputError(f"{folder}: {len(images)} pictures and {len(lines)} labels; fetch the set again")
        for image, line in zip(images, lines, strict=True):
            yield guarded(f"{sequence}/{image.stem}", image, _sample, line)


def _sample(name: str, image: Path, line: str) -> Sample:
    parts = [part.split(",") for part in line.split(";") if part.strip()]
    if len(parts) < 5:
        raise BadLabel(f"label has {len(parts)} joints, not 5")
    tips = common.numbers([[float(number) for number in part] for part in parts[:5]], (5, 3), "tips")
    joints, valid = np.full((21, 3), np.nan), np.zeros(21, dtype=bool)
    labelled = tips[:, 2] != UNLABELLED
    places = np.array(FINGERTIPS)[labelled]
    joints[places], valid[places] = tips[labelled] * (-1, -1, 1) / 1000, True
    return Sample(name, image, joints_3d=joints, joints_valid=valid)


DATASETS = (
    Dataset(
        name="dexter_object",
        title="Dexter+Object",
        splits=("test",),
        has=("joints_3d",),
        order="5 fingertips, thumb to little",
        units="mm, depth camera",
        licence=common.UNVERIFIED,
        missing=_missing,
        read=_read,
    ),
)
