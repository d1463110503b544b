"""Error against iteration as a picture (the paper's figure 5e): one panel an error, one line a mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from densehand.bench.refine import Curve
from densehand.charts import Line, Panel, draw
from densehand.files import write_bytes

COLOURS = {"fast": (196, 60, 40), "paper": (30, 96, 180)}


def draw_curves(path: str | Path, curves: Mapping[str, Curve], title: str) -> None:
    """Write the picture; `title` names the hands. Raises InputError where the file cannot be written."""
    charts = [
        Panel(
            f"{label}, {title}",
            "iteration",
            unit,
            [Line(mode, COLOURS.get(mode, (40, 40, 40)), c.steps, getattr(c, name)) for mode, c in curves.items()],
        )
        for label, unit, name in (("mesh, 2D error", "px of 224", "mesh_px"), ("PA-MPJPE", "mm", "pa_mm"))
    ]
    write_bytes(Path(path), draw(charts))
