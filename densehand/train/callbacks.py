"""What looks at a run from outside: figures on held-back photos, sample sheets, and what the data lacked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from densehand.export import write_picture
from densehand.hand.model import HandModel
from densehand.train.config import TrainConfig
from densehand.train.samples import sample_sheet
from densehand.train.stream import load_records
from densehand.train.validate import HeldBackPhotos


class HeldBack(Callback):
    """Measures the running average on held-back photos and logs `val/…` (pixels of a 224-px crop)."""

    def __init__(self, config: TrainConfig, hand: HandModel, device: torch.device):
        self.every = config.validate_every
        self.measure = HeldBackPhotos(
            load_records(config.photos, hand, split="held-back").to(device), hand, config.size
        )

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every == 0 or step == module.config.steps:
            figures = self.measure(module.average.module)
            for logger in trainer.loggers:
                logger.log_metrics({f"val/{k}": v for k, v in figures.items()}, step)
            print(f"step {step}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)


class SampleSheets(Callback):
    """Writes `samples-STEP.png` into the run's folder: the running average on pictures of the step's own batch."""

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every == 0:
            # the last batch is made again, which costs one batch and changes nothing
            sheet = sample_sheet(module.average.module, module.stream.batch(step - 1))
            write_picture(self.folder / f"samples-{step}.png", sheet)


class SkippedData(Callback):
    """Prints what the data folders lacked, and logs its counts as `data/…` at the first step."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        counts = {}
        for source, skipped in module.stream.skipped.items():
            if skipped.counts:
                print(f"{source}: skipped {skipped}", flush=True)
                counts[f"data/skipped_{source}"] = float(skipped.counts.total())
        for logger in trainer.loggers if counts else []:
            logger.log_metrics(counts, trainer.global_step)
