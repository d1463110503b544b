"""What the readers share: what a dataset says of itself, bounded reading of files, checks and geometry of labels."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from densehand.data.sample import HandParameters, Sample
from densehand.errors import DensehandError, InputError
from densehand.files import reason
from densehand.hand.safe_pickle import load_arrays

MAX_LABELS = 8 * 2**30
"""Largest label file read, bytes: InterHand2.6M's is the largest known, some gigabytes."""


UNVERIFIED = "not verified: treat as research only"
"""The licence of a dataset whose terms were not to be had."""


class BadLabel(ValueError):
    """The labels of one sample cannot be used; the message becomes `Sample.problem`."""


@dataclass(frozen=True)
class Dataset:
    """What is known of a dataset. `docs/datasets.md` shows the same as a table.

    splits: names `read` takes, the first is the default. has: fields of `Sample` that (some) samples carry.
    order: the published joint order. units: of the published 3D joints. missing: relative paths (or a
    description) of what is needed and not there. read: the samples of a split, in the published order.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    has: tuple[str, ...]
    order: str
    units: str
    licence: str
    missing: Callable[[Path, str], list[str]]
    read: Callable[[Path, str], Iterator[Sample]]
    open_splits: bool = False  # any name is taken as a split: the folder decides


def guarded(name: str, image: Any, build: Callable[..., Sample], *arguments: Any) -> Sample:
    """`build(name, image, *arguments)`, or a sample that tells why it cannot be built."""
    try:
        return build(name, image, *arguments)
    except DensehandError as error:
        return Sample(name, image, problem=str(error))
    except KeyError as error:
        return Sample(name, image, problem=f"no label {error}")
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError, pickle.UnpicklingError) as error:
        return Sample(name, image, problem=str(error) or type(error).__name__)


def absent(root: Path, *paths: str) -> list[str]:
    """Those of the paths below `root` that do not exist."""
    return [path for path in paths if not (root / path).exists()]


def read_bytes(path: Path, limit: int = MAX_LABELS) -> bytes:
    """Raises InputError where the file is missing, unreadable or larger than `limit` bytes."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{path}: {size:,} bytes, no such label file is larger than {limit:,}; fetch it again")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check the dataset's folder") from error


def read_json(path: Path, kind: type = dict, limit: int = MAX_LABELS) -> Any:
    """A JSON file whose outermost value is a `kind`. Raises InputError."""
    try:
        content = json.loads(read_bytes(path, limit))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); fetch the file again") from error
    if not isinstance(content, kind):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a {kind.__name__}; fetch the file again")
    return content


def read_pickle(path: Path, limit: int) -> Any:
    """A pickle of nothing but arrays, by the safe unpickler. Raises BadLabel, InputError."""
    data = read_bytes(path, limit)
    try:
        return load_arrays(data)
    except Exception as error:  # a damaged pickle makes the unpickler raise nearly anything
        raise BadLabel(f"{path}: no pickle of arrays ({error}); fetch it again") from error


def coco_tables(path: Path) -> tuple[dict[Any, dict], list[Any]]:
    """A COCO label file: images by id, and the annotations. Raises InputError."""
    content = read_json(path)
    try:
        return {image["id"]: image for image in content["images"]}, list(content["annotations"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: no COCO labels (images and annotations); fetch the file again") from error


def numbers(values: Any, shape: Sequence[int], what: str) -> Float[np.ndarray, "..."]:
    """Nested lists (null: NaN) → float64 of a shape. Raises BadLabel, for a wrong number of joints saying so."""
    try:
        array = np.array(values, dtype=np.float64)  # None becomes NaN
    except (ValueError, TypeError) as error:
        raise BadLabel(f"{what} is not an array of numbers") from error
    if array.shape != tuple(shape):
        if array.ndim == len(shape) > 1 and array.shape[1:] == tuple(shape[1:]):
            raise BadLabel(f"{what} has {len(array)} joints, not {shape[0]}")
        raise BadLabel(f"{what} is {'×'.join(map(str, array.shape))}, not {'×'.join(map(str, shape))}")
    return array


def triples(values: Any, count: int, what: str) -> Float[np.ndarray, "count 3"]:
    """x, y, v of each keypoint, flat as in COCO or nested. Raises BadLabel."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1 and len(array) % 3 == 0:
        array = array.reshape(-1, 3)
    return numbers(array, (count, 3), what)


def project(joints: Float[np.ndarray, "n 3"], camera: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n 2"]:
    """Pinhole projection, pixels; NaN for points on or behind the camera's plane."""
    points = joints @ camera.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(points[:, 2:] > 0, points[:, :2] / points[:, 2:], np.nan)


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)


def corners(box: Any) -> Float[np.ndarray, "4"]:
    """[x, y, width, height] → [x0, y0, x1, y1]. Raises BadLabel where it is empty."""
    x, y, width, height = numbers(box, (4,), "box")
    if width <= 0 or height <= 0:
        raise BadLabel(f"box of {width:g}×{height:g} pixels")
    return np.array([x, y, x + width, y + height])


def tight(
    keypoints: Float[np.ndarray, "21 2"], visible: Bool[np.ndarray, "21"] | None = None
) -> Float[np.ndarray, "4"] | None:
    """The box around the visible, finite keypoints; None where there are fewer than two."""
    good = np.isfinite(keypoints).all(axis=1) & (True if visible is None else visible)
    if good.sum() < 2:
        return None
    return np.concatenate([keypoints[good].min(axis=0), keypoints[good].max(axis=0)])


def mano(numbers_: Any, kind: str, rotate: Float[np.ndarray, "3 3"] | None = None) -> HandParameters:
    """[rotation 3, pose 45, shape 10] → parameters; `rotate` carries the rotation into the camera frame."""
    values = numbers(numbers_, (58,), "MANO parameters")
    rotation = values[:3] if rotate is None else turned(values[:3], rotate)
    return HandParameters("mano", values[3:48], values[48:], rotation, kind)


def turned(rotation: Float[np.ndarray, "3"], by: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Axis-angle of `by · R(rotation)`."""
    import cv2

    return cv2.Rodrigues(by @ cv2.Rodrigues(np.asarray(rotation, np.float64))[0])[0].ravel()


def inside(root: Path, relative: Any) -> Path:
    """A path named by a label file, below `root`. Raises BadLabel for absolute paths and those that leave it."""
    path = PurePosixPath(relative) if isinstance(relative, str) else None
    if path is None or not relative or "\0" in relative or path.is_absolute() or ".." in path.parts:
        raise BadLabel(f"file name {relative!r} does not lie in the dataset's folder")
    return root / path


def lines_of(path: Path) -> list[str]:
    """Lines of a text file that are not blank. Raises InputError."""
    return [line for line in read_bytes(path).decode("utf-8", "replace").splitlines() if line.strip()]
