"""Real hand crops with a teacher's 2D evidence (`labels.jsonl` + `crops/`), kept in memory as right hands.

Layout read: one JSON object a line with `crop` (path below the folder), `source`, `licence`, `frame`, `size`, `side`,
`score`, `keypoints_px` 21×2 (pixels of the crop) and `world_m` 21×3 (metres, camera axes, the teacher's guess).
Left hands are mirrored on reading, so that everything behind this room is a right hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from densehand.errors import InputError

STORED_SIZE = 256  # every crop is kept at this size; smaller ones are enlarged once, on reading


@dataclass
class PhotoSet:
    """Hand crops in memory, mirrored to right hands.

    images: uint8 RGB of `STORED_SIZE`², keypoints and world in crop units / metres of those pictures,
    `keypoints` in [-1, 1] over the stored picture. `mirrored` tells which were left hands.
    """

    images: UInt8[Tensor, "n s s 3"]
    keypoints: Float[Tensor, "n 21 2"]
    world: Float[Tensor, "n 21 3"]
    score: Float[Tensor, " n"]
    mirrored: Bool[Tensor, " n"]
    names: list[str]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.names)


def held_back(frame: str, every: int = 12, block: int = 40) -> bool:
    """Whether a crop belongs to the held-back share: whole blocks of neighbouring frames, because many are video.

    `frame` ends in a number (`source/00123`); blocks of `block` consecutive numbers are kept or held back together.
    """
    digits = "".join(c for c in frame.rsplit("/", 1)[-1] if c.isdigit())
    return (int(digits or 0) // block) % every == every - 1


def read_rows(folder: Path) -> list[dict]:
    """The usable rows of `labels.jsonl`. Raises InputError where the file is missing or a row is damaged."""
    path = folder / "labels.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no label file; give the folder that holds labels.jsonl and crops/")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            shapes = np.shape(row["keypoints_px"]), np.shape(row["world_m"])
            finite = np.isfinite(row["keypoints_px"]).all() and np.isfinite(row["world_m"]).all()
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: not a label row ({error}); repair or remove the line") from error
        if shapes == ((21, 2), (21, 3)) and finite:
            rows.append(row)
    return rows


def load_photos(
    folder: Path | str, split: str = "train", limit: int | None = None, size: int = STORED_SIZE
) -> PhotoSet:
    """Read the crops of one split ("train", "held-back" or "all") into memory.

    Unreadable pictures are left out. Raises InputError if nothing is left.
    """
    folder = Path(folder)
    rows = [r for r in read_rows(folder) if split == "all" or held_back(r["frame"]) == (split == "held-back")]
    if limit is not None:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
    images, keypoints, world, kept = [], [], [], []
    for row in rows:
        picture = cv2.imread(str(folder / row["crop"]), cv2.IMREAD_COLOR)
        if picture is None:
            continue
        points, metres = np.float32(row["keypoints_px"]), np.float32(row["world_m"])
        height, width = picture.shape[:2]
        picture = cv2.cvtColor(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        points = points / (width, height) * 2 - 1
        if row["side"] == "left":
            picture, points, metres = picture[:, ::-1], points * (-1, 1), metres * (-1, 1, 1)
        images.append(torch.from_numpy(np.ascontiguousarray(picture)))
        keypoints.append(points)
        world.append(metres)
        kept.append(row)
    if not kept:
        raise InputError(f"{folder}: no readable hand crop in split '{split}'")
    return PhotoSet(
        images=torch.stack(images),
        keypoints=torch.tensor(np.stack(keypoints), dtype=torch.float32),
        world=torch.tensor(np.stack(world), dtype=torch.float32),
        score=torch.tensor([r["score"] for r in kept], dtype=torch.float32),
        mirrored=torch.tensor([r["side"] == "left" for r in kept]),
        names=[r["crop"] for r in kept],
        sources=[r["source"] for r in kept],
    )
