"""What the commands share: messages, progress, parsing of lists, names of outputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from densehand.errors import DensehandError, InputError
from densehand.files import in_order

if TYPE_CHECKING:
    from rich.progress import Progress


def say(message: str, progress: Progress | None = None) -> None:
    """One line on stderr, above a progress bar where there is one."""
    line = " ".join(message.splitlines())
    if progress is not None and progress.live.is_started:
        progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        print(line.encode("utf-8", "replace").decode("utf-8"), file=sys.stderr)


def say_error(message: str, progress: Progress | None = None) -> None:
    """One line on stderr that begins with `densehand: error:`."""
    say(f"densehand: error: {message}", progress)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Progress]:
    """A bar on stderr (none where `quiet` is set or stderr is no terminal); add tasks to it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
    with bar:
        yield bar


def named(error: DensehandError, path: Path) -> str:
    """The message, beginning with the file it is about."""
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"


def find_predictions(inputs: Iterable[Path], problems: list[InputError]) -> list[Path]:
    """Files as they are, folders as the .json files in them (sorted, hidden ones left out), each once.

    A folder without any is named in `problems`.
    """
    found: dict[str, Path] = {}
    for given in inputs:
        files = [given]
        if os.path.isdir(given):
            files = sorted((file for file in given.glob("*.json") if not file.name.startswith(".")), key=in_order)
        if not files:
            problems.append(InputError(f"{given}: no .json in this folder; name one with predictions"))
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def choices(value: str, allowed: Sequence[str], option: str) -> tuple[str, ...]:
    """Parse "a,b" into the allowed words, each once in the order of `allowed`; a usage error names the wrong one."""
    words = [word.strip().lower() for word in value.split(",") if word.strip()]
    for word in words:
        if word not in allowed:
            raise typer.BadParameter(f"{word!r} is not one of {', '.join(allowed)}", param_hint=option)
    if not words:
        raise typer.BadParameter(f"name at least one of {', '.join(allowed)}", param_hint=option)
    return tuple(word for word in allowed if word in words)


def output_names(paths: Iterable[Path]) -> list[str]:
    """NAME of each input: its file name without the last suffix, made distinct.

    The first input of a name keeps it; the next ones become NAME-2, NAME-3 … in the order given, skipping names that
    another input has by itself. Upper and lower case count as equal, as some file systems do.
    """
    stems = [path.stem or path.name for path in paths]
    own = {stem.casefold() for stem in stems}
    used: set[str] = set()
    names = []
    for stem in stems:
        name, count = stem, 1
        while name.casefold() in used or (count > 1 and name.casefold() in own):
            count += 1
            name = f"{stem}-{count}"
        used.add(name.casefold())
        names.append(name)
    return names
