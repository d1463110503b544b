"""How many synthetic pictures a second, all labels included.

python benchmarks/bench_synth.py --size 160 --threads 2
python benchmarks/bench_synth.py --size 224 --device cuda --batch 512
"""

from __future__ import annotations

import argparse
import time

import torch

from densehand.hand import HandModel
from densehand.synth import Synthesizer


def measure(size: int, batch: int, seconds: float, device: str, photos: bool) -> tuple[float, float]:
    """Pictures a second of wall clock, and milliseconds of CPU time a picture (of all threads)."""
    backgrounds = torch.randint(0, 255, (200, 256, 256, 3), dtype=torch.uint8) if photos else None
    synthesizer = Synthesizer(HandModel.load("open"), backgrounds, device, size)
    synthesizer.sample(batch)  # allocations, kernels
    done, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        synthesizer.sample(batch)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        done += batch
    return done / (time.perf_counter() - start), 1000 * (time.process_time() - cpu) / done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[128, 160, 224])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--photos", action="store_true", help="photo backgrounds (noise here) instead of made-up ones")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"{arguments.device}, {torch.get_num_threads()} threads, batches of {arguments.batch}")
    for size in arguments.size:
        rate, cpu = measure(size, arguments.batch, arguments.seconds, arguments.device, arguments.photos)
        print(f"{size:4d} px: {rate:7.1f} pictures/s, {cpu:6.1f} ms CPU time a picture")


if __name__ == "__main__":
    main()
