"""The few optimiser steps of an adaptation, from given weights."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

from densehand.adapt.gather import Watch
from densehand.adapt.stream import AdaptStream
from densehand.errors import DependencyError, InputError
from densehand.network.estimator import DHPE
from densehand.train.config import TrainConfig

try:
    import lightning
    from lightning.pytorch.callbacks import Callback

    from densehand.train.checkpoints import DivergedError
    from densehand.train.module import Training
except ImportError as error:
    raise DependencyError(f"adapting trains, which needs {error.name}: pip install 'densehand[train]'") from error


class _Progress(Callback):
    """Tells the watcher of steps."""

    def __init__(self, steps: int, watch: Watch | None) -> None:
        self.steps, self.watch = steps, watch

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.watch:
            self.watch("learning", trainer.global_step, self.steps)


def learn(network: DHPE, stream: AdaptStream, config: TrainConfig, watch: Watch | None = None) -> DHPE:
    """A copy of `network` after `config.steps` steps on `stream`: the running average of its weights.

    Raises InputError where the loss is no longer a number.
    """
    from torch.utils.data import DataLoader

    module = Training(copy.deepcopy(network).train(), stream, config)  # type: ignore[arg-type]
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)  # it would tell of the devices it does not use
    try:
        trainer = lightning.Trainer(
            max_steps=config.steps,
            max_epochs=-1,
            accelerator="gpu" if stream.device.type == "cuda" else "cpu",
            devices=1,
            logger=False,
            callbacks=[_Progress(config.steps, watch)],
            gradient_clip_val=config.clip,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of workers that the loader, which only counts, does not need
            trainer.fit(module, DataLoader(range(config.steps), batch_size=None, shuffle=False))  # type: ignore[arg-type]
    except DivergedError as error:
        raise InputError(f"the loss is no longer a number at --lr {config.lr:g}; give a smaller --lr") from error
    finally:
        log.setLevel(level)
    learnt: DHPE = module.average.module.to(stream.device)  # type: ignore[assignment]
    return learnt.eval()
