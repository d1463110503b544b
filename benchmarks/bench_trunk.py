"""One trunk shared by f_Feat and f_J2D, or a net each as in the paper: held-back error after equal training time.

    python benchmarks/bench_trunk.py PHOTOS --fits FILE --minutes 8 [--csv results/trunk.csv]

Both are `dhpe-lite` but for the source of the heat maps, start from the same ImageNet weights (the separate f_J2D from
random ones: no openly licensed weights of it are to be had), and see the same photos in the same order, one thread.
Time is the own CPU time of the process in training steps, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from densehand.evaluate import append_rows
from densehand.hand.model import HandModel
from densehand.network import zoo
from densehand.network.config import CONFIGS
from densehand.network.estimator import DHPE
from densehand.revision import commit
from densehand.train.config import TrainConfig
from densehand.train.module import objective
from densehand.train.stream import BatchStream, load_records
from densehand.train.validate import HeldBackPhotos

VARIANTS = {"shared": CONFIGS["dhpe-lite"], "separate": replace(CONFIGS["dhpe-lite"], shared_trunk=False)}


def build(variant: str, hand: HandModel, seed: int) -> DHPE:
    """dhpe-lite of one variant with ImageNet weights in its EfficientNet trunk, the same for both."""
    torch.manual_seed(seed)
    network = DHPE(VARIANTS[variant], hand)
    start = zoo.build_model("dhpe-lite", hand=hand, imagenet=True)
    network.evidence.trunk.load_state_dict(start.evidence.trunk.state_dict())
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train(variant: str, stream: BatchStream, measure: HeldBackPhotos, minutes: float, marks: int) -> list[dict]:
    """Train for `minutes` of CPU time; one row of figures at each of `marks` equal parts of it."""
    config = stream.config
    network = build(variant, stream.hand, config.seed).train()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    rows: list[dict] = []
    spent, step = 0.0, 0
    while len(rows) < marks:
        begin = time.process_time()
        batch = stream.batch(step)
        estimate = network(batch.images.contiguous(memory_format=torch.channels_last))
        loss, _ = objective(network, estimate, batch, config)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        for group in optimiser.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / config.warmup)
        optimiser.step()
        average.update_parameters(network)
        step += 1
        spent += time.process_time() - begin
        if spent >= 60 * minutes * (len(rows) + 1) / marks:
            figures = measure(average.module)  # type: ignore[arg-type]
            rows.append({"variant": variant, "cpu_minutes": round(spent / 60, 2), "pictures": step * config.batch}
                        | {k: round(v, 3) for k, v in figures.items()})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--fits", default="", help="file that keeps the photos' hand model fits")
    parser.add_argument("--minutes", type=float, default=8.0, help="CPU time of each training")
    parser.add_argument("--marks", type=int, default=4, help="measurements on the way")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--csv", type=Path, help="add the rows to this results file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig(photos=options.photos, fits=options.fits, size=options.size, photo_share=1.0, ema=0.99,
                         negative_share=0.0, warmup=50)  # fmt: skip
    hand = HandModel.load("open")
    stream = BatchStream(config, hand)
    measure = HeldBackPhotos(load_records(options.photos, hand, split="held-back"), hand, config.size)
    rows = [row for variant in VARIANTS for row in train(variant, stream, measure, options.minutes, options.marks)]
    if options.csv:
        append_rows(options.csv, [{"commit": commit()} | row for row in rows])


if __name__ == "__main__":
    main()
