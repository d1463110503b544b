"""`densehand synth`: pictures of hands with labels, made from the hand model."""

from __future__ import annotations

from pathlib import Path

import typer

from densehand.cli.common import progress_bar, say

_CHUNK = 32


def register(app: typer.Typer) -> None:
    app.command("synth")(synth)


def synth(
    n: int = typer.Option(64, "--n", "-n", min=1, help="How many pictures."),
    sheet: Path = typer.Option(None, metavar="FILE", help="Write all pictures as one contact sheet (.png or .jpg)."),
    out: Path = typer.Option(
        None, "--out", "-o", metavar="DIR", help="Folder for pictures, masks, depth and labels.jsonl."
    ),
    size: int = typer.Option(224, min=32, max=1024, help="Side of a picture in pixels."),
    seed: int = typer.Option(0, help="The same seed gives the same pictures (on a CPU)."),
    backgrounds: Path = typer.Option(
        None, metavar="DIR", help="Folder of photos to put behind the hands; else made up."
    ),
    hand: str = typer.Option("open", help="Hand model: open or FILE.npz."),
    clean: bool = typer.Option(False, "--clean", help="Without blur, noise, JPEG and things in front."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar and no summary."),
) -> None:
    """Make pictures of right hands with exact labels: 21 keypoints, mesh parameters, mask, depth.

    [b]Example:[/b] densehand synth --n 64 --sheet hands.png
    """
    if sheet is None and out is None:
        raise typer.BadParameter("give --sheet FILE, --out DIR or both", param_hint="--sheet")

    import numpy as np
    import torch

    from densehand.export import picture_format, write_picture
    from densehand.files import ensure_folder
    from densehand.hand import HandModel
    from densehand.images import find_images, read_image
    from densehand.network import resolve_device
    from densehand.synth import SynthConfig, Synthesizer
    from densehand.synth.sheet import FolderWriter, contact_sheet, to_uint8

    target = resolve_device(device)
    for folder in (out, sheet.parent if sheet is not None else None):
        if folder is not None:
            ensure_folder(folder)
    if sheet is not None:
        picture_format(sheet)
    photos = None
    if backgrounds is not None:
        import cv2

        found = find_images([backgrounds])
        pictures = [cv2.resize(read_image(path), (256, 256), interpolation=cv2.INTER_AREA) for path in found]
        photos = torch.from_numpy(np.stack(pictures))
    config = SynthConfig(photograph=False, occluder_share=0.0, other_before=0.0) if clean else SynthConfig()
    synthesizer = Synthesizer(HandModel.load(hand), photos, target, size, seed, config=config)
    writer = FolderWriter(out) if out is not None else None
    shown: list[np.ndarray] = []
    with progress_bar(quiet) as progress:
        task = progress.add_task("pictures", total=n)
        for start in range(0, n, _CHUNK):
            batch = synthesizer.sample(min(_CHUNK, n - start))
            if writer is not None:
                writer.add(batch)
            if sheet is not None:
                shown.append(to_uint8(batch))
            progress.advance(task, len(batch))
    if writer is not None:
        writer.close()
    if sheet is not None:
        write_picture(sheet, contact_sheet(np.concatenate(shown)))
    if not quiet:
        places = " and ".join(str(place) for place in (sheet, out) if place is not None)
        say(f"{n} pictures of {size} px written to {places}")
