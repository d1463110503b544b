"""The curves of the paper's figure 5 as one picture: PCK by row, error while training, error against iterations of
testing refinement. Means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from densehand.ablation.measure import CURVE_MM
from densehand.ablation.rows import ROWS
from densehand.ablation.table import Results, rows_of
from densehand.charts import Colour, Line, Panel

COLOURS: dict[str, Colour] = {  # Okabe and Ito's, told apart by colour-blind readers
    "full": (0, 0, 0),
    "no-refinement": (120, 120, 120),
    "no-augmentation": (230, 159, 0),
    "no-2d": (213, 94, 0),
    "no-refiner": (0, 114, 178),
    "no-shape": (0, 158, 115),
    "constant": (204, 121, 167),
}


def mean_curve(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[list[float], list[float]]:
    """Mean over seeds at the x that all share."""
    shared = sorted(set.intersection(*(set(x) for x, _ in curves)))
    values = [[y[list(x).index(at)] for at in shared] for x, y in curves]
    return [float(v) for v in shared], np.mean(values, axis=0).tolist()


def panels(results: Results, refining: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> list[Panel]:
    """The charts that there are results for. `refining`: `run.Ablation.refining` by row and seed."""
    pck: list[Line] = []
    learning: list[Line] = []
    share: list[Line] = []
    iterations: list[Line] = []
    for name in rows_of(results, "fast"):
        title, colour, runs = ROWS[name].title, COLOURS[name], list(results[name].values())
        mode = "fast" if ROWS[name].refined else "off"
        x, y = mean_curve([(CURVE_MM.tolist(), r["figures"][mode]["pck"]) for r in runs])
        pck.append(Line(title, colour, x, [100 * v for v in y], dashed=not ROWS[name].refined))
        if ROWS[name].trained_as:
            continue
        for chart, figure, factor in ((learning, "pa_mm", 1.0), (share, "near", 100.0)):
            curves = [([p["step"] for p in r["learning"]], [factor * p[figure] for p in r["learning"]]) for r in runs]
            chart.append(Line(title, colour, *mean_curve(curves)))
    for name, seeds in refining.items():
        for mode, dashed in (("fast", False), ("paper", True)):
            curves = [(r[mode]["iterations"], r[mode]["px"]) for r in seeds.values()]
            label = f"{ROWS[name].title}, {mode}"
            iterations.append(Line(label, COLOURS[name], *mean_curve(curves), dashed=dashed))
    found = [
        Panel("Correct keypoints", "threshold (mm)", "%", pck, top=100.0),
        Panel("Test error while training", "step", "PA-MPJPE (mm)", learning),
        Panel("Test hands whose shape loss would count", "step", "%", share),
        Panel("Testing refinement", "iteration", "2D error (px)", iterations),
    ]
    return [panel for panel in found if panel.lines]
