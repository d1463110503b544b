"""Real hand crops with a teacher's 2D evidence (`labels.jsonl` + `crops/`), kept in memory as right hands.

Layout read: one JSON object a line with `crop` (path below the folder), `source`, `licence`, `frame`, `size`, `side`,
`score`, `keypoints_px` 21×2 (pixels of the crop) and `world_m` 21×3 (metres, camera axes, the teacher's guess).
Left hands are mirrored on reading, so that everything behind this room is a right hand.

What cannot be used - damaged rows, wrong joint counts, labels that are no numbers, pictures missing or cut off - is
left out and counted (`Skipped`); only where nothing is left is that an error.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from densehand.data.held_back import ESTIMATOR, frame_number
from densehand.errors import InputError
from densehand.files import reason

STORED_SIZE = 256  # every crop is kept at this size; smaller ones are enlarged once, on reading
EXAMPLES = 3  # names kept for each reason of skipping


@dataclass
class Skipped:
    """What was left out: how many for each reason, and the first few by name."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, why: str, name: str) -> None:
        self.counts[why] += 1
        kept = self.examples.setdefault(why, [])
        if len(kept) < EXAMPLES:
            kept.append(name)

    def merge(self, other: Skipped) -> None:
        self.counts.update(other.counts)
        for why, names in other.examples.items():
            self.examples[why] = (self.examples.get(why, []) + names)[:EXAMPLES]

    def __str__(self) -> str:
        parts = [f"{count} {why} ({', '.join(self.examples[why])}{', …' * (count > EXAMPLES)})"
                 for why, count in self.counts.items()]  # fmt: skip
        return "; ".join(parts)


@dataclass
class PhotoSet:
    """Hand crops in memory, mirrored to right hands.

    images: uint8 RGB of `STORED_SIZE`², keypoints and world in crop units / metres of those pictures,
    `keypoints` in [-1, 1] over the stored picture. `mirrored` tells which were left hands; `skipped` what is missing.
    """

    images: UInt8[Tensor, "n s s 3"]
    keypoints: Float[Tensor, "n 21 2"]
    world: Float[Tensor, "n 21 3"]
    score: Float[Tensor, " n"]
    mirrored: Bool[Tensor, " n"]
    names: list[str]
    sources: list[str]
    skipped: Skipped = field(default_factory=Skipped)

    def __len__(self) -> int:
        return len(self.names)


SPLITS = ("train", "held-back", "all")


def need_folder(path: Path | str, holds: str) -> Path:
    """The path, if it is a folder. Raises InputError saying what it is instead: nothing, a file, (half) an archive."""
    path = Path(path)
    if path.is_dir():
        return path
    if not path.exists():
        raise InputError(f"{path}: no such folder; give the folder that holds {holds}")
    name = path.name.lower()
    try:
        if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
            raise InputError(f"{path}: is an archive; unpack it and give the folder that holds {holds}")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check the path and its rights") from error
    if name.endswith((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".part", ".crdownload", ".download")):
        raise InputError(f"{path}: a damaged or half-downloaded archive; fetch it again, unpack it and give the folder")
    raise InputError(f"{path}: is a file; give the folder that holds {holds}")


def read_rows(folder: Path, skipped: Skipped | None = None) -> list[dict]:
    """The usable rows of `labels.jsonl`; the others go to `skipped` by line number.

    Errors:
        InputError: the folder or the file is missing or unreadable, or no row in it is usable (the first is named).
    """
    skipped = Skipped() if skipped is None else skipped
    path = need_folder(folder, "labels.jsonl and crops/") / "labels.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: no label file; give the folder that holds labels.jsonl and crops/")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check its rights") from error
    rows: list[dict] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            row = _row(line)
            if isinstance(row, str):
                skipped.add(row, f"{path.name}:{number}")
            else:
                rows.append(row)
    if not rows:
        raise InputError(f"{path}: no usable label row: {skipped or 'the file is empty'}; repair it or fetch it again")
    return rows


def _row(line: str) -> dict | str:
    """One label row, or why it cannot be used."""
    try:
        row = json.loads(line)
        arrays = [np.asarray(row[name], dtype=np.float64) for name in ("keypoints_px", "world_m")]
        wrong = [row[name] for name in ("crop", "frame", "side", "source") if not isinstance(row[name], str)]
        score = float(row["score"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "damaged label rows"
    if [a.shape for a in arrays] != [(21, 2), (21, 3)]:
        return "label rows with another number of joints"
    if wrong or row["side"] not in ("left", "right"):
        return "damaged label rows"
    if not all(np.isfinite(a).all() for a in arrays) or not np.isfinite(score):
        return "label rows with NaN"
    return row


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    """A picture as BGR, upright; None where it is missing, damaged or cut off."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    # cv2 fills up what a cut-off file lacks and says nothing: a file that does not end as it should is read again
    if picture is None or b"\xff\xd9" in data[-64:] or b"IEND" in data[-16:]:
        return picture
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF")) as image:
            image.load()
    except Exception:  # a damaged picture makes Pillow raise nearly anything
        return None
    return picture


def load_photos(
    folder: Path | str, split: str = "train", limit: int | None = None, size: int = STORED_SIZE
) -> PhotoSet:
    """Read the crops of one split ("train", "held-back" or "all") into memory.

    Unusable rows and unreadable pictures are left out and counted in `skipped`. Raises InputError if nothing is left,
    or for another split.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} of the photos: use one of {', '.join(SPLITS)}")
    folder, skipped = Path(folder), Skipped()
    rows = read_rows(folder, skipped)
    if split != "all":
        rows = [r for r in rows if ESTIMATOR.held_back(frame_number(r["frame"])) == (split == "held-back")]
    if limit is not None:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
    images, keypoints, world, kept = [], [], [], []
    for row in rows:
        picture = read_picture(folder / row["crop"])
        if picture is None:
            skipped.add("pictures missing or damaged", row["crop"])
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
        found = f": {skipped}" if skipped.counts else ""
        raise InputError(f"{folder}: no readable hand crop in split '{split}'{found}")
    return PhotoSet(
        images=torch.stack(images),
        keypoints=torch.tensor(np.stack(keypoints), dtype=torch.float32),
        world=torch.tensor(np.stack(world), dtype=torch.float32),
        score=torch.tensor([r["score"] for r in kept], dtype=torch.float32),
        mirrored=torch.tensor([r["side"] == "left" for r in kept]),
        names=[r["crop"] for r in kept],
        sources=[r["source"] for r in kept],
        skipped=skipped,
    )
