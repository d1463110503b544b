"""Similarities of the plane: turned, scaled and mirrored points and boxes, pixels."""

import numpy as np

from densehand.detect.data import Points
from densehand.metrics import tight_box


def similarity(anchor: Points, target: Points, scale: float, angle: float, mirror: bool) -> Points:
    """2×3 matrix that scales, turns (radians) and perhaps mirrors the plane, and carries ``anchor`` to ``target``."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    return np.hstack([linear, (target - linear @ anchor)[:, None]]).astype(np.float32)


def transform(matrix: Points, points: Points) -> Points:
    """Apply a 2×3 matrix to points (n, 2)."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def transform_box(matrix: Points, box: Points) -> Points:
    """Tight box around a turned box."""
    return tight_box(transform(matrix, np.array([box[[0, 1]], box[[2, 1]], box[[2, 3]], box[[0, 3]]])))
