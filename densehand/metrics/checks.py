"""What every measure asks of its input: points that are there, are finite, and fit one another."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from densehand.errors import InputError


def as_floats(values: Any, name: str) -> Float[ndarray, "..."]:
    """`values` as float64; None becomes NaN. Raises InputError (naming `name`) where ragged, no numbers, or empty."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not an array of numbers ({error}); give lists of one length, or an array") from error
    if array.size == 0:
        raise InputError(f"{name}: empty (shape {array.shape}); nothing can be measured, give at least one value")
    return array


def finite(values: Any, name: str) -> Float[ndarray, "..."]:
    """`as_floats`, and no NaN nor infinity in it. Raises InputError naming `name` and how many there are."""
    array = as_floats(values, name)
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {array.size} values are NaN or infinite; leave such hands out")
    return array


def points_3d(values: Any, name: str) -> Float[ndarray, "k 3"]:
    """`finite`, of shape (k, 3). Raises InputError."""
    array = finite(values, name)
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(f"{name}: shape {array.shape} is not (points, 3); give one hand's 3D points")
    return array


def paired_3d(predicted: Any, target: Any) -> tuple[Float[ndarray, "k 3"], Float[ndarray, "k 3"]]:
    """Both as `points_3d`, with as many points in the one as in the other. Raises InputError."""
    p, t = points_3d(predicted, "predicted"), points_3d(target, "target")
    if p.shape != t.shape:
        raise InputError(f"predicted: {len(p)} points, target: {len(t)}; points are compared one by one, give as many")
    return p, t
