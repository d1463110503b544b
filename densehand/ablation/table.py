"""Rows × seeds as one table: means, spreads, and the difference to the full system seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from densehand.ablation.measure import FIGURES
from densehand.ablation.rows import ROWS

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""`run.Ablation.result` by row and seed."""

MODES = {"fast": "with testing refinement", "off": "regression alone"}


@dataclass(frozen=True)
class Cell:
    """One figure of a row: mean over its seeds, and over the seeds it shares with the full system the mean difference
    to it. Spreads are standard deviations (n − 1), None below two seeds. `worse` of `shared` seeds lose by the row."""

    seeds: int
    mean: float
    spread: float | None
    difference: float | None
    difference_spread: float | None
    worse: int
    shared: int


def spread_of(values: Sequence[float]) -> float | None:
    """Standard deviation; None below two values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def value_of(results: Results, name: str, seed: int, mode: str, figure: str) -> float | None:
    """One figure of a row and seed; None where it is not there. A row without testing refinement has none in it."""
    row = ROWS[name]
    entry = results.get(name, {}).get(seed)
    return None if entry is None else entry["figures"][mode if row.refined else "off"].get(figure)


def cell(results: Results, name: str, mode: str, figure: str) -> Cell | None:
    """The figure of a row over all seeds that have it; None where none has."""
    own = {seed: value_of(results, name, seed, mode, figure) for seed in results.get(name, {})}
    there = {seed: value for seed, value in own.items() if value is not None}
    if not there:
        return None
    full = {seed: value_of(results, "full", seed, mode, figure) for seed in there}
    differences = [there[seed] - value for seed, value in full.items() if value is not None] if name != "full" else []
    more_is_better = FIGURES[figure][2]
    return Cell(
        seeds=len(there),
        mean=float(np.mean(list(there.values()))),
        spread=spread_of(list(there.values())),
        difference=float(np.mean(differences)) if differences else None,
        difference_spread=spread_of(differences),
        worse=sum((d < 0) if more_is_better else (d > 0) for d in differences),
        shared=len(differences),
    )


def rows_of(results: Results, mode: str) -> list[str]:
    """The rows that have results, in the paper's order; one that differs by refinement only is no row without it."""
    return [name for name, row in ROWS.items() if results.get(name) and (mode == "fast" or row.refined)]


def with_spread(value: float, spread: float | None, digits: int, sign: str = "") -> str:
    """ "12.30 ± 0.40"."""
    return f"{value:{sign}.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def text(results: Results) -> str:
    """The tables as Markdown: with testing refinement, and of the regression alone."""
    parts = []
    for mode, heading in MODES.items():
        names = rows_of(results, mode)
        shown = [f for f in FIGURES if any(cell(results, name, mode, f) for name in names)]
        lines = [f"{heading[0].upper()}{heading[1:]} (mean ± standard deviation over seeds; difference to full)", ""]
        lines.append("| row | seeds | " + " | ".join(FIGURES[f][0] for f in shown) + " |")
        lines.append("|---|---|" + "---|" * len(shown))
        for name in names:
            cells = [(f, cell(results, name, mode, f)) for f in shown]
            entries = []
            for figure, found in cells:
                digits = FIGURES[figure][1]
                if found is None:
                    entries.append("–")
                    continue
                entry = with_spread(found.mean, found.spread, digits)
                if found.difference is not None:
                    entry += f" ({with_spread(found.difference, found.difference_spread, digits, '+')})"
                entries.append(entry)
            seeds = max(found.seeds for _, found in cells if found is not None)
            lines.append(f"| {ROWS[name].title} | {seeds} | " + " | ".join(entries) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def csv_rows(results: Results, options: Mapping[str, Any], commit: str) -> list[dict[str, Any]]:
    """One row for each row and mode of the table; columns `F`, `F_spread`, `F_difference`, `F_difference_spread` and
    `F_worse` ("2 of 2": seeds in which the row loses to the full system) of each figure F."""
    written = []
    for mode in MODES:
        for name in rows_of(results, mode):
            line: dict[str, Any] = {"commit": commit, "row": name, "refine": mode if ROWS[name].refined else "off"}
            line |= {"compared_with": f"full, {mode}", "seeds": len(results[name])}
            line["data"] = "photos" if options["photos"] else options["data"]
            line |= {k: options[k] for k in ("model", "size", "batch", "head_start", "steps", "pool", "test_hands")}
            for figure in FIGURES:
                found = cell(results, name, mode, figure)
                if found is None:
                    continue
                numbers = {
                    figure: found.mean, f"{figure}_spread": found.spread, f"{figure}_difference": found.difference,
                    f"{figure}_difference_spread": found.difference_spread,
                }  # fmt: skip
                line |= {k: "" if v is None else round(v, 4) for k, v in numbers.items()}
                line[f"{figure}_worse"] = f"{found.worse} of {found.shared}" if found.shared else ""
            written.append(line)
    return written
