"""Charts as PNG, without a plotting library: lines over two axes, several panels a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
PANEL, MARGIN, SCALE = (460, 330), (70, 44, 24, 56), 2  # px; left, top, right, bottom; drawn larger and shrunk
GREY, FRAME, INK = (225, 225, 225), (90, 90, 90), (40, 40, 40)


@dataclass(frozen=True)
class Line:
    """One curve of a panel. dashed: drawn broken."""

    label: str
    colour: Colour
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """A chart: heading, names of the axes, curves; `top` fixes the y axis to 0…top."""

    title: str
    x_name: str
    y_name: str
    lines: Sequence[Line]
    top: float | None = None


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers within the range."""
    raw = max(high - low, 1e-9) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = np.ceil(low / step - 1e-9) * step
    return [float(v) for v in np.arange(first, high + step * 1e-6, step)]


def draw(charts: Sequence[Panel]) -> bytes:
    """The charts side by side, two a line, as a PNG. Raises ValueError where there is none."""
    if not charts:
        raise ValueError("no curves to draw")
    width, height = (PANEL[0] + MARGIN[0] + MARGIN[2]), (PANEL[1] + MARGIN[1] + MARGIN[3])
    columns = min(2, len(charts))
    rows = -(-len(charts) // columns)
    picture = Image.new("RGB", (width * columns * SCALE, height * rows * SCALE), "white")
    pen = ImageDraw.Draw(picture)
    for number, chart in enumerate(charts):
        corner = (width * (number % columns) + MARGIN[0], height * (number // columns) + MARGIN[1])
        draw_panel(pen, chart, corner)
    small = picture.resize((picture.width // SCALE, picture.height // SCALE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.quantize(128).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_panel(pen: ImageDraw.ImageDraw, chart: Panel, corner: tuple[int, int]) -> None:
    """One chart with its frame's upper left corner at `corner` (px)."""
    (left, top), (width, height) = corner, PANEL
    xs = [v for line in chart.lines for v in line.x]
    ys = [v for line in chart.lines for v in line.y]
    x_range = (min(xs), max(max(xs), min(xs) + 1e-9))
    spare = 0.08 * (max(ys) - min(ys)) or 1.0
    y_range = (0.0, chart.top) if chart.top is not None else (max(0.0, min(ys) - spare), max(ys) + spare)

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_range[0]) / (x_range[1] - x_range[0]), (y - y_range[0]) / (y_range[1] - y_range[0])
        return (left + width * across) * SCALE, (top + height * (1 - up)) * SCALE

    font, bold = ImageFont.load_default(13 * SCALE), ImageFont.load_default(15 * SCALE)

    def write(x: float, y: float, words: str, anchor: str, big: bool = False) -> None:
        pen.text((x * SCALE, y * SCALE), words, fill=INK, font=bold if big else font, anchor=anchor)

    for value in ticks(*x_range):
        pen.line([at(value, y_range[0]), at(value, y_range[1])], GREY, SCALE)
        write(at(value, 0)[0] / SCALE, top + height + 6, f"{value + 0.0:g}", "ma")
    for value in ticks(*y_range):
        pen.line([at(x_range[0], value), at(x_range[1], value)], GREY, SCALE)
        write(left - 7, at(0, value)[1] / SCALE, f"{value + 0.0:g}", "rm")
    pen.rectangle([left * SCALE, top * SCALE, (left + width) * SCALE, (top + height) * SCALE], outline=FRAME)
    write(left + width / 2, top - 10, chart.title, "ms", big=True)
    write(left + width / 2, top + height + 26, chart.x_name, "ma")
    write(left - 7, top - 8, chart.y_name, "rs")
    along = []
    for line in reversed(chart.lines):  # the first on top
        points = np.array([at(x, y) for x, y in zip(line.x, line.y, strict=True)])
        stroke(pen, [(x, y) for x, y in points.tolist()], line.colour, line.dashed)
        fine = np.linspace(0, len(points) - 1, 200)
        along.append(np.stack([np.interp(fine, np.arange(len(points)), axis) for axis in points.T], axis=1) / SCALE)
    legend(write, pen, chart, corner, np.concatenate(along))


def legend(write: Any, pen: ImageDraw.ImageDraw, chart: Panel, corner: tuple[int, int], curves: np.ndarray) -> None:
    """Names of the curves in the corner where they hide the least of them; `curves`: points (n, 2) along them, px."""
    font, gap, sample = ImageFont.load_default(13), 18, 40
    width = max(font.getlength(line.label) for line in chart.lines) + sample + 16
    height = gap * len(chart.lines) + 4
    boxes = [
        (corner[0] + x, corner[1] + y) for y in (PANEL[1] - height - 6, 6) for x in (PANEL[0] - width - 6, 6)
    ]  # fmt: skip

    def hidden(box: tuple[float, float]) -> int:
        inside = (curves >= box) & (curves <= np.add(box, (width, height)))
        return int(inside.all(axis=1).sum())

    left, top = min(boxes, key=hidden)
    area = [left * SCALE, top * SCALE, (left + width) * SCALE, (top + height) * SCALE]
    pen.rectangle(area, fill="white", outline=GREY, width=SCALE)
    for number, line in enumerate(chart.lines):
        y, right = top + 11 + gap * number, left + width - 8
        write(right - sample, y, line.label, "rm")
        stroke(pen, [((right - 34) * SCALE, y * SCALE), (right * SCALE, y * SCALE)], line.colour, line.dashed)


def stroke(pen: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], colour: Colour, dashed: bool) -> None:
    """A line through points (px of the enlarged picture), whole or in dashes of equal length."""
    if not dashed:
        pen.line(list(points), colour, 2 * SCALE, joint="curve")
        return
    steps = np.linalg.norm(np.diff(np.array(points), axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    for begin in np.arange(0.0, along[-1], 10.0 * SCALE):
        cut = np.linspace(begin, min(begin + 6.0 * SCALE, along[-1]), 4)
        x, y = (np.interp(cut, along, [p[axis] for p in points]) for axis in (0, 1))
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), colour, 2 * SCALE)
