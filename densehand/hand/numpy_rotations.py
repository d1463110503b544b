"""Rotations in numpy, for one hand: with a few small arrays every call of torch costs more than its arithmetic.

Each function answers as the one of roma or `hand/anatomy.py` named beside it, up to rounding.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64

_CUT = 1 - 1e-7  # as `angles_from_rotation` cuts the sine of the abduction
_LEAST = 1e-150  # a vector of no length: 1 is its sine's ratio to it


def _outer(m: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 4 4"]:
    """4 q qᵀ of the unit quaternions q = [w, x, y, z] of rotation matrices, less the identity."""
    outer = np.empty((len(m), 4, 4))
    x, y, z = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    outer[:, 0, 0], outer[:, 1, 1], outer[:, 2, 2], outer[:, 3, 3] = x + y + z, x - y - z, y - x - z, z - x - y
    outer[:, 0, 1] = outer[:, 1, 0] = m[:, 2, 1] - m[:, 1, 2]
    outer[:, 0, 2] = outer[:, 2, 0] = m[:, 0, 2] - m[:, 2, 0]
    outer[:, 0, 3] = outer[:, 3, 0] = m[:, 1, 0] - m[:, 0, 1]
    outer[:, 1, 2] = outer[:, 2, 1] = m[:, 0, 1] + m[:, 1, 0]
    outer[:, 1, 3] = outer[:, 3, 1] = m[:, 0, 2] + m[:, 2, 0]
    outer[:, 2, 3] = outer[:, 3, 2] = m[:, 1, 2] + m[:, 2, 1]
    return outer


# As one product with a table. Its rows are orthogonal and of length 2: its transpose leads from q qᵀ to the matrix.
_OUTER = _outer(np.eye(9).reshape(9, 3, 3)).reshape(9, 16)
_MATRIX = np.ascontiguousarray(_OUTER.T)
_IDENTITY = np.eye(4).ravel()


def matrices(vectors: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3 3"]:
    """Rotation vectors → matrices (`roma.rotvec_to_rotmat`)."""
    angle = np.maximum(np.sqrt(np.einsum("ni,ni->n", vectors, vectors)), _LEAST)
    half = 0.5 * angle
    unit = np.empty((len(vectors), 4))
    np.cos(half, out=unit[:, 0])
    np.multiply(vectors, (np.sin(half) / angle)[:, None], out=unit[:, 1:])
    products = (unit[:, :, None] * unit[:, None]).reshape(-1, 16)
    return (products @ _MATRIX).reshape(-1, 3, 3)


def matrix(vector: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """`matrices` of one vector."""
    angle = max(_length(vector), _LEAST)
    half = float(np.sin(0.5 * angle)) / (0.5 * angle)
    return _turned(vector, float(np.sin(angle)) / angle, 0.5 * half * half)


def matrix_of(quaternion: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "3 3"]:
    """[w, x, y, z] of any norm > 0 → rotation matrix (`model.quaternion_to_matrix`)."""
    unit = quaternion / max(_length(quaternion), 1e-12)
    return _turned(unit[1:], 2 * float(unit[0]), 2.0)


def quaternions(rotations: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 4"]:
    """Rotation matrices → unit quaternions [w, x, y, z] with w ≥ 0 (`roma.rotmat_to_unitquat`).

    4 q qᵀ is linear in the matrix; the row of the greatest diagonal entry is the one of least rounding.
    """
    outer = rotations.reshape(-1, 9) @ _OUTER + _IDENTITY
    best = outer.reshape(-1, 4, 4)[np.arange(len(outer)), outer[:, ::5].argmax(-1)]
    length = np.sqrt(np.einsum("ni,ni->n", best, best))
    found: np.ndarray = best / np.copysign(length, best[:, 0])[:, None]
    return found


def vectors(rotations: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 3"]:
    """Rotation matrices → rotation vectors no longer than π (`roma.rotmat_to_rotvec`)."""
    unit = quaternions(rotations)
    imaginary = unit[:, 1:]
    sine = np.maximum(np.sqrt(np.einsum("ni,ni->n", imaginary, imaginary)), _LEAST)
    found: np.ndarray = imaginary * (2 * np.arctan2(sine, unit[:, 0]) / sine)[:, None]
    return found


def angles(pose: Float64[np.ndarray, "n 3"], axes: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 3"]:
    """Axis-angle → [flexion, abduction, twist] (`anatomy.pose_to_anatomical`)."""
    local = axes @ matrices(pose) @ axes.transpose(0, 2, 1)
    found = np.empty((len(pose), 3))
    np.arctan2(-local[:, 1, 2], local[:, 2, 2], out=found[:, 0])
    np.arcsin(np.minimum(np.maximum(local[:, 0, 2], -_CUT), _CUT), out=found[:, 1])
    np.arctan2(-local[:, 0, 1], local[:, 0, 0], out=found[:, 2])
    return found


def left_jacobian(turn: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Columns: the rotation vectors by which Rot(turn) turns further where an entry of `turn` grows (SO(3))."""
    angle = _length(turn)
    if angle < 1e-2:  # there the series is exact to 1e-10
        return _turned(turn, 0.5 - angle**2 / 24, 1 / 6 - angle**2 / 120)
    return _turned(turn, (1 - float(np.cos(angle))) / angle**2, (angle - float(np.sin(angle))) / angle**3)


def _turned(vector: Float64[np.ndarray, "3"], first: float, second: float) -> Float64[np.ndarray, "3 3"]:
    """1 + first · [v]× + second · [v]×², in numbers: of one small matrix numpy's calls cost more."""
    x, y, z = vector.tolist()
    xx, yy, zz, xy, xz, yz = (second * n for n in (x * x, y * y, z * z, x * y, x * z, y * z))
    x, y, z = first * x, first * y, first * z
    return np.array([[1 - yy - zz, xy - z, xz + y], [xy + z, 1 - xx - zz, yz - x], [xz - y, yz + x, 1 - xx - yy]])


def _length(vector: Float64[np.ndarray, " n"]) -> float:
    return math.sqrt(vector @ vector)
