"""One training run from start weights to a weights file: `densehand train`, or `run(TrainConfig(...))` in Python."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from densehand.errors import DependencyError, InputError, WeightsError
from densehand.files import ensure_folder, reason, write_bytes
from densehand.hand.model import HandModel
from densehand.network import zoo
from densehand.network.backbone import FreezableTrunk
from densehand.network.estimator import DHPE
from densehand.options import differences
from densehand.revision import commit
from densehand.train import ranks
from densehand.train.config import TrainConfig
from densehand.train.stream import BatchStream

try:
    import lightning
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from densehand.train.callbacks import HeldBack, SampleSheets, SkippedData
    from densehand.train.checkpoints import WholeCheckpoints, clear_remains, read_checkpoint, step_of
    from densehand.train.module import Training
except ImportError as error:
    raise DependencyError(f"training needs {error.name}: pip install 'densehand[train]'") from error


def build(config: TrainConfig) -> tuple[Training, torch.device]:
    """Network with its start weights, stream and module of a run."""
    device = zoo.resolve_device(config.device)
    devices, nodes = ranks.launched(config.devices, config.nodes)
    if device.type == "cuda" and devices * nodes > 1:
        device = zoo.resolve_device(f"cuda:{ranks.local_rank()}")
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    hand = HandModel.load("open")
    network = zoo.build_model(config.model, hand=hand, imagenet=config.start == "imagenet")
    if config.start not in ("imagenet", "none"):
        load_start(network, Path(config.start))
    for trunk in network.modules():
        if isinstance(trunk, FreezableTrunk):
            trunk.freeze_early(config.freeze_early)
    network.to(device)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Training(network, BatchStream(config, hand, device), config), device


def load_start(network: DHPE, path: Path) -> None:
    """Start weights from a safetensors file or from the average of a training checkpoint, hand model left out."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights; give 'imagenet', 'none', a .safetensors file or a .ckpt")
    if path.suffix == ".ckpt":
        stored = read_checkpoint(path).get("state_dict", {})
        prefix = "average.module."
        state = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    else:
        state, _ = zoo.load_state(path, network.config.name)
    zoo.fill(network, {k: v for k, v in state.items() if zoo.is_stored(k)}, path, network.config.name)


def run(config: TrainConfig, resume: bool = True, progress: bool = True) -> Path:
    """Train; returns the folder with checkpoints, logs, sample sheets and `weights.safetensors`.

    With `resume`, a run whose folder has a `last.ckpt` goes on from there and ends at the same weights as a run that
    was never stopped (on one kind of device). Several processes: see docs/training.md; the first one alone writes.

    Errors:
        InputError: data, folders or options that cannot be used; a disk that is full. WeightsError: start weights or a
        checkpoint that cannot be read. DivergedError: a loss, gradient or weight that is no number.
    """
    devices, nodes = ranks.launched(config.devices, config.nodes)
    if config.batch % (devices * nodes):
        raise InputError(
            f"a batch of {config.batch} cannot be dealt out to {devices * nodes} processes; change --batch"
        )
    if config.size % 32:
        raise InputError(f"size = {config.size}: give a multiple of 32")
    out = ensure_folder(config.out)
    module, device = build(config)
    last = out / "last.ckpt"
    checkpoint = last if resume and last.is_file() else None
    start = step_of(checkpoint, module) if checkpoint is not None else 0
    several = devices * nodes > 1
    trainer = lightning.Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" and not several else devices,
        num_nodes=nodes,
        # not every weight has a gradient at every step: terms of weight 0 leave heads out
        strategy="ddp_find_unused_parameters_true" if several else "auto",
        sync_batchnorm=several and config.sync_batchnorm and device.type == "cuda",
        use_distributed_sampler=False,  # every process walks the same step numbers
        plugins=[WholeCheckpoints()],
        # a resumed run's figures go to a folder of their own: the CSV logger would delete the earlier ones
        logger=[logger(str(out), name="", version=f"log-{start}") for logger in (CSVLogger, TensorBoardLogger)],
        callbacks=[
            ModelCheckpoint(out, filename="last", every_n_train_steps=config.checkpoint_every,
                            enable_version_counter=False, save_on_train_epoch_end=True)
        ],
        log_every_n_steps=50,
        enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    if trainer.is_global_zero:
        clear_remains(out)
        write_bytes(out / "config.json", json.dumps(asdict(config), indent=1).encode())
        trainer.callbacks[:0] = watchers(config, module, device, progress)  # type: ignore[attr-defined]
    loader: DataLoader[int] = DataLoader(range(config.steps), batch_size=None, shuffle=False)  # type: ignore[arg-type]
    # what it counts is of no account: batches come from the step number, so there is no state of a loader to lose
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    try:
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(last)
    except OSError as error:  # from the logs: checkpoints and sheets say themselves what is wrong
        kept = f"; the checkpoint of step {step_of(last)} is whole" if last.is_file() else ""
        raise InputError(f"{out}: cannot be written ({reason(error)}){kept}; free some space and run again") from error
    if trainer.is_global_zero:
        card = {"recipe": recipe(config), "input_size": config.size}
        zoo.save_weights(module.average.module, out / "weights.safetensors", card=card)  # type: ignore[arg-type]
    return out


def watchers(config: TrainConfig, module: Training, device: torch.device, progress: bool) -> list[Callback]:
    """What the first process alone does beside training."""
    callbacks: list[Callback] = [SkippedData()]
    if config.photos and config.validate_every:
        try:
            callbacks.append(HeldBack(config, module.stream.hand, device))
        except InputError as error:  # a small folder may have none to spare
            print(f"no figures on held-back photos: {error}", flush=True)
    if config.samples_every:
        callbacks.append(SampleSheets(Path(config.out), config.samples_every))
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=20))
    return callbacks


def recipe(config: TrainConfig) -> dict[str, Any]:
    """What a model card says of how its weights were made: the options that are not the defaults, no local paths."""
    shown = differences(TrainConfig(), replace(config, dataset=()))
    shown.pop("out", None)
    for place in ("photos", "backgrounds", "fits", "start"):
        if shown.get(place):
            shown[place] = Path(str(shown[place])).name
    command = "densehand train " + " ".join(_as_option(name, value) for name, value in shown.items())
    made = {"model": config.model, "command": command.strip(), "commit": commit(), "seed": config.seed}
    if config.dataset:
        made["datasets"] = [
            {"name": d.name, "split": d.split, "weight": d.weight, "limit": d.limit} for d in config.dataset
        ]
    if Path(config.start).is_file():
        made["start_sha256"] = hashlib.sha256(Path(config.start).read_bytes()).hexdigest()
    return made


def _as_option(name: str, value: Any) -> str:
    *groups, last = name.replace("_", "-").split(".")
    flag = f"no-{last}" if value is False else last
    values = [] if isinstance(value, bool) else value if isinstance(value, tuple) else [value]
    return " ".join(["--" + ".".join([*groups, flag]), *map(str, values)])
