"""One row's training by Lightning: checkpoints to go on from, the learning curve, and what begins late."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, Dataset

from densehand.errors import WeightsError
from densehand.files import write_bytes
from densehand.network.estimator import DHPE
from densehand.train.checkpoints import step_of
from densehand.train.module import Training

CURVE_POINTS = 6

Late = tuple[int, Callable[[], Any]]
"""A step, and what is done once before it (and again where a run goes on beyond it)."""


class Watch(Callback):
    """Measures the running average `CURVE_POINTS` times and keeps the curve in `curve.json`."""

    def __init__(self, path: Path, measure: Callable[[DHPE], dict[str, float]], start: int, steps: int) -> None:
        self.path, self.measure, self.steps = path, measure, steps
        self.every = max(1, steps // CURVE_POINTS)
        old = json.loads(path.read_text()) if start and path.is_file() else []
        self.curve: list[dict[str, float]] = [point for point in old if point["step"] <= start]

    def point(self, step: int, network: DHPE) -> None:
        """Measure now."""
        self.curve.append({"step": step, **self.measure(network)})
        write_bytes(self.path, json.dumps(self.curve).encode())

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if not self.curve:
            self.point(0, module.average.module)

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step == self.steps or (step % self.every == 0 and self.steps - step >= self.every):
            self.point(step, module.average.module)


class Begin(Callback):
    """Does something once, before the given step."""

    def __init__(self, step: int, action: Callable[[], Any]) -> None:
        self.step, self.action, self.done = step, action, False

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if not self.done and trainer.global_step >= self.step:
            self.action()
            self.done = True


def usable_checkpoint(path: Path) -> tuple[Path | None, int]:
    """The checkpoint and its step; None and 0 where there is none, or what there is was cut off while written."""
    try:
        return path, step_of(path)
    except WeightsError:
        return None, 0


def fit(
    module: Training, out: Path, watch: Callable[[DHPE], dict[str, float]], late: Late | None = None
) -> list[dict[str, float]]:
    """Train to `module.config.steps`, going on from `out/last.ckpt` where there is one; the learning curve.

    On the CPU the weights are those of a run that was never stopped.
    """
    config = module.config
    checkpoint, start = usable_checkpoint(out / "last.ckpt")
    watcher = Watch(out / "curve.json", watch, start, config.steps)
    saver = ModelCheckpoint(
        out, filename="last", every_n_train_steps=config.checkpoint_every, enable_version_counter=False
    )
    callbacks: list[Callback] = [watcher, saver]
    if late is not None:
        callbacks.insert(0, Begin(*late))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a run of many trainings: not the hardware each time
    trainer = lightning.Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        accelerator="gpu" if cast(Any, module.stream.device).type == "cuda" else "cpu",
        devices=1,
        logger=False,
        callbacks=callbacks,
        gradient_clip_val=config.clip,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # from the first step however far the run is: Lightning goes on counting within the epoch
    loader = DataLoader(cast(Dataset[int], range(config.steps)), batch_size=None, shuffle=False)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*num_workers.*|.*Checkpoint directory.*|.*in eval mode.*|.*LeafSpec.*"
        )
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return watcher.curve
