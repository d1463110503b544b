"""Errors of many hands and the figures made of them: what a report tells.

Figures follow hand3d (docs/metrics.md): over the keypoints of each keypoint's mean, median and PCK, so that they stand
beside published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from densehand.errors import InputError
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.metrics import THRESHOLDS_0_50, THRESHOLDS_20_50, auc, end_point_error, pck
from densehand.metrics.checks import as_floats

KINDS: dict[str, str] = {
    "pa_mm": "3D, after alignment (mm)",
    "root_mm": "3D, root-relative (mm)",
    "scaled_mm": "3D, root-relative and scaled (mm)",
    "px": "2D (px)",
    "mesh_px": "2D of the mesh (px)",
    "corrected_pa_mm": "3D, joints corrected, after alignment (mm)",
    "corrected_px": "2D, joints corrected (px)",
}
"""Kinds of errors a hand can have and how the page calls them; the first that is there ranks the worst cases."""

CURVE_MM: Float[ndarray, " 101"] = np.linspace(0.0, 50.0, 101)
WORST = 24


@dataclass(frozen=True)
class HandErrors:
    """One hand: its keypoints' errors by kind, other scores of it, and where to get its picture.

    In `errors`, NaN is a keypoint without a label and infinity (all 21) a hand that was missed. `milliseconds`: what it
    took. `picture` gives an H×W×3 uint8 RGB array; it is called for the worst cases only, so that the pictures need not
    all be in memory. `keypoints_score`: what the system holds likely of each keypoint of `px`.
    """

    name: str
    errors: Mapping[str, Float[ndarray, "21"]]
    source: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    picture: Callable[[], UInt8[ndarray, "h w 3"]] | None = None
    milliseconds: float | None = None
    keypoints_score: Float[ndarray, "21"] | None = None


@dataclass(frozen=True)
class System:
    """A model or program, the hands it was measured on, and what else the page tells of it ("boxes": "of labels")."""

    name: str
    hands: Sequence[HandErrors]
    about: Mapping[str, Any] = field(default_factory=dict)


def as_systems(given: Sequence[HandErrors] | Sequence[System]) -> list[System]:
    """Systems as they are; a list of hands as one system without a name.

    Raises InputError as `check`, or where two systems share a name.
    """
    systems = [entry for entry in given if isinstance(entry, System)]
    hands = [entry for entry in given if isinstance(entry, HandErrors)]
    systems = systems or [System("", hands)]
    for system in systems:
        check(system.hands)
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise InputError(f"systems: {', '.join(names)}: two have one name; give each its own")
    return systems


def check(hands: Sequence[HandErrors]) -> None:
    """Raises InputError where there is no hand, a kind is unknown, or errors are not 21 distances."""
    if len(hands) == 0:
        raise InputError("hands: empty; a report needs at least one hand")
    for hand in hands:
        for kind, values in hand.errors.items():
            if kind not in KINDS:
                raise InputError(f"{hand.name}: unknown kind of error {kind!r}; known: {', '.join(KINDS)}")
            array = as_floats(values, f"{hand.name}: {kind}")
            if array.shape != (len(KEYPOINT_NAMES),) or (array < 0).any():
                raise InputError(f"{hand.name}: {kind} is not 21 distances (shape {array.shape}); give one a keypoint")


def stack(hands: Sequence[HandErrors], kind: str) -> Float[ndarray, "n 21"]:
    """The errors of one kind of the hands that have any with a label; (0, 21) where none has."""
    rows = [np.asarray(hand.errors[kind], float) for hand in hands if kind in hand.errors]
    return np.array([row for row in rows if not np.isnan(row).all()]).reshape(-1, len(KEYPOINT_NAMES))


def missed(hand: HandErrors) -> bool:
    """Whether any of its errors is infinite."""
    return any(np.isinf(values).any() for values in hand.errors.values())


def figures(hands: Sequence[HandErrors]) -> dict[str, Any]:
    """Figures of a group of hands, ready for JSON; None where there is nothing to measure.

    `hands`, `missed` (share); for each kind `mean`, `median` and `per_joint` means over the hands found, and for those
    in mm `pck` (at `CURVE_MM`), `auc_0_50` and `auc_20_50`, which count missed hands as wrong; `scores`: their means;
    `ms`: `mean` and `median` of the milliseconds a hand took, where known.
    """
    result: dict[str, Any] = {"hands": len(hands), "missed": float(np.mean([missed(hand) for hand in hands]))}
    for kind in KINDS:
        errors = stack(hands, kind)
        if len(errors) == 0:
            continue
        found = errors[~np.isinf(errors).any(axis=1)]
        mean, median = end_point_error(found, per_keypoint=True) if len(found) else (None, None)
        columns = [column[~np.isnan(column)] for column in found.T]
        means = [float(column.mean()) if column.size else None for column in columns]
        figure: dict[str, Any] = {
            "mean": mean,
            "median": median,
            "per_joint": dict(zip(KEYPOINT_NAMES, means, strict=True)),
        }
        if kind.endswith("_mm"):
            figure["auc_0_50"] = auc(errors, THRESHOLDS_0_50, per_keypoint=True)
            figure["auc_20_50"] = auc(errors, THRESHOLDS_20_50, per_keypoint=True)
            figure["pck"] = pck(errors, CURVE_MM, per_keypoint=True).tolist()
        result[kind] = figure
    names = dict.fromkeys(name for hand in hands for name in hand.scores)
    values = {name: [v for hand in hands if np.isfinite(v := hand.scores.get(name, np.nan))] for name in names}
    result["scores"] = {name: float(np.mean(value)) if value else None for name, value in values.items()}
    times = [hand.milliseconds for hand in hands if hand.milliseconds is not None]
    if times:
        result["ms"] = {"mean": float(np.mean(times)), "median": float(np.median(times))}
    return result


def summarise(hands: Sequence[HandErrors]) -> dict[str, Any]:
    """`figures` of all hands (`all`) and of each source (`sources`). Raises InputError as `check`."""
    check(hands)
    sources: dict[str, list[HandErrors]] = {}
    for hand in hands:
        sources.setdefault(hand.source, []).append(hand)
    return {"all": figures(hands), "sources": {name: figures(group) for name, group in sources.items()}}


def csv_row(figure: Mapping[str, Any]) -> dict[str, float | None]:
    """The single numbers of `figures` in one flat row: `pa_mm_mean`, `pa_mm_auc_20_50`, …, the scores, `ms_median`."""
    row: dict[str, float | None] = {"hands": figure["hands"], "missed": figure["missed"]}
    for kind in KINDS:
        for name in ("mean", "median", "auc_0_50", "auc_20_50"):
            if name in figure.get(kind, {}):
                row[f"{kind}_{name}"] = figure[kind][name]
    row |= figure["scores"]
    if "ms" in figure:
        row["ms_median"] = figure["ms"]["median"]
    return row


def hand_row(hand: HandErrors) -> dict[str, Any]:
    """One hand for JSON: `name`, `source`, `missed`, the mean of each kind (None where missed), scores, `ms`."""
    row: dict[str, Any] = {"name": hand.name, "source": hand.source, "missed": int(missed(hand))}
    for kind in KINDS:
        for errors in stack([hand], kind):
            row[f"{kind}_mean"] = None if np.isinf(errors).any() else float(np.nanmean(errors))
    row |= {name: float(value) if np.isfinite(value) else None for name, value in hand.scores.items()}
    return row if hand.milliseconds is None else {**row, "ms": hand.milliseconds}


def worst(hands: Sequence[HandErrors], count: int = WORST) -> list[tuple[HandErrors, float]]:
    """The hands with the largest mean error of the first kind any has, and that error; missed ones (∞) come first."""
    kind = next((kind for kind in KINDS if len(stack(hands, kind))), None)
    ranked = [(hand, float(np.nanmean(hand.errors[kind]))) for hand in hands if kind and len(stack([hand], kind))]
    return sorted(ranked, key=lambda pair: -pair[1])[:count]
