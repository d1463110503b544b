"""The fast refinement of one hand, in numpy: the same energy, derivatives and steps as the batch's, another speed.

`refine/fast.py` says what is minimised and `hand/levenberg.py` how; with a single hand both spend their time on calling
torch, some thousand times on arrays of a few numbers. This twin gives what they give, up to rounding, for a few hands
on a CPU; batches and GPUs keep theirs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from densehand.hand.articulate import ANGLES, LOG_SCALE, SHAPE, TRANSLATION, TURN
from densehand.hand.levenberg import BOX_ROUNDS
from densehand.hand.model import HandModel
from densehand.hand.numpy_rotations import angles, left_jacobian, matrix, vectors
from densehand.hand.vector_skeleton import Posed, sideways, skeleton_of
from densehand.network.single import Placed, decode_one, encode_one
from densehand.refine.modes import FAST_STEPS
from densehand.refine.prior import HELD, STATE, load_precision
from densehand.refine.refined import Refined

if TYPE_CHECKING:
    from densehand.refine.fast import FastWeights


_STRIDE = np.full(STATE, 0.5)
_STRIDE[SHAPE] = 1.0
_STRIDE.flags.writeable = False


class _Seen(NamedTuple):
    """The energy at a state, and what its derivatives are made of."""

    state: Float64[np.ndarray, "62"]
    energy: float
    posed: Posed
    off: Float64[np.ndarray, "21 2"]  # gaps, crop units
    pull: Float64[np.ndarray, "21"]  # each keypoint's weight in the Gauss-Newton matrix
    cost: Float64[np.ndarray, "62"]  # half the prior's gradient


class _Found(NamedTuple):
    last: _Seen
    steps: int
    converged: bool


def refine_alone(
    hand: HandModel,
    h: Float[Tensor, "b 63"],
    keypoints: Float[Tensor, "b 21 2"],
    confidence: Float[Tensor, "b 21"],
    weights: FastWeights,
    iterations: int = FAST_STEPS,
) -> Refined:
    """`fast.refine_together` hand by hand; all tensors on the CPU."""
    given = zip(*(value.double().numpy() for value in (h, keypoints, confidence)), strict=True)
    with np.errstate(all="ignore"):  # a hand that is not finite is given back as it was
        rows = [_refine(hand, code, points, sure, weights, iterations) for code, points, sure in given]
    codes, *numbers = (torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True))
    return Refined(codes.to(h), *numbers)


def _refine(
    hand: HandModel,
    h: Float64[np.ndarray, "63"],
    keypoints: Float64[np.ndarray, "21 2"],
    confidence: Float64[np.ndarray, "21"],
    weights: FastWeights,
    iterations: int,
) -> tuple[Float64[np.ndarray, "63"], int, bool, float, float, float, float]:
    """One hand's row of `Refined`."""
    problem = SingleProblem(hand, h, keypoints, confidence, weights)
    start = problem.see(problem.start)
    last, steps, converged = problem.minimise(start, iterations)
    share = problem.confidence / max(problem.confidence.sum(), 1e-9)
    moved, residual = _lengths(last.off - start.off).mean(), share @ _lengths(last.off)
    return problem.parameters(last) if steps else h, steps, converged, start.energy, last.energy, moved, residual


