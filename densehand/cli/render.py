"""`densehand render`: outputs made anew from the JSON of earlier predictions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from densehand.cli.common import choices, find_predictions, named, output_names, progress_bar, say, say_error
from densehand.cli.writers import FORMATS, write_outputs
from densehand.errors import DensehandError, InputError

if TYPE_CHECKING:
    import numpy as np

_FORMATS = tuple(name for name in FORMATS if name != "json")


def register(app: typer.Typer) -> None:
    app.command("render")(render)


def render(
    inputs: list[Path] = typer.Argument(
        ..., metavar="FILE.json...", readable=False, help="Predictions, or folders of them."
    ),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Folder for the results; made where missing."),
    write: str = typer.Option("overlay", help="What to write, comma-separated: " + ", ".join(_FORMATS) + "."),
    photos: Path = typer.Option(None, metavar="DIR", help="Folder the photos lie in, for overlays."),
    hand: str = typer.Option("open", help="Hand model the predictions were made with: open, mano or FILE.npz."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar and no summary; errors are still named."),
) -> int:
    """Make overlays, masks, depth maps and meshes from the JSON of earlier predictions, without running a network.

    Overlays need the photo: it is looked for in --photos by its file name, else at the path in the JSON, else beside
    the JSON.

    [b]Example:[/b] densehand render hands/ --out hands --photos holiday --write overlay,mask
    """
    formats = choices(write, _FORMATS, "--write")

    from densehand.document import read_document
    from densehand.files import ensure_folder
    from densehand.hand import HandModel
    from densehand.result import Hand

    model = HandModel.load(hand)
    ensure_folder(out)
    problems: list[InputError] = []
    paths = find_predictions(inputs, problems)
    for problem in problems:
        say_error(str(problem))
    failed = len(problems)
    with progress_bar(quiet) as progress:
        task = progress.add_task("predictions", total=len(paths))
        for path, name in zip(paths, output_names(paths), strict=True):
            try:
                document = read_document(path)
                hands = [Hand.from_json_dict(record, model) for record in document["hands"]]
                image = _photo(document, path, photos) if "overlay" in formats else None
                write_outputs(out, name, formats, document, hands, image)
            except DensehandError as error:
                failed += 1
                say_error(named(error, path), progress)
            progress.advance(task)
    if not quiet:
        done = len(paths) + len(problems) - failed
        say(f"{done} prediction{'s' * (done != 1)} → {out}" + (f"; {failed} failed" if failed else ""))
    return 1 if failed else 0


def _photo(document: dict[str, Any], path: Path, photos: Path | None) -> np.ndarray:
    from densehand.images import read_image

    named = Path(document["image"])
    places = [photos / named.name] if photos is not None else [named, path.parent / named.name]
    place = next((place for place in places if os.path.isfile(place)), None)  # pathlib raises for some
    if place is None:
        raise InputError(f"{path}: its photo {document['image']!r} is not there; name its folder with --photos")
    image = read_image(place)
    if image.shape[:2] != (document["height"], document["width"]):
        size, expected = f"{image.shape[1]}×{image.shape[0]}", f"{document['width']}×{document['height']}"
        raise InputError(
            f"{path}: the photo {place} has {size} pixels, not {expected}; name the right folder with --photos"
        )
    return image
