"""Steadiness of a hand over the frames of a film."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from densehand.errors import InputError
from densehand.metrics.checks import finite


def frames(values: Any, name: str, least: int) -> Float[ndarray, "t k d"]:
    """`values` as finite (t, k, d) with t ≥ `least`. Raises InputError."""
    array = finite(values, name)
    if array.ndim != 3 or len(array) < least:
        raise InputError(f"{name}: shape {array.shape} is not (frames, points, 2 or 3) of {least} frames or more")
    return array


def checked_rate(rate: float) -> float:
    """`rate`. Raises InputError where it is not above 0."""
    if not (np.isfinite(rate) and rate > 0):
        raise InputError(f"rate: {rate} frames a second; give a number above 0, or 1 for figures per frame")
    return float(rate)


def acceleration_error(predicted: Float[ndarray, "t k d"], target: Float[ndarray, "t k d"], rate: float = 1.0) -> float:
    """Mean over points and frames of ‖a − â‖, a = x[i−1] − 2x[i] + x[i+1] (Kanazawa et al. 2019, HMMR).

    In unit/frame², or with `rate` (frames a second) in unit/s². Blind to any constant offset or steady drift. Raises
    InputError where shapes differ, values are NaN, or there are fewer than 3 frames.
    """
    p, t = frames(predicted, "predicted", 3), frames(target, "target", 3)
    if p.shape != t.shape:
        raise InputError(f"predicted {p.shape} and target {t.shape}: shapes differ; give the same frames and points")
    return float(np.linalg.norm(np.diff(p - t, n=2, axis=0), axis=-1).mean() * checked_rate(rate) ** 2)


def jitter(predicted: Float[ndarray, "t k d"], rate: float = 1.0) -> float:
    """Mean over points and frames of the jerk ‖x[i+3] − 3x[i+2] + 3x[i+1] − x[i]‖ (Flash and Hogan 1985).

    Needs no labels. In unit/frame³, or with `rate` (frames a second) in unit/s³. 0 for every motion of constant
    acceleration. Raises InputError where values are NaN or there are fewer than 4 frames.
    """
    steps = np.diff(frames(predicted, "predicted", 4), n=3, axis=0)
    return float(np.linalg.norm(steps, axis=-1).mean() * checked_rate(rate) ** 3)