class SingleProblem:
    """The energy of one hand as a function of `articulate.place`'s 62 numbers; the attributes are `FastProblem`'s."""

    def __init__(
        self,
        hand: HandModel,
        h: Float64[np.ndarray, "63"],
        keypoints: Float64[np.ndarray, "21 2"],
        confidence: Float64[np.ndarray, "21"],
        weights: FastWeights,
    ) -> None:
        self.skeleton, self.weights = skeleton_of(hand), weights
        usable = np.isfinite(keypoints).all(-1) & np.isfinite(confidence)
        self.confidence = np.where(usable, confidence, 0.0).clip(0, 1)
        self.keypoints = np.where(usable[:, None], keypoints, 0.0)
        pose, shape, self.base, scale, translation = decode_one(h)
        self.start = np.zeros(STATE)
        self.start[ANGLES] = angles(pose, self.skeleton.axes).ravel()
        self.start[SHAPE], self.start[LOG_SCALE], self.start[TRANSLATION] = shape, np.log(scale), translation
        self.lower, self.upper = np.full(STATE, -np.inf), np.full(STATE, np.inf)
        self.lower[ANGLES] = np.minimum(self.start[ANGLES], self.skeleton.lower)
        self.upper[ANGLES] = np.maximum(self.start[ANGLES], self.skeleton.upper)
        self.lower[HELD] = self.upper[HELD] = self.start[HELD]
        self.trust = weights.prior * load_precision(hand).numpy()

    def see(self, state: Float64[np.ndarray, "62"]) -> _Seen:
        """The energy alone."""
        turn = matrix(state[TURN]) @ self.base
        posed = self.skeleton.pose(state[ANGLES].reshape(15, 3), state[SHAPE], turn, float(np.exp(state[LOG_SCALE])))
        off = posed.points[:, :2] + (state[TRANSLATION][:2] - self.keypoints)
        square = np.einsum("ki,ki->k", off, off) / self.weights.pixel**2
        fade = 1 + square / self.weights.robust**2
        eased = self.confidence / fade
        pull = eased / (self.weights.pixel**2 * fade)
        moved = state - self.start
        cost = self.trust @ moved
        return _Seen(state, float(eased @ square + cost @ moved), posed, off, pull, cost)

    def differentiate(self, seen: _Seen) -> tuple[Float64[np.ndarray, "62"], Float64[np.ndarray, "62 62"]]:
        """Half the energy's gradient and the Gauss-Newton matrix."""
        by, points = np.zeros((21, 2, STATE)), seen.posed.points
        self.skeleton.slopes(seen.posed, by)
        by[:, :, TURN] = sideways(points, left_jacobian(seen.state[TURN]))
        by[:, :, LOG_SCALE] = points[:, :2]
        by[:, 0, TRANSLATION.start] = by[:, 1, TRANSLATION.start + 1] = 1
        weighted = (by * seen.pull[:, None, None]).reshape(42, STATE)
        gradient = seen.off.ravel() @ weighted + seen.cost
        return gradient, weighted.T @ by.reshape(42, STATE) + self.trust

    def minimise(self, start: _Seen, iterations: int, tolerance: float = 1e-3) -> _Found:
        """`levenberg.minimise` for one problem."""
        here, steps, damping, slopes = start, 0, 1e-3, None
        if not np.isfinite(here.energy):
            return _Found(here, 0, False)
        for _ in range(iterations):
            slopes = slopes or self.differentiate(here)
            down = np.maximum(self.lower - here.state, -_STRIDE)
            up = np.minimum(self.upper - here.state, _STRIDE)
            step = _step(*slopes, damping, down, up)
            if step is not None:
                there = self.see(_between(here.state + step, self.lower, self.upper))
                small = np.abs(there.state - here.state).max() <= tolerance
            if step is not None and there.energy < here.energy:
                here, steps, slopes, damping = there, steps + 1, None, max(damping / 3, 1e-9)
            else:
                damping = min(damping * 4, 1e9)
            if step is not None and small:
                return _Found(here, steps, True)
        return _Found(here, steps, False)

    def parameters(self, seen: _Seen) -> Float64[np.ndarray, "63"]:
        """The state as h."""
        state, posed = seen.state, seen.posed
        return encode_one(Placed(vectors(posed.local), state[SHAPE], posed.turns[0], posed.scale, state[TRANSLATION]))


def _step(
    gradient: np.ndarray, curvature: np.ndarray, damping: float, down: np.ndarray, up: np.ndarray
) -> Float64[np.ndarray, "62"] | None:
    """`levenberg._step` for one problem: the damped step within down ≤ step ≤ up, None where there is none."""
    matrix = curvature.copy()
    diagonal = matrix.ravel()[:: STATE + 1]  # a view
    diagonal += damping * (diagonal + 1e-5 * max(diagonal.max(), 1e-12))
    fixed = ((down >= 0) & (gradient > 0)) | ((up <= 0) & (gradient < 0))
    step = np.zeros_like(gradient)
    for _ in range(BOX_ROUNDS):
        try:
            if np.count_nonzero(fixed):
                free = np.flatnonzero(~fixed)
                rows = matrix[free]
                # entries that stand still have their step already, the others none
                step[free] = _solved(rows[:, free], -(gradient[free] + rows @ np.where(fixed, step, 0.0)))
            else:
                step = _solved(matrix, -gradient)
        except np.linalg.LinAlgError:
            return None
        over = (step < down) | (step > up)
        if not np.count_nonzero(over):
            break
        step = _between(step, down, up)
        fixed |= over
    return step if math.isfinite(step @ step) else None  # no longer than the strides: this cannot overflow


def _solved(matrix: Float64[np.ndarray, "n n"], right: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """x with matrix @ x = right, the matrix symmetric and positive. cv2's Cholesky spends two thirds of numpy's general
    solver's time, but gives up where a pivot is smaller than 2e-16."""
    found_one, found = cv2.solve(matrix, right[:, None], flags=cv2.DECOMP_CHOLESKY)
    return found[:, 0] if found_one else np.linalg.solve(matrix, right)


def _between(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """`values.clip(low, high)`, which takes several times as long of so few."""
    found: np.ndarray = np.minimum(np.maximum(values, low), high)
    return found


def _lengths(gaps: Float64[np.ndarray, "21 2"]) -> Float64[np.ndarray, "21"]:
    found: np.ndarray = np.sqrt((gaps * gaps).sum(-1))
    return found
