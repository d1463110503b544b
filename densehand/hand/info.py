"""What `densehand hand info` prints."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Int
from torch import Tensor

from densehand.hand.keypoints import JOINT_NAMES
from densehand.hand.model import HandModel

OPEN_SHAPE_NAMES: tuple[str, ...] = (
    "size",
    "finger length",
    "finger thickness",
    "palm width",
    "age",
    "build",
    "thumb length",
    "index against ring finger",
    "phalanx proportion",
    "sex",
)
"""What each shape direction of the open hand changes. MANO's ten are unnamed principal components."""


def describe(model: HandModel) -> dict[str, Any]:
    """Facts about a hand model as plain Python values (JSON-ready): counts, sizes in mm, limits (least and greatest
    flexion, abduction, twist) in degrees."""
    zero = model.mean_pose.new_zeros
    flat = model(zero(45), zero(10))
    points = flat.joints * 1000
    lower, upper = (x * (180 / math.pi) for x in (model.limits_lower, model.limits_upper))
    return {
        "name": model.name,
        "vertices": len(model.template),
        "faces": len(model.faces),
        "closed": not open_edges(model.faces),
        "joints": len(model.parents),
        "pose": model.mean_pose.numel(),
        "shape": model.shape_dirs.shape[-1],
        "shape_names": list(OPEN_SHAPE_NAMES) if model.name == "open" else [],
        "pose_correctives": model.pose_dirs.shape[-1],
        "texture_coordinates": len(model.uv),
        "wrist_to_middle_knuckle_mm": round(float((points[9] - points[0]).norm()), 1),
        "wrist_to_middle_tip_mm": round(float((points[12] - points[0]).norm()), 1),
        "knuckle_breadth_mm": round(float((points[5] - points[17]).norm()), 1),
        "limits_degrees": {
            name: (lower[i].round().int().tolist(), upper[i].round().int().tolist())
            for i, name in enumerate(JOINT_NAMES[1:])
        },
    }


def open_edges(faces: Int[Tensor, "F 3"]) -> list[tuple[int, int]]:
    """Directed edges whose reverse belongs to no face: none in a closed mesh."""
    edges = {(a, b) for face in faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True)}
    return [(a, b) for a, b in edges if (b, a) not in edges]
