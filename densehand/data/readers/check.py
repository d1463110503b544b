"""What is wrong with a dataset on disk: labels that cannot be, pictures that cannot be read. Nothing here raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from densehand.data.readers.common import project
from densehand.data.sample import FIELDS, Sample
from densehand.errors import DensehandError

FAULTS = {
    "wrong joint count": "labels of another number of joints",
    "unusable labels": "labels that cannot be read",
    "unreadable image": "pictures missing or damaged",
    "unreadable mask": "masks missing or damaged",
    "NaN labels": "labels marked valid that are no numbers",
    "empty box": "boxes without area",
    "box off the image": "boxes of which less than half lies on the picture",
    "keypoints off the image": "most visible keypoints lie outside the picture",
    "joints behind the camera": "valid joints with z ≤ 0",
    "2D and 3D disagree": "3D joints that project more than 5 px (median) from the keypoints",
    "mask of another size": "masks whose size is not the picture's",
    "empty mask": "masks without a hand",
}
"""What a sample can be found guilty of, and what it means."""

DISAGREEMENT = 5.0  # pixels
EXAMPLES = 3  # kept for each fault


@dataclass
class Report:
    """Counts over the samples given to `add`: fields they have, sides, faults, and the first examples of each fault."""

    samples: int = 0
    fields: Counter[str] = field(default_factory=Counter)
    sides: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    _image: tuple[object, np.ndarray | str] | None = None

    def add(self, sample: Sample) -> UInt8[np.ndarray, "H W 3"] | None:
        """Look at one sample; its picture, where it can be read, is handed back for drawing."""
        self.samples += 1
        image = self._picture(sample)
        for fault, detail in _faults(sample, image):
            self.faults[fault] += 1
            kept = self.examples.setdefault(fault, [])
            if len(kept) < EXAMPLES:
                kept.append(f"{sample.name}: {detail}")
        if sample.problem is None:
            self.fields.update(name for name in FIELDS if getattr(sample, name) is not None)
            self.sides[sample.side or "unknown"] += 1
        return None if isinstance(image, str) else image

    def _picture(self, sample: Sample) -> np.ndarray | str:
        """The picture or why there is none; that of the sample before is kept, as two hands share one."""
        if self._image is not None:
            before = self._image[0]
            if before is sample.image or (isinstance(before, Path) and before == sample.image):
                return self._image[1]
        try:
            image: np.ndarray | str = sample.read_image()
        except DensehandError as error:
            image = str(error)
        self._image = sample.image, image
        return image


def _faults(sample: Sample, image: np.ndarray | str) -> Iterator[tuple[str, str]]:
    """(fault, detail) of a sample."""
    if sample.problem is not None:
        yield "wrong joint count" if "joints, not" in sample.problem else "unusable labels", sample.problem
        if sample.image == b"":  # no picture is known
            return
    size = None
    if isinstance(image, str):
        yield "unreadable image", image
    else:
        size = image.shape[1], image.shape[0]
    if sample.problem is None:
        yield from _label_faults(sample)
        if size is not None:
            yield from _place_faults(sample, size)
        yield from _mask_faults(sample, size)


def _label_faults(sample: Sample) -> Iterator[tuple[str, str]]:
    for name, valid in (("keypoints_2d", sample.visible), ("joints_3d", sample.joints_valid)):
        values = getattr(sample, name)
        if values is not None and not np.isfinite(values[valid]).all():
            yield "NaN labels", name
    for name in ("box", "camera"):
        values = getattr(sample, name)
        if values is not None and not np.isfinite(values).all():
            yield "NaN labels", name
    hand = sample.hand
    if hand is not None:
        parts = [hand.pose, hand.shape] + ([] if hand.rotation is None else [hand.rotation])
        if not np.isfinite(np.concatenate(parts)).all():
            yield "NaN labels", "hand"
    joints, valid = sample.joints_3d, sample.joints_valid
    if joints is None or valid is None:
        return
    if sample.camera is not None and (joints[valid, 2] <= 0).any():
        yield "joints behind the camera", f"{(joints[valid, 2] <= 0).sum()} of {valid.sum()}"
    elif sample.camera is not None and sample.keypoints_2d is not None:
        distance = np.linalg.norm(project(joints, sample.camera) - sample.keypoints_2d, axis=1)
        distance = distance[valid & np.asarray(sample.visible) & np.isfinite(distance)]
        if len(distance) and np.median(distance) > DISAGREEMENT:
            yield "2D and 3D disagree", f"{np.median(distance):.1f} px"


def _place_faults(sample: Sample, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    if sample.box is not None and np.isfinite(sample.box).all():
        sides = sample.box[2:] - sample.box[:2]
        if (sides <= 0).any():
            yield "empty box", f"{sample.box.round(1).tolist()}"
        else:
            shown = (np.minimum(sample.box[2:], size) - np.maximum(sample.box[:2], 0)).clip(0)
            if shown.prod() < 0.5 * sides.prod():
                yield "box off the image", f"{sample.box.round(1).tolist()} on {size[0]}×{size[1]}"
    if sample.keypoints_2d is not None and sample.visible is not None:
        points = sample.keypoints_2d[sample.visible]
        points = points[np.isfinite(points).all(axis=1)]
        outside = ((points < 0) | (points > size)).any(axis=1)
        if len(points) and outside.mean() > 0.5:
            yield "keypoints off the image", f"{outside.sum()} of {len(points)}"


def _mask_faults(sample: Sample, size: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    try:
        mask = sample.read_mask()
    except DensehandError as error:
        yield "unreadable mask", str(error)
        return
    if mask is None:
        return
    if size is not None and mask.shape != size[::-1]:
        yield "mask of another size", f"{mask.shape[1]}×{mask.shape[0]} on {size[0]}×{size[1]}"
    if not mask.any():
        yield "empty mask", "no pixel"
