"""Between the two sets of axes of a hand: those of its crop, which looks along the ray to it, and the camera's.

A hand beside the optical axis shows another of its sides than one in the middle of the picture. What a network sees is
a crop, in which every hand is in the middle: it tells the hand's turn against the ray, and what training knows of 3D is
turned so, too (`data/labelled.py`). Weak perspective holds in those axes, about the hand's mean depth.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

NEAREST = 0.1
"""The wrist is never nearer than this share of the hand's mean depth, however short the focal length."""


def turn_to_ray(ray: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The shortest turn that takes the optical axis (0, 0, 1) to the direction of `ray`, any length, z > 0."""
    x, y, z = np.asarray(ray, np.float64) / np.linalg.norm(ray)
    k = 1 / (1 + z)
    return np.array([[1 - k * x * x, -k * x * y, x], [-k * x * y, 1 - k * y * y, y], [-x, -y, z]])


def turn_to_box(
    box: Float[np.ndarray, "4"], focal: float, center: Float[np.ndarray, "2"], mirrored: bool = False
) -> Float[np.ndarray, "3 3"]:
    """From the axes of the crop around a box (x0, y0, x1, y1, pixels) to the camera's (`focal` and `center` in pixels).

    `mirrored`: the same in the mirrored picture (x → −x), where a left hand is a right one.
    """
    x, y = (np.asarray(box[:2], np.float64) + box[2:]) / 2 - center
    return turn_to_ray(np.array([-x if mirrored else x, y, focal]))


def turn_rotation(turn: Float[np.ndarray, "3 3"], rotation: Float[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    """The quaternion [w, x, y, z] of `rotation` (of the same kind) followed by `turn`."""
    from densehand.hand.numpy_rotations import matrix_of, quaternions

    return quaternions((turn @ matrix_of(np.asarray(rotation, np.float64)))[None])[0]


def wrist_place(
    scale: float,
    wrist: Float[np.ndarray, "2"],
    joints: Float[np.ndarray, "21 3"],
    focal: float,
    center: Float[np.ndarray, "2"],
) -> Float[np.ndarray, "3"]:
    """The wrist in the pinhole camera, metres: projected on `wrist` (pixels), its hand's mean depth focal / scale.

    Args:
        scale: pixels per metre, fitted to the whole hand.
        wrist: its projection, pixels.
        joints: metres, camera axes, relative to the wrist.
        focal, center: of the camera, pixels.
    """
    middle = focal / scale
    depth = max(middle - float(joints[:, 2].mean()), NEAREST * middle)
    x, y = (np.asarray(wrist, np.float64) - center) / focal
    return np.array([x, y, 1.0]) * depth
