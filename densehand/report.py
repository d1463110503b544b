"""A report of accuracy from the errors of many hands: figures as JSON and one CSV row, and a page to look at.

The page is one HTML file that needs nothing else: curves are inline SVG, pictures embedded JPEGs. Figures follow hand3d
(docs/metrics.md): over the keypoints of each keypoint's mean, median and PCK, so that they stand beside published ones.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from densehand.errors import InputError
from densehand.files import ensure_folder, write_bytes
from densehand.hand.keypoints import KEYPOINT_NAMES
from densehand.metrics import THRESHOLDS_0_50, THRESHOLDS_20_50, auc, end_point_error, pck
from densehand.metrics.checks import as_floats

KINDS: dict[str, str] = {
    "pa_mm": "3D, after alignment (mm)",
    "root_mm": "3D, root-relative (mm)",
    "scaled_mm": "3D, root-relative and scaled (mm)",
    "px": "2D (px)",
}
"""Kinds of errors a hand can have and how the page calls them; the first that is there ranks the worst cases."""

CURVE_MM: Float[ndarray, " 101"] = np.linspace(0.0, 50.0, 101)
WORST = 24
THUMBNAIL = 160  # px, longer side

PUBLISHED_FREIHAND: tuple[tuple[str, float | None, float | None], ...] = (
    ("Boukhayma et al. 2019", None, 13.2),
    ("FreiHAND baseline (Zimmermann et al. 2019)", 11.0, 10.9),
    ("MobRecon (Chen et al. 2022)", 5.7, 5.9),
    ("HaMeR (Pavlakos et al. 2024)", 6.0, 5.7),
    ("WiLoR (Potamias et al. 2025)", 5.5, 5.1),
)
"""FreiHAND, as published: method, PA-MPJPE and PA-MPVPE in mm."""

PUBLISHED_AUC: tuple[tuple[str, float | None, float | None], ...] = (
    ("Zimmermann and Brox 2017", 0.675, 0.948),
    ("Spurr et al. 2018", 0.849, 0.983),
    ("Cai et al. 2018", 0.887, 0.994),
    ("Ge et al. 2019", 0.92, 0.998),
    ("DHPE (Baek et al. 2019)", 0.926, 0.995),
)
"""AUC 20–50 mm, as published: method, on RHD, on STB."""


@dataclass(frozen=True)
class HandErrors:
    """One hand: its keypoints' errors by kind, other scores of it, and where to get its picture.

    In `errors`, NaN is a keypoint without a label and infinity (all 21) a hand that was missed. `picture` gives an
    H×W×3 uint8 RGB array; it is called for the worst cases only, so that the pictures need not all be in memory.
    """

    name: str
    errors: Mapping[str, Float[ndarray, "21"]]
    source: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    picture: Callable[[], UInt8[ndarray, "h w 3"]] | None = None


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
    in mm `pck` (at `CURVE_MM`), `auc_0_50` and `auc_20_50`, which count missed hands as wrong; `scores`: their means.
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
    return result


def summarise(hands: Sequence[HandErrors]) -> dict[str, Any]:
    """`figures` of all hands (`all`) and of each source (`sources`). Raises InputError as `check`."""
    check(hands)
    sources: dict[str, list[HandErrors]] = {}
    for hand in hands:
        sources.setdefault(hand.source, []).append(hand)
    return {"all": figures(hands), "sources": {name: figures(group) for name, group in sources.items()}}


def csv_row(figure: Mapping[str, Any]) -> dict[str, float | None]:
    """The single numbers of `figures` in one flat row: `pa_mm_mean`, `pa_mm_auc_20_50`, …, then the scores."""
    row: dict[str, float | None] = {"hands": figure["hands"], "missed": figure["missed"]}
    for kind in KINDS:
        for name in ("mean", "median", "auc_0_50", "auc_20_50"):
            if name in figure.get(kind, {}):
                row[f"{kind}_{name}"] = figure[kind][name]
    return {**row, **figure["scores"]}


def worst(hands: Sequence[HandErrors], count: int = WORST) -> list[tuple[HandErrors, float]]:
    """The hands with the largest mean error of the first kind any has, and that error; missed ones (∞) come first."""
    kind = next((kind for kind in KINDS if len(stack(hands, kind))), None)
    ranked = [(hand, float(np.nanmean(hand.errors[kind]))) for hand in hands if kind and len(stack([hand], kind))]
    return sorted(ranked, key=lambda pair: -pair[1])[:count]


# ---- the page


def number(value: float | None, digits: int = 2) -> str:
    """The value as text; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are escaped here."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"


