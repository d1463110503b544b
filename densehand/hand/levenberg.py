"""Levenberg-Marquardt in a box, for many small problems at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BOX_ROUNDS = 4  # times a step is found anew after entries came to lie on their bounds


class Local(NamedTuple):
    """An energy E = Σ r² at a state, half its gradient Jᵀr and the Gauss-Newton matrix JᵀJ."""

    energy: Float[Tensor, " b"]
    gradient: Float[Tensor, "b p"]
    curvature: Float[Tensor, "b p p"]


class Solution(NamedTuple):
    """Where `minimise` ended, the energy there and at the start, how many steps each problem took, and whether the
    last one was as small as the tolerance.
    """

    state: Float[Tensor, "b p"]
    energy: Float[Tensor, " b"]
    first: Float[Tensor, " b"]
    steps: Int[Tensor, " b"]
    converged: Bool[Tensor, " b"]


def minimise(
    look: Callable[[Float[Tensor, "b p"]], Local],
    start: Float[Tensor, "b p"],
    lower: Float[Tensor, "*#b p"],
    upper: Float[Tensor, "*#b p"],
    stride: Float[Tensor, " p"],
    iterations: int,
    tolerance: float = 1e-6,
) -> Solution:
    """Lower each problem's energy within lower ≤ state ≤ upper, starting inside; no step is longer than `stride`.

    A step that does not lower a problem's energy is not taken, and its damping grows fourfold; after a step that was
    taken it falls to a third. Entries that lie on a bound and are driven outwards stand still. A problem
    is done when a step moves no entry by more than `tolerance`; problems do not influence each other. A start of energy
    NaN is returned as it is.
    """
    state, here = start, look(start)
    first = here.energy
    damping = torch.full_like(here.energy, 1e-3)
    done = ~here.energy.isfinite()
    steps = torch.zeros_like(here.energy, dtype=torch.long)
    for _ in range(iterations):
        step, found = _step(here, damping, (lower - state).maximum(-stride), (upper - state).minimum(stride))
        trial = torch.where((found & ~done)[:, None], (state + step).clamp(lower, upper), state)
        there = look(trial)
        better = there.energy < here.energy
        small = (trial - state).abs().amax(-1) <= tolerance
        state = torch.where(better[:, None], trial, state)
        here = Local(*(torch.where(_like(better, b), b, a) for a, b in zip(here, there, strict=True)))
        steps = steps + better
        damping = torch.where(better, damping / 3, damping * 4).clamp(1e-9, 1e9)
        done = done | (found & small)
        if done.all():
            break
    return Solution(state, here.energy, first, steps, done & first.isfinite())


def _step(
    here: Local, damping: Float[Tensor, " b"], down: Float[Tensor, "b p"], up: Float[Tensor, "b p"]
) -> tuple[Float[Tensor, "b p"], Bool[Tensor, " b"]]:
    """The damped Gauss-Newton step within down ≤ step ≤ up, and whether there is one.

    Where the step would leave the box, the entry goes to its bound and the others' step is found anew; to clamp a step
    found without the bounds would often lead uphill.
    """
    diagonal = here.curvature.diagonal(dim1=-2, dim2=-1)
    # an entry nothing depends on has no curvature of its own to damp it with
    floor = 1e-5 * diagonal.amax(-1, keepdim=True).clamp_min(1e-12)
    matrix = here.curvature + torch.diag_embed(damping[:, None] * (diagonal + floor))
    fixed = ((down >= 0) & (here.gradient > 0)) | ((up <= 0) & (here.gradient < 0))
    step = torch.zeros_like(here.gradient)
    for _ in range(BOX_ROUNDS):
        free = (~fixed).to(step)
        target = -(here.gradient + (matrix @ (step * (1 - free))[..., None])[..., 0]) * free
        reduced = matrix * free[:, :, None] * free[:, None] + torch.diag_embed(1 - free)
        factor, trouble = torch.linalg.cholesky_ex(reduced)
        step = torch.where(fixed, step, torch.cholesky_solve(target[..., None], factor)[..., 0])
        over = ~fixed & ((step < down) | (step > up))
        step = step.clamp(down, up)
        fixed = fixed | over
        if not over.any():
            break
    return step, (trouble == 0) & step.isfinite().all(-1)


def _like(rows: Tensor, value: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (value.ndim - 1))
