"""Training program of the detector: ``python -m densehand.detect.train --data FOLDER`` (layout:
densehand/detect/data.py).

Short CPU runs are the aim: small pictures for most of the steps, then the size it will work at. Everything goes by the
number of steps, and a step's pictures follow from the seed and its number: the same options and data end at the same
weights (on one machine's CPU, with one number of threads), also where a run was stopped and went on from its
checkpoint.
"""

import argparse
import copy
import csv
import json
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from densehand.detect.compose import Composer, Example
from densehand.detect.losses import DetectorLosses, detector_losses, make_targets
from densehand.detect.model import STRIDE, DetectorNet
from densehand.detect.weights import NAME, load_net
from densehand.errors import InputError
from densehand.files import write_atomically, write_bytes
from densehand.network.backbone import EfficientNetLite0
from densehand.network.imagenet import load_imagenet_trunk
from densehand.network.zoo import load_state

FROZEN_BLOCKS = 3  # the trunk to stride 4 stays as ImageNet left it: half of a step's cost, little to learn
DECAY = 0.998  # of the average of the weights
EVERY = 50  # steps from one row of the log and checkpoint to the next
LOSSES = DetectorLosses._fields
# (share of the steps, share of the computing done by then, side of the pictures in px from then on). Steps cost more as
# the pictures grow: these shares are those of the packaged weights' second run, which went by the clock.
SCHEDULE = ((0.0, 0.0, 160), (0.51, 0.3, 192), (0.8, 0.6, 256))
CLOSE_UP = 128  # until the last size, every second step sees pictures of this size with one large hand: sides and
# poses are learnt there


def collate(examples: list[Example], device: torch.device) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Pictures B×3×S×S in [0, 1], and (boxes, valid, right, side weight, ignore, keypoints) padded to the same
    length."""
    images = torch.from_numpy(np.stack([e.image for e in examples])).to(device).permute(0, 3, 1, 2).float() / 255
    n = max(max(len(e.boxes) for e in examples), 1)
    m = max(max(len(e.ignore) for e in examples), 1)
    boxes, ignore = np.zeros((len(examples), n, 4), np.float32), np.zeros((len(examples), m, 4), np.float32)
    valid = np.zeros((len(examples), n), bool)
    right, weight = np.zeros((2, len(examples), n), np.float32)
    keypoints = np.zeros((len(examples), n, 21, 2), np.float32)
    for i, e in enumerate(examples):
        boxes[i, : len(e.boxes)], ignore[i, : len(e.ignore)] = e.boxes, e.ignore
        valid[i, : len(e.boxes)] = True
        right[i, : len(e.boxes)], weight[i, : len(e.boxes)] = e.right, e.side_weight
        keypoints[i, : len(e.boxes)] = e.keypoints
    labels = tuple(torch.from_numpy(x).to(device) for x in (boxes, valid, right, weight, ignore, keypoints))
    return images.contiguous(memory_format=torch.channels_last), labels


class Averaged:
    """Exponential moving average of a network's weights and statistics; young averages forget faster."""

    def __init__(self, net: DetectorNet):
        self.net, self.steps = copy.deepcopy(net).eval(), 0

    @torch.no_grad()
    def update(self, net: DetectorNet) -> None:
        self.steps += 1
        decay = min(DECAY, (1 + self.steps) / (10 + self.steps))
        for mean, value in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def picture_size(done: float) -> int:
    """Side in pixels of the pictures to train on when the share ``done`` of the steps is over."""
    return next(size for start, _, size in reversed(SCHEDULE) if done >= start)


def set_training(net: DetectorNet) -> None:
    """Training mode for everything above the frozen part of the trunk, whose batch statistics stay fixed too."""
    net.train()
    for part in (net.stem, *net.blocks[:FROZEN_BLOCKS]):
        part.eval().requires_grad_(False)


def learning_rate(done: float) -> float:
    """Factor on the base rate when the share ``done`` of the steps is over: a short warm-up, then a cosine to 2 %.

    Both go by the share of the computing, so that the large pictures are not left with the lowest rates alone.
    """
    steps, computing, _ = zip(*SCHEDULE, strict=True)
    spent = float(np.interp(done, [*steps, 1.0], [*computing, 1.0]))
    return min(spent / 0.02 + 0.05, 1.0) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent)))


def start_net(path: Path | None) -> DetectorNet:
    """A network to train, with its auxiliary head: of a weights file, or with the trunk's ImageNet weights alone."""
    if path is None:
        trunk = load_imagenet_trunk("efficientnet_lite0")
        assert isinstance(trunk, EfficientNetLite0)
        return DetectorNet(trunk, auxiliary=True)
    net = DetectorNet(auxiliary=True)
    net.load_state_dict(load_net(path).state_dict(), strict=False)
    return net


def start_recipe(path: Path | None) -> dict[str, Any]:
    """What the card of the weights to come says of where they began: with a detector's weights, its own recipe."""
    if path is None:
        return {"start": "EfficientNet-lite0, ImageNet (tools/convert_imagenet.py)"}
    _, card = load_state(path, NAME)
    return {"start": {"sha256": card.sha256, **card.recipe}}


