"""Measure the ranges of the detector's activations, which its 8-bit integers need (densehand/network/quantise.py).

    python tools/calibrate_detector_activations.py --data DATA

The network sees what `densehand predict` would show it of training frames, close-ups and hand-free pictures (none that
is held back, and nothing it is measured on). The lowest and highest value of each tensor go into the card beside the
weights, which stay as they are. Without ranges in the card, weights run in float32. Needs `pip install onnx`.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from calibrate_activations import Watch, measure_ranges
from torch import Tensor

from densehand.detect import Detector
from densehand.detect.data import read_backgrounds, read_crops, read_frames
from densehand.detect.detector import FrozenNet
from densehand.detect.weights import NAME, PACKAGED
from densehand.looks import PROPOSED
from densehand.network.card import amend_card


def looked_at(detector: Detector, data: Path, count: int) -> list[Tensor]:
    """The pictures that the network is given of `count` training frames, as many close-ups and half as many pictures
    without hands."""
    assert isinstance(detector.net, FrozenNet)
    watch, draw = Watch(None), random.Random(0)
    detector.net.engine = watch  # type: ignore[assignment]
    for read, share in ((read_frames, 1.0), (read_crops, 1.0), (read_backgrounds, 0.5)):
        pictures = read(data, held_back=False)
        for picture in draw.sample(pictures, min(round(share * count), len(pictures))):
            detector(picture.decode())
    return watch.crops


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--weights", type=Path, default=PACKAGED, help="a detector's weights file, its card beside it")
    parser.add_argument("--count", type=int, default=120, help="most frames, and most close-ups")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    detector = Detector.load("cpu", PROPOSED, path=options.weights, precision="float32")
    assert isinstance(detector.net, FrozenNet)
    pictures = looked_at(detector, options.data, options.count)
    ranges = measure_ranges(NAME, detector.net.graph, pictures)
    for name, (low, high) in ranges.items():
        print(f"{low:10.4f} {high:10.4f}  {name}")
    amend_card(options.weights, activation_ranges=ranges)
    print(f"{len(ranges)} tensors, {len(pictures)} looks; written: {options.weights.with_suffix('.json')}")


if __name__ == "__main__":
    main()
