"""MediaPipe Hands on photos. As a program it needs nothing of densehand, so that it runs where MediaPipe is installed:

    python densehand/evaluation/mediapipe_hands.py FOLDER -o mediapipe.jsonl

writes the hands of every picture below the folder as JSON lines `densehand-keypoints/1`, which `densehand evaluate
--predictions` reads. MediaPipe's legacy solution with its full model, on still pictures; it finds the hands itself.
Its sides are those of a mirrored picture (it says "Left" of a right hand in an ordinary photo) and are turned round
here; world landmarks are metres along the camera's axes around the hand's middle.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "densehand-keypoints/1"
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SIDES = {"Left": "right", "Right": "left"}


def open_mediapipe(least: float = 0.5, most: int = 2) -> Any:
    """MediaPipe Hands for still pictures: at most `most` hands, surer than `least`.

    Raises ImportError where MediaPipe is absent, or so new that it has no legacy solutions any more (0.10.30 on).
    """
    import mediapipe

    if not hasattr(mediapipe, "solutions"):
        raise ImportError(f"MediaPipe {mediapipe.__version__} is without its legacy solutions")
    return mediapipe.solutions.hands.Hands(
        static_image_mode=True, model_complexity=1, max_num_hands=most, min_detection_confidence=least
    )


def find_hands(landmarker: Any, image: np.ndarray) -> list[dict[str, Any]]:
    """The hands of an H×W×3 uint8 RGB picture: `side`, `score`, `keypoints_2d` 21×2 px, `joints_3d` 21×3 m."""
    height, width = image.shape[:2]
    result = landmarker.process(np.ascontiguousarray(image))
    if not result.multi_hand_landmarks:
        return []
    hands = []
    parts = (result.multi_handedness, result.multi_hand_landmarks, result.multi_hand_world_landmarks)
    for sides, points, joints in zip(*parts):  # noqa: B905 (Python 3.9 runs this too)
        side = sides.classification[0]
        hands.append(
            {
                "side": SIDES[side.label],
                "score": float(side.score),
                "keypoints_2d": [[p.x * width, p.y * height] for p in points.landmark],
                "joints_3d": [[p.x, p.y, p.z] for p in joints.landmark],
            }
        )
    return hands


def main() -> int:
    """The program; 0, or 1 where a picture could not be read (it is then not in the file)."""
    parser = argparse.ArgumentParser(description="MediaPipe's hands of photos, for densehand evaluate --predictions.")
    parser.add_argument("inputs", nargs="+", type=Path, help="pictures, and folders that are searched in depth")
    parser.add_argument("-o", "--out", type=Path, required=True, help="JSON lines to write")
    parser.add_argument("--min-score", type=float, default=0.5, help="least confidence of a hand (0.5)")
    parser.add_argument("--max-hands", type=int, default=2, help="most hands in a picture (2)")
    options = parser.parse_args()
    try:
        import cv2

        landmarker = open_mediapipe(options.min_score, options.max_hands)
    except ImportError as error:
        print(f"{error}; pip install 'mediapipe<0.10.30'", file=sys.stderr)
        return 1
    paths = [p for given in options.inputs for p in ([given] if given.is_file() else sorted(given.rglob("*")))]
    failed, lines = 0, []
    for path in (path for path in paths if path.suffix.lower() in PICTURES):
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)  # upright: the orientation in the file is applied
        if picture is None:
            print(f"{path}: cannot be read", file=sys.stderr)
            failed = 1
            continue
        start = time.perf_counter()
        hands = find_hands(landmarker, picture[..., ::-1])
        milliseconds = 1000 * (time.perf_counter() - start)
        height, width = picture.shape[:2]
        row = {"schema": SCHEMA, "image": path.as_posix(), "width": width, "height": height, "hands": hands}
        lines.append(json.dumps({**row, "milliseconds": milliseconds}))
    options.out.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} pictures → {options.out}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
