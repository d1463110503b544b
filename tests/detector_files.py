"""A drawn hand, and a folder of them in the layout that the detector is trained on."""

import json
from pathlib import Path

import cv2
import numpy as np

from densehand.detect.compose import Composer
from densehand.detect.data import LabelledHand, Picture

SKIN = (200, 140, 110)


def hand_drawing(size: int = 256, box=(70, 60, 180, 200)):
    """A picture with five skin-coloured fingers and its 21 keypoints."""
    x0, y0, x1, y1 = box
    wrist = np.array([(x0 + x1) / 2, y1])
    points = [wrist]
    for finger in range(5):
        tip = np.array([x0 + (x1 - x0) * finger / 4, y0 + 15 * abs(finger - 2)])
        points += [wrist + (tip - wrist) * t for t in (0.4, 0.65, 0.85, 1.0)]
    keypoints = np.array(points, np.float32)
    image = np.full((size, size, 3), (60, 90, 60), np.uint8)
    for finger in range(5):
        chain = keypoints[[0, *range(1 + 4 * finger, 5 + 4 * finger)]].astype(np.int32)
        cv2.polylines(image, [chain], False, SKIN, 14)
    return image, keypoints


def encode(image) -> bytes:
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def drawn_composer() -> Composer:
    """A composer of one drawn frame, crop and background."""
    image, keypoints = hand_drawing()
    frame = Picture(encode(image), "subhih", [LabelledHand(keypoints, True)])
    crop = Picture(encode(image), "asl1728", [LabelledHand(keypoints, True)])
    background = Picture(encode(np.full((320, 320, 3), (60, 90, 60), np.uint8)), "background", [])
    return Composer([frame], [crop], [background], seed=0)


def make_detector_folder(folder: Path) -> np.ndarray:
    """Fill `folder` with drawings in the layout of densehand/detect/data.py; the drawn hand's keypoints, px."""
    image, keypoints = hand_drawing()
    box = [*keypoints.min(0).tolist(), *keypoints.max(0).tolist()]
    (folder / "photos" / "frames" / "subhih").mkdir(parents=True)
    (folder / "photos" / "crops" / "subhih").mkdir(parents=True)
    (folder / "backgrounds").mkdir()
    frames, labels = [], []
    for index in (0, 1, 150, 160):
        name = f"subhih/{index:05d}"
        cv2.imwrite(str(folder / f"photos/frames/{name}.jpg"), image[:, :, ::-1])
        cv2.imwrite(str(folder / f"photos/crops/{name}_0.jpg"), image[:, :, ::-1])
        teacher = [{"box": box, "side": "left", "score": 0.9}]
        human = [[0, 0, 20, 20], [box[0] - 5, box[1] - 5, box[2] + 5, box[3] + 5]]
        frames.append({"frame": f"frames/{name}.jpg", "source": "subhih", "boxes": human, "teacher": teacher})
        label = {"crop": f"crops/{name}_0.jpg", "source": "subhih", "frame": name, "side": "left", "score": 0.9}
        labels.append(label | {"keypoints_px": keypoints.tolist()})
    for index in (0, 24):
        cv2.imwrite(str(folder / f"backgrounds/{index:04d}.jpg"), np.full((64, 64, 3), 90, np.uint8))
    for name, rows in (("frames", frames), ("labels", labels)):
        (folder / "photos" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return keypoints
