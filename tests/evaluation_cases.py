"""A small labelled dataset in densehand's own format, drawn here, and systems that know its truth."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from densehand.evaluation.prediction import Prediction


def make_dataset(folder: Path, count: int = 6, seed: int = 0) -> Path:
    """`labels.jsonl` and pictures: every label a sample can have, on hands whose points are at random."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        image = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:02}.png"), image)
        mask = np.zeros((120, 160), np.uint8)
        mask[30:80, 40:100] = 255
        cv2.imwrite(str(folder / f"{index:02}.mask.png"), mask)
        joints = rng.normal(0, 0.04, (21, 3)) + (0, 0, 0.6)
        rows.append(
            {
                "image": f"{index:02}.png", "side": "left" if index % 2 else "right", "mask": f"{index:02}.mask.png",
                "keypoints_px": rng.uniform(30, 110, (21, 2)).round(3).tolist(), "joints_m": joints.tolist(),
                "camera": [[200, 0, 80], [0, 200, 60], [0, 0, 1]], "source": "ab"[index % 2],
                "hand_id": f"h{index // 3}",
                "vertices_mm": (1000 * np.concatenate([joints, joints + 0.01])).tolist(),
            }
        )  # fmt: skip
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: list[dict]) -> None:
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]


class Oracle:
    """A system that knows the labels: off by `pixels` and `metres`, missing the cases named, counting its answers."""

    needs_picture = True

    def __init__(self, pixels=0.0, metres=0.0, misses=(), name="oracle", flat=False):
        self.name, self.about, self.settings = name, {"boxes": "none"}, {"pixels": pixels, "metres": metres}
        self.pixels, self.metres, self.misses, self.flat, self.asked = pixels, metres, misses, flat, []

    def answer(self, case, image):
        self.asked.append(case.name)
        if case.index in self.misses:
            return None
        points = case.sample.keypoints_2d + (self.pixels, 0)
        if self.flat:
            return Prediction(keypoints_2d=points, milliseconds=1.0)
        joints = case.sample.joints_3d.copy()
        joints[5, 0] += self.metres
        hand = SimpleNamespace(project=lambda _: points, joints_3d=joints, mask=lambda size: np.ones(size, bool))
        return Prediction(points, joints, case.vertices, case.sample.side, 1.0, lambda: hand, 5.0)

    def crop(self, box, image, padding):
        self.asked.append(padding)
        rng = np.random.default_rng(0)
        return Prediction(joints_3d=rng.normal(0, 0.05, (21, 3)) + self.metres * rng.normal(0, 1, (21, 3)) * padding)


def fake_estimator(truth, joints, pixels=0.0, metres=0.0, side="left"):
    """Like a `HandEstimator` that knows one hand, moved by `pixels` (its mesh by twice that), one joint by `metres`."""
    moved = joints - joints[0]
    moved[5, 0] += metres
    found = SimpleNamespace(
        keypoints_2d=truth + (pixels, 0), joints_3d=moved, side=side, score=0.9, vertices=moved,
        keypoints_score=np.full(21, 0.75),
        project=lambda points: truth + (2 * pixels, 0), mask=lambda size: np.ones(size, bool),
    )  # fmt: skip

    class Estimator:
        name, refine, consensus, network, device = "fake", 0, False, None, "cpu"
        hand = SimpleNamespace(name="open")

        def __call__(self, image, boxes):
            return [found] * (1 if boxes is None else len(boxes))

    return Estimator()
