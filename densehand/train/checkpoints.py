"""Checkpoints that are whole or not there: a killed run or a full disk leaves the one before."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.nn import Module

from densehand.errors import DensehandError, InputError, WeightsError
from densehand.files import write_atomically


class DivergedError(DensehandError):
    """The training has left the numbers: a loss, a gradient or a weight is infinite or NaN."""


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoints, written beside and renamed; refused where a weight is not finite."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        bad = [name for name, value in checkpoint.get("state_dict", {}).items() if not _finite(value)]
        if bad:
            raise DivergedError(f"{bad[0]} is not finite at step {checkpoint.get('global_step')}; {advice(path)}")
        buffer = io.BytesIO()  # torch's own writer hides why a disk refuses
        torch.save(checkpoint, buffer)
        try:
            with write_atomically(path) as temporary, temporary.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())  # the rename must not reach the disk before the bytes do
        except InputError as error:
            earlier = f"the checkpoint of step {step_of(path)} is untouched" if path.is_file() else ""
            raise InputError(f"{error}; {earlier or 'there is no earlier checkpoint'}") from error

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        return read_checkpoint(path)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """A checkpoint on the CPU, without running code from it. Raises WeightsError where it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and torch each have their own
        raise WeightsError(f"{path}: not a checkpoint or a damaged one; remove it, or begin with --fresh") from error


def step_of(path: Path | str, module: Module | None = None) -> int:
    """The optimiser steps a checkpoint has seen.

    Raises WeightsError where it is damaged or, if a module is given, of another network than the module's, such as an
    earlier version's.
    """
    stored = read_checkpoint(path)
    step = stored.get("global_step")
    if not isinstance(step, int):
        raise WeightsError(f"{path}: not a checkpoint of a training; remove it, or begin with --fresh")
    if module is not None and stored.get("state_dict", {}).keys() != module.state_dict().keys():
        raise WeightsError(
            f"{path}: a checkpoint of another network than this densehand builds; go on from its weights elsewhere: "
            f"--start {path} --out OTHER"
        )
    return step


def advice(last: Path) -> str:
    """What to do after a run has diverged. A resumed run would take the same steps, so another start is needed."""
    if not last.is_file():
        return "no checkpoint was written yet; begin again with a lower --lr"
    return (
        f"the last good checkpoint is {last} (step {step_of(last)}); go on from it with a lower rate elsewhere: "
        f"--start {last} --out OTHER --lr LOWER"
    )


def clear_remains(folder: Path) -> None:
    """Remove the unfinished checkpoints that a killed run left."""
    for path in folder.glob(".densehand-*.ckpt"):
        path.unlink(missing_ok=True)


def _finite(value: Any) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point()) or bool(torch.isfinite(value).all())
