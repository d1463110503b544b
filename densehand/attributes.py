"""What a picture of a hand is like: its pose, view, skin, sharpness and shape as words, to ask where errors are large.

Joints are the 21 keypoints of a right hand in the house order, any unit, camera frame (x right, y down, z forward).
What cannot be told, because labels are NaN or lie outside the picture, is "unknown" or NaN. `over_all` and `judged` say
which groups of hands are far worse than all of them.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from densehand.errors import InputError
from densehand.hand.info import OPEN_SHAPE_NAMES
from densehand.hand.keypoints import BONES, KEYPOINT_NAMES

FINGER_NAMES = ("index", "middle", "ring", "little")
UNKNOWN = "unknown"
STRAIGHT, CURLED = 0.9, 0.7  # knuckle to tip over the length of the finger's bones
HALF_FINGER, BEHIND = 0.1, 0.1  # of wrist to middle knuckle: half a finger's width, and how far behind it is hidden
WEAK, FEW = 1.25, 20  # times all hands' figure from which on a group is weak; fewer hands tell too little
DRAWS, CHANCE = 2000, 0.025  # random groups drawn, and the share of them that may be as bad as one called weak
TONES: tuple[tuple[str, float], ...] = (
    ("light", 41.0), ("intermediate", 28.0), ("tan", 10.0), ("brown", -30.0), ("dark", -np.inf),
)  # fmt: skip
"""Names and lower limits (degrees) of the individual typology angle (Chardon et al. 1991); "light" holds two."""

SHAPE_WORDS: dict[str, tuple[str, str, str]] = {
    "size": ("small", "middling", "large"),
    "finger length": ("short", "middling", "long"),
    "finger thickness": ("thin", "middling", "thick"),
    "palm width": ("narrow", "middling", "wide"),
    "age": ("young-looking", "middling", "old-looking"),
    "build": ("light", "middling", "heavy"),
    "sex": ("like men's", "middling", "like women's"),
}
"""Thirds of the open hand's shape directions that people differ by, from the least number to the greatest."""


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
    if not np.isfinite(joints).all():
        return UNKNOWN
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
    if not np.isfinite(joints).all():
        return UNKNOWN
    points = np.asarray(joints, float) - np.asarray(joints, float)[_WRIST]
    along = points[_MIDDLE] / max(float(np.linalg.norm(points[_MIDDLE])), 1e-12)
    if abs(along[2]) > 0.75:
        return "end on"
    normal = np.cross(points[_INDEX], points[_LITTLE])  # out of a right hand's palm
    facing = normal[2] / max(float(np.linalg.norm(normal)), 1e-12)
    if abs(facing) < 0.5:
        return "side"
    return "palm" if facing < 0 else "back"


def self_hidden(joints: Float[ndarray, "21 3"]) -> Bool[ndarray, "21"]:
    """Which keypoints lie behind another bone of the same hand, as if every bone were as wide as a finger.

    Bones are the 20 of the skeleton; those from the wrist to the knuckles stand for the palm. What else may hide a
    hand (things, other hands) is not asked for. Nothing is hidden where joints are NaN.
    """
    points = np.asarray(joints, float)
    first, last = np.array(BONES).T
    palm = np.linalg.norm(points[_MIDDLE] - points[_WRIST])
    bone = points[last] - points[first]
    offset = points[:, None, :2] - points[first, :2]
    along = (offset * bone[:, :2]).sum(-1) / np.maximum((bone[:, :2] ** 2).sum(-1), 1e-12)
    nearest = points[first] + along.clip(0, 1)[..., None] * bone  # on each bone, as the camera sees it
    beside = np.linalg.norm(points[:, None, :2] - nearest[..., :2], axis=-1)
    behind = points[:, None, 2] - nearest[..., 2]
    return ((beside < HALF_FINGER * palm) & (behind > BEHIND * palm)).any(axis=1)


def self_hidden_group(joints: Float[ndarray, "21 3"]) -> str:
    """How much of a hand its own fingers and palm hide, by `self_hidden`: a share of the keypoints."""
    if not np.isfinite(joints).all():
        return UNKNOWN
    share = self_hidden(joints).mean()
    return "over 35 %" if share > 0.35 else "15 to 35 %" if share > 0.15 else "under 15 %"


def shape_groups(shape: Float[ndarray, "n 10"]) -> dict[str, list[str]]:
    """The third of the set that each hand is in, for the directions of `SHAPE_WORDS`; shape: of the open hand."""
    return {
        f"{name} of the hand": thirds(shape[:, OPEN_SHAPE_NAMES.index(name)], words)
        for name, words in SHAPE_WORDS.items()
    }


