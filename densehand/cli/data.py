"""`densehand data`: looking at hand datasets before training or measuring with them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from densehand.cli.common import progress_bar

if TYPE_CHECKING:
    import numpy as np

    from densehand.data.readers.check import Report
    from densehand.data.sample import Sample

TILE = 224  # pixels of a picture on the sheet
MAX_TILES = 64


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Hand datasets on disk: what they hold and what is wrong with them.", no_args_is_help=True)
    group.callback()(lambda: None)  # keeps the group a group while it has one command
    group.command("check")(check)
    app.add_typer(group, name="data")


def check(
    folder: Path = typer.Argument(metavar="DIR", help="The dataset's folder, as unpacked."),
    name: str = typer.Option(..., "--dataset", "-d", metavar="NAME", help="Which dataset; a wrong name lists them."),
    split: str = typer.Option(None, help="The split; else the dataset's first."),
    sheet: Path = typer.Option(None, metavar="FILE", help="Draw samples with their labels (.png or .jpg)."),
    limit: int = typer.Option(1000, min=0, help="Look at so many samples from the start; 0 for all."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar."),
) -> int:
    """Check a dataset: missing files, what its samples have, labels and pictures that cannot be used.

    Exit status 1 where something is missing or wrong.

    [b]Example:[/b] densehand data check FreiHAND_pub_v2 --dataset freihand --sheet freihand.png
    """
    from densehand.data.readers import dataset, read_dataset
    from densehand.data.readers.check import Report
    from densehand.export import picture_format

    if sheet is not None:
        picture_format(sheet)
    known, report = dataset(name), Report()
    samples = read_dataset(name, folder, split)
    tiles: list[np.ndarray] = []
    step = 1  # every so manieth sample is drawn, so that the sheet spans what was looked at
    with progress_bar(quiet) as progress:
        task = progress.add_task("samples", total=limit or None)
        for sample in islice(samples, limit or None):
            image = report.add(sample)
            if sheet is not None and image is not None and (report.samples - 1) % step == 0:
                if len(tiles) == MAX_TILES:
                    tiles, step = tiles[::2], step * 2
                if (report.samples - 1) % step == 0:
                    tiles.append(draw_tile(sample, image))
            progress.advance(task)
    more = next(samples, None) is not None
    for line in describe(report, known.title, split or known.splits[0], more):
        typer.echo(line)
    if sheet is not None:
        _write_sheet(sheet, tiles)
    return 1 if report.faults or not report.samples else 0


def describe(report: Report, title: str, split: str, more: bool) -> list[str]:
    """The report as lines of text."""
    from densehand.data.readers.check import FAULTS

    lines = [f"{title}, {split}: {'the first ' if more else ''}{report.samples} samples"]
    if not report.samples:
        return [*lines, "faults: there is not one sample"]
    sides = ", ".join(f"{count} {side}" for side, count in sorted(report.sides.items()))
    lines += [f"  {name:13} {count:8}" for name, count in report.fields.items()]
    lines += [f"  {'sides':13} {sides or 'none'}"]
    if not report.faults:
        return [*lines, "faults: none"]
    lines += ["faults:"]
    for fault, meaning in FAULTS.items():
        if report.faults[fault]:
            lines += [f"  {fault:24} {report.faults[fault]:6}  ({meaning})"]
            lines += [f"    {' '.join(example.split())}" for example in report.examples[fault]]
    return lines


def _write_sheet(path: Path, tiles: list[np.ndarray]) -> None:
    from densehand.errors import InputError
    from densehand.export import write_picture
    from densehand.files import ensure_folder
    from densehand.synth.sheet import contact_sheet

    if not tiles:
        raise InputError(f"{path}: no picture could be read, so there is no sheet; see the faults")
    ensure_folder(path.parent)
    write_picture(path, contact_sheet(tiles))
    typer.echo(f"sheet of {len(tiles)} samples: {path}")


def draw_tile(sample: Sample, image: np.ndarray) -> np.ndarray:
    """TILE×TILE RGB: the hand's surroundings with mask, box, keypoints, side and name."""
    import cv2
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from densehand.camera import Crop, can_be_shown
    from densehand.draw import LABEL_COLOURS, draw_skeleton
    from densehand.errors import DensehandError
    from densehand.resample import crop_image, crop_mask

    crop = Crop.to_look_at(sample.box, image.shape[1], image.shape[0])
    colour = LABEL_COLOURS.get(sample.side or "", (96, 96, 96))
    tile = crop_image(image, crop, TILE)
    try:
        mask = sample.read_mask()
    except DensehandError:
        mask = None  # the report has counted it
    if mask is not None:
        inside = crop_mask(mask, crop, TILE) > 127
        tile[inside] = tile[inside] // 2 + np.array([20, 110, 60], np.uint8)
    if sample.box is not None and can_be_shown(sample.box):
        ends = crop.to_pixels(sample.box.reshape(2, 2), TILE).round().astype(int)
        cv2.rectangle(tile, ends[0].tolist(), ends[1].tolist(), colour, 1, cv2.LINE_AA)
    points = drawable(sample)
    if points is not None:
        # wrong labels may lie anywhere; far lines would be too thick for cv2
        draw_skeleton(tile, crop.to_pixels(points, TILE).clip(-TILE, 2 * TILE), np.asarray(sample.visible, float))
    canvas = Image.fromarray(tile)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    text = sample.problem or f"{sample.side or '?'} {sample.name}"
    pen.rectangle((0, TILE - 15, TILE, TILE), fill=(160, 20, 20) if sample.problem else colour)
    pen.text((3, TILE - 14), text[:44], fill="white", font=font)
    return np.asarray(canvas)


def drawable(sample: Sample) -> np.ndarray | None:
    """Keypoints 21×2 to draw (None: none known), unknown ones put on the point before them, so that bones vanish."""
    import numpy as np

    from densehand.hand.keypoints import KEYPOINT_PARENTS

    if sample.keypoints_2d is None or not np.isfinite(sample.keypoints_2d).all(axis=1).any():
        return None
    points = sample.keypoints_2d.copy()
    known = np.isfinite(points).all(axis=1)
    if not known[0]:
        points[0] = points[np.flatnonzero(known)[0]]
    for child, parent in list(enumerate(KEYPOINT_PARENTS))[1:]:
        if not known[child]:
            points[child] = points[parent]
    return points
