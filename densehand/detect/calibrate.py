"""Turn a trained network into weights to ship: ``python -m densehand.detect.calibrate --data FOLDER --out FILE``.

Scores and sides of a freshly trained network rank well but are no probabilities. Platt's scaling (1999) fits
``sigmoid(scale · logit + bias)`` to hits and misses on held-back pictures, and a scale alone to the sides; three
numbers, so held-back measurements stay honest. They are folded into the last layers, and the weights and their card are
written.
"""

import argparse
import json
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from densehand.detect.detector import Detector
from densehand.detect.evaluate import Sample, held_back_sets, match
from densehand.detect.model import DetectorNet
from densehand.detect.weights import calibrated, save_net

LOWEST = 0.03  # raw score from which on detections are used for the fit


def fit_logistic(
    logit: NDArray[np.float64], truth: NDArray[np.bool_], with_bias: bool = True, ridge: float = 1e-3
) -> tuple[float, float]:
    """Scale and bias of the logistic regression of ``truth`` on ``logit``, by Newton's method; (1, 0) without data.

    ``ridge`` pulls weakly towards (1, 0), so that separable data have a finite answer.
    """
    if len(logit) == 0:
        return 1.0, 0.0
    inputs = np.stack([logit, np.ones_like(logit)], 1)[:, : 2 if with_bias else 1]
    start = np.array([1.0, 0.0])[: inputs.shape[1]]
    weights = start.copy()

    def cost(w: NDArray[np.float64]) -> float:
        odds = inputs @ w
        return float((np.logaddexp(0, odds) - truth * odds).mean() + 0.5 * ridge * ((w - start) ** 2).sum())

    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(inputs @ weights, -30, 30)))
        gradient = inputs.T @ (p - truth) / len(logit) + ridge * (weights - start)
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs / len(logit) + ridge * np.eye(len(weights))
        step, before = np.linalg.solve(hessian, gradient), cost(weights)
        while cost(weights - step) > before and np.abs(step).max() > 1e-9:  # Newton's step may lead too far
            step = step / 2
        weights = weights - step
    return float(weights[0]), float(weights[1]) if with_bias else 0.0


Evidence = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]


def collect(net: DetectorNet, samples: list[Sample]) -> Evidence:
    """Score logits and whether they hit; side logits (positive: right) of the hits and whether these are right
    hands."""
    detector = Detector(net, threshold=LOWEST, zoom="never")
    logit, hit, side_logit, right = [], [], [], []
    for sample in samples:
        for d, index, _ in match(detector(sample.image), sample):
            logit.append(np.log(d.score / (1 - d.score)))
            hit.append(index >= 0)
            if index >= 0:
                certainty = np.clip(d.side_score, 0.5, 1 - 1e-6)
                side_logit.append(np.log(certainty / (1 - certainty)) * (1 if d.side == "right" else -1))
                right.append(bool(sample.right[index]))
    return np.array(logit), np.array(hit, bool), np.array(side_logit), np.array(right, bool)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the calibration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--run", type=Path, default=Path("runs/detector"), help="folder of the training run")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--per-set", type=int, default=120, help="pictures of each held-back set used")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    state = torch.load(options.run / "checkpoint.pt", map_location="cpu", weights_only=True)
    net = DetectorNet(auxiliary=True)
    net.load_state_dict(state["averaged"])
    names = ("frames any rotation", "frames hands of 40 px in 640", "frames all", "crops", "backgrounds")
    sets = [s for name, s in held_back_sets(options.data).items() if name.startswith(names)]
    samples = list(chain.from_iterable(islice(s, options.per_set) for s in sets))
    logit, hit, side_logit, right = collect(net.eval(), samples)
    scale, bias = fit_logistic(logit, hit)
    side_scale, _ = fit_logistic(side_logit, right, with_bias=False)
    print(f"score: scale {scale:.3f} bias {bias:.3f} from {len(hit)} detections; side: scale {side_scale:.3f}")
    recipe = {
        "command": "tools/train_detector.sh DATA FIXTURES",
        **json.loads((options.run / "start.json").read_text()),
        "data": "photos of six openly licensed sets, composed as in docs/detector.md",
        "minutes": round(state["spent"] / 60, 1),
        "steps": state["step"],
        "pictures": state["seen"],
        "calibration": {"score_scale": scale, "score_bias": bias, "side_scale": side_scale},
    }
    card = save_net(calibrated(net, scale, bias, side_scale), options.out, recipe=recipe)
    print(f"{options.out}: {card.bytes} bytes, SHA-256 {card.sha256}")


if __name__ == "__main__":
    main()
