"""densehand's own format: a folder of pictures with JSON lines, or WebDataset tar shards.

Folder: `labels.jsonl` (or other `*.jsonl`, each a split), one object a line, all but `image` optional:

    {"image": "a.jpg", "side": "left", "box": [x0, y0, x1, y1], "keypoints_px": 21×2, "visible": 21,
     "joints_m": 21×3, "joints_valid": 21, "camera": 3×3, "mask": "a.mask.png",
     "hand": {"model": "mano", "pose": 45, "shape": 10, "rotation": 3, "kind": "absolute"}}

House keypoint order, pixels, metres in the camera frame; null where a number is unknown. Paths lie below the folder.
Read as well: `joints_mm` in place of `joints_m`, `intrinsics` [fx, fy, cx, cy] in place of `camera` (measuring
fixtures), `crop` in place of `image` (photo crops), and what `densehand synth --out` writes.

Shards: `*.tar` in the folder, sorted by name, not compressed. Members with the same path up to the first dot of the
name are one sample: `KEY.json` (the object above without `image`) and `KEY.jpg|jpeg|png|webp`, perhaps
`KEY.mask.png`. Shards come from strangers: only these members are read, each up to a size, nothing is extracted to
disk, no pickle or array is looked at.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from densehand.data.readers import common
from densehand.data.readers.common import BadLabel, Dataset, guarded
from densehand.data.sample import HandParameters, MaskSource, Sample

MAX_JSON, MAX_PICTURE = 4 * 2**20, 64 * 2**20
"""Largest members of a shard that are read, bytes."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def _missing(root: Path, split: str) -> list[str]:
    if split == "all":
        return [] if _label_files(root) or _shards(root) else ["labels.jsonl or shards (*.tar)"]
    return common.absent(root, f"{split}.jsonl")


def _label_files(root: Path) -> list[Path]:
    return sorted(root.glob("*.jsonl"))


def _shards(root: Path) -> list[Path]:
    return sorted(root.glob("*.tar"))


def _read(root: Path, split: str) -> Iterator[Sample]:
    for path in _label_files(root) if split == "all" else [root / f"{split}.jsonl"]:
        yield from _read_lines(root, path)
    if split == "all":
        for path in _shards(root):
            yield from _read_shard(path)


def _read_lines(root: Path, path: Path) -> Iterator[Sample]:
    for number, line in enumerate(common.lines_of(path), 1):
        name = f"{path.name}:{number}"
        yield guarded(name, b"", _from_line, line, root)


def _from_line(name: str, image: bytes, line: str, root: Path) -> Sample:
    row = _parse(line)
    picture = common.inside(root, row.get("image", row.get("crop")))
    mask = row.get("mask")
    source = None if mask is None else MaskSource(common.inside(root, mask))
    return guarded(name, picture, _from_row, row, source)


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadLabel(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadLabel("not a JSON object")
    return row


def _from_row(name: str, image: Path | bytes, row: dict[str, Any], mask: MaskSource | None) -> Sample:
    def get(key: str, *shape: int) -> Any:
        return None if row.get(key) is None else common.numbers(row[key], shape, key)

    keypoints, joints, camera = get("keypoints_px", 21, 2), get("joints_m", 21, 3), get("camera", 3, 3)
    if joints is None and row.get("joints_mm") is not None:
        joints = get("joints_mm", 21, 3) / 1000
    if camera is None and row.get("intrinsics") is not None:
        camera = common.intrinsics(*get("intrinsics", 4))
    visible, valid, box = get("visible", 21), get("joints_valid", 21), get("box", 4)
    visible, valid = _known(keypoints, visible), _known(joints, valid)
    if box is None and keypoints is not None:
        box = common.tight(keypoints, visible)
    return Sample(
        name=name,
        image=image,
        side=row.get("side"),
        box=box,
        keypoints_2d=keypoints,
        visible=visible,
        joints_3d=joints,
        joints_valid=valid,
        camera=camera,
        mask=mask,
        hand=_hand(row),
    )


def _known(points: np.ndarray | None, said: np.ndarray | None) -> np.ndarray | None:
    """Which points the row knows: as it says, else those that are not null through and through."""
    if said is not None:
        return said > 0
    return None if points is None else np.isfinite(points).any(axis=1)


def _hand(row: dict[str, Any]) -> HandParameters | None:
    if row.get("schema") == "densehand-synth/1":
        return HandParameters(
            model="open",
            pose=common.numbers(row["pose"], (45,), "pose"),
            shape=common.numbers(row["shape"], (10,), "shape"),
            rotation=_rotation_vector(common.numbers(row["rotation"], (4,), "rotation")),
        )
    hand = row.get("hand")
    if hand is None:
        return None
    rotation = hand.get("rotation")
    return HandParameters(
        model=str(hand.get("model", "mano")),
        pose=common.numbers(hand["pose"], (45,), "hand pose"),
        shape=common.numbers(hand["shape"], (10,), "hand shape"),
        rotation=None if rotation is None else common.numbers(rotation, (3,), "hand rotation"),
        kind=hand.get("kind", "absolute"),
    )


def _rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """[w, x, y, z] → axis-angle."""
    w, xyz = quaternion[0], quaternion[1:]
    sine = float(np.linalg.norm(xyz))
    if sine < 1e-12:
        return np.zeros(3)
    return xyz * (2 * np.arctan2(sine, w) / sine)


def _read_shard(path: Path) -> Iterator[Sample]:
    key, parts = "", {}  # type: str, dict[str, bytes | None]
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                folder, _, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                suffix = f".{suffix.lower()}"
                limit = MAX_JSON if suffix == ".json" else MAX_PICTURE
                if not member.isreg() or member.issparse() or suffix not in (".json", ".mask.png", *PICTURES):
                    continue
                if f"{folder}/{stem}" != key:
                    yield from _from_parts(path, key, parts)
                    key, parts = f"{folder}/{stem}", {}
                content = shard.extractfile(member) if member.size <= limit else None
                parts[suffix] = None if content is None else content.read(limit + 1)
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        yield from _from_parts(path, key, parts)
        yield Sample(path.name, b"", problem=f"{path}: the shard is damaged ({error}); fetch it again")
        return
    yield from _from_parts(path, key, parts)


def _from_parts(path: Path, key: str, parts: dict[str, bytes | None]) -> Iterator[Sample]:
    if not parts:
        return
    name = f"{path.name}:{key.lstrip('/')}"
    large = [suffix for suffix, content in parts.items() if content is None]
    picture = next((parts[suffix] for suffix in PICTURES if parts.get(suffix) is not None), None)
    if large:
        yield Sample(name, b"", problem=f"member {', '.join(large)} above the size that is read")
    elif picture is None or ".json" not in parts:
        yield Sample(name, picture or b"", problem="lacks a picture" if picture is None else "lacks .json")
    else:
        mask = parts.get(".mask.png")
        source = MaskSource(mask) if mask is not None else None
        yield guarded(name, picture, lambda n, i: _from_row(n, i, _parse(parts[".json"] or b""), source))


DATASETS = (
    Dataset(
        name="densehand",
        title="densehand's own format",
        splits=("all",),
        has=("side", "box", "keypoints_2d", "joints_3d", "camera", "mask", "hand"),
        order="house",
        units="m",
        licence="as the pictures'",
        missing=_missing,
        read=_read,
        open_splits=True,
    ),
)
