"""Rows of a comparison, each trained with one thing changed: measured once a row and seed, and told as a table."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densehand.ablation.table import spread_of, with_spread
from densehand.errors import InputError
from densehand.evaluate import append_rows
from densehand.revision import commit

Figures = Mapping[str, tuple[str, int]]
"""Heading and digits of each figure; a results file has it as `NAME_after` and, where asked for, `NAME_before`."""


def stored(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def measure_rows(
    path: Path, names: Sequence[str], known: Mapping[str, Any], seeds: Sequence[int], run: Callable[[str, int], Any]
) -> None:
    """Add the line `run(name, seed)` of every row and seed to a results file, but for those that it holds already.

    Raises InputError for a name that is not among `known`.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"unknown rows {', '.join(unknown)}; known: {', '.join(known)}")
    revision = commit()
    for name in names:  # the seeds of a row one after another: what is done so far can be compared
        for seed in seeds:
            if any(line["row"] == name and int(line["seed"]) == seed for line in stored(path)):
                continue
            line = run(name, seed)
            append_rows(path, [{"commit": revision, **line}])
            print(f"seed {seed}, {name}: {line['cpu_seconds']:.0f} s of CPU", flush=True)


def table(
    lines: Sequence[Mapping[str, Any]], titles: Mapping[str, str], figures: Figures, shared: Sequence[str], first: str
) -> str:
    """Lines of a results file as a Markdown table: after training, mean ± standard deviation over seeds, in brackets
    the difference to the row `first`, seed by seed; a line "before" where figures before training were kept.

    Raises InputError where lines differ in one of the columns `shared`, or where there is none.
    """
    kinds = {tuple(str(line[key]) for key in shared) for line in lines}
    if len(kinds) != 1:
        raise InputError(f"the results hold rows of {len(kinds)} kinds of options; give a file with one")
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault(str(line["row"]), {})[int(line["seed"])] = line
    text = ["| row | seeds | " + " | ".join(head for head, _ in figures.values()) + " |"]
    text.append("|---|---|" + "---|" * len(figures))
    if all(f"{name}_before" in lines[0] for name in figures):
        cells = [f"{float(lines[0][f'{name}_before']):.{digits}f}" for name, (_, digits) in figures.items()]
        text.append("| before | | " + " | ".join(cells) + " |")
    full = found.get(first, {})
    for row in (name for name in titles if name in found):
        cells = []
        for name, (_, digits) in figures.items():
            key = f"{name}_after"
            values = [float(line[key]) for line in found[row].values()]
            cell = with_spread(sum(values) / len(values), spread_of(values), digits)
            gaps = [float(line[key]) - float(full[seed][key]) for seed, line in found[row].items() if seed in full]
            if row != first and gaps:
                cell += f" ({with_spread(sum(gaps) / len(gaps), spread_of(gaps), digits, '+')})"
            cells.append(cell)
        text.append(f"| {titles[row]} | {len(found[row])} | " + " | ".join(cells) + " |")
    return "\n".join(text)
