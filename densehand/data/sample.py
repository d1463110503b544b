"""One labelled hand of a dataset, whatever the dataset: what every reader gives and what is absent is None."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from densehand.errors import InputError
from densehand.images import MAX_PIXELS, read_image

SIDES = ("left", "right")
FIELDS = ("side", "box", "keypoints_2d", "joints_3d", "camera", "mask", "hand")
"""The labels a sample may have, in the order they are reported."""

POSE_KINDS = ("absolute", "from mean", "pca")


@dataclass(frozen=True)
class HandParameters:
    """Parameters of a hand model as the dataset gives them.

    model: "mano" or "open". pose: 45 numbers, joints 1…15 in MANO's order, of the kind `kind`:
    "absolute" (axis-angle from the flat hand), "from mean" (axis-angle added to MANO's mean pose) or "pca"
    (coefficients of MANO's components, added to the mean pose). shape: 10 coefficients.
    rotation: the wrist's axis-angle in the camera frame, radians; None where it is unknown.
    The place of the hand is not kept here: the wrist of `Sample.joints_3d` tells it whatever the model's origin.
    """

    model: str
    pose: Float[np.ndarray, "45"]
    shape: Float[np.ndarray, "10"]
    rotation: Float[np.ndarray, "3"] | None = None
    kind: str = "absolute"

    def __post_init__(self) -> None:
        rotation = np.zeros(3) if self.rotation is None else self.rotation
        for name, value, size in (("pose", self.pose, 45), ("shape", self.shape, 10), ("rotation", rotation, 3)):
            if np.shape(value) != (size,):
                raise ValueError(f"hand {name} of {np.size(value)} numbers, not {size}")
        if self.kind not in POSE_KINDS:
            raise ValueError(f"hand pose of kind {self.kind!r}; known: {', '.join(POSE_KINDS)}")


@dataclass(frozen=True)
class MaskSource:
    """Where a mask lies: the pixels of `channel` (of a picture, or array `key` of an .npz) from `low` to `high`.

    data: a path, or the bytes of a picture. Read only when asked for, because most uses never look at masks.
    """

    data: Path | bytes
    low: int = 128
    high: int = 255
    channel: int = 0
    key: str | None = None

    def read(self) -> Bool[np.ndarray, "H W"]:
        """The mask. Raises InputError where it is missing or unreadable."""
        if self.key is not None and isinstance(self.data, Path):
            values = read_npz_array(self.data, self.key)
        else:
            values = _read_raw(self.data)
        if values.ndim == 3:
            if self.channel >= values.shape[2]:
                raise InputError(f"{_name(self.data)}: has no channel {self.channel}; fetch the mask again")
            values = values[..., self.channel]
        if values.ndim != 2:
            raise InputError(f"{_name(self.data)}: is no mask; fetch it again")
        return (values >= self.low) & (values <= self.high)


@dataclass
class Sample:
    """One hand in one picture, or one picture without hands.

    name: says which sample it is, unique within its dataset and split. image: a path, the bytes of a picture file, or
    H×W×3 uint8 RGB. side: "left", "right" or None. box: [x0, y0, x1, y1], pixels. keypoints_2d: pixels, in the house
    order, with `visible`: labelled and, where the dataset tells, not hidden. joints_3d: metres, camera frame (x right,
    y down, z forward), with `joints_valid`. What is not valid may be NaN. camera: pinhole intrinsics, pixels.
    problem: why the labels of this sample could not be read; its other fields then say nothing.

    Pixels are as published: no dataset read here says whether it counts from the corner or the centre of a pixel, so
    none is moved by the half pixel that may lie between it and the house convention.
    """

    name: str
    image: Path | bytes | UInt8[np.ndarray, "H W 3"]
    side: str | None = None
    box: Float[np.ndarray, "4"] | None = None
    keypoints_2d: Float[np.ndarray, "21 2"] | None = None
    visible: Bool[np.ndarray, "21"] | None = None
    joints_3d: Float[np.ndarray, "21 3"] | None = None
    joints_valid: Bool[np.ndarray, "21"] | None = None
    camera: Float[np.ndarray, "3 3"] | None = None
    mask: Bool[np.ndarray, "H W"] | MaskSource | None = None
    hand: HandParameters | None = None
    problem: str | None = None

    def __post_init__(self) -> None:
        if self.side is not None and self.side not in SIDES:
            raise ValueError(f"side {self.side!r} is neither left nor right")
        shapes = {"box": (4,), "keypoints_2d": (21, 2), "visible": (21,), "joints_3d": (21, 3), "joints_valid": (21,)}
        for name, shape in (shapes | {"camera": (3, 3)}).items():
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise ValueError(f"{name} is {'×'.join(map(str, np.shape(value)))}, not {'×'.join(map(str, shape))}")
        if self.keypoints_2d is not None and self.visible is None:
            self.visible = np.ones(21, dtype=bool)
        if self.joints_3d is not None and self.joints_valid is None:
            self.joints_valid = np.ones(21, dtype=bool)

    def read_image(self) -> UInt8[np.ndarray, "H W 3"]:
        """The picture, RGB. Raises InputError where it is missing, damaged or too large."""
        if isinstance(self.image, np.ndarray):
            return self.image
        if isinstance(self.image, bytes):
            return _read_bytes(self.image, self.name)
        return read_image(self.image)

    def read_mask(self) -> Bool[np.ndarray, "H W"] | None:
        """The mask, or None where there is none. Raises InputError where it is missing or damaged."""
        return self.mask.read() if isinstance(self.mask, MaskSource) else self.mask


def read_npz_array(path: Path, key: str) -> np.ndarray:
    """Array `key` of an .npz, without pickles. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive[key]
    except Exception as error:  # zipfile, zlib and numpy each have their own
        raise InputError(f"{path}: array {key!r} cannot be read; fetch the file again") from error


def _read_bytes(data: bytes, name: str) -> UInt8[np.ndarray, "H W 3"]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
                _check_size(image, name)
                return np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # a damaged picture makes Pillow raise nearly anything
        raise InputError(f"{name}: not a JPEG, PNG or WebP that can be read; fetch it again") from error


def _read_raw(data: Path | bytes) -> np.ndarray:
    """H×W or H×W×C values as stored (RGBA where coloured): no palette, alpha or orientation is applied."""
    try:
        content = data if isinstance(data, bytes) else data.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
                _check_size(image, _name(data))
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{_name(data)}: the mask cannot be read; fetch it again") from error
    if values is None:
        raise InputError(f"{_name(data)}: the mask cannot be read; fetch it again")
    if values.ndim == 3:  # cv2 gives BGR
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return values


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:  # judged from the header, before memory is taken
        raise InputError(f"{name}: {image.width}×{image.height} pixels, above the limit; make it smaller")


def _name(data: Path | bytes) -> str:
    return "mask" if isinstance(data, bytes) else str(data)
