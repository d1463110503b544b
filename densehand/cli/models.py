"""`densehand models`: what estimators there are."""

from __future__ import annotations

import json
from typing import Any

import typer


def register(app: typer.Typer) -> None:
    app.command("models")(models)


def models(
    as_json: bool = typer.Option(False, "--json", help="Print the model cards as JSON."),
) -> None:
    """List the models: trunk, size, and the accuracy measured, from their cards.

    [b]Example:[/b] densehand models --json
    """
    from densehand.network.zoo import MODELS, available_models, load_card, weights_path

    packaged = available_models()
    cards = {name: load_card(name) for name in packaged}
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps({name: asdict(cards[name]) if name in cards else None for name in MODELS}, indent=1))
        return

    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("model", "trunk", "crop", "weights", "licence", "accuracy", box=box.SIMPLE)
    for name, config in MODELS.items():
        if name in cards:
            card = cards[name]
            size = f"{weights_path(name).stat().st_size / 1e6:.1f} MB {card.storage}"
            row = (f"{card.input_size} px", size, card.licence, accuracy_text(card.accuracy) or "not measured")
        else:
            row = (f"{config.input_size} px", "none packaged", "", "train it: densehand train --help")
        table.add_row(name, config.backbone, *row)
    if not console.is_terminal:
        console.width = 200  # into a file or pipe, a row stays one line
    console.print(table)


def accuracy_text(accuracy: dict[str, Any]) -> str:
    """A card's measured accuracy, nested or not, as "val2d: median_px 12.3, …; val3d: …"."""
    parts, own = [], []
    for name, value in accuracy.items():
        if isinstance(value, dict):
            parts.append(f"{name}: {accuracy_text(value)}")
        elif isinstance(value, float):
            own.append(f"{name} {value:.4g}")
        else:
            own.append(f"{name} {value}")
    return "; ".join([", ".join(own)] * bool(own) + parts)
