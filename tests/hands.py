"""Hands with known pose and place, for the tests of everything that takes a `Hand`."""

from functools import lru_cache

import numpy as np
import roma
import torch

from densehand.camera import default_focal
from densehand.hand import HandModel
from densehand.hand.keypoints import KEYPOINT_SOURCE
from densehand.rays import turn_rotation, turn_to_box, wrist_place
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
    focal: float | None = None,
) -> Hand:
    """A hand of `pixels` in a picture of `size` (height, width), its keypoints' box centred at `center` (x, y)."""
    generator = np.random.default_rng(seed)
    pose = open_hand().mean_pose.numpy() + (0 if seed is None else generator.normal(0, 0.1, 45))
    shape = np.zeros(10) if seed is None else generator.normal(0, 1, 10)
    rotation = roma.rotvec_to_unitquat(torch.tensor(turn)).numpy()[[3, 0, 1, 2]]
    _, joints, _ = posed_mesh(open_hand(), pose, shape, rotation, side)  # in the axes of its crop
    height, width = size
    low, high = joints[:, :2].min(axis=0), joints[:, :2].max(axis=0)
    scale = pixels / (high - low).max()
    wrist = np.array(center or (width / 2, height / 2)) - scale * (low + high) / 2
    middle, focal = np.array([width / 2, height / 2]), focal or default_focal(width, height)
    keypoints = joints[:, :2] * scale + wrist
    box = np.concatenate([keypoints.min(axis=0), keypoints.max(axis=0)])
    rotation = turn_rotation(turn_to_box(box, focal, middle, mirrored=side == "left"), rotation)
    vertices, joints, faces = posed_mesh(open_hand(), pose, shape, rotation, side)
    return Hand(
        side=side,
        side_score=0.97,
        score=score,
        box=box,
        keypoints_2d=keypoints,
        keypoints_score=np.linspace(0.5, 1, 21),
        joints_3d=joints,
        pose=pose,
        shape=shape,
        rotation=rotation,
        scale=scale,
        translation=wrist_place(scale, wrist, joints, focal, middle),
        focal_px=focal,
        center_px=middle.astype(np.float32),
        vertices=vertices,
        faces=faces,
    )


def tiny_hand(with_pose_dirs: bool = True, vertices: int = 40) -> dict[str, np.ndarray]:
    """A random hand of a few vertices in the model's file layout: for tests that need pose correctives or speed."""
    rng = np.random.default_rng(1)
    weights = rng.random((vertices, 16)) ** 4
    selector = np.zeros((5, vertices))
    selector[range(5), [3, 9, 14, 21, 30]] = 0.5
    selector[range(5), [4, 10, 15, 22, 31]] = 0.5  # a tip may be a mean of vertices
    regressor = rng.random((16, vertices))
    order = np.zeros((21, 21))
    order[range(21), KEYPOINT_SOURCE] = 1
    arrays = {
        "template": rng.normal(size=(vertices, 3)) * 0.05,
        "shape_dirs": rng.normal(size=(vertices, 3, 10)) * 0.005,
        "weights": weights / weights.sum(1, keepdims=True),
        "faces": rng.integers(0, vertices, (50, 3)),
        "joint_regressor": regressor / regressor.sum(1, keepdims=True),
        "tip_selector": selector,
        "keypoint_order": order,
        "mean_pose": np.zeros(45),
        "joint_axes": np.tile(np.eye(3), (15, 1, 1)),
        "limits_lower": np.full((15, 3), -1.0),
        "limits_upper": np.full((15, 3), 1.0),
    }
    if with_pose_dirs:
        arrays["pose_dirs"] = rng.normal(size=(vertices, 3, 135)) * 0.002
    return arrays
