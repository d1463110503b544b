"""One training run from start weights to a weights file: `densehand train`, or `run(TrainConfig(...))` in Python."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from densehand.errors import DependencyError, WeightsError
from densehand.hand.model import HandModel
from densehand.network import zoo
from densehand.network.estimator import DHPE
from densehand.train.config import TrainConfig
from densehand.train.stream import BatchStream, load_records

try:
    import lightning
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from densehand.train.module import Training
except ImportError as error:
    raise DependencyError(f"training needs {error.name}: pip install 'densehand[train]'") from error


class Steps(Dataset[int]):
    """The step numbers from `start`: all that the loader hands to the training step."""

    def __init__(self, start: int, stop: int):
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __getitem__(self, index: int) -> int:
        if index >= len(self):
            raise IndexError(index)
        return self.start + index


class HeldBack(Callback):
    """Measures the running average on held-back photos and logs `val/…` (pixels of a 224-px crop)."""

    def __init__(self, config: TrainConfig, hand: HandModel, device: torch.device):
        from densehand.train.validate import HeldBackPhotos

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


def build(config: TrainConfig) -> tuple[Training, torch.device]:
    """Network with its start weights, stream and module of a run."""
    device = zoo.resolve_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    hand = HandModel.load("open")
    network = zoo.build_model(config.model, hand=hand, imagenet=config.start == "imagenet")
    if config.start not in ("imagenet", "none"):
        load_start(network, Path(config.start))
    network.to(device)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Training(network, BatchStream(config, hand, device), config), device


def load_start(network: DHPE, path: Path) -> None:
    """Start weights from a safetensors file or from the average of a training checkpoint, hand model left out."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights; give 'imagenet', 'none', a .safetensors file or a .ckpt")
    if path.suffix == ".ckpt":
        stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        prefix = "average.module."
        state = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    else:
        state, _ = zoo.load_state(path, network.config.name)
    state = {k: v for k, v in state.items() if not k.startswith("hand.")}
    missing = [k for k in network.load_state_dict(state, strict=False).missing_keys if not k.startswith("hand.")]
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(f"{path}: lacks {len(missing)} tensors of {network.config.name}, e.g. {missing[0]}")


def run(config: TrainConfig, resume: bool = True, progress: bool = True) -> Path:
    """Train; returns the folder with checkpoints, logs and `weights.safetensors`.

    With `resume`, a run whose folder has a `last.ckpt` goes on from there and ends at the same weights as a run that
    was never stopped (on one kind of device).
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config), indent=1))
    module, device = build(config)
    last = out / "last.ckpt"
    checkpoint = last if resume and last.is_file() else None
    start = 0
    if checkpoint is not None:
        start = int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
    callbacks: list[Callback] = [
        ModelCheckpoint(out, filename="last", every_n_train_steps=config.checkpoint_every, enable_version_counter=False,
                        save_on_train_epoch_end=True),
    ]  # fmt: skip
    if config.photos and config.validate_every:
        callbacks.append(HeldBack(config, module.stream.hand, device))
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=20))
    trainer = lightning.Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        # a resumed run's figures go to a folder of their own: the CSV logger would delete the earlier ones
        logger=[logger(str(out), name="", version=f"log-{start}") for logger in (CSVLogger, TensorBoardLogger)],
        callbacks=callbacks,
        gradient_clip_val=config.clip,
        log_every_n_steps=50,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    loader = DataLoader(Steps(start, config.steps), batch_size=None, shuffle=False)
    trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(last)
    card = {"recipe": recipe(config), "input_size": config.size}
    zoo.save_weights(module.average.module, out / "weights.safetensors", card=card)  # type: ignore[arg-type]
    return out


def commit() -> str:
    """The commit of the code that runs; "unknown" outside a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def recipe(config: TrainConfig) -> dict[str, Any]:
    """What a model card says of how its weights were made."""
    options = {k: v for k, v in asdict(config).items() if not isinstance(v, dict)}
    shown = {k: v for k, v in options.items() if v != getattr(TrainConfig(), k) and k not in ("out", "fits", "start")}
    for folder in ("photos", "backgrounds"):
        if shown.get(folder):
            shown[folder] = Path(str(shown[folder])).name
    command = "densehand train " + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in shown.items())
    return {"model": config.model, "command": command.strip(), "commit": commit(), "seed": config.seed}
