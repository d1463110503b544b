"""Rotations in numpy, for one hand: with a few small arrays every call of torch costs more than its arithmetic.

Each function answers as the one of roma or `hand/anatomy.py` named beside it, up to rounding.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

_CUT = 1 - 1e-7  # as `angles_from_rotation` cuts the sine of the abduction
# [v]× = v @ _CROSS, row by row
_CROSS = np.array(
    [[0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0]], np.float64
)
_EYE = np.eye(3)
_EYE.flags.writeable = False


def matrices(vectors: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3 3"]:
    """Rotation vectors → matrices (`roma.rotvec_to_rotmat`)."""
    angle = np.sqrt((vectors * vectors).sum(-1))[:, None, None]
    small = angle < 1e-4  # there the series is exact to 1e-17
    safe = np.where(small, 1.0, angle)
    square = angle * angle
    first = np.where(small, 1 - square / 6, np.sin(safe) / safe)
    second = np.where(small, 0.5 - square / 24, (1 - np.cos(safe)) / (safe * safe))
    cross = (vectors @ _CROSS).reshape(-1, 3, 3)
    found: np.ndarray = _EYE + first * cross + second * (cross @ cross)
    return found


def matrix_of(quaternion: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "3 3"]:
    """[w, x, y, z] of any norm > 0 → rotation matrix (`model.quaternion_to_matrix`)."""
    w, x, y, z = quaternion / max(np.sqrt(quaternion @ quaternion), 1e-12)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternions(rotations: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 4"]:
    """Rotation matrices → unit quaternions [w, x, y, z] with w ≥ 0 (`roma.rotmat_to_unitquat`).

    4 q qᵀ is linear in the matrix; the row of the greatest diagonal entry is the one of least rounding.
    """
    m = rotations
    outer = np.empty((len(m), 4, 4))
    x, y, z = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    outer[:, 0, 0], outer[:, 1, 1] = 1 + x + y + z, 1 + x - y - z
    outer[:, 2, 2], outer[:, 3, 3] = 1 - x + y - z, 1 - x - y + z
    outer[:, 0, 1] = outer[:, 1, 0] = m[:, 2, 1] - m[:, 1, 2]
    outer[:, 0, 2] = outer[:, 2, 0] = m[:, 0, 2] - m[:, 2, 0]
    outer[:, 0, 3] = outer[:, 3, 0] = m[:, 1, 0] - m[:, 0, 1]
    outer[:, 1, 2] = outer[:, 2, 1] = m[:, 0, 1] + m[:, 1, 0]
    outer[:, 1, 3] = outer[:, 3, 1] = m[:, 0, 2] + m[:, 2, 0]
    outer[:, 2, 3] = outer[:, 3, 2] = m[:, 1, 2] + m[:, 2, 1]
    rows = np.arange(len(m))
    best = outer[rows, outer[:, [0, 1, 2, 3], [0, 1, 2, 3]].argmax(-1)]
    unit = best / np.sqrt((best * best).sum(-1))[:, None]
    found: np.ndarray = np.where(unit[:, :1] < 0, -unit, unit)
    return found


def vectors(rotations: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 3"]:
    """Rotation matrices → rotation vectors no longer than π (`roma.rotmat_to_rotvec`)."""
    unit = quaternions(rotations)
    sine = np.sqrt((unit[:, 1:] * unit[:, 1:]).sum(-1))
    small = sine < 1e-8
    factor = np.where(small, 2.0, 2 * np.arctan2(sine, unit[:, 0]) / np.where(small, 1.0, sine))
    found: np.ndarray = unit[:, 1:] * factor[:, None]
    return found


def angles(pose: Float64[np.ndarray, "n 3"], axes: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 3"]:
    """Axis-angle → [flexion, abduction, twist] (`anatomy.pose_to_anatomical`)."""
    local = axes @ matrices(pose) @ axes.transpose(0, 2, 1)
    flexion = np.arctan2(-local[:, 1, 2], local[:, 2, 2])
    abduction = np.arcsin(local[:, 0, 2].clip(-_CUT, _CUT))
    twist = np.arctan2(-local[:, 0, 1], local[:, 0, 0])
    return np.stack([flexion, abduction, twist], axis=-1)


def left_jacobian(turn: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Columns: the rotation vectors by which Rot(turn) turns further where an entry of `turn` grows (SO(3))."""
    angle = float(np.sqrt(turn @ turn))
    if angle < 1e-2:  # there the series is exact to 1e-10
        first, second = 0.5 - angle**2 / 24, 1 / 6 - angle**2 / 120
    else:
        first, second = (1 - np.cos(angle)) / angle**2, (angle - np.sin(angle)) / angle**3
    cross = (turn @ _CROSS).reshape(3, 3)
    found: np.ndarray = _EYE + first * cross + second * (cross @ cross)
    return found
