"""Milliseconds a photo: our detector and estimators, and MediaPipe's hands in the same run where it is to be had.

    python benchmarks/bench_predict.py demo_photos/*.jpg --upright 1 [--mediapipe PYTHON] [--csv results/speed.csv]

MediaPipe 0.10.21 pins an old numpy, so it lives in an environment of its own; `--mediapipe` names that environment's
interpreter. Each figure is the median over `--repeat` calls after three to warm up, one photo at a time. Estimates and
overlays take turns, so that their ratio holds on a busy machine, too. Hands that do not stand upright may
cost a second look; `--upright` measures the photos turned as well, by that many quarters counter-clockwise.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ESTIMATE = "dhpe-lite, photo to meshes"
UPRIGHT = ", photos turned upright"
OVERLAY = "overlay of a photo, drawn"
MEDIAPIPE = """
import json, sys, time
from statistics import median
import cv2
import mediapipe as mp
import numpy as np
paths, repeat, upright = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
photos = [cv2.cvtColor(cv2.imread(p), cv2.COLOR_BGR2RGB) for p in paths]
sets = {"": photos} | ({sys.argv[4]: [np.rot90(p, upright).copy() for p in photos]} if upright else {})
figures = {}
for complexity, (name, photos) in [(c, s) for c in (0, 1) for s in sets.items()]:
    with mp.solutions.hands.Hands(static_image_mode=True, max_num_hands=2, model_complexity=complexity) as hands:
        times = []
        for turn in range(3 + repeat):
            for photo in photos:
                start = time.perf_counter()
                hands.process(photo)
                if turn >= 3:
                    times.append(1000 * (time.perf_counter() - start))
    figures[f"mediapipe complexity {complexity}, photo to 21 points{name}"] = median(times)
print(json.dumps(figures))
"""


def milliseconds(work: Callable[[], object], repeat: int) -> float:
    """Median time of `work`."""
    return in_turns([work], repeat)[0]


def in_turns(works: list[Callable[[], object]], repeat: int) -> list[float]:
    """Median time of each, one after the other in every repetition."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(3 + repeat):
        for work, taken in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if turn >= 3:
                taken.append(1000 * (time.perf_counter() - start))
    return [median(taken) for taken in times]


def integers_and_floats(repeat: int) -> dict[str, float]:
    """dhpe-lite's convolutions in 8-bit integers and in float32, in turn; prints the ratio. Nothing where this machine
    or its ONNX Runtime has no such engine."""
    import torch

    from densehand.network.zoo import load_model

    networks = [load_model("dhpe-lite", precision=precision) for precision in ("auto", "float32")]
    engines = {network.engine.precision: network.engine for network in networks if network.engine is not None}
    if len(engines) < 2:
        return {}
    crop = torch.rand(1, 3, *(networks[0].config.input_size,) * 2)
    integers, floats = in_turns([partial(engines[e], crop) for e in ("int8", "float32")], 5 * repeat)
    print(f"{floats / integers:8.2f} ×   dhpe-lite, f_E2D: float32's time over int8's, both in turn")
    return {"dhpe-lite, f_E2D in int8": integers, "dhpe-lite, f_E2D in float32": floats}


def ours(paths: list[str], repeat: int, upright: int) -> dict[str, float]:
    """Detector, networks on one crop, and photo to hands."""
    import numpy as np
    import torch

    from densehand.detect import Detector
    from densehand.draw import draw_overlay
    from densehand.images import read_image
    from densehand.network.fuse import fuse_batch_norms
    from densehand.network.zoo import MODELS, available_models, build_model, load_model
    from densehand.pipeline import HandEstimator

    photos = [read_image(path) for path in paths]
    detector = Detector.load("cpu")
    figures = {"detector, photo to boxes": milliseconds(lambda: [detector(p) for p in photos], repeat) / len(photos)}
    with torch.inference_mode():
        for name in ("dhpe-lite", "dhpe-r50"):
            packaged = name in available_models()  # speed does not depend on what the weights are
            network = load_model(name) if packaged else fuse_batch_norms(build_model(name).eval())
            size = network.config.input_size if packaged else MODELS[name].input_size
            for side in sorted({size, 224}):
                crop = torch.rand(1, 3, side, side)  # as prediction has it, or as torch has it fastest
                if network.engine is None or not network.engine.takes(crop):
                    crop = crop.contiguous(memory_format=torch.channels_last)
                figures[f"{name}, one {side}-px crop"] = milliseconds(partial(network, crop), repeat)
        figures |= integers_and_floats(repeat)
    estimator = HandEstimator("dhpe-lite", device="cpu")
    found = [(photo, estimator(photo)) for photo in photos]
    both = in_turns([lambda: [estimator(p) for p in photos], lambda: [draw_overlay(*one) for one in found]], repeat)
    figures[ESTIMATE], figures[OVERLAY] = (each / len(photos) for each in both)
    if upright:
        turned = [np.rot90(photo, upright).copy() for photo in photos]
        figures[ESTIMATE + UPRIGHT] = milliseconds(lambda: [estimator(p) for p in turned], repeat) / len(photos)
    net: Any = detector.net
    net.engine = None  # the same without ONNX Runtime
    with torch.inference_mode():
        alone = copy.deepcopy(estimator.network)
        crop = torch.rand(1, 3, alone.config.input_size, alone.config.input_size)
        figures["detector in torch"] = milliseconds(lambda: [detector(p) for p in photos], repeat) / len(photos)
        figures["dhpe-lite in torch, one crop"] = milliseconds(lambda: alone(crop), repeat)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--mediapipe", metavar="PYTHON", help="interpreter of an environment with mediapipe==0.10.21")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--upright", type=int, default=0, help="quarters that turn the photos' hands upright")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's choice")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()

    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    figures = ours(options.photos, options.repeat, options.upright)
    if options.mediapipe:
        asked = [json.dumps(options.photos), str(options.repeat), str(options.upright), UPRIGHT]
        command = [options.mediapipe, "-c", MEDIAPIPE, *asked]
        answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        figures |= json.loads(answer.stdout.splitlines()[-1])
    for name, value in figures.items():
        print(f"{value:8.1f} ms  {name}")
    print(f"{figures[OVERLAY] / figures[ESTIMATE]:8.2f}     times as long as the photo's estimate takes its overlay")
    if options.csv:
        from densehand.evaluate import append_rows

        host = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        append_rows(options.csv, [{"what": k, "ms": round(v, 1), "host": host} for k, v in figures.items()])


if __name__ == "__main__":
    main()
