"""Hands with known pose and place, for the tests of everything that takes a `Hand`."""

from functools import lru_cache

import numpy as np
import roma
import torch

from densehand.camera import default_focal, weak_to_pinhole
from densehand.hand import HandModel
from densehand.result import Hand, posed_mesh


@lru_cache
def open_hand() -> HandModel:
    return HandModel.load("open")


def make_hand(
    side: str = "right",
    size: tuple[int, int] = (240, 320),
    pixels: float = 120,
    center: tuple[float, float] | None = None,
    turn: tuple[float, float, float] = (0.2, 0.4, 0.1),
    seed: int | None = None,
    score: float = 0.9,
) -> Hand:
    """A hand of `pixels` in a picture of `size` (height, width), its keypoints' box centred at `center` (x, y)."""
    generator = np.random.default_rng(seed)
    pose = open_hand().mean_pose.numpy() + (0 if seed is None else generator.normal(0, 0.1, 45))
    shape = np.zeros(10) if seed is None else generator.normal(0, 1, 10)
    rotation = roma.rotvec_to_unitquat(torch.tensor(turn)).numpy()[[3, 0, 1, 2]]
    vertices, joints, faces = posed_mesh(open_hand(), pose, shape, rotation, side)
    height, width = size
    low, high = joints[:, :2].min(axis=0), joints[:, :2].max(axis=0)
    scale = pixels / (high - low).max()
    wrist = np.array(center or (width / 2, height / 2)) - scale * (low + high) / 2
    middle, focal = np.array([width / 2, height / 2]), default_focal(width, height)
    keypoints = joints[:, :2] * scale + wrist
    return Hand(
        side=side,
        side_score=0.97,
        score=score,
        box=np.concatenate([keypoints.min(axis=0), keypoints.max(axis=0)]),
        keypoints_2d=keypoints,
        keypoints_score=np.linspace(0.5, 1, 21),
        joints_3d=joints,
        pose=pose,
        shape=shape,
        rotation=rotation,
        scale=scale,
        translation=weak_to_pinhole(np.float64(scale), wrist, np.float64(focal), middle),
        focal_px=focal,
        center_px=middle.astype(np.float32),
        vertices=vertices,
        faces=faces,
    )
