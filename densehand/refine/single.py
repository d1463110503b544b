"""The fast refinement of one hand, in numpy: the same energy, derivatives and steps as the batch's, another speed.

`refine/fast.py` says what is minimised and `hand/levenberg.py` how; with a single hand both spend their time on calling
torch, some thousand times on arrays of a few numbers. This twin gives what they give, up to rounding, for a few hands
on a CPU; batches and GPUs keep theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from densehand.hand.articulate import ANGLES, LOG_SCALE, SHAPE, TRANSLATION, TURN
from densehand.hand.levenberg import BOX_ROUNDS
from densehand.hand.model import HandModel
from densehand.hand.numpy_rotations import angles, left_jacobian, matrices, vectors
from densehand.hand.vector_skeleton import Posed, skeleton_of
from densehand.network.single import Placed, decode_one, encode_one
from densehand.refine.modes import FAST_STEPS
from densehand.refine.prior import HELD, STATE, load_precision
from densehand.refine.refined import Refined

if TYPE_CHECKING:
    from densehand.refine.fast import FastWeights


class _Seen(NamedTuple):
    """The energy at a state, and what its derivatives are made of."""

    state: Float64[np.ndarray, "62"]
    energy: float
    posed: Posed
    off: Float64[np.ndarray, "21 2"]  # gaps, crop units
    pull: Float64[np.ndarray, "21"]  # each keypoint's weight in the Gauss-Newton matrix


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
    with np.errstate(all="ignore"):  # a hand that is not finite is given back as it was
        rows = [_refine(hand, h[k : k + 1], keypoints[k], confidence[k], weights, iterations) for k in range(len(h))]
    return Refined(*(torch.stack(column) for column in zip(*rows, strict=True)))


def _refine(
    hand: HandModel, h: Tensor, keypoints: Tensor, confidence: Tensor, weights: FastWeights, iterations: int
) -> Refined:
    before = h[0].double().numpy()
    problem = SingleProblem(hand, before, keypoints.double().numpy(), confidence.double().numpy(), weights)
    start = problem.see(problem.start)
    found = problem.minimise(start, iterations)
    share = problem.confidence / max(problem.confidence.sum(), 1e-9)
    return Refined(
        h=torch.from_numpy(problem.parameters(found.last.state) if found.steps else before).to(h),
        steps=torch.tensor(found.steps),
        converged=torch.tensor(found.converged),
        before=_number(start.energy),
        after=_number(found.last.energy),
        moved=_number(_lengths(found.last.off - start.off).mean()),
        residual=_number(share @ _lengths(found.last.off)),
    )


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
        self.stride = np.full(STATE, 0.5)
        self.stride[SHAPE] = 1.0
        self.trust = weights.prior * load_precision(hand).numpy()

    def see(self, state: Float64[np.ndarray, "62"]) -> _Seen:
        """The energy alone."""
        turn = matrices(state[None, TURN])[0] @ self.base
        posed = self.skeleton.pose(state[ANGLES].reshape(15, 3), state[SHAPE], turn, float(np.exp(state[LOG_SCALE])))
        off = posed.points[:, :2] + state[TRANSLATION][:2] - self.keypoints
        square = (off * off).sum(-1) / self.weights.pixel**2
        fade = 1 + square / self.weights.robust**2
        moved = state - self.start
        energy = float((self.confidence * square / fade).sum() + moved @ self.trust @ moved)
        return _Seen(state, energy, posed, off, self.confidence / (self.weights.pixel * fade) ** 2)

    def differentiate(self, seen: _Seen) -> tuple[Float64[np.ndarray, "62"], Float64[np.ndarray, "62 62"]]:
        """Half the energy's gradient and the Gauss-Newton matrix."""
        by, points = np.zeros((21, 2, STATE)), seen.posed.points
        self.skeleton.slopes(seen.posed, by)
        for column, line in zip(range(TURN.start, TURN.stop), left_jacobian(seen.state[TURN]).T, strict=True):
            by[:, 0, column] = line[1] * points[:, 2] - line[2] * points[:, 1]
            by[:, 1, column] = line[2] * points[:, 0] - line[0] * points[:, 2]
        by[:, :, LOG_SCALE] = points[:, :2]
        by[:, 0, TRANSLATION.start] = by[:, 1, TRANSLATION.start + 1] = 1
        slope = by.reshape(42, STATE)
        weighted = slope * seen.pull.repeat(2)[:, None]
        gradient = seen.off.ravel() @ weighted + self.trust @ (seen.state - self.start)
        return gradient, weighted.T @ slope + self.trust

    def minimise(self, start: _Seen, iterations: int, tolerance: float = 1e-3) -> _Found:
        """`levenberg.minimise` for one problem."""
        here, steps, damping, slopes = start, 0, 1e-3, None
        if not np.isfinite(here.energy):
            return _Found(here, 0, False)
        for _ in range(iterations):
            slopes = slopes or self.differentiate(here)
            down = np.maximum(self.lower - here.state, -self.stride)
            up = np.minimum(self.upper - here.state, self.stride)
            step = _step(*slopes, damping, down, up)
            if step is not None:
                there = self.see((here.state + step).clip(self.lower, self.upper))
                small = np.abs(there.state - here.state).max() <= tolerance
            if step is not None and there.energy < here.energy:
                here, steps, slopes, damping = there, steps + 1, None, max(damping / 3, 1e-9)
            else:
                damping = min(damping * 4, 1e9)
            if step is not None and small:
                return _Found(here, steps, True)
        return _Found(here, steps, False)

    def parameters(self, state: Float64[np.ndarray, "62"]) -> Float64[np.ndarray, "63"]:
        """The state as h."""
        turn = matrices(state[None, TURN])[0] @ self.base
        local = self.skeleton.pose(state[ANGLES].reshape(15, 3), state[SHAPE], turn, 1.0).local
        return encode_one(
            Placed(vectors(local), state[SHAPE], turn, float(np.exp(state[LOG_SCALE])), state[TRANSLATION])
        )


def _step(
    gradient: np.ndarray, curvature: np.ndarray, damping: float, down: np.ndarray, up: np.ndarray
) -> Float64[np.ndarray, "62"] | None:
    """`levenberg._step` for one problem: the damped step within down ≤ step ≤ up, None where there is none."""
    diagonal = curvature.diagonal()
    matrix = curvature + np.diag(damping * (diagonal + 1e-5 * max(diagonal.max(), 1e-12)))
    fixed = ((down >= 0) & (gradient > 0)) | ((up <= 0) & (gradient < 0))
    step = np.zeros_like(gradient)
    for _ in range(BOX_ROUNDS):
        free = np.flatnonzero(~fixed)
        rows = matrix[free]
        try:
            # entries that stand still have their step already, the others none
            step[free] = np.linalg.solve(rows[:, free], -(gradient[free] + rows @ np.where(fixed, step, 0.0)))
        except np.linalg.LinAlgError:
            return None
        over = ~fixed & ((step < down) | (step > up))
        step = step.clip(down, up)
        if not over.any():
            break
        fixed |= over
    return step if np.isfinite(step).all() else None


def _lengths(gaps: Float64[np.ndarray, "21 2"]) -> Float64[np.ndarray, "21"]:
    found: np.ndarray = np.sqrt((gaps * gaps).sum(-1))
    return found


def _number(value: float) -> Float64[Tensor, ""]:
    return torch.tensor(float(value), dtype=torch.float64)
