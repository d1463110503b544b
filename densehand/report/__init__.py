"""A report of accuracy from the errors of many hands: figures as JSON and CSV rows, and a page to look at.

The page is one HTML file that needs nothing else: curves are inline SVG, pictures embedded JPEGs. Several systems
measured on the same hands stand side by side.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from densehand.files import ensure_folder, write_bytes
from densehand.report.html import THUMBNAIL, page, thumbnail
from densehand.report.measured import (
    CURVE_MM,
    KINDS,
    WORST,
    HandErrors,
    System,
    as_systems,
    csv_row,
    figures,
    hand_row,
    summarise,
    worst,
)
from densehand.report.published import PUBLISHED_AUC, PUBLISHED_FREIHAND

__all__ = [
    "CURVE_MM",
    "KINDS",
    "PUBLISHED_AUC",
    "PUBLISHED_FREIHAND",
    "THUMBNAIL",
    "WORST",
    "HandErrors",
    "System",
    "csv_row",
    "figures",
    "page",
    "summarise",
    "thumbnail",
    "worst",
    "write_report",
]


def write_report(
    folder: str | Path,
    measured: Sequence[HandErrors] | Sequence[System],
    title: str = "Accuracy of hands",
    dataset: str = "",
    legend: str = "",
    comparable: bool = True,
) -> None:
    """Write `report.json`, `report.csv` (a row a system) and `report.html` into `folder`, made where missing.

    `measured`: the systems, or the hands of one without a name. `dataset` puts the measured figures among the published
    ones of the same set, unless they are not `comparable`: of another split, or a part. `legend` stands above the worst
    cases (`page`).

    Raises InputError as `page`, or where the folder cannot be written to; then none of the files was begun.
    """
    systems = as_systems(measured)
    html = page(systems, title, dataset if comparable else "", legend)
    summaries = [summarise(system.hands) for system in systems]
    told = [
        {"name": system.name, "about": dict(system.about), **summary, "per_hand": [hand_row(h) for h in system.hands]}
        for system, summary in zip(systems, summaries, strict=True)
    ]
    rows = [{"system": s.name, **csv_row(summary["all"])} for s, summary in zip(systems, summaries, strict=True)]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = {"title": title, "dataset": dataset, "systems": told}
    folder = ensure_folder(folder)
    write_bytes(folder / "report.json", json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False).encode())
    write_bytes(folder / "report.csv", text.getvalue().encode())
    write_bytes(folder / "report.html", html.encode())
