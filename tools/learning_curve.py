"""Error against pictures seen: the measurements of runs that went on from each other, and where their line would lead.

    python tools/learning_curve.py runs/lite-4 runs/lite-5 runs/lite-6 --before 153600

Reads each run's config.json and logs; writes results/learning_curve.csv and docs/images/learning_curve.png. The line
is a power law, error = a · pictures^-b, through the ends of the runs that were finished with a falling learning rate
(`final_lr` below 0.1); measurements in between are of high learning rates. Beyond its points it is a guess.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densehand.charts import Line, Panel, draw
from densehand.errors import InputError
from densehand.files import write_bytes

COLUMNS = ("refined_median", "refined_mean", "mesh_median", "mesh_mean")
FINISHED = 0.1  # of the highest learning rate: a run that ends below it has been finished
HOUR = 10_000_000  # pictures that one H100-class GPU trains dhpe-lite on in an hour (2,870 pictures/s, ResNet-50)


def read_run(folder: Path, before: int) -> tuple[list[dict[str, Any]], int, bool]:
    """Rows of one run's measurements, the pictures seen at its end, and whether it was finished."""
    try:
        config = json.loads((folder / "config.json").read_text())
        logs = sorted(folder.glob("log-*/metrics.csv"), key=lambda path: int(path.parent.name.split("-")[1]))
        entries = [row for log in logs for row in csv.DictReader(log.open()) if row.get("val/refined_mean")]
        batch, size, final = int(config["batch"]), int(config["size"]), float(config["final_lr"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: not the folder of a training run ({error!r})") from None
    if not entries:
        raise InputError(f"{folder}: its logs hold no measurement on held-back photos; train with --validate-every")
    rows: list[dict[str, Any]] = [
        {
            "run": folder.name,
            "size": size,
            "pictures": before + batch * int(entry["step"]),
            **{name: round(float(entry[f"val/{name}"]), 3) for name in COLUMNS},
        }
        for entry in entries
    ]
    return rows, int(rows[-1]["pictures"]), final < FINISHED


def power_law(pictures: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """a and b of error = a · pictures^-b, by least squares of the logarithms. InputError for fewer than two points."""
    if len(pictures) < 2:
        raise InputError("a line needs two finished runs (final_lr below 0.1) at least")
    slope, offset = np.polyfit(np.log(pictures), np.log(errors), 1)
    return float(np.exp(offset)), float(-slope)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of `densehand train`, in their order")
    parser.add_argument("--before", type=int, default=0, help="pictures seen before the first of them")
    parser.add_argument("--out", type=Path, default=Path("results/learning_curve.csv"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/learning_curve.png"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    seen = options.before
    for folder in options.runs:
        more, seen, finished = read_run(folder, seen)
        rows += more
        ends += more[-1:] if finished else []
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    panels = []
    for name, title in (("refined_median", "median"), ("refined_mean", "mean")):
        x = [row["pictures"] / 1000 for row in rows]
        lines = [Line("while training", (120, 120, 120), x, [row[name] for row in rows])]
        ends_x, ends_y = [row["pictures"] for row in ends], [row[name] for row in ends]
        lines.append(Line("ends of finished runs", (0, 114, 178), [x / 1000 for x in ends_x], ends_y))
        panels.append(Panel(f"held-back photos, {title} 2D error (px of 224)", "thousand pictures", "px", lines))
        a, b = power_law(ends_x, ends_y)
        print(f"{name}: {a:.2f} · pictures^-{b:.3f}; {2**-b:.3f} of it at twice the pictures; ", end="")
        print(f"{a * (seen + HOUR) ** -b:.2f} px after one more GPU hour ({HOUR:,} pictures), if the line held")
    write_bytes(options.picture, draw(panels))
    print(f"{options.out}: {len(rows)} measurements, {len(ends)} finished runs; {options.picture}")


if __name__ == "__main__":
    main()
