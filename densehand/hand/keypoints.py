"""The 21 keypoints of a hand, their names and bones, and the orders other datasets list them in.

The house order (also FreiHAND's, HO-3D's evaluation order and OpenPose's): wrist, then thumb, index,
middle, ring, little, each from the palm to the tip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FINGERS: tuple[str, ...] = ("thumb", "index", "middle", "ring", "little")

KEYPOINT_NAMES: tuple[str, ...] = (
    "wrist",
    "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
    "index_mcp", "index_pip", "index_dip", "index_tip",
    "middle_mcp", "middle_pip", "middle_dip", "middle_tip",
    "ring_mcp", "ring_pip", "ring_dip", "ring_tip",
    "little_mcp", "little_pip", "little_dip", "little_tip",
)  # fmt: skip

FINGERTIPS: tuple[int, ...] = (4, 8, 12, 16, 20)
"""Keypoint index of each finger's tip, in the order of `FINGERS`."""

KNUCKLES: tuple[int, ...] = (1, 5, 9, 13, 17)
"""Keypoint index of each finger's first joint (thumb: CMC, others: MCP), in the order of `FINGERS`."""

PALM: tuple[int, ...] = (0, *KNUCKLES)
"""Keypoints that hardly move against each other: they give a first rotation."""

KEYPOINT_PARENTS: tuple[int, ...] = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)

BONES: tuple[tuple[int, int], ...] = tuple((parent, child) for child, parent in enumerate(KEYPOINT_PARENTS) if child)
"""The 20 (parent, child) pairs of keypoints."""

END_ON = 0.2
"""A palm, wrist to knuckles, that is a smaller share of the hand's box long is seen end on: its turn is a guess."""

JOINT_PARENTS: tuple[int, ...] = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Parents in MANO's 16-joint tree: wrist 0, index 1-3, middle 4-6, little 7-9, ring 10-12, thumb 13-15."""

JOINT_NAMES: tuple[str, ...] = (
    "wrist",
    "index_mcp", "index_pip", "index_dip",
    "middle_mcp", "middle_pip", "middle_dip",
    "little_mcp", "little_pip", "little_dip",
    "ring_mcp", "ring_pip", "ring_dip",
    "thumb_cmc", "thumb_mcp", "thumb_ip",
)  # fmt: skip

KEYPOINT_SOURCE: tuple[int, ...] = (
    0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20,
)  # fmt: skip
"""Where keypoint i comes from: an index into [16 joints in MANO's order, 5 tips in the order of `FINGERS`]."""


def keypoint_matrices(tips: Sequence[int], vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """What a model file says of its keypoints: 5×V, which vertex is each finger's tip; 21×21, `KEYPOINT_SOURCE`.

    keypoints = second @ [16 joints, first @ vertices]
    """
    selector, order = np.zeros((5, vertices)), np.zeros((21, 21))
    selector[range(5), tips] = 1
    order[range(21), KEYPOINT_SOURCE] = 1
    return selector, order


def palm_turn(points: Any) -> Any:
    """Angles (*b, radians) by which palms, wrist to knuckles, are turned clockwise from upright, of keypoints
    (*b 21 2; x right, y down), arrays or tensors; NaN where the palm is seen end on (`END_ON`)."""
    along = points[..., list(KNUCKLES[1:]), :].mean(-2) - points[..., 0, :]
    x, y = along[..., 0], along[..., 1]
    if isinstance(points, Tensor):
        box = (points.amax(-2) - points.amin(-2)).amax(-1)
        return torch.where(torch.hypot(x, y) > END_ON * box, torch.atan2(x, -y), torch.nan)
    return np.where(np.hypot(x, y) > END_ON * np.ptp(points, axis=-2).max(-1), np.arctan2(x, -y), np.nan)


def finger_bends(joints: Float[Tensor, "*b 21 3"]) -> Float[Tensor, "*b 5 3"]:
    """Angles (radians, 0…π) between the bones that meet at each finger's three joints, from the palm to the tip.

    Fingers as in `FINGERS`; joints in any unit and frame.
    """
    chains = torch.tensor([[0, *range(first, first + 4)] for first in KNUCKLES], device=joints.device)
    bones = joints[..., chains, :].diff(dim=-2)
    before, after = bones[..., :-1, :], bones[..., 1:, :]
    return torch.atan2(torch.linalg.cross(before, after).norm(dim=-1), (before * after).sum(-1))


# For each dataset: its k-th keypoint is house keypoint ORDERS[name][k].
_TIPS_FIRST = (0, 4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17)
ORDERS: dict[str, tuple[int, ...]] = {
    "densehand": tuple(range(21)),
    "openpose": tuple(range(21)),
    "freihand": tuple(range(21)),
    "mediapipe": tuple(range(21)),
    "coco_wholebody": tuple(range(21)),
    # RHD lists every finger from the tip to the palm.
    "rhd": _TIPS_FIRST,
    # STB: palm centre first (its 0th point is not the wrist), then little to thumb, palm to tip.
    "stb": (0, 17, 18, 19, 20, 13, 14, 15, 16, 9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4),
    # HO-3D (and MANO's joints with the tips appended): MANO's 16 joints, then thumb, index, middle, ring, little tip.
    "ho3d": (0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3, 4, 8, 12, 16, 20),
    # InterHand2.6M: thumb to little, each tip to palm, the wrist last.
    "interhand": (4, 3, 2, 1, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17, 0),
}


def to_house_order(values: np.ndarray, order: str | Sequence[int]) -> np.ndarray:
    """Values (21, ...) a keypoint in a dataset's order → the house order; `order`: a name of `ORDERS`, or the house
    keypoint at each place.

    Raises KeyError naming the known orders.
    """
    if isinstance(order, str) and order not in ORDERS:
        raise KeyError(f"unknown keypoint order {order!r}; known: {', '.join(sorted(ORDERS))}")
    return values[np.argsort(ORDERS[order] if isinstance(order, str) else order)]
