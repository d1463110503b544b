"""`densehand ablate`: what each component of the paper is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from densehand.ablation import ROW_NAMES
from densehand.cli.common import choices, say

if TYPE_CHECKING:
    from densehand.ablation.run import Ablation


def register(app: typer.Typer) -> None:
    app.command("ablate")(ablate)


def ablate(
    out: Path = typer.Option(..., help="Folder of the runs; given again, what is done in it is not done again."),
    rows: str = typer.Option(",".join(ROW_NAMES), help="Comma-separated."),
    seeds: int = typer.Option(2, min=1, help="Each row is trained so many times."),
    data: str = typer.Option("synthetic", help="synthetic, or the name of a dataset (docs/datasets.md)."),
    root: str = typer.Option("", help="Folder of the dataset: its hands are half of each batch, and the test."),
    split: str = typer.Option("", help="Split of the dataset to train on; by default its first."),
    test_split: str = typer.Option("", help="Split of the dataset to measure on."),
    photos: str = typer.Option(
        "", help="Instead: folder of real crops (docs/training.md), measured on held-back ones."
    ),
    model: str = typer.Option("dhpe-lite", help="dhpe-lite, dhpe-r50 or dhpe-paper."),
    start: str = typer.Option("imagenet", help="imagenet, none, packaged-trunk or a weights file."),
    size: int = typer.Option(96, min=32, help="Side of the crops in pixels, a multiple of 32."),
    batch: int = typer.Option(32, min=2, help="Pictures a step."),
    head_start: int = typer.Option(300, min=0, help="Steps of the rows' common start, without what rows take away."),
    steps: int = typer.Option(150, min=1, help="Steps of each row after it."),
    lr: float = typer.Option(1e-3, help="Learning rate."),
    pool: int = typer.Option(1024, min=1, help="Rendered training hands of a seed."),
    children: int = typer.Option(384, min=0, help="Most new samples that self-supervised augmentation makes in a run."),
    test_hands: int = typer.Option(200, min=1, help="Hands to measure on."),
    curve_hands: int = typer.Option(32, min=0, help="Of them for the curve of testing refinement; 0 leaves it out."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    threads: int = typer.Option(0, min=0, help="CPU threads; 0 leaves it to torch."),
    figure: Path | None = typer.Option(None, help="Where the curves go; by default OUT/ablation.png."),
    csv_file: Path | None = typer.Option(None, "--csv", help="Add the table as rows to this results file."),
    commit: str = typer.Option("", help="The commit that the rows of --csv name."),
    summarise: bool = typer.Option(False, "--summarise", help="Train nothing: table and curves of what is done."),
) -> None:
    """Train the system without one component at a time, and print what each row loses or gains.

    Rows: full, no-refinement (testing refinement), no-augmentation (self-supervised), no-2d (2D losses), no-refiner
    (f_Ref), no-shape (shape loss), constant (λ). All rows of a seed share start weights and batches.

    [b]Example:[/b] densehand ablate --out runs/ablation --seeds 2 --device cpu --threads 1
    """
    names = choices(rows, ROW_NAMES, "--rows")
    if size % 32:
        raise typer.BadParameter("not a multiple of 32", param_hint="--size")
    if (data != "synthetic") != bool(root):
        raise typer.BadParameter("a dataset and --root DIR belong together", param_hint="--data")
    if root and (photos or test_split in ("", split)):
        raise typer.BadParameter("name a split to measure on, other than --split, and no --photos", param_hint="--data")
    import json

    from densehand.ablation.run import CURVE_ROWS, Ablation, Options
    from densehand.ablation.table import text
    from densehand.errors import InputError

    if summarise:
        stored = out / "options.json"
        if not stored.is_file():
            raise InputError(f"{out}: no ablation there; run densehand ablate --out {out} first")
        options = Options(**json.loads(stored.read_text()))
    else:
        options = Options(
            model=model, start=start, photos=photos, data=data, root=root, split=split, test_split=test_split,
            size=size, batch=batch, steps=steps, head_start=head_start, start_seeds=seeds, lr=lr, pool=pool,
            test_hands=test_hands, children=children,
        )  # fmt: skip
    runs = Ablation(out, options, device, threads, say)
    if not summarise:
        for seed in range(seeds):
            for name in names:
                runs.run(name, seed)
            typer.echo(text(_results(runs, names, seeds)) + "\n")
    results = _results(runs, names, seeds)
    if not any(results.values()):
        raise InputError(f"{out}: none of the rows is done yet; give the command again without --summarise")
    curves: dict[str, dict[int, Any]] = {}
    for name in (n for n in CURVE_ROWS if n in names):
        for seed in results[name]:
            curve = runs.refining(name, seed, curve_hands) if curve_hands else None
            if curve is not None:
                curves.setdefault(name, {})[seed] = curve
    _write(runs, results, curves, figure or out / "ablation.png", csv_file, commit)


def _results(runs: Ablation, names: tuple[str, ...], seeds: int) -> dict[str, dict[int, Any]]:
    """What is done, by row and seed."""
    found = {name: {seed: runs.result(name, seed) for seed in range(seeds)} for name in names}
    return {name: {seed: r for seed, r in by_seed.items() if r is not None} for name, by_seed in found.items()}


def _write(
    runs: Ablation, results: dict[str, dict[int, Any]], curves: dict[str, dict[int, Any]], figure: Path,
    csv_file: Path | None, commit: str,
) -> None:  # fmt: skip
    """Table on stdout and, where asked for, as CSV rows; the curves as a picture."""
    from dataclasses import asdict

    from densehand.ablation.figure import panels
    from densehand.ablation.table import csv_rows, text
    from densehand.charts import draw
    from densehand.evaluate import append_rows
    from densehand.files import write_bytes

    typer.echo(text(results))
    write_bytes(figure, draw(panels(results, curves)))
    typer.echo(f"\ncurves: {figure}")
    if csv_file is not None:
        append_rows(csv_file, csv_rows(results, asdict(runs.options), commit))