COLOURS = ("#0b6e99", "#c4511a", "#3f7d20")


def curves(figure: Mapping[str, Any]) -> str:
    """PCK curves of every kind in mm as inline SVG; nothing where there is none."""
    lines = [(KINDS[kind], figure[kind]["pck"]) for kind in KINDS if "pck" in figure.get(kind, {})]
    if not lines:
        return ""
    left, top, width, height = 48, 12, 520, 260
    parts = []
    for i in range(6):
        x, y = left + width * i / 5, top + height * (1 - i / 5)
        parts.append(f'<path d="M{x:.0f} {top}V{top + height}M{left} {y:.0f}H{left + width}" class="grid"/>')
        parts.append(f'<text x="{x:.0f}" y="{top + height + 18}" text-anchor="middle">{10 * i}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{20 * i} %</text>')
    for i, (label, shares) in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(
            f"{left + width * t / CURVE_MM[-1]:.1f},{top + height * (1 - s):.1f}"
            for t, s in zip(CURVE_MM, shares, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = top + height - 12 - 18 * (len(lines) - 1 - i)
        parts.append(f'<text x="{left + width - 8}" y="{y}" text-anchor="end" fill="{colour}">{escape(label)}</text>')
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
    items = []
    for hand, error in worst(hands):
        image = ""
        if hand.picture is not None:
            image = f'<img src="{thumbnail(hand.picture(), hand.name)}" alt="{escape(hand.name)}">'
        told = "missed" if np.isinf(error) else f"{error:.1f}"
        items.append(f"<figure>{image}<figcaption>{escape(hand.name)}<br>{told}</figcaption></figure>\n")
    return f'<div class="cases">{"".join(items)}</div>\n'


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
svg { max-width: 44em; font-size: 12px } .grid { stroke: #ddd }
.cases { display: flex; flex-wrap: wrap; gap: 1em }
figure { margin: 0; width: 160px; overflow-wrap: anywhere; font-size: 12px }
"""


def page(hands: Sequence[HandErrors], title: str = "Accuracy of hands") -> str:
    """The report as one HTML document. Raises InputError as `check` and `thumbnail`."""
    summary = summarise(hands)
    everything = summary["all"]
    kinds = [kind for kind in KINDS if kind in everything]
    rows = [("all", everything), *((name or "–", group) for name, group in summary["sources"].items())]
    columns = list(csv_row(everything))
    figures_table = table(
        ["set", *columns],
        [[name, *(number(csv_row(g).get(c), 0 if c == "hands" else 3) for c in columns)] for name, g in rows],
    )
    joints = table(
        ["keypoint", *(KINDS[kind] for kind in kinds)],
        [[name, *(number(everything[kind]["per_joint"][name]) for kind in kinds)] for name in KEYPOINT_NAMES],
    )
    freihand = [[name, number(a, 1), number(b, 1)] for name, a, b in PUBLISHED_FREIHAND]
    published_auc = [[name, number(a, 3), number(b, 3)] for name, a, b in PUBLISHED_AUC]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n{figures_table}"
        f"<h2>Share of correct keypoints</h2>\n{curves(everything)}"
        f"<h2>Mean error of each keypoint</h2>\n{joints}"
        f"<h2>Worst cases</h2>\n{cases(hands)}"
        f"<h2>Published figures</h2>\n<p>As published by their authors, not measured here.</p>\n"
        f"{table(['FreiHAND, as published', 'PA-MPJPE (mm)', 'PA-MPVPE (mm)'], freihand)}"
        f"{table(['AUC 20–50 mm, as published', 'RHD', 'STB'], published_auc)}</body></html>\n"
    )


def write_report(folder: str | Path, hands: Sequence[HandErrors], title: str = "Accuracy of hands") -> None:
    """Write `report.json`, `report.csv` (header and one row) and `report.html` into `folder`, made where missing.

    Raises InputError as `page`, or where the folder cannot be written to; then none of the files was begun.
    """
    html, summary = page(hands, title), summarise(hands)
    summary["per_hand"] = [{"name": hand.name, "source": hand.source, **csv_row(figures([hand]))} for hand in hands]
    row, text = csv_row(summary["all"]), io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    folder = ensure_folder(folder)
    write_bytes(folder / "report.json", json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False).encode())
    write_bytes(folder / "report.csv", text.getvalue().encode())
    write_bytes(folder / "report.html", html.encode())
