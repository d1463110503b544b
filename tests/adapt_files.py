"""Photos, and lines of a teacher's labels for them, for tests of adapting."""

import cv2
import numpy as np


def label_row(name, keypoints):
    """A line of labels.jsonl."""
    return {
        "crop": name, "source": "drawn", "frame": "drawn/0", "side": "right", "score": 0.9,
        "keypoints_px": np.asarray(keypoints, float).tolist(), "world_m": np.zeros((21, 3)).tolist(),
    }  # fmt: skip


def write_pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.full((240, 320, 3), 90, np.uint8))
    return folder
