"""`densehand bench`: measurements of speed."""

from __future__ import annotations

from pathlib import Path

import typer

from densehand.bench import CONTESTANTS as _CONTESTANTS
from densehand.cli.common import choices

_USUAL = _CONTESTANTS[:3]  # those of them that are installed


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Measure speed.", no_args_is_help=True)
    # a group of one command would take its place
    group.callback()(lambda: None)
    group.command("render")(render)
    app.add_typer(group, name="bench")


def render(
    what: str = typer.Option(
        "", help="Comma-separated: " + ", ".join(_CONTESTANTS) + "; without it the first three, where installed."
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
    """Print the milliseconds of silhouettes of random hands, forward and forward + backward, beside deodr's.

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


def _numbers(value: str, option: str) -> list[int]:
    """ "8,1" as [1, 8]; a usage error names what is no positive whole number."""
    words = [word.strip() for word in value.split(",") if word.strip()]
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise typer.BadParameter(f"{word!r} is not a positive whole number", param_hint=option)
    if not words:
        raise typer.BadParameter("name at least one number", param_hint=option)
    return sorted({int(word) for word in words})
