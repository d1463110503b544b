"""`densehand train`: train an estimator on photos, datasets, synthetic hands or a mixture."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from densehand.options import Option, nested, options_of
from densehand.train.config import TrainConfig

PANELS = {"weights": "Weights of the loss terms", "augmentation": "Augmentation", "synthesis": "Synthetic pictures"}
"""Headings of the help for nested options; others go by their name."""


def register(app: typer.Typer) -> None:
    parameters = list(inspect.signature(train).parameters.values())[:-1]  # **given gives way to the options it takes
    parameters = [p.replace(annotation=_OWN[p.name]) for p in parameters]
    parameters += [_parameter(option) for option in options_of(TrainConfig())]

    def command(**given: Any) -> None:
        train(**given)

    command.__doc__ = train.__doc__
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command("train")(command)


def _parameter(option: Option) -> inspect.Parameter:
    """A field of `TrainConfig` as a parameter; None means not given, so that a file's value can hold."""
    if option.kind is bool:
        group, _, last = option.name.replace("_", "-").rpartition(".")
        dot = f"{group}." if group else ""
        names = [f"--{dot}{last}/--{dot}no-{last}"]
    else:
        names = [f"--{name.replace('_', '-')}" for name in (option.name, *option.names)]
    shown = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)
    if option.kind is bool:
        shown = "yes" if option.default else "no"
    panel = PANELS.get(option.group, option.group) or "Options"
    text = f"{option.text} [dim]Default: {shown}.[/dim]" if shown else option.text
    default = typer.Option(None, *names, help=text, show_default=False, rich_help_panel=panel)
    name = option.name.replace(".", "__")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option.kind | None)


def train(
    *,
    config: str = typer.Option(
        "", help="A .toml file of these options, or a packaged one: paper, lite. Options given here win over it."
    ),
    wide_crops: bool = typer.Option(False, "--wide-crops", help="Crops as badly centred as a detector's boxes can be."),
    fresh: bool = typer.Option(False, "--fresh", help="Begin anew where the folder holds an unfinished run."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar."),
    **given: Any,
) -> None:
    """Train an estimator. A stopped run goes on from its last checkpoint when the same command is given again.

    A configuration file holds the same names with _ for -, nested ones in tables (\\[weights]), and labelled datasets
    as \\[\\[dataset]] tables with name, root, split, weight and limit. Several GPUs: --devices N, or torchrun.

    [b]Example:[/b] densehand train --config lite --photos photos --backgrounds backgrounds --out runs/lite
    """
    from densehand.data.augmentation import WIDE_CROPS
    from densehand.train.configfile import load_config

    tables = nested({name.replace("__", "."): value for name, value in given.items() if value is not None})
    if wide_crops:
        wide = {name: getattr(WIDE_CROPS, name) for name in ("zoom", "shift", "any_rotation")}
        tables["augmentation"] = wide | tables.get("augmentation", {})
    loaded = load_config(config, tables)

    from densehand.train import ranks
    from densehand.train.run import run  # torch and lightning, after the options are known to be sound

    folder = run(loaded, resume=not fresh, progress=not quiet)
    if ranks.rank() == 0:
        typer.echo(f"weights: {folder / 'weights.safetensors'}")


_OWN = {"config": str, "wide_crops": bool, "fresh": bool, "quiet": bool}
