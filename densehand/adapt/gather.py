"""The hands of a folder of photos, cut out and kept in memory as right hands; and a teacher's keypoints for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from densehand.camera import HOUSE_PADDING, Crop
from densehand.data.photos import STORED_SIZE, read_rows
from densehand.errors import InputError
from densehand.images import find_images, read_image
from densehand.metrics import tight_box
from densehand.photo import Photo
from densehand.pipeline import HandEstimator
from densehand.resample import crop_image

PADDING = 2.4  # side of the stored picture over the hand's box: room for wider and turned crops
HOUSE = HOUSE_PADDING / PADDING  # half the house's crop in units of the stored picture
_GROUP = 8  # photos read at a time
STRETCHES = 4  # of the photos in order, each of which ends in held-back ones
SAME_HAND = 0.5  # a teacher's hand further away than this share of the box is another hand

Watch = Callable[[str, int, int], None]
"""Told of progress: what is done, how much, of how much."""


@dataclass
class Found:
    """The n hands of a folder's photos.

    images: stored pictures, left hands mirrored. crops: where each lies in its photo. photo: number of its photo in
    `paths`, which are those with a hand. unreadable: why photos could not be read. empty: photos without a hand.
    """

    images: UInt8[Tensor, "n s s 3"]
    crops: list[Crop] = field(default_factory=list)
    photo: list[int] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    unreadable: list[InputError] = field(default_factory=list)
    empty: int = 0

    def __len__(self) -> int:
        return len(self.crops)


def find_photos(folder: Path) -> list[Path]:
    """All pictures below a folder, hidden folders left out. Raises InputError where it is no folder or has none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that holds your photos")
    inside = sorted(p for p in folder.rglob("*") if p.is_dir())
    visible = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    paths = find_images([folder, *visible], problems=[])
    if not paths:
        raise InputError(f"{folder}: no pictures in this folder or below it; give the folder that holds your photos")
    return paths


def gather(
    paths: Sequence[Path], estimator: HandEstimator, whole_image: bool = False, watch: Watch | None = None
) -> Found:
    """Find and cut out the hands of the photos; with `whole_image` each photo is one hand's crop itself.

    Raises InputError where no photo could be read, or none shows a hand.
    """
    found, pictures = Found(torch.zeros(0, STORED_SIZE, STORED_SIZE, 3, dtype=torch.uint8)), []
    for start in range(0, len(paths), _GROUP):
        group, photos = [], []
        for path in paths[start : start + _GROUP]:
            try:
                photos.append(Photo(read_image(path), whole_image=whole_image))
                group.append(path)
            except InputError as error:
                found.unreadable.append(error)
        for path, photo, hands in zip(group, photos, estimator.estimate(photos), strict=True):
            for hand in hands:
                crop = Crop.from_box(tight_box(hand.keypoints_2d), PADDING, mirrored=hand.side == "left")
                pictures.append(torch.from_numpy(crop_image(photo.image, crop, STORED_SIZE)))
                found.crops.append(crop)
                found.photo.append(len(found.paths))
            if hands:
                found.paths.append(path)
            else:
                found.empty += 1
        if watch:
            watch("finding hands", min(start + _GROUP, len(paths)), len(paths))
    if len(found.unreadable) == len(paths):
        raise InputError(f"none of {len(paths)} pictures can be read, e.g. {found.unreadable[0]}")
    if not pictures:
        read = len(paths) - len(found.unreadable)
        raise InputError(f"no hand found in {read} photo{'s' * (read != 1)}; give photos that show hands")
    found.images = torch.stack(pictures)
    return found


def hold_back(found: Found, share: float) -> Bool[Tensor, " n"]:
    """Which hands are held back: the ends of `STRETCHES` stretches of the photos in order, whole photos, one or more.

    Stretches rather than single photos, because neighbours in a folder are often frames of one film.
    """
    count = len(found.paths)
    if count < 2:
        raise InputError(
            "hands are seen in one photo only; give several, since some are held back to measure what was learnt"
        )
    wanted = min(max(1, round(share * count)), count - 1)
    stretches = min(STRETCHES, wanted)
    chosen = torch.zeros(count, dtype=torch.bool)
    for k in range(stretches):
        end = round((k + 1) * count / stretches)
        chosen[end - (round((k + 1) * wanted / stretches) - round(k * wanted / stretches)) : end] = True
    chosen[0] = False
    return chosen[torch.tensor(found.photo)]


def teacher_keypoints(found: Found, labels: Path, keypoints: Float[Tensor, "n 21 2"]) -> Float[Tensor, "n 21 2"]:
    """A teacher's keypoints of the hands, units of the stored pictures; NaN where it names none of a hand.

    labels: `labels.jsonl` (layout of data/photos.py) or its folder; `crop` is a photo's path from there, or its name.
    keypoints: the hands' estimated ones, which tell apart the hands of a photo.

    Raises InputError where the file is damaged or names none of the photos.
    """
    folder = labels if labels.is_dir() else labels.parent
    if not labels.is_dir() and labels.name != "labels.jsonl":
        raise InputError(f"{labels}: a teacher's labels are read from a file named labels.jsonl; rename it")
    by_path: dict[Path, list[np.ndarray]] = {}
    by_name: dict[str, list[np.ndarray]] = {}
    for row in read_rows(folder):
        points = np.asarray(row["keypoints_px"], dtype=np.float64)
        by_path.setdefault((folder / row["crop"]).resolve(), []).append(points)
        by_name.setdefault(Path(row["crop"]).name, []).append(points)
    names = [path.name for path in found.paths]
    result = torch.full_like(keypoints, torch.nan)
    for index, crop in enumerate(found.crops):
        path = found.paths[found.photo[index]]
        rows = by_path.get(path.resolve(), [])
        if not rows and names.count(path.name) == 1:
            rows = by_name.get(path.name, [])
        candidates = [torch.as_tensor(crop.to_crop(points)).to(keypoints) for points in rows]
        if candidates:
            distances = [float((c - keypoints[index]).norm(dim=-1).mean()) for c in candidates]
            if min(distances) < SAME_HAND * 2 / PADDING:
                result[index] = candidates[int(np.argmin(distances))]
    if not result.isfinite().any():
        raise InputError(
            f"{labels}: names no hand found in the photos; 'crop' is a photo's path from this file, or name"
        )
    return result
