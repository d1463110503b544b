"""The page of a report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from densehand.errors import InputError
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.report.measured import CURVE_MM, KINDS, HandErrors, System, as_systems, csv_row, summarise, worst
from densehand.report.published import PUBLISHED_AUC, PUBLISHED_FREIHAND

THUMBNAIL = 224  # px, longer side

COLOURS = ("#0b6e99", "#c4511a", "#3f7d20", "#7b3fa0", "#8a6d00", "#444444")
DASHES = ("", "7 4", "2 4", "7 3 2 3")
"""Lines of a system share a colour where there are several systems; kinds of errors differ by dashes."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } .wide { overflow-x: auto }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
svg { max-width: 46em; font-size: 12px } .grid { stroke: #ddd }
.cases { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0; width: 168px; overflow-wrap: anywhere; font-size: 12px } img { max-width: 168px }
"""


def page(
    measured: Sequence[HandErrors] | Sequence[System],
    title: str = "Accuracy of hands",
    dataset: str = "",
    legend: str = "",
) -> str:
    """The report as one HTML document. Raises InputError as `as_systems` and `thumbnail`.

    `dataset`: the set the hands are of. On FreiHAND and RHD the measured figures stand among the published ones.
    `legend`: how to read the pictures of the worst cases.
    """
    systems = as_systems(measured)
    summaries = [summarise(system.hands) for system in systems]
    everything = [(system.name, summary["all"]) for system, summary in zip(systems, summaries, strict=True)]
    parts = [about_table(systems), figures_table(systems, summaries)]
    parts += ["<h2>Share of correct keypoints</h2>\n", curves(everything)]
    parts += ["<h2>Mean error of each keypoint</h2>\n", joints_table(everything), "<h2>Worst cases</h2>\n"]
    parts += [f"<p>{escape(legend)}</p>\n" if legend else ""]
    for system in systems:
        parts += [f"<h3>{escape(system.name)}</h3>\n" if system.name else "", cases(system.hands)]
    parts += ["<h2>Published figures</h2>\n", published(everything, dataset)]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n{''.join(parts)}</body></html>\n"
    )


def number(value: float | None, digits: int = 2) -> str:
    """The value as text; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are escaped here."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'


def about_table(systems: Sequence[System]) -> str:
    """What is told of each system, a column each; nothing where nothing is."""
    keys = list(dict.fromkeys(key for system in systems for key in system.about))
    rows = [[key, *(str(system.about.get(key, "–")) for system in systems)] for key in keys]
    return table(["", *(system.name for system in systems)], rows) if rows else ""


def figures_table(systems: Sequence[System], summaries: Sequence[Mapping[str, Any]]) -> str:
    """The single figures, a column a system; then those of each source. Figures are rows, as they outnumber columns."""

    def columns(pick: str | None, label: str) -> list[tuple[str, Mapping[str, Any]]]:
        groups = [summary["all"] if pick is None else summary["sources"].get(pick) for summary in summaries]
        return [
            (" · ".join(filter(None, (label, system.name))), csv_row(group))
            for system, group in zip(systems, groups, strict=True)
            if group is not None
        ]

    def shown(chosen: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        names = list(dict.fromkeys(name for _, row in chosen for name in row))
        rows = [[name, *(number(row.get(name), 0 if name == "hands" else 3) for _, row in chosen)] for name in names]
        return table(["figure", *(label for label, _ in chosen)], rows)

    sets = list(dict.fromkeys(name for summary in summaries for name in summary["sources"]))
    text = shown(columns(None, "" if all(system.name for system in systems) else "all"))
    if sets == [""]:
        return text
    return text + "<h2>By source</h2>\n" + shown([column for name in sets for column in columns(name, name or "–")])


def joints_table(everything: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The mean error of each keypoint, a column a kind and system."""
    columns = [
        (f"{label} · {name}" if name else label, group[kind]["per_joint"])
        for kind, label in KINDS.items()
        for name, group in everything
        if kind in group
    ]
    rows = [[joint, *(number(means[joint]) for _, means in columns)] for joint in KEYPOINT_NAMES]
    return table(["keypoint", *(label for label, _ in columns)], rows)


def curves(everything: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """PCK curves of every system and kind in mm as inline SVG; nothing where there is none."""
    lines = []
    for i, (name, group) in enumerate(everything):
        for j, kind in enumerate(kind for kind in KINDS if "pck" in group.get(kind, {})):
            label = f"{name}, {KINDS[kind]}" if name else KINDS[kind]
            alone = len(everything) == 1
            colour, dash = (COLOURS[j], "") if alone else (COLOURS[i % len(COLOURS)], DASHES[j])
            lines.append((label, group[kind]["pck"], colour, dash))
    if not lines:
        return ""
    left, top, width, height = 48, 12, 520, 260
    parts = []
    for i in range(6):
        x, y = left + width * i / 5, top + height * (1 - i / 5)
        parts.append(f'<path d="M{x:.0f} {top}V{top + height}M{left} {y:.0f}H{left + width}" class="grid"/>')
        parts.append(f'<text x="{x:.0f}" y="{top + height + 18}" text-anchor="middle">{10 * i}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{20 * i} %</text>')
    for i, (label, shares, colour, dash) in enumerate(lines):
        points = " ".join(
            f"{left + width * t / CURVE_MM[-1]:.1f},{top + height * (1 - s):.1f}"
            for t, s in zip(CURVE_MM, shares, strict=True)
        )
        look = f'stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{points}" fill="none" {look}/>')
        y = top + height - 12 - 18 * (len(lines) - 1 - i)
        x = left + width - 8
        parts.append(f'<path d="M{x - 34} {y - 4}H{x}" {look}/>')
        parts.append(f'<text x="{x - 42}" y="{y}" text-anchor="end" fill="{colour}">{escape(label)}</text>')
    size = f"{left + width + 16} {top + height + 44}"
    parts.append(f'<text x="{left + width / 2:.0f}" y="{top + height + 38}" text-anchor="middle">threshold (mm)</text>')
    return f'<svg viewBox="0 0 {size}" role="img"><title>PCK curves</title>{"".join(parts)}</svg>\n'


def thumbnail(picture: UInt8[ndarray, "h w 3"], name: str) -> str:
    """The picture as the address of an embedded JPEG, `THUMBNAIL` px along its longer side at most.

    Raises InputError where it is not H×W×3 uint8.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or picture.size == 0:
        raise InputError(f"{name}: its picture is {picture.dtype} {picture.shape}; give H×W×3 uint8, RGB")
    scale = min(1.0, THUMBNAIL / max(picture.shape[:2]))
    size = [max(1, round(side * scale)) for side in picture.shape[1::-1]]
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def cases(hands: Sequence[HandErrors]) -> str:
    """The worst cases as figures, worst first."""
    items, unit = [], "mm" if any(kind.endswith("_mm") for hand in hands for kind in hand.errors) else "px"
    for hand, error in worst(hands):
        image = ""
        if hand.picture is not None:
            image = f'<img src="{thumbnail(hand.picture(), hand.name)}" alt="{escape(hand.name)}">'
        told = "missed" if np.isinf(error) else f"{error:.1f} {unit}"
        items.append(f"<figure>{image}<figcaption>{escape(hand.name)}<br>{told}</figcaption></figure>\n")
    return f'<div class="cases">{"".join(items)}</div>\n'


def published(everything: Sequence[tuple[str, Mapping[str, Any]]], dataset: str) -> str:
    """The published figures, and among them the measured ones where the set is the same."""

    def measured(label: str, values: Sequence[float | None], digits: int) -> list[str]:
        return [f"{label or 'this system'}: MEASURED HERE", *(number(value, digits) for value in values)]

    freihand = [[name, number(a, 1), number(b, 1)] for name, a, b in PUBLISHED_FREIHAND]
    areas = [[name, number(a, 3), number(b, 3)] for name, a, b in PUBLISHED_AUC]
    for name, group in everything:
        if dataset == "freihand" and "pa_mm" in group:
            freihand.append(measured(name, [group["pa_mm"]["mean"], group["scores"].get("pa_mpvpe_mm")], 1))
        if dataset.partition("_")[0] == "rhd" and "scaled_mm" in group:  # STB's wrist is no label
            areas.append(measured(name, [group["scaled_mm"]["auc_20_50"], None], 3))
    return (
        "<p>As published by their authors, not measured here. They are of FreiHAND's, RHD's and STB's own test sets: "
        "figures of other pictures do not compare. Measured areas are under the label's wrist–middle-knuckle length, "
        "hand3d's under that of the middle finger's first bone.</p>\n"
        f"{table(['FreiHAND, as published', 'PA-MPJPE (mm)', 'PA-MPVPE (mm)'], freihand)}"
        f"{table(['AUC 20–50 mm, as published', 'RHD', 'STB'], areas)}"
    )