def begin_run(run: Path, recipe: dict[str, Any]) -> bool:
    """Whether ``run`` holds a checkpoint to go on from; else ``recipe`` is kept there as start.json.

    Raises ``InputError`` where the checkpoint is of a run with another recipe, as its end would be neither's.
    """
    path = run / "start.json"
    if (run / "checkpoint.pt").is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))
        if changed := [name for name, value in recipe.items() if begun.get(name) != value]:
            raise InputError(f"{run}: begun with other {', '.join(changed)}; give the same options or another folder")
        return True
    run.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json.dumps(recipe, indent=2).encode())
    return False


def train(
    data: Path,
    run: Path,
    steps: int,
    batch: int,
    rate: float,
    device: torch.device,
    seed: int,
    start: Path | None = None,
    bf16: bool = False,
    rendered: int = 0,
) -> DetectorNet:
    """Train for ``steps`` (those of a stopped run in the same folder counted in); returns the averaged network.

    ``start``: weights to begin with, all but the auxiliary head; by default the trunk's ImageNet weights. ``bf16``:
    the network's own computing in bfloat16. ``rendered``: that many rendered hands join the crops. Raises
    ``InputError`` where the folder holds a run with other options.
    """
    options = {"steps": steps, "batch": batch, "rate": rate, "seed": seed, "bf16": bf16, "rendered": rendered}
    resumed = begin_run(run, start_recipe(start) | options)
    checkpoint = run / "checkpoint.pt"
    torch.manual_seed(seed)
    net = start_net(start).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = Averaged(net)
    old = list(net.blocks[FROZEN_BLOCKS:].parameters())
    new = [p for name, p in net.named_parameters() if not name.startswith(("stem", "blocks"))]
    optimiser = torch.optim.AdamW([{"params": old, "lr": 0.3 * rate}, {"params": new, "lr": rate}], weight_decay=0.02)
    base = [group["lr"] for group in optimiser.param_groups]
    spent, step, seen = 0.0, 0, 0
    if resumed:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        averaged.net.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        averaged.steps, spent, step, seen = (state[k] for k in ("step", "spent", "step", "seen"))
    composer = Composer.of(data, held_back=False, rendered=rendered)
    log = open(run / "log.csv", "a", newline="", encoding="utf-8")  # noqa: SIM115
    writer = csv.writer(log)
    if log.tell() == 0:
        writer.writerow(["minutes", "step", "pictures", "pixels", *LOSSES, *(f"close_{x}" for x in LOSSES)])

    def save() -> None:
        state = {"net": net.state_dict(), "averaged": averaged.net.state_dict(), "optimiser": optimiser.state_dict()}
        with write_atomically(checkpoint) as temporary:
            torch.save(state | {"spent": spent, "step": step, "seen": seen}, temporary)

    begun, before = time.monotonic(), spent  # told in the log and the card, no part of the training
    totals = np.zeros((2, 6))  # sums of the losses and their number, of ordinary pictures and of close-ups
    while step < steps:
        done = step / steps
        close = step % 2 == 1 and done < SCHEDULE[-1][0]
        size = CLOSE_UP if close else picture_size(done)
        composer.begin(seed, step)
        make = composer.close_up if close else composer
        images, labels = collate([make(size) for _ in range(batch)], device)
        for group, initial in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = initial * learning_rate(done)
        set_training(net)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = net(images)
        losses = detector_losses(output, make_targets((size // STRIDE, size // STRIDE), *labels))
        optimiser.zero_grad(set_to_none=True)
        losses.total().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        averaged.update(net)
        step, seen, spent = step + 1, seen + batch, before + time.monotonic() - begun
        totals[int(close)] += [*(loss.item() for loss in losses), 1.0]
        if step % EVERY == 0:
            means = (totals / totals[:, -1:].clip(1))[:, :-1]
            writer.writerow(
                [f"{spent / 60:.2f}", step, seen, picture_size(done), *(f"{v:.4f}" for v in means.flatten())]
            )
            log.flush()
            totals[:] = 0
            save()
    save()
    log.close()
    return averaged.net


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--run", type=Path, default=Path("runs/detector"), help="folder for checkpoint and log.csv")
    parser.add_argument("--steps", type=int, default=3000, help="length, which the schedule is stretched to")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3, help="base learning rate of the new layers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="the .safetensors file of a detector to go on from")
    parser.add_argument("--rendered", type=int, default=0, help="rendered hands among the crops (`detect/rendered.py`)")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 (faster on GPUs, and on CPUs with AMX)")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    device = torch.device(options.device)
    train(
        options.data,
        options.run,
        options.steps,
        options.batch,
        options.rate,
        device,
        options.seed,
        start=options.start,
        bf16=options.bf16,
        rendered=options.rendered,
    )


if __name__ == "__main__":
    main()
