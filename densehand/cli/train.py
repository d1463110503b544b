"""`densehand train`: train an estimator on photos, synthetic hands or both."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    app.command("train")(train)


def train(
    model: str = typer.Option(
        "dhpe-lite", help="dhpe-lite, dhpe-r50 or dhpe-paper (the paper's separate nets and loss)."
    ),
    photos: str = typer.Option("", help="Folder with labels.jsonl and crops/: real hands with 2D evidence."),
    backgrounds: str = typer.Option("", help="Folder of hand-free pictures: negatives, and behind synthetic hands."),
    fits: str = typer.Option("", help="File to keep the photos' hand model fits in; made when it is missing."),
    out: Path = typer.Option(Path("runs/densehand"), help="Folder for checkpoints, logs and weights.safetensors."),
    start: str = typer.Option("imagenet", help="imagenet, none, a .safetensors file or a training checkpoint."),
    size: int = typer.Option(160, help="Side of the crops in pixels, a multiple of 32."),
    batch: int = typer.Option(32, min=2, help="Pictures a step."),
    steps: int = typer.Option(20_000, min=1, help="Optimiser steps in all."),
    lr: float = typer.Option(1e-3, help="Highest learning rate (warm-up, then cosine)."),
    final_lr: float = typer.Option(0.01, help="Learning rate at the end, as a share of --lr."),
    warmup: int = typer.Option(200, min=1, help="Steps until --lr is reached."),
    photo_share: float = typer.Option(
        0.5, min=0, max=1, help="Share of real photos in a batch; the rest is synthetic."
    ),
    negative_share: float = typer.Option(0.04, min=0, max=1, help="Share of pictures without a hand."),
    pool: int = typer.Option(4096, help="Synthetic pictures kept and cut anew."),
    replay: float = typer.Option(4.0, help="How often a synthetic picture is used on average; 1 renders each afresh."),
    features: float | None = typer.Option(None, help="Weight of L_Feat."),
    shape: float | None = typer.Option(None, help="Weight of L_Sh."),
    laplacian: float | None = typer.Option(None, help="Weight of L_Lap."),
    mask_terms_share: float | None = typer.Option(None, help="Share of a batch that L_Feat, L_Sh and L_Lap look at."),
    wide_crops: bool = typer.Option(False, "--wide-crops", help="Crops as badly centred as a detector's boxes can be."),
    bf16: bool = typer.Option(False, help="bfloat16 convolutions (faster on GPUs)."),
    ema: float = typer.Option(0.999, help="Decay of the running average that is saved as the weights."),
    seed: int = typer.Option(0, help="Seed of everything random."),
    validate_every: int = typer.Option(1000, help="Steps between measurements on held-back photos; 0 for none."),
    checkpoint_every: int = typer.Option(500, min=1, help="Steps between checkpoints."),
    threads: int = typer.Option(0, help="CPU threads; 0 leaves torch's choice."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
    fresh: bool = typer.Option(False, "--fresh", help="Begin anew where the folder holds an unfinished run."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress bar."),
) -> None:
    """Train an estimator. A stopped run goes on from its last checkpoint when the same command is given again.

    [b]Example:[/b] densehand train --model dhpe-lite --photos photos --backgrounds backgrounds --out runs/lite
    """
    from dataclasses import replace

    from densehand.data.augment import WIDE_CROPS
    from densehand.train.config import TrainConfig, paper_config
    from densehand.train.run import run

    given = {
        "model": model, "photos": photos, "backgrounds": backgrounds, "fits": fits, "out": str(out), "start": start,
        "size": size, "batch": batch, "steps": steps, "lr": lr, "photo_share": photo_share, "pool": pool,
        "negative_share": negative_share, "replay": replay, "bf16": bf16, "ema": ema, "seed": seed,
        "validate_every": validate_every, "checkpoint_every": checkpoint_every, "threads": threads, "device": device,
        "final_lr": final_lr, "warmup": warmup,
    }  # fmt: skip
    config = replace(paper_config() if model == "dhpe-paper" else TrainConfig(), **given)  # type: ignore[arg-type]
    terms = {k: v for k, v in (("features", features), ("shape", shape), ("laplacian", laplacian)) if v is not None}
    config = replace(config, weights=replace(config.weights, **terms))  # type: ignore[arg-type]
    if mask_terms_share is not None:
        config = replace(config, mask_terms_share=mask_terms_share)
    if wide_crops:
        config = replace(config, augmentation=WIDE_CROPS)
    folder = run(config, resume=not fresh, progress=not quiet)
    typer.echo(f"weights: {folder / 'weights.safetensors'}")
