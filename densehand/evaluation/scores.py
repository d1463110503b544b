"""What the network says of hands and of pictures without one, beside the truth: material to fit and judge its scores.

Hands come from held-back photos (a teacher's keypoints, carried to ours) and from the synthesizer; pictures without
hands from a folder of backgrounds and from the parts of the photos' frames where nobody marked a hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from densehand.camera import SHOWN, Crop
from densehand.data.augment import augment
from densehand.data.augmentation import Augmentation
from densehand.data.fits import fit_photos
from densehand.data.held_back import neighbours
from densehand.data.photos import load_photos, need_folder, read_picture, read_rows
from densehand.data.records import records_from_photos
from densehand.detect.data import background_selected, frame_rows
from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.network.calibration import NEAR
from densehand.network.estimator import DHPE
from densehand.resample import crop_image

SEED = 20_261_123  # of the rendered hands; no training's, nor that of any other measurement
BATCH = 32
NEIGHBOURS = 10  # backgrounds that go together: some are cut from one photo
TRUSTED = 0.5  # photos whose fit explains the teacher's keypoints less well say little of the truth
AS_DETECTED = Augmentation(
    rotation=10, any_rotation=0, zoom=(0.9 * SHOWN, 1.2 * SHOWN), shift=0.05, flip=0, colour=0, blur=0, noise=0,
    occluder=0, grey=0,
)  # fmt: skip
"""What the network is shown where a crop is as badly set as a detector's box may be, in its own colours."""


@dataclass
class Looks:
    """The network's raw answers on n crops of right hands, and what is so.

    confidence, near, known: of each keypoint, whether it lies within `NEAR` of the hand's box of the truth, and whether
    there is a truth. hand, right: logits of a hand, of a right hand; turned: of a right hand in the mirrored crop,
    which shows a left one. group: crops of one film or photo share it.
    """

    confidence: Float[np.ndarray, "n 21"]
    near: Bool[np.ndarray, "n 21"]
    known: Bool[np.ndarray, "n 21"]
    hand: Float[np.ndarray, " n"]
    right: Float[np.ndarray, " n"]
    turned: Float[np.ndarray, " n"]
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.hand)

    @staticmethod
    def join(parts: Sequence[Looks]) -> Looks:
        """Looks one after another."""
        return Looks(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Looks)))


@torch.no_grad()
def look(
    network: DHPE, images: Float[Tensor, "n 3 s s"], group: Sequence[str], keypoints: Float[Tensor, "n 21 2"] | None,
    known: Bool[Tensor, "n 21"] | None = None,
) -> Looks:  # fmt: skip
    """The network's answers. keypoints: the truth in crop units, None where there is no hand; known: of which."""
    confidence, points, logits = [], [], []
    for part in images.split(BATCH):
        estimate = network(part)
        confidence.append(estimate.keypoint_confidence)
        points.append(estimate.keypoints_2d)
        turned = estimate.side_logit.new_zeros(len(part)) if keypoints is None else network(part.flip(-1)).side_logit
        logits.append(torch.stack([estimate.hand_logit, estimate.side_logit, turned]))
    found = torch.cat(points)
    if keypoints is None:
        near = known = torch.zeros(found.shape[:2], dtype=torch.bool)
    else:
        box = (keypoints.amax(1) - keypoints.amin(1)).amax(-1)
        near = (found - keypoints).norm(dim=-1) <= NEAR * box[:, None]
        known = torch.ones_like(near) if known is None else known
    hand, right, turned = torch.cat(logits, dim=1).double().numpy()
    sure = torch.cat(confidence).double().numpy()
    return Looks(sure, near.numpy(), known.numpy(), hand, right, turned, np.array(group))


def photo_looks(network: DHPE, folder: Path, limit: int | None = None) -> Looks:
    """Held-back photos. Raises InputError where the folder has none that can be used."""
    hand = HandModel.load("open")
    photos = load_photos(folder, "held-back", limit)
    records = records_from_photos(photos, fit_photos(hand, photos.keypoints, photos.world))
    rows = torch.nonzero(records.trust > TRUSTED).flatten()
    if not len(rows):
        raise InputError(f"{folder}: not one held-back photo whose hand can be fitted; give more photos")
    frames = {row["crop"]: str(row["frame"]) for row in read_rows(folder)}
    group = [neighbours(frames[photos.names[row]]) for row in rows.tolist()]
    generator = torch.Generator().manual_seed(SEED)
    batch = augment(hand, records, rows, network.config.input_size, AS_DETECTED, generator)
    return look(network, batch.images, group, batch.keypoints, batch.keypoint_weight > 0)


