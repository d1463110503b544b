"""`densehand predict`: photos in, hands out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from densehand.cli.common import choices, named, output_names, progress_bar, say, say_error
from densehand.cli.refining import refine_option
from densehand.cli.writers import DEFAULT_FORMATS, FORMATS, write_outputs
from densehand.errors import DensehandError, InputError
from densehand.refine.modes import FAST, MODES

if TYPE_CHECKING:
    from rich.progress import Progress

    from densehand.photo import Photo
    from densehand.pipeline import HandEstimator
    from densehand.result import Hand


class Side(str, Enum):
    """Values of --side."""

    auto = "auto"
    left = "left"
    right = "right"


_MAX_GROUP_PIXELS = 40_000_000  # photos held at a time: one 8K photo, or a batch of small ones


@dataclass
class _Item:
    """A photo that could be read, and its output name."""

    path: Path
    name: str
    photo: Photo


def register(app: typer.Typer) -> None:
    app.command("predict")(predict)


def predict(
    inputs: list[Path] = typer.Argument(..., metavar="INPUT...", readable=False, help="Photos, or folders of photos."),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Folder for the results; made where missing."),
    model: str = typer.Option(
        "dhpe-lite", help="Estimator ('densehand models' lists them) or FILE.safetensors; A+B: the mean of both."
    ),
    refine: str = typer.Option(FAST, metavar="MODE", help=f"Testing refinement of each hand: {MODES}."),
    consensus: bool = typer.Option(
        False, "--consensus", help="Look at each hand in four more crops; steadier and slower."
    ),
    boxes: Path = typer.Option(None, metavar="FILE.json", help="Hand boxes, instead of the detector."),
    whole_image: bool = typer.Option(False, "--whole-image", help="Each photo shows one hand and is the crop itself."),
    side: Side = typer.Option(Side.auto, help="The side of hands whose box names none."),
    write: str = typer.Option(DEFAULT_FORMATS, help="What to write, comma-separated: " + ", ".join(FORMATS) + "."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    precision: str = typer.Option("auto", help="auto: 8-bit integers on x86-64 CPUs, faster; or float32."),
    focal: float = typer.Option(None, help="Focal length in pixels; by default 0.85 × the longer side."),
    hand: str = typer.Option(None, help="Hand model of the result: open, mano (your own, imported) or FILE.npz."),
    batch: int = typer.Option(16, min=1, help="Most hands in one pass of the network."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar and no summary; errors are still named."),
) -> int:
    """Estimate the hands of photos.

    For each photo NAME.jpg, writes NAME.json (schema densehand/1) and NAME.overlay.jpg; for each hand, as asked by
    --write, NAME.<k>.glb and so on, k counting from 0. Photos of the same name: the later ones become NAME-2, NAME-3.
    A photo that cannot be read is named on stderr, the others are still done, and the exit status is 1.

    --boxes takes {"NAME.jpg": [{"box": \\[x0, y0, x1, y1], "side": "left" | "right" | null}]}: boxes tight around the
    21 keypoints, in pixels of the upright photo.

    [b]Example:[/b] densehand predict photo.jpg holiday/ --out hands --write json,overlay,glb
    """
    formats = choices(write, FORMATS, "--write")
    mode = refine_option(refine)
    if boxes is not None and whole_image:
        raise typer.BadParameter("give either --boxes or --whole-image", param_hint="--whole-image")
    if focal is not None and not 0 < focal < float("inf"):
        raise typer.BadParameter("a positive number of pixels is needed", param_hint="--focal")

    from densehand.files import ensure_folder
    from densehand.images import find_images
    from densehand.pipeline import HandEstimator

    problems: list[InputError] = []
    paths = find_images(inputs, problems)
    given = BoxFile(boxes) if boxes is not None else None
    ensure_folder(out)
    estimator = HandEstimator(
        model,
        device=device,
        refine=mode,
        focal=focal,
        batch=batch,
        hand=hand,
        consensus=consensus,
        precision=precision,
    )
    if given is None and not whole_image:
        _ = estimator.detector  # a fault of its weights is named once, not for every photo
    for problem in problems:
        say_error(str(problem))
    failed, hands = len(problems), 0
    with progress_bar(quiet) as progress:
        task = progress.add_task("photos", total=len(paths))
        items = zip(paths, output_names(paths), strict=True)
        for group, group_failed in _groups(items, batch, given, side.value, whole_image, progress):
            failed += group_failed
            for item, result in zip(group, _estimate(estimator, group), strict=True):
                try:
                    if isinstance(result, DensehandError):
                        raise result
                    hands += _write(item, result, estimator, out, formats)
                except DensehandError as error:
                    failed += 1
                    say_error(named(error, item.path), progress)
            progress.advance(task, len(group) + group_failed)
    if not quiet:
        done = len(paths) + len(problems) - failed
        trouble = f"; {failed} failed" if failed else ""
        say(f"{done} photo{'s' * (done != 1)}, {hands} hand{'s' * (hands != 1)} → {out}{trouble}")
    return 1 if failed else 0


def _groups(
    items: Iterator[tuple[Path, str]],
    batch: int,
    given: BoxFile | None,
    side: str,
    whole_image: bool,
    progress: Progress,
) -> Iterator[tuple[list[_Item], int]]:
    """Photos read in groups small enough for memory, with the number that could not be read (already named)."""
    from densehand.images import read_image
    from densehand.photo import Photo, check_box

    group: list[_Item] = []
    failed = pixels = 0
    for path, name in items:
        try:
            image = read_image(path)
            height, width = image.shape[:2]
            boxes = given.of(path) if given else None
            for entry in boxes or ():
                check_box(entry.box, width, height)
        except DensehandError as error:
            failed += 1
            say_error(named(error, path), progress)
            continue
        if group and pixels + width * height > _MAX_GROUP_PIXELS:
            yield group, failed
            group, failed, pixels = [], 0, 0
        group.append(_Item(path, name, Photo(image, boxes, side, whole_image)))
        pixels += width * height
        if len(group) >= batch:
            yield group, failed
            group, failed, pixels = [], 0, 0
    if group or failed:
        yield group, failed


def _estimate(estimator: HandEstimator, group: list[_Item]) -> list[list[Hand] | DensehandError]:
    """The hands of each photo of a group, or its error; one photo's error does not reach the others."""
    try:
        return list(estimator.estimate([item.photo for item in group]))
    except DensehandError as error:
        if len(group) == 1:
            return [error]
    return [result for item in group for result in _estimate(estimator, [item])]


