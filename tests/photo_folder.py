"""A folder of hand crops in the published layout, drawn here, for tests of what reads and trains on them."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from densehand.hand.model import HandModel


def make_photo_folder(folder: Path, count: int = 12, seed: int = 0) -> Path:
    """`labels.jsonl` and `crops/`: stick hands of the hand model, every third one a left hand."""
    rng = np.random.default_rng(seed)
    hand = HandModel.load("open")
    (folder / "crops").mkdir(parents=True)
    rows = []
    for index in range(count):
        pose = hand.mean_pose * float(rng.uniform(0.5, 1.5))
        quaternion = torch.nn.functional.normalize(torch.tensor([1.0, *rng.normal(0, 0.2, 3)]), dim=0).float()
        joints = hand.skeleton(pose, torch.zeros(10), quaternion).detach().numpy()
        size = int(rng.integers(100, 200))
        points = joints[:, :2] * size * 3 + (size / 2, size * 0.75)
        side = "left" if index % 3 == 0 else "right"
        if side == "left":
            points, joints = points * (-1, 1) + (size, 0), joints * (-1, 1, 1)
        picture = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
        for x, y in points:
            cv2.circle(picture, (int(x), int(y)), 4, (40, 80, 200), -1)
        name = f"crops/{index:03}.png"
        cv2.imwrite(str(folder / name), picture)
        rows.append(
            {"crop": name, "source": "drawn", "licence": "CC0-1.0", "frame": f"drawn/{index * 40:05}", "size": size,
             "side": side, "score": 0.9, "keypoints_px": points.round(2).tolist(), "world_m": joints.round(5).tolist()}
        )  # fmt: skip
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
