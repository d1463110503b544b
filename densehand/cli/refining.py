"""The option `--refine` of the commands that have it."""

from __future__ import annotations

import typer

from densehand.errors import InputError
from densehand.refine.modes import parse_refine


def refine_option(value: str) -> str | int:
    """`parse_refine`; a usage error where the value is none of the modes."""
    try:
        return parse_refine(value)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--refine") from error
