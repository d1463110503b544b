"""Showing and storing synthetic pictures: contact sheets, and a folder of pictures with labels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from densehand.export import write_picture
from densehand.files import write_bytes

from .batch import SynthBatch
from .poses import FAMILY_NAMES

SCHEMA = "densehand-synth/1"


def to_uint8(batch: SynthBatch) -> UInt8[np.ndarray, "n s s 3"]:
    """The pictures as RGB bytes on the host."""
    return (batch.images.permute(0, 2, 3, 1) * 255.0).round().byte().cpu().numpy()


def contact_sheet(
    pictures: UInt8[np.ndarray, "n h w 3"] | Sequence[UInt8[np.ndarray, "h w 3"]],
    columns: int | None = None,
    ground: int = 255,
) -> UInt8[np.ndarray, "H W 3"]:
    """All pictures, of one size, in rows; `ground` (0 black, 255 white) where the last row is not full."""
    stacked = np.asarray(pictures)
    count, height, width = stacked.shape[:3]
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    full = np.full((rows * columns, height, width, 3), ground, np.uint8)
    full[:count] = stacked
    return full.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def labels(batch: SynthBatch, index: int, name: str, mask: str) -> dict[str, Any]:
    """One picture's labels as JSON values; keypoints_px in its pixels, the other units as in `SynthBatch`."""
    size = batch.images.shape[-1]
    family = int(batch.family[index])
    keypoints = (batch.keypoints[index] + 1.0) * (0.5 * size)

    def numbers(values: Any) -> Any:
        return np.round(np.asarray(values.cpu(), np.float64), 5).tolist()

    return {
        "schema": SCHEMA,
        "image": name,
        "mask": mask,
        "size": size,
        "side": "right",
        "keypoints_px": numbers(keypoints),
        "visible": batch.visible[index].tolist(),
        "skeleton": numbers(batch.skeleton[index]),
        "pose": numbers(batch.pose[index]),
        "shape": numbers(batch.shape[index]),
        "rotation": numbers(batch.rotation[index]),
        "scale": numbers(batch.scale[index]),
        "translation": numbers(batch.translation[index]),
        "camera_distance_m": numbers(batch.camera_distance[index]),
        "family": FAMILY_NAMES[family] if family < len(FAMILY_NAMES) else "known pose",
    }


class FolderWriter:
    """Pictures, masks (`.mask.png`), depth (`.depth.png`, 16-bit millimetres/10) and `labels.jsonl` in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.lines = folder, []  # type: tuple[Path, list[str]]

    def add(self, batch: SynthBatch) -> None:
        pictures = to_uint8(batch)
        masks = batch.mask.cpu().numpy().astype(np.uint8) * 255
        depths = (batch.depth.cpu().numpy() * 10_000.0).round().clip(0, 65535).astype(np.uint16)
        for index in range(len(batch)):
            stem = f"{len(self.lines):06d}"
            write_picture(self.folder / f"{stem}.png", pictures[index])
            write_picture(self.folder / f"{stem}.mask.png", masks[index])
            write_picture(self.folder / f"{stem}.depth.png", depths[index])
            self.lines.append(json.dumps(labels(batch, index, f"{stem}.png", f"{stem}.mask.png")))

    def close(self) -> None:
        """Write the labels; last, so that a folder with labels is complete."""
        write_bytes(self.folder / "labels.jsonl", ("\n".join(self.lines) + "\n").encode())