def synthetic_looks(network: DHPE, count: int) -> Looks:
    """Rendered hands, with true labels: any pose and view, things held and in front."""
    from densehand.synth.sampler import Synthesizer

    maker = Synthesizer(HandModel.load("open"), size=network.config.input_size, seed=SEED)
    parts = [maker.sample(min(BATCH, count - start)) for start in range(0, count, BATCH)]
    images = (torch.cat([part.images for part in parts]) * 255).round() / 255  # as a picture would have it
    return look(network, images, [f"rendered {i}" for i in range(count)], torch.cat([p.keypoints for p in parts]))


def background_looks(network: DHPE, folder: Path, count: int) -> Looks:
    """Random squares of pictures without a hand. Of the training folder's (numbers for names) only those held back, and
    none that shows a hand after all."""
    paths = [p for p in sorted(need_folder(folder, "hand-free pictures").glob("*.jpg")) if unseen_background(p)]
    rng, crops, group = np.random.default_rng(SEED), [], []
    for index in _spread(len(paths), count):
        picture = read_picture(paths[index])
        if picture is None:
            continue
        height, width = picture.shape[:2]
        half = rng.uniform(0.3, 1.0) * min(height, width) / 2
        crops.append(_cut(picture, rng.uniform(half, width - half), rng.uniform(half, height - half), half, network))
        group.append(f"background {index // NEIGHBOURS}")
    return _without_hand(network, crops, group, folder)


def frame_looks(network: DHPE, photos: Path, count: int) -> Looks:
    """Squares of the photos' held-back whole frames, clear of every box that a person or the teacher drew.

    Raises InputError where there is no frame.
    """
    path = photos / "frames.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no frames to take hand-free parts from; give a folder of photos that has them")
    rows = frame_rows(photos, held_back=True)
    rng, crops, group = np.random.default_rng(SEED), [], []
    for index in _spread(len(rows), count):
        name, row = rows[index]
        picture = read_picture(photos / row["frame"])
        place = None if picture is None else _clear_square(row, picture.shape[1], picture.shape[0], rng)
        if picture is not None and place is not None:
            crops.append(_cut(picture, *place, network))
            group.append(neighbours(name))
    return _without_hand(network, crops, group, photos)


def _clear_square(row: dict, width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float] | None:
    """Centre and half side of a square within the frame that keeps away from all boxes; None: none was found."""
    boxes = np.array([*row["boxes"], *(teacher["box"] for teacher in row["teacher"])], float).reshape(-1, 4)
    margin = 0.3 * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    for _ in range(30):
        half = rng.uniform(0.1, 0.3) * min(width, height)
        x, y = rng.uniform(half, width - half), rng.uniform(half, height - half)
        apart = (low > (x + half, y + half)).any(axis=1) | (high < (x - half, y - half)).any(axis=1)
        if apart.all():
            return float(x), float(y), float(half)
    return None


def _cut(picture: UInt8[np.ndarray, "h w 3"], x: float, y: float, half: float, network: DHPE) -> Tensor:
    """A square of a BGR picture as the network takes it."""
    crop = crop_image(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), Crop((x, y), half), network.config.input_size)
    return torch.from_numpy(crop).permute(2, 0, 1).float() / 255


def _without_hand(network: DHPE, crops: list[Tensor], group: list[str], folder: Path) -> Looks:
    if not crops:
        raise InputError(f"{folder}: not one readable picture without a hand; give more")
    return look(network, torch.stack(crops), group, None)


def _spread(available: int, wanted: int) -> Iterator[int]:
    """So many places evenly over those there are, again and again where there are too few."""
    return iter((np.arange(wanted) * max(available / max(wanted, 1), 1)).astype(int) % available if available else [])


def unseen_background(path: Path) -> bool:
    """Whether a hand-free picture is held back from training (of `tools/gather_backgrounds.py`) and shows no hand."""
    return not path.stem.isdigit() or background_selected(int(path.stem), held_back=True)
