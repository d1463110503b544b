"""Fit what the score of a detected hand takes off the sum of its log-odds (densehand/selection.py).

    python tools/fit_score.py --data FOLDER [--detector FILE] [--model dhpe-lite] [--write]

Runs detector and network on the held-back photos of densehand/evaluation/end_to_end.py, never on the fixtures, and fits
a logistic regression of "this detection is a hand" on the sum (`selection.witnesses`), the network's answers those of
its first look. With --write the result, to a tenth, goes into the calibration of the model's card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from densehand.crops import log_odds
from densehand.detect.calibrate import fit_logistic
from densehand.detect.detector import Detector
from densehand.evaluation.end_to_end import Found, match_hands, measuring_sets
from densehand.looks import first_look
from densehand.network.card import amend_card, card_beside
from densehand.network.zoo import weights_path
from densehand.photo import Photo
from densehand.pipeline import HandEstimator
from densehand.selection import witnesses

LOWEST = 0.08  # detector's score from which on detections count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--detector", type=Path, help="a detector's .safetensors file; default: the packaged one")
    parser.add_argument("--count", type=int, default=100, help="most pictures of a set")
    parser.add_argument("--write", action="store_true", help="write it into the model's card")
    options = parser.parse_args()
    detector = Detector.load("cpu", threshold=LOWEST, path=options.detector)
    estimator = HandEstimator(options.model, detector, "cpu", refine="off")
    rows: list[tuple[float, float, float]] = []
    hits: list[bool] = []
    with torch.no_grad():
        for cases in measuring_sets(options.data, None, options.count).values():
            for case in cases:
                found = detector(case.image)
                looks = [first_look(0, detection).look for detection in found]
                answers = estimator.crops.run([Photo(case.image)], looks) if looks else []
                outputs = [
                    Found(look.crop.to_image(answer.keypoints), "right")
                    for look, answer in zip(looks, answers, strict=True)
                ]
                verdict = match_hands(case, outputs)
                hand = {output for _, output in verdict.pairs}
                for output, (detection, answer) in enumerate(zip(found, answers, strict=True)):
                    if output in hand or output in verdict.false_alarms:
                        present, seen = answer.hand, float(answer.weight.mean())
                        rows.append((log_odds(detection.score), present, witnesses(present, detection.score, seen)))
                        hits.append(output in hand)
    odds, truth = np.array(rows), np.array(hits)
    scale, bias = fit_logistic(odds[:, 2], truth)
    print(f"{len(truth)} detections, {int((~truth).sum())} of them no hands")
    readily = -bias / scale
    print(f"log-odds of a hand = {scale:.2f} · (sum − {readily:.2f})")
    for name, score in (("sum", odds[:, 2]), ("detector alone", odds[:, 0]), ("network alone", odds[:, 1])):
        counts = ((r, (score[~truth] >= np.quantile(score[truth], 1 - r)).sum()) for r in (0.95, 0.98, 0.99))
        rates = (f"{count} at recall {recall}" for recall, count in counts)
        print(f"{name}: false alarms {', '.join(rates)}")
    if options.write:
        file = weights_path(options.model)
        amend_card(file, calibration=card_beside(file).calibration | {"readily": round(float(readily), 1)})


if __name__ == "__main__":
    main()
