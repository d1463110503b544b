"""Error against iteration as a picture, one panel an error, one line a mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densehand.bench.refine import Curve, nice_ticks
from densehand.export import write_picture

COLOURS = {"fast": (196, 60, 40), "paper": (30, 96, 180)}
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 380, 62, 16, 40, 52
_INK, _GRID = (40, 40, 40), (222, 222, 222)


def draw_curves(path: str | Path, curves: Mapping[str, Curve], title: str) -> None:
    """Write the picture; `title` names the hands. Raises InputError where the file cannot be written."""
    scale = 2  # drawn large and halved: smooth lines without a plotting library
    panels = (("2D error of the mesh (px of a 224-px crop)", "mesh_px"), ("PA-MPJPE (mm)", "pa_mm"))
    image = Image.new("RGB", (scale * _WIDTH * len(panels), scale * _HEIGHT), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for number, (label, name) in enumerate(panels):
        values = {mode: (curve.steps, getattr(curve, name)) for mode, curve in curves.items()}
        _panel(draw, number * _WIDTH * scale, scale, f"{label}; {title}", values)
    half = image.resize((_WIDTH * len(panels), _HEIGHT), Image.Resampling.LANCZOS)
    write_picture(path, np.asarray(half))


def _panel(
    draw: ImageDraw.ImageDraw, left: int, scale: int, label: str, values: dict[str, tuple[list[int], list[float]]]
) -> None:
    font, small = (ImageFont.load_default(size * scale) for size in (14, 12))
    numbers = [value for _, column in values.values() for value in column]
    margin = max(0.08 * (max(numbers) - min(numbers)), 1e-3)
    low, high = min(numbers) - margin, max(numbers) + margin
    last = max(max(steps) for steps, _ in values.values()) or 1
    x0, x1 = left + scale * _LEFT, left + scale * (_WIDTH - _RIGHT)
    y0, y1 = scale * _TOP, scale * (_HEIGHT - _BOTTOM)

    def place(step: float, value: float) -> tuple[float, float]:
        return x0 + (x1 - x0) * step / last, y1 - (y1 - y0) * (value - low) / (high - low)

    _axes(draw, place, (low, high), last, small, scale)
    draw.text((x0, y0 - scale * 26), label, _INK, font)
    draw.text(((x0 + x1) / 2, y1 + scale * 34), "iteration", _INK, small, anchor="mm")
    for row, (mode, (steps, column)) in enumerate(values.items()):
        colour = COLOURS.get(mode, _INK)
        points = [place(step, value) for step, value in zip(steps, column, strict=True)]
        draw.line(points, colour, 2 * scale, joint="curve")
        for x, y in points if len(points) < 15 else points[:: max(len(points) // 10, 1)]:
            draw.ellipse((x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale), colour)
        y = y0 + scale * (16 + 20 * row)
        draw.line((x1 - 96 * scale, y, x1 - 66 * scale, y), colour, 2 * scale)
        draw.text((x1 - 60 * scale, y), mode, _INK, small, anchor="lm")


def _axes(
    draw: ImageDraw.ImageDraw,
    place: Callable[[float, float], tuple[float, float]],
    bounds: tuple[float, float],
    last: int,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    scale: int,
) -> None:
    for value in nice_ticks(*bounds):
        (x0, y), (x1, _) = place(0, value), place(last, value)
        draw.line((x0, y, x1, y), _GRID, scale)
        draw.text((x0 - 8 * scale, y), f"{value:g}", _INK, font, anchor="rm")
    for step in nice_ticks(0, last):
        x, y = place(step, bounds[0])
        draw.line((x, y, x, y + 5 * scale), _INK, scale)
        draw.text((x, y + 15 * scale), f"{step:g}", _INK, font, anchor="mm")
    draw.line((*place(0, bounds[1]), *place(0, bounds[0]), *place(last, bounds[0])), _INK, scale)