def _write(item: _Item, hands: list[Hand], estimator: HandEstimator, out: Path, formats: tuple[str, ...]) -> int:
    from densehand.document import document

    height, width = item.photo.image.shape[:2]
    record = document(str(item.path), width, height, estimator.name, hands)
    write_outputs(out, item.name, formats, record, hands, item.photo.image)
    return len(hands)


class BoxFile:
    """The file of `--boxes`: {"NAME.jpg": [{"box": [x0, y0, x1, y1], "side": "left" | "right" | null}, …], …}.

    A photo is looked up by its path as given, else by its file name. An entry is checked when its photo is done, so
    that a bad entry harms no other photo.

    Errors:
        InputError: the file cannot be read or is not such an object.
    """

    def __init__(self, path: Path) -> None:
        from densehand.files import read_json

        self.path = path
        entries = read_json(path, "see 'densehand predict --help'")
        if not isinstance(entries, dict):
            raise InputError(f'{path}: boxes are an object {{"NAME.jpg": [...]}}, not a {type(entries).__name__}')
        self.entries: dict[str, Any] = entries

    def of(self, path: Path) -> list[Any]:
        """The photo's `HandBox`es; InputError where it is not listed or its entry is malformed."""
        from densehand.photo import HandBox

        keys = [key for key in (str(path), path.as_posix(), path.name) if key in self.entries]
        if not keys:
            raise InputError(f"{path}: not listed in {self.path}; add it, with [] if it shows no hand")
        found = self.entries[keys[0]]
        if not isinstance(found, list):
            raise InputError(f'{path}: its boxes in {self.path} are no list; write [{{"box": [x0, y0, x1, y1]}}]')
        boxes = []
        for number, entry in enumerate(found):
            where = f"{path}: box {number} in {self.path}"
            if not isinstance(entry, dict) or not isinstance(entry.get("box"), list):
                raise InputError(f'{where} is no object with "box"; write {{"box": [x0, y0, x1, y1], "side": null}}')
            if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in entry["box"]):
                raise InputError(f"{where} is {entry['box']}, not four finite numbers; give x0, y0, x1, y1 in pixels")
            if entry.get("side") not in (None, "left", "right"):
                raise InputError(f'{where} has side {entry["side"]!r}; use "left", "right" or null')
            boxes.append(HandBox(tuple(entry["box"]), entry.get("side")))
        return boxes
