"""`densehand refine`: earlier predictions refined again, each for itself, or one hand from several pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import typer

from densehand.cli.common import choices, find_predictions, named, output_names, say, say_error
from densehand.cli.writers import DEFAULT_FORMATS, FORMATS, write_outputs
from densehand.errors import DensehandError, InputError
from densehand.refine.modes import FAST, FRAMES, VIEWS

if TYPE_CHECKING:
    from densehand.hand import HandModel
    from densehand.result import Hand


_Prediction: TypeAlias = "tuple[Path, dict[str, Any]]"  # a file and what it holds


@dataclass
class _Picture:
    """A picture's prediction; `hands` are replaced as they are refined. Pixels are read where they are drawn on."""

    path: Path
    name: str
    document: dict[str, Any]
    hands: list[Hand]


def register(app: typer.Typer) -> None:
    app.command("refine")(refine)


def refine(
    images: list[Path] = typer.Argument(
        ..., metavar="IMAGE...", readable=False, help="Pictures, or folders of pictures."
    ),
    predictions: list[Path] = typer.Option(
        ..., "--predictions", "-p", metavar="FILE.json", help="Their predictions, or folders of them; may be repeated."
    ),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Folder for the results; made where missing."),
    views: bool = typer.Option(False, "--views", help="The pictures show one hand at one moment: one pose and shape."),
    frames: bool = typer.Option(False, "--frames", help="The pictures are a film of one hand, in order: one shape."),
    cameras: Path = typer.Option(None, metavar="FILE.json", help="With --views: the pictures' cameras, where known."),
    smooth: float = typer.Option(
        None, metavar="DEGREES", help="With --frames: usual change of angles and turn a frame."
    ),
    side: str = typer.Option("auto", help="With --views or --frames: auto (each side there is), left or right."),
    write: str = typer.Option(DEFAULT_FORMATS, help="What to write, comma-separated: " + ", ".join(FORMATS) + "."),
    hand: str = typer.Option("open", help="Hand model the predictions were made with: open, mano or FILE.npz."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No summary; errors are still named."),
) -> int:
    """Refine the hands of earlier predictions again, without running a network.

    The keypoints in the JSON are the evidence. Without --views or --frames each hand is refined for itself. With them
    the pictures must show one hand of a side each: nothing is written where one lacks it. Outputs are named as
    'densehand predict' names them.

    --cameras is an object with, for each picture's path or file name, intrinsics (fx, fy, cx, cy in pixels), rotation
    (3×3) and translation (metres), world → camera; see docs/refinement.md. Hands then come back in true size and
    place.

    [b]Example:[/b] densehand refine left.jpg right.jpg --predictions hands --views --out refined
    """
    formats = choices(write, FORMATS, "--write")
    choices(side, ("auto", "left", "right"), "--side")
    if views and frames:
        raise typer.BadParameter("give either --views or --frames", param_hint="--frames")
    if cameras is not None and not views:
        raise typer.BadParameter("known cameras are for --views", param_hint="--cameras")
    if smooth is not None and (not frames or not 0 < smooth < math.inf):
        raise typer.BadParameter("a positive number of degrees is needed, with --frames", param_hint="--smooth")
    if side != "auto" and not (views or frames):
        raise typer.BadParameter("a side is chosen with --views or --frames only", param_hint="--side")

    from densehand.files import ensure_folder
    from densehand.hand import HandModel
    from densehand.images import find_images
    from densehand.refine.cameras import read_cameras

    model = HandModel.load(hand)
    known = read_cameras(cameras) if cameras is not None else None
    problems: list[InputError] = []
    paths = find_images(images, problems)
    records = _Predictions(predictions, problems)
    pictures: list[_Picture] = []
    for path, name in zip(paths, output_names(paths), strict=True):
        try:
            pictures.append(_read(path, name, records, model))
        except DensehandError as error:
            problems.append(InputError(named(error, path)))
    ensure_folder(out)
    together = VIEWS if views else FRAMES if frames else FAST
    if together != FAST and (problems or not pictures):
        problems.append(
            InputError("nothing was refined, as every picture of the hand is needed; mend or leave them out")
        )
        pictures = []
    elif together != FAST:
        _together(pictures, model, together, side, known, smooth)  # an error ends the command: nothing is written
    done = 0
    for picture in pictures:
        try:
            if together == FAST:
                _each(picture, model)
            _write(picture, out, formats)
            done += 1
        except DensehandError as error:
            problems.append(InputError(named(error, picture.path)))
    for problem in problems:
        say_error(str(problem))
    if not quiet:
        say(f"{done} picture{'s' * (done != 1)} → {out}" + (f"; {len(problems)} failed" if problems else ""))
    return 1 if problems else 0


class _Predictions:
    """The documents given, found by the picture they name: its path, else its file name."""

    def __init__(self, given: list[Path], problems: list[InputError]) -> None:
        from densehand.document import read_document

        self.by_path: dict[Path, list[_Prediction]] = {}
        self.by_name: dict[str, list[_Prediction]] = {}
        for file in find_predictions(given, problems):
            try:
                entry = file, read_document(file)
            except InputError as error:
                problems.append(error)
                continue
            shown = Path(entry[1]["image"])
            self.by_path.setdefault(shown, []).append(entry)
            self.by_name.setdefault(shown.name, []).append(entry)

    def of(self, path: Path) -> _Prediction:
        """The prediction of a picture, or InputError where there is none or more than one."""
        found = self.by_path.get(path) or self.by_name.get(path.name)
        if not found:
            raise InputError(f"{path}: no prediction names it; write one with 'densehand predict --write json'")
        if len(found) > 1:
            files = ", ".join(str(file) for file, _ in found)
            raise InputError(f"{path}: several predictions name it ({files}); give one")
        return found[0]


def _read(path: Path, name: str, records: _Predictions, model: HandModel) -> _Picture:
    from densehand.images import read_image
    from densehand.result import Hand

    file, document = records.of(path)
    height, width = read_image(path).shape[:2]
    if (height, width) != (document["height"], document["width"]):
        expected = f"{document['width']}×{document['height']}"
        raise InputError(f"{path}: has {width}×{height} pixels, but {file} is of {expected}; predict it again")
    try:
        hands = [Hand.from_json_dict(record, model) for record in document["hands"]]
    except InputError as error:
        raise InputError(named(error, file)) from error
    return _Picture(path, name, document, hands)


def _each(picture: _Picture, model: HandModel) -> None:
    from densehand.refine.views import refine_views

    picture.hands = [refine_views(model, [hand], FAST)[0] for hand in picture.hands]


def _together(
    pictures: list[_Picture],
    model: HandModel,
    mode: str,
    side: str,
    cameras: dict[str, Any] | None,
    smooth: float | None,
) -> None:
    """Refine the hands of each side through all pictures. InputError where a picture lacks its hand or camera."""
    from densehand.refine.views import refine_views

    known = None
    if cameras is not None:
        names = [picture.path.name for picture in pictures]
        known = [_camera(picture.path, cameras, names) for picture in pictures]
    sides = sorted({hand.side for hand in pictures[0].hands}) if side == "auto" else [side]
    if not sides:
        raise InputError(f"{pictures[0].path}: no hand in its prediction; leave the picture out or predict it again")
    for one in sides:
        places = [_only(picture, one) for picture in pictures]
        hands = [picture.hands[place] for picture, place in zip(pictures, places, strict=True)]
        radians = None if smooth is None else math.radians(smooth)
        refined = refine_views(model, hands, mode, known, radians)
        for picture, place, hand in zip(pictures, places, refined, strict=True):
            picture.hands[place] = hand


def _camera(path: Path, cameras: dict[str, Any], names: list[str]) -> Any:
    """The camera of a picture, under its path as given or its file name. InputError where there is none, or where the
    name is not one picture's alone."""
    found = cameras.get(str(path), cameras.get(path.name))
    if found is None:
        raise InputError(f"{path}: no camera for it in --cameras; add it under {path.name!r}")
    if str(path) not in cameras and names.count(path.name) > 1:
        raise InputError(f"{path}: several pictures have this name; name each by its path, {str(path)!r}, in --cameras")
    return found


def _only(picture: _Picture, side: str) -> int:
    """Which of the picture's hands is the one of that side."""
    found = [k for k, hand in enumerate(picture.hands) if hand.side == side]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{picture.path}: {len(found)} {side} hands in its prediction; predict it with --boxes of one")
    others = {hand.side for hand in picture.hands}
    there = f"only a {others.pop()} one" if others else "none at all"
    raise InputError(
        f"{picture.path}: no {side} hand in its prediction, {there}; "
        f"leave the picture out, or predict it again with --side {side}"
    )


def _write(picture: _Picture, out: Path, formats: tuple[str, ...]) -> None:
    from densehand.document import document
    from densehand.images import read_image

    record = picture.document
    record = document(str(picture.path), record["width"], record["height"], record["model"], picture.hands)
    image = read_image(picture.path) if "overlay" in formats else None
    write_outputs(out, picture.name, formats, record, picture.hands, image)
