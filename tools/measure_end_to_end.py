"""Full photos in, hands out: what is missed, what is found where nothing is, what is found twice.

    python tools/measure_end_to_end.py --data FOLDER --fixtures FOLDER/fixtures --csv results/end_to_end.csv

FOLDER holds `photos/` and `backgrounds/` as `densehand/detect/data.py` says; only pictures that the detector's training
held back are used, a few of each set, always the same ones. Labels of the photos are MediaPipe's, so on them MediaPipe
(`--mediapipe-python`, a Python that has it) is measured against itself. `--sheets` draws what went wrong.

What counts as a miss, a duplicate and a false alarm: `densehand/evaluation/end_to_end.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from densehand.detect.detector import Detector
from densehand.errors import DependencyError
from densehand.evaluate import append_rows
from densehand.evaluation import mediapipe_hands
from densehand.evaluation.end_to_end import Found, LabelledPhoto, Tally, Verdict, measuring_sets
from densehand.export import write_picture
from densehand.looks import PROPOSED
from densehand.metrics import tight_box
from densehand.pipeline import HandEstimator
from densehand.revision import commit
from densehand.synth.sheet import contact_sheet

# ---- the systems: each answers photos one by one, with the CPU milliseconds it took


Answers = Iterator[tuple[list[Found], float | None]]


def by_densehand(estimator: HandEstimator, cases: Sequence[LabelledPhoto]) -> Answers:
    for case in cases:
        start = time.process_time()
        hands = estimator(case.image)
        spent = 1000 * (time.process_time() - start)
        yield [Found(hand.keypoints_2d, hand.side) for hand in hands], spent


def by_mediapipe(python: Path, cases: Sequence[LabelledPhoto]) -> Answers:
    """MediaPipe in its own Python; raises DependencyError where it does not run there."""
    with tempfile.TemporaryDirectory() as folder:
        for k, case in enumerate(cases):
            cv2.imwrite(f"{folder}/{k:05d}.png", case.image[..., ::-1])
        out = Path(folder) / "hands.jsonl"
        command = [str(python), mediapipe_hands.__file__, folder, "-o", str(out), "--max-hands", "4"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DependencyError(f"{python}: MediaPipe does not run there ({last}); pip install 'mediapipe<0.10.30'")
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        yield [Found(np.array(hand["keypoints_2d"]), hand["side"]) for hand in row["hands"]], None


# ---- pictures of what went wrong

TILE = 200  # side of a picture on the sheet, pixels


def drawn(case: LabelledPhoto, found: Sequence[Found], verdict: Verdict) -> np.ndarray:
    """Labels white, found green, duplicates yellow, false alarms red."""
    scale = TILE / max(case.image.shape[:2])
    picture = cv2.resize(case.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture = cv2.copyMakeBorder(picture, 0, TILE - picture.shape[0], 0, TILE - picture.shape[1], cv2.BORDER_CONSTANT)
    colours = dict.fromkeys(verdict.duplicates, (255, 230, 0)) | dict.fromkeys(verdict.false_alarms, (255, 40, 40))
    for points, colour in [
        *[(points[~np.isnan(points).any(axis=1)], (255, 255, 255)) for points in case.keypoints],
        *[(entry.keypoints, colours.get(k, (40, 255, 40))) for k, entry in enumerate(found)],
    ]:
        x0, y0, x1, y1 = (int(v) for v in (tight_box(points) * scale).round())
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour, 1)
    return picture


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--fixtures", type=Path, help="folder with val2d.jsonl and val3d.jsonl")
    parser.add_argument("--model", default="dhpe-lite", help="name of a model, or a weights file")
    parser.add_argument("--refine", default="fast", help="as of densehand predict")
    parser.add_argument("--detector", type=Path, help="a detector's .safetensors file; default: the packaged one")
    parser.add_argument("--mediapipe-python", type=Path, help="a Python with MediaPipe: measure it too")
    parser.add_argument("--count", type=int, default=40, help="most pictures of a set")
    parser.add_argument("--only", default="", help="sets whose names begin so")
    parser.add_argument("--what", default="", help="a word on this run for the rows of --csv")
    parser.add_argument("--csv", type=Path, help="results file to add the rows to")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of misses, duplicates and false alarms (PNG)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    detector = Detector.load("cpu", PROPOSED, path=options.detector)
    estimator = HandEstimator(options.model, detector, "cpu", options.refine)
    systems: dict[str, Callable[[Sequence[LabelledPhoto]], Answers]] = {
        "densehand": lambda cases: by_densehand(estimator, cases)
    }
    if options.mediapipe_python:
        systems["mediapipe"] = lambda cases: by_mediapipe(options.mediapipe_python, cases)
    if options.sheets:
        options.sheets.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, cases in measuring_sets(options.data, options.fixtures, options.count).items():
        for system, answer in systems.items() if name.startswith(options.only) else ():
            tally, tiles = Tally(), []
            for case, (found, milliseconds) in zip(cases, answer(cases), strict=True):
                verdict = tally.add(case, found, milliseconds)
                if len(verdict.pairs) < len(case.keypoints) or verdict.duplicates or verdict.false_alarms:
                    tiles.append(drawn(case, found, verdict))
            rows.append({"commit": commit(), "what": options.what, "system": system, "set": name, **tally.row()})
            print(*(f"{key}={value}" for key, value in rows[-1].items() if key != "commit"), flush=True)
            if options.sheets and tiles:
                path = options.sheets / f"{system} {name}.png".replace(" ", "_")
                write_picture(path, contact_sheet(tiles, 6, ground=0))
    if options.csv:
        append_rows(options.csv, rows)


if __name__ == "__main__":
    main()
