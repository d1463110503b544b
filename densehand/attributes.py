"""What a picture of a hand is like: its pose, view, skin and sharpness as words, to ask where errors are large.

Joints are the 21 keypoints of a right hand in the house order, any unit, camera frame (x right, y down, z forward).
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from densehand.errors import InputError
from densehand.hand.keypoints import KEYPOINT_NAMES

FINGER_NAMES = ("index", "middle", "ring", "little")
STRAIGHT, CURLED = 0.9, 0.7  # knuckle to tip over the length of the finger's bones
TONES: tuple[tuple[str, float], ...] = (
    ("light", 41.0), ("intermediate", 28.0), ("tan", 10.0), ("brown", -30.0), ("dark", -np.inf),
)  # fmt: skip
"""Names and lower limits (degrees) of the individual typology angle (Chardon et al. 1991); "light" holds two."""


def _rows(*names: str) -> list[int]:
    return [KEYPOINT_NAMES.index(name) for name in names]


_CHAINS = np.array([_rows(*(f"{f}_{part}" for part in ("mcp", "pip", "dip", "tip"))) for f in FINGER_NAMES])
_WRIST, _INDEX, _MIDDLE, _LITTLE = _rows("wrist", "index_mcp", "middle_mcp", "little_mcp")
_PALM = _rows("wrist", "index_mcp", "middle_mcp", "ring_mcp", "little_mcp")


def straightness(joints: Float[ndarray, "*b 21 d"]) -> Float[ndarray, "*b 4"]:
    """Index to little finger: knuckle to tip over the length of its three bones; 1 straight, about 0.3 in a fist."""
    chains = np.asarray(joints, float)[..., _CHAINS, :]
    bones = np.linalg.norm(np.diff(chains, axis=-2), axis=-1).sum(-1)
    reach = np.linalg.norm(chains[..., -1, :] - chains[..., 0, :], axis=-1)
    return reach / np.maximum(bones, 1e-12)


def pose_group(joints: Float[ndarray, "21 3"]) -> str:
    """ "open", "fist", "pointing" (index alone straight), "counting" (some straight, some not) or "bent"."""
    reach = straightness(joints)
    straight = reach > STRAIGHT
    if straight.all():
        return "open"
    if (reach < CURLED).all():
        return "fist"
    if straight[0] and not straight[1:].any():
        return "pointing"
    return "counting" if straight.any() else "bent"


def view_group(joints: Float[ndarray, "21 3"]) -> str:
    """ "palm", "back" or "side" by what is turned to the camera, "end on" where the palm points along its axis."""
    points = np.asarray(joints, float) - np.asarray(joints, float)[_WRIST]
    along = points[_MIDDLE] / max(float(np.linalg.norm(points[_MIDDLE])), 1e-12)
    if abs(along[2]) > 0.75:
        return "end on"
    normal = np.cross(points[_INDEX], points[_LITTLE])  # out of a right hand's palm
    facing = normal[2] / max(float(np.linalg.norm(normal)), 1e-12)
    if abs(facing) < 0.5:
        return "side"
    return "palm" if facing < 0 else "back"


def typology_angle(picture: UInt8[ndarray, "h w 3"], keypoints: Float[ndarray, "21 2"]) -> float:
    """Individual typology angle of the palm's or back's median colour, degrees: atan((L* − 50) / b*).

    picture: sRGB; keypoints: its pixels. It tells how the skin looks, light and white balance included; NaN where the
    palm lies outside the picture. Raises InputError where the arguments are no such arrays.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or np.shape(keypoints) != (21, 2):
        raise InputError(f"picture {picture.dtype} {picture.shape}: give H×W×3 uint8 RGB and 21×2 keypoints")
    palm = np.asarray(keypoints, float)[_PALM]
    palm = palm.mean(0) + 0.8 * (palm - palm.mean(0))  # off the contour
    inside = cv2.fillConvexPoly(np.zeros(picture.shape[:2], np.uint8), cv2.convexHull(palm.round().astype(np.int32)), 1)
    if not inside.any():
        return float("nan")
    lab = cv2.cvtColor((picture[inside > 0][None] / np.float32(255)).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    light, _, yellow = np.median(lab, axis=0)
    return float(np.degrees(np.arctan2(light - 50.0, max(float(yellow), 1e-3))))


def tone_group(angle: float) -> str:
    """The word for a typology angle in degrees; "unknown" for NaN."""
    return "unknown" if np.isnan(angle) else next(name for name, least in TONES if angle > least)


def sharpness(picture: UInt8[ndarray, "h w 3"], keypoints: Float[ndarray, "21 2"], side: int = 64) -> float:
    """Standard deviation of the Laplacian over the hand's box, scaled to `side`² grey pixels in [0, 255].

    Low where a hand is blurred or was enlarged. NaN where the box lies outside the picture.
    """
    points = np.asarray(keypoints, float)
    low = np.maximum(points.min(0).round().astype(int), 0)
    high = np.minimum(points.max(0).round().astype(int), picture.shape[1::-1])
    if (high - low < 2).any():
        return float("nan")
    part = cv2.cvtColor(np.ascontiguousarray(picture[low[1] : high[1], low[0] : high[0]]), cv2.COLOR_RGB2GRAY)
    part = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(part, cv2.CV_64F).std())


def thirds(values: Float[ndarray, " n"], names: tuple[str, str, str] = ("low", "middle", "high")) -> list[str]:
    """Which third of the set each value lies in; "unknown" for NaN."""
    array = np.asarray(values, float)
    if np.isnan(array).all():
        return ["unknown"] * len(array)
    limits = np.nanquantile(array, [1 / 3, 2 / 3])
    return ["unknown" if np.isnan(v) else names[int((v > limits).sum())] for v in array]
