"""`densehand bench`: measurements of speed."""

from __future__ import annotations

from pathlib import Path

import typer

from densehand.bench import CONTESTANTS as _CONTESTANTS
from densehand.cli.common import choices
from densehand.refine.modes import PAPER_STEPS

_FIGURES = ("mesh_px", "pa_mm", "iou", "cpu_ms", "batch_ms")
_USUAL = _CONTESTANTS[:4]  # those of them that are installed


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Measure speed.", no_args_is_help=True)
    # a group of one command would take its place
    group.callback()(lambda: None)
    group.command("render")(render)
    group.command("refine")(refine)
    app.add_typer(group, name="bench")


def render(
    what: str = typer.Option(
        "", help="Comma-separated: " + ", ".join(_CONTESTANTS) + "; without it the first four, where installed."
    ),
    batches: str = typer.Option("1,8,32,256", help="Numbers of hands."),
    sizes: str = typer.Option("224,512", help="Sides of the picture in pixels."),
    threads: int = typer.Option(2, min=1, help="Threads of torch and numba; deodr uses one."),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    seconds: float = typer.Option(0.6, min=0.0, help="Time for the repetitions of one measurement."),
    longest: float = typer.Option(60.0, min=0.0, help="Leave out batches that would take more seconds."),
    csv_file: Path | None = typer.Option(None, "--csv", help="Add the figures as rows to this results file."),
    commit: str = typer.Option("", help="The commit that the rows of --csv name."),
) -> None:
    """Print the milliseconds of silhouettes of random hands, forward and forward + backward, beside deodr's
    and a soft rasteriser's.

    [b]Example:[/b] densehand bench render --batches 1,8 --sizes 224
    """
    names = choices(what, _CONTESTANTS, "--what") if what else _USUAL
    choices(device, ("cpu", "cuda"), "--device")
    batch_numbers, side_numbers = _numbers(batches, "--batches"), _numbers(sizes, "--sizes")

    import torch

    from densehand.bench.render import available, compare, device_name
    from densehand.errors import InputError
    from densehand.evaluate import append_rows

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device was found here; use --device cpu")
    there = available(names, device, strict=bool(what))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows = []
    try:
        typer.echo(f"{device_name(device)}, {threads} threads, torch {torch.__version__}; milliseconds a batch")
        typer.echo(f"{'size':>5} {'hands':>6}  {'what':10} {'forward':>10} {'fwd+bwd':>10} {'a hand':>10}")
        for row in compare(there, batch_numbers, side_numbers, device=device, seconds=seconds, longest=longest):
            whole = row.both if row.both is not None else row.forward
            cells = (row.forward, row.both, None if whole is None else whole / row.hands)
            shown = " ".join(f"{'-' if value is None else f'{value:.2f}':>10}" for value in cells)
            typer.echo(f"{row.size:>5} {row.hands:>6}  {row.name:10} {shown}")
            rows.append(
                {
                    "commit": commit,
                    "device": device_name(device),
                    "threads": 1 if row.name == "deodr" else threads,
                    "what": row.name,
                    "size": row.size,
                    "hands": row.hands,
                    "forward_ms": "" if row.forward is None else round(row.forward, 3),
                    "both_ms": "" if row.both is None else round(row.both, 3),
                }
            )
    finally:
        torch.set_num_threads(before)
    if csv_file is not None:
        append_rows(csv_file, rows)


def refine(
    hands: int = typer.Option(500, min=0, help="Synthetic hands, of a seed that no training uses."),
    paper: int = typer.Option(40, min=0, help="How many of them the paper's mode is run on (seconds a hand)."),
    paper_steps: int = typer.Option(PAPER_STEPS, min=1, help="Its gradient steps."),
    fixtures: Path | None = typer.Option(None, metavar="DIR", help="Folder with val2d.jsonl and val3d.jsonl."),
    model: str = typer.Option("dhpe-lite", help="Name of a model, or a weights file."),
    threads: int = typer.Option(1, min=1, help="Threads of torch; times are CPU time of all of them."),
    csv_file: Path | None = typer.Option(None, "--csv", help="Add the figures as rows to this results file."),
    picture: Path | None = typer.Option(None, metavar="FILE.png", help="Draw error against iteration."),
    commit: str = typer.Option("", help="The commit that the rows of --csv name."),
) -> None:
    """Print what testing refinement gives and costs: mean 2D error, PA-MPJPE and mask IoU by mode.

    keypoints: the evidence itself, the network's 2D skeleton. mask head: its foreground map. oracle: fast, drawn to the
    true 2D keypoints. Pixels of a 224-px crop; CPU milliseconds a hand, one at a time (of fixtures with the network and
    all) and in a batch.

    [b]Example:[/b] densehand bench refine --hands 100 --paper 0
    """
    import torch

    from densehand.bench import refine as bench
    from densehand.bench.curves import draw_curves
    from densehand.evaluate import append_rows
    from densehand.network.zoo import open_model

    if hands == 0 and fixtures is None:
        raise typer.BadParameter("no synthetic hands are left and no --fixtures given", param_hint="--hands")
    if picture is not None and not (hands and paper):
        raise typer.BadParameter("the picture needs --hands and --paper of 1 or more", param_hint="--picture")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows = []

    def show(data: str, figures: dict[str, bench.Figures]) -> None:
        for mode, found in figures.items():
            row = found.row()
            cells = (f"{row[name]:>9}" if row[name] == "" else f"{row[name]:>9.3f}" for name in _FIGURES)
            typer.echo(f"{data:10} {mode:10} {row['hands']:>6} " + " ".join(cells))
            rows.append({"commit": commit, "data": data, "mode": mode, "threads": threads} | row)

    try:
        network = open_model(model)
        typer.echo(f"{network.config.name}, {threads} threads, torch {torch.__version__}")
        typer.echo(f"{'data':10} {'mode':10} {'hands':>6} " + " ".join(f"{name:>9}" for name in _FIGURES))
        if hands:
            figures, curves = bench.bench_synthetic(network, hands, min(paper, hands), paper_steps, bench.HELD_OUT)
            show("synthetic", figures)
            if picture is not None:
                draw_curves(picture, curves, f"{min(paper, hands)} synthetic hands")
            if paper:
                step = figures["paper"].row()["cpu_ms"] / paper_steps
                typer.echo(
                    f"paper: {step:.1f} ms a step and hand (published: {bench.PUBLISHED_STEP_MS:g} ms on its GPU)"
                )
        for name in ("val2d", "val3d") if fixtures is not None else ():
            modes = ("off", "fast", paper_steps) if paper else ("off", "fast")
            show(name, bench.bench_fixtures(network, fixtures or "", f"{name}.jsonl", modes))
    finally:
        torch.set_num_threads(before)
    if csv_file is not None:
        append_rows(csv_file, rows)


def _numbers(value: str, option: str) -> list[int]:
    """ "8,1" as [1, 8]; a usage error names what is no positive whole number."""
    words = [word.strip() for word in value.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise typer.BadParameter(f"{word!r} is not a positive whole number", param_hint=option)
    if not words:
        raise typer.BadParameter("name at least one number", param_hint=option)
    return sorted({int(word) for word in words})
