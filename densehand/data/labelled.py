"""Samples of any dataset (`densehand/data/readers`) as training records; absent labels get weight 0.

A square of 2.2 × the hand's box is cut around each hand and kept at 256², left hands mirrored. What a sample has
decides what it teaches: 2D keypoints (or 3D joints with a camera) the 2D terms; all 21 joints in 3D the hand model's
fit to them, and by it the 3D terms; a mask the mask terms. Parameters of other hand models are not read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from densehand.camera import Crop
from densehand.data.fits import box_size, ramp
from densehand.data.photos import STORED_SIZE, Skipped, need_folder
from densehand.data.readers import dataset, read_dataset
from densehand.data.readers.check import Report
from densehand.data.readers.common import project
from densehand.data.records import BAD, GOOD, Records, no_masks
from densehand.data.sample import Sample
from densehand.errors import InputError
from densehand.hand.fit import fit_skeleton
from densehand.hand.model import HandModel
from densehand.rays import turn_to_ray
from densehand.resample import crop_image, crop_mask

AROUND = 2.2  # side of the stored square over the hand's box: crops that are turned and shifted stay within
MASK_SIZE = 128
FEWEST = 8  # keypoints a hand must have to be worth a picture
CHUNK = 256  # hands fitted at a time


@dataclass
class Cut:
    """One hand of a dataset, mirrored to a right hand; keypoints in units of the picture (±1 at its edges)."""

    picture: UInt8[np.ndarray, "s s 3"]
    keypoints: Float[np.ndarray, "21 2"]
    weight: Float[np.ndarray, "21"]
    joints: Float[np.ndarray, "21 3"] | None  # metres, seen along the ray to the hand
    mask: UInt8[np.ndarray, "m m"] | None


def load_dataset(
    name: str, root: Path | str, hand: HandModel, split: str | None = None, limit: int = 4096, seed: int = 0
) -> tuple[list[Records], Skipped]:
    """At most `limit` hands of a dataset, drawn evenly from the split: records with masks, records without.

    All labels are read once; pictures only of what was drawn, so memory is about 0.2 MB a hand. Samples in which
    `densehand data check` finds a fault, without a side or with too few keypoints are skipped and counted.

    Errors:
        InputError: unknown dataset or split, no folder, files missing, or no usable hand.
    """
    known = dataset(name)
    root = need_folder(root, known.title)
    report, skipped = Report(), Skipped()
    cuts: list[Cut] = []
    for sample in draw(read_dataset(name, root, split), limit, seed):
        found = report.faults.copy()
        image = report.add(sample)
        faults = list((report.faults - found).elements())
        cut = faults[0] if faults or image is None else cut_hand(sample, image)
        if isinstance(cut, str):
            skipped.add(cut, sample.name)
        else:
            cuts.append(cut)
    if not cuts:
        raise InputError(f"{root}: no usable hand of {known.title}: {skipped}; see densehand data check")
    groups = [[c for c in cuts if (c.mask is not None) == masked] for masked in (True, False)]
    return [records_from_cuts(hand, group) for group in groups if group], skipped


def draw(samples: Iterator[Sample], limit: int, seed: int) -> list[Sample]:
    """At most `limit` of the samples, each as likely as any other, in their order (reservoir sampling)."""
    chance = random.Random(seed)
    kept: list[tuple[int, Sample]] = []
    for number, sample in enumerate(samples):
        if len(kept) < limit:
            kept.append((number, sample))
        elif (place := chance.randrange(number + 1)) < limit:
            kept[place] = (number, sample)
    return [sample for _, sample in sorted(kept, key=lambda pair: pair[0])]


def cut_hand(sample: Sample, image: UInt8[np.ndarray, "H W 3"]) -> Cut | str:
    """The hand of a sample cut from its picture, or why it cannot be used."""
    if sample.side is None:
        return "hands of unknown side"
    points, known = _keypoints(sample)
    if known.sum() < FEWEST:
        return "hands with too few keypoints"
    low, high = points[known].min(0), points[known].max(0)
    if (high - low).max() < 8:
        return "hands of less than 8 pixels"
    crop = Crop.from_box([*low, *high], AROUND, mirrored=sample.side == "left")
    points = np.where(known[:, None], points, (low + high) / 2)  # unlabelled ones must not widen the box
    mask = sample.read_mask()
    return Cut(
        picture=crop_image(image, crop, STORED_SIZE),
        keypoints=np.asarray(crop.to_crop(points), np.float32),
        weight=known.astype(np.float32),
        joints=_joints(sample),
        mask=None if mask is None else crop_mask(mask, crop, MASK_SIZE),
    )


def _keypoints(sample: Sample) -> tuple[Float[np.ndarray, "21 2"], np.ndarray]:
    """Pixels and which are known: the labelled ones, and those that 3D joints give through the camera."""
    points, known = np.zeros((21, 2)), np.zeros(21, dtype=bool)
    if sample.keypoints_2d is not None and sample.visible is not None:
        known = sample.visible & np.isfinite(sample.keypoints_2d).all(axis=1)
        points[known] = sample.keypoints_2d[known]
    if sample.joints_3d is not None and sample.joints_valid is not None and sample.camera is not None:
        seen = project(sample.joints_3d, sample.camera)
        more = sample.joints_valid & np.isfinite(seen).all(axis=1) & ~known
        points[more] = seen[more]
        known = known | more
    return points, known


def _joints(sample: Sample) -> Float[np.ndarray, "21 3"] | None:
    """All 21 joints of a right hand, turned so that the ray to the hand is the optical axis; None if some are missing.

    A crop is seen along that ray: without the turn a hand at the edge of the picture would get a wrong rotation.
    """
    if sample.joints_3d is None or sample.joints_valid is None or not sample.joints_valid.all():
        return None
    joints = np.asarray(sample.joints_3d, np.float64)
    ray = joints.mean(0)
    if sample.camera is not None and ray[2] > 0:
        joints = joints @ turn_to_ray(ray)
    return joints * (-1, 1, 1) if sample.side == "left" else joints


def records_from_cuts(hand: HandModel, cuts: list[Cut]) -> Records:
    """Records of hands that all have a mask or all have none; the hand model is fitted to those with 3D joints."""
    count = len(cuts)
    keypoints = torch.from_numpy(np.stack([c.keypoints for c in cuts]))
    weight = torch.from_numpy(np.stack([c.weight for c in cuts]))
    pose, shape = hand.mean_pose.float().cpu().expand(count, 45).clone(), torch.zeros(count, 10)
    rotation, trust = torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), torch.zeros(count)
    scale, translation = box_size(keypoints) / 0.18, keypoints.mean(1)  # placeholders where the trust stays 0
    solid = [i for i, cut in enumerate(cuts) if cut.joints is not None]
    for start in range(0, len(solid), CHUNK):
        rows = solid[start : start + CHUNK]
        joints = torch.from_numpy(np.stack([np.asarray(cuts[i].joints) for i in rows]))
        fit = fit_skeleton(hand, joints.to(hand.template.device))
        turned = hand.skeleton(fit.pose.to(hand.template), fit.shape.to(hand.template), fit.rotation.to(hand.template))
        size, move, residual = place_flat(turned[..., :2].cpu().float(), keypoints[rows], weight[rows])
        pose[rows], shape[rows] = fit.pose.cpu().float(), fit.shape.cpu().float()
        rotation[rows], scale[rows], translation[rows] = fit.rotation.cpu().float(), size, move
        trust[rows] = ramp(residual, BAD, GOOD)
    masks = no_masks(count)
    if cuts[0].mask is not None:
        masks = torch.from_numpy(np.stack([c.mask for c in cuts if c.mask is not None]))
    images = torch.from_numpy(np.stack([c.picture for c in cuts]))
    nothing = no_masks(count)
    return Records(images, keypoints, weight, pose, shape, rotation, scale, translation, trust, masks, nothing)


def place_flat(
    points: Float[Tensor, "n 21 2"], target: Float[Tensor, "n 21 2"], weight: Float[Tensor, "n 21"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Scale and translation that carry `points` nearest to `target` (least squares), and the mean distance left, as a
    share of the target's box."""
    share = (weight / weight.sum(1, keepdim=True).clamp_min(1e-6))[..., None]
    middle, aim = (points * share).sum(1), (target * share).sum(1)
    centred, wanted = points - middle[:, None], target - aim[:, None]
    scale = (centred * wanted * share).sum((1, 2)) / (centred.square() * share).sum((1, 2)).clamp_min(1e-9)
    scale = scale.clamp_min(1e-3)  # a mirrored or scattered set: its residual takes away its trust
    left = (scale[:, None, None] * centred - wanted).norm(dim=-1)
    return scale, aim - scale[:, None] * middle, (left * share[..., 0]).sum(1) / box_size(target)
