"""`densehand evaluate`: accuracy of a model on measuring fixtures."""

from __future__ import annotations

from pathlib import Path

import typer

from densehand.cli.refining import refine_option
from densehand.refine_modes import MODES


def register(app: typer.Typer) -> None:
    app.command("evaluate")(evaluate)


def evaluate(
    folder: Path = typer.Argument(help="Folder with val2d.jsonl and val3d.jsonl and their pictures."),
    model: str = typer.Option("dhpe-lite", help="Name of a model, or a weights file."),
    refine: str = typer.Option("off", metavar="MODE", help=f"Testing refinement: {MODES}."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    csv_file: Path | None = typer.Option(None, "--csv", help="Add the figures as rows to this results file."),
    commit: str = typer.Option("", help="The commit that the rows of --csv name."),
) -> None:
    """Print 2D error (pixels of a 224-px crop), PA-MPJPE and root-relative error (mm) and the share of right sides.

    median_px and mean_px are of the keypoints in 2D, mesh_px is the mean of the mesh's projection. Hands are
    cropped by their ground-truth boxes; sides are left to the model.

    [b]Example:[/b] densehand evaluate fixtures --model dhpe-lite
    """
    mode = refine_option(refine)
    from densehand.evaluate import append_rows, by_source, measure
    from densehand.pipeline import HandEstimator

    estimator = HandEstimator(model, device=device, refine=mode)
    rows = []
    for name in ("val2d", "val3d"):
        for source, figures in by_source(measure(estimator, folder, f"{name}.jsonl")).items():
            text = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
            typer.echo(f"{name:6} {source:14} {text}")
            shown = {k: round(v, 4) for k, v in figures.items()}
            rows.append(
                {
                    "model": estimator.name,
                    "refine": mode,
                    "commit": commit,
                    "fixture": name,
                    "source": source,
                    **shown,
                }
            )
    if csv_file is not None:
        append_rows(csv_file, rows)
