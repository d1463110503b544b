"""How fast the named models are: milliseconds a crop, and training pictures a second without data loading.

    python benchmarks/bench_network.py --models dhpe-lite dhpe-r50 --threads 1 2
    python benchmarks/bench_network.py --device cuda --batch 256 --sizes 224

Weights are random (they don't change the speed). Prints one CSV row a measurement; times are medians.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from densehand.network.estimator import DHPE, Estimate
from densehand.network.fuse import fuse_batch_norms
from densehand.network.zoo import MODELS, build_model, resolve_device


def seconds(step: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Median seconds of a call, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def stand_in_loss(estimate: Estimate) -> Tensor:
    """A loss that reaches every output, as the training losses do."""
    loss = estimate.side_logit.square().mean() + estimate.hand_logit.square().mean()
    for logits in [*estimate.heatmap_logits, *estimate.stage_mask_logits]:
        loss = loss - logits.flatten(1).log_softmax(-1).mean()
    for points in [*estimate.keypoints, *estimate.skeletons, *estimate.parameters]:
        loss = loss + points.square().mean()
    return loss


def measure(
    name: str, device: torch.device, sizes: list[int], batch: int, repeats: int
) -> Iterator[tuple[str, int, str, float]]:
    """(task, size, precision, value) of one model: inference in ms a crop, training in pictures a second."""

    def images(count: int, size: int) -> Tensor:
        return torch.rand(count, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)

    model: DHPE = build_model(name).to(device)
    fused = fuse_batch_norms(build_model(name).eval()).to(device)
    for size in sizes:
        one, many = images(1, size), images(batch, size)
        for precision in ("float32", "bfloat16"):
            low = precision == "bfloat16"

            def infer(x: Tensor = one, low: bool = low) -> None:
                with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
                    fused(x)

            def train(x: Tensor = many, low: bool = low) -> None:
                with torch.autocast(device.type, torch.bfloat16, enabled=low):
                    estimate = model(x)
                stand_in_loss(estimate).backward()
                model.zero_grad()

            yield "inference ms/crop", size, precision, 1000 * seconds(infer, 4 * repeats, device)
            yield f"training pictures/s, batch {batch}", size, precision, batch / seconds(train, repeats, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["dhpe-lite", "dhpe-r50"], choices=list(MODELS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 160, 224])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = resolve_device(options.device)
    rows = csv.writer(sys.stdout)
    rows.writerow(["model", "device", "threads", "task", "size", "precision", "value"])
    for name in options.models:
        for threads in options.threads:
            torch.set_num_threads(threads)
            for task, size, precision, value in measure(name, device, options.sizes, options.batch, options.repeats):
                rows.writerow([name, device, threads, task, size, precision, f"{value:.1f}"])
                sys.stdout.flush()


if __name__ == "__main__":
    main()
