"""`densehand adapt`: a better model for a user's own photos, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from densehand.cli.common import progress_bar, say

if TYPE_CHECKING:
    from densehand.adapt import AdaptReport

_ROWS = {
    "teacher": "distance to the teacher, % of the hand",
    "disagreement": "disagreement, % of the hand",
    "spread": "  keypoints over crops and turns, %",
    "flip": "  keypoints when mirrored, %",
    "bend": "3D pose over crops and turns, % of the palm",
    "iou": "mask head and mesh, IoU",
    "side": "right side in",
}
_FEW = 8  # believed hands below which it is said that they are few
_MOST_NAMED = 5  # unreadable pictures named; the rest are counted


def register(app: typer.Typer) -> None:
    app.command("adapt")(adapt)


def adapt(
    folder: Path = typer.Argument(..., metavar="DIR", help="Folder of photos; folders in it are searched too."),
    out: Path = typer.Option(..., "--out", "-o", metavar="FILE.safetensors", help="The adapted weights."),
    model: str = typer.Option("dhpe-lite", help="Start weights: a packaged model, or a FILE.safetensors."),
    labels: str = typer.Option("", metavar="labels.jsonl", help="A teacher's 2D keypoints of some of the photos."),
    backgrounds: str = typer.Option("", metavar="DIR", help="Hand-free pictures: behind new hands, and as negatives."),
    sheet: str = typer.Option("", metavar="FILE", help="Picture of believed hands and the new views made of them."),
    whole_image: bool = typer.Option(False, "--whole-image", help="Each photo shows one hand and is the crop itself."),
    steps: int = typer.Option(300, min=1, help="Optimiser steps."),
    size: int = typer.Option(0, min=0, help="Side of training crops in pixels, a multiple of 32; 0: the model's."),
    batch: int = typer.Option(16, min=2, help="Pictures a step."),
    lr: float = typer.Option(2e-5, min=0, help="Highest learning rate."),
    held_back: float = typer.Option(0.2, min=0.01, max=0.9, help="Share of the photos held back to measure."),
    photo_share: float = typer.Option(0.5, min=0, max=1, help="Share of your photos' hands in a batch."),
    selfsup_share: float = typer.Option(0.125, min=0, max=1, help="Share of new views made from your photos' hands."),
    looser: float = typer.Option(1.0, min=0.1, help="Factor on how far a hand may disagree and still be believed."),
    seed: int = typer.Option(0, help="Seed of everything random."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    force: bool = typer.Option(False, "--force", help="Write weights that became worse, too."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar; the report is still printed."),
) -> int:
    """Adapt a model to your own photos, which need no labels.

    Hands are found and looked at in several crops, turns and mirrored; those on which the answers agree become training
    pictures, beside new views made of them and synthetic hands. Photos held back tell whether it helped: weights that
    became worse on them are not written (exit status 1), unless --force. With --labels, a teacher's keypoints decide
    (layout: docs/adapt.md).

    [b]Example:[/b] densehand adapt my-photos --out mine.safetensors
    """
    from densehand.adapt import AdaptConfig
    from densehand.adapt import adapt as run
    from densehand.adapt.stream import Shares

    config = AdaptConfig(
        model=model, labels=labels, backgrounds=backgrounds, sheet=sheet, whole_image=whole_image, steps=steps,
        size=size, batch=batch, lr=lr, held_back=held_back, looser=looser,
        shares=Shares(photo_share, selfsup_share), seed=seed, device=device, force=force,
    )  # fmt: skip
    with progress_bar(quiet) as bar:
        tasks = {}

        def watch(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        report = run(folder, out, config, watch)
    _print(report)
    if report.written is not None:
        typer.echo(f"weights: {report.written}")
        return 0
    say(
        f"densehand: error: {_ROWS[report.measure].strip()} became worse on the held-back hands: {out} is not written; "
        "give more photos, fewer --steps or a smaller --lr, or --force it"
    )
    return 1


def _print(report: AdaptReport) -> None:
    for error in report.unreadable[:_MOST_NAMED]:
        say(f"left out: {error}")
    more = len(report.unreadable) - _MOST_NAMED
    if more > 0:
        say(f"left out: {more} more that cannot be read")
    others = report.hands - report.held_back
    typer.echo(
        f"{report.photos} photos: {len(report.unreadable)} unreadable, {report.empty} without a hand; "
        f"{report.hands} hands: {report.held_back} held back, {report.believed} of {others} others believed"
        + ("" if report.reseeded else "; too few realistic ones to make new views of")
    )
    if report.believed < _FEW:
        say(f"only {report.believed} hands to learn from: more photos would tell more")
    typer.echo(f"{'held-back hands':46}{'before':>10}{'after':>10}")
    for name, text in _ROWS.items():
        if name in report.before:
            typer.echo(f"{text:46}{report.before[name]:10.3f}{report.after[name]:10.3f}")