def typology_angle(picture: UInt8[ndarray, "h w 3"], keypoints: Float[ndarray, "21 2"]) -> float:
    """Individual typology angle of the palm's or back's median colour, degrees: atan((L* − 50) / b*).

    picture: sRGB; keypoints: its pixels. It tells how the skin looks, light and white balance included; NaN where the
    palm lies outside the picture or is unknown. Raises InputError where the arguments are no such arrays.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or np.shape(keypoints) != (21, 2):
        raise InputError(f"picture {picture.dtype} {picture.shape}: give H×W×3 uint8 RGB and 21×2 keypoints")
    palm = np.asarray(keypoints, float)[_PALM]
    if not np.isfinite(palm).all():
        return float("nan")
    palm = palm.mean(0) + 0.8 * (palm - palm.mean(0))  # off the contour
    inside = cv2.fillConvexPoly(np.zeros(picture.shape[:2], np.uint8), cv2.convexHull(palm.round().astype(np.int32)), 1)
    if not inside.any():
        return float("nan")
    lab = cv2.cvtColor((picture[inside > 0][None] / np.float32(255)).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    light, _, yellow = np.median(lab, axis=0)
    return float(np.degrees(np.arctan2(light - 50.0, max(float(yellow), 1e-3))))


def tone_group(angle: float) -> str:
    """The word for a typology angle in degrees; "unknown" for NaN."""
    return UNKNOWN if np.isnan(angle) else next(name for name, least in TONES if angle > least)


def sharpness(picture: UInt8[ndarray, "h w 3"], keypoints: Float[ndarray, "21 2"]) -> float:
    """Standard deviation of the Laplacian over the hand's box, scaled to 64² grey pixels in [0, 255].

    Low where a hand is blurred or was enlarged. The box is that around the known keypoints; NaN where there is none, or
    it lies outside the picture.
    """
    points = np.asarray(keypoints, float)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return float("nan")
    low = np.maximum(points.min(0).round().astype(int), 0)
    high = np.minimum(points.max(0).round().astype(int), picture.shape[1::-1])
    if (high - low < 2).any():
        return float("nan")
    part = cv2.cvtColor(np.ascontiguousarray(picture[low[1] : high[1], low[0] : high[0]]), cv2.COLOR_RGB2GRAY)
    part = cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(part, cv2.CV_64F).std())


def thirds(values: Float[ndarray, " n"], names: tuple[str, str, str] = ("low", "middle", "high")) -> list[str]:
    """Which third of the set each value lies in; "unknown" for NaN."""
    array = np.asarray(values, float)
    if np.isnan(array).all():
        return [UNKNOWN] * len(array)
    limits = np.nanquantile(array, [1 / 3, 2 / 3])
    return [UNKNOWN if np.isnan(v) else names[int((v > limits).sum())] for v in array]


@lru_cache(maxsize=4)
def random_orders(count: int) -> Int[ndarray, "draws count"]:
    """`DRAWS` random orders of so many hands: the first k of each are a random group of k."""
    return np.random.default_rng(0).random((DRAWS, count)).argsort(axis=1)


def over_all(values: Float[ndarray, " n"], chosen: Bool[ndarray, " n"]) -> tuple[int, float, float]:
    """How many of the chosen hands have a value, their mean over that of all hands, and how often a random group of as
    many hands has a mean as high, by chance alone.

    NaN values are not known; ratio and chance are NaN where none of the chosen has one, or all hands' are 0.
    """
    known = np.isfinite(values)
    values, chosen = values[known], chosen[known]
    count = int(chosen.sum())
    if not count or not values.any():
        return count, np.nan, np.nan
    random_means = values[random_orders(len(values))[:, :count]].mean(axis=1)
    own = values[chosen].mean()
    # equal sums in another order differ in their last digits; the group itself is one of the groups there are
    as_high = 1 + np.count_nonzero(random_means >= own * (1 - 1e-9))
    return count, float(own / values.mean()), float(as_high / (DRAWS + 1))


def judged(hands: int, ratio: float, chance: float) -> str:
    """What `over_all` says of a group: "weak" beyond `WEAK` times all hands' figure, where at least `FEW` hands show it
    and chance seldom would; "unsure" beyond it otherwise; else ""."""
    if not ratio > WEAK:
        return ""
    return "weak" if hands >= FEW and chance < CHANCE else "unsure"
