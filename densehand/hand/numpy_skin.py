"""The mesh of one hand in numpy: `HandModel.forward` for a single hand, several times as fast on a CPU."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64
from torch import Tensor

from densehand.hand.keypoints import KEYPOINT_SOURCE
from densehand.hand.model import HandModel
from densehand.hand.numpy_rotations import matrices, matrix_of
from densehand.hand.vector_skeleton import remade, skeleton_buffers, skeleton_of

_EYE = np.eye(3)
_JOINTS = [KEYPOINT_SOURCE.index(joint) for joint in range(16)]  # where the joints are among the keypoints


class SkinnedMesh:
    """The constants of a hand model's mesh, float32."""

    def __init__(self, model: HandModel) -> None:
        self.skeleton = skeleton_of(model)
        template, shape_dirs, pose_dirs, self.weights, self.joints, self.joint_dirs = (
            buffer.detach().cpu().float().numpy() for buffer in _own_buffers(model)
        )
        self.template, self.shape_dirs = template.ravel(), shape_dirs.reshape(template.size, -1)
        self.pose_dirs = pose_dirs.reshape(template.size, -1)

    def __call__(
        self,
        pose: Float32[np.ndarray, "45"],
        shape: Float32[np.ndarray, "10"],
        rotation: Float32[np.ndarray, "4"],
    ) -> tuple[Float32[np.ndarray, "V 3"], Float64[np.ndarray, "21 3"]]:
        """Vertices and keypoints: metres, wrist at the origin, turned by the quaternion [w, x, y, z] (any norm)."""
        local, turn = matrices(pose.astype(np.float64).reshape(15, 3)), matrix_of(rotation.astype(np.float64))
        points, _, turns = self.skeleton.place(local, shape.astype(np.float64), turn, 1.0)
        pivots = self.joints + self.joint_dirs @ shape
        shifts = points[_JOINTS] - (turns @ pivots[..., None])[..., 0]
        rest = self.template + self.shape_dirs @ shape
        if self.pose_dirs.shape[1]:
            rest = rest + self.pose_dirs @ (local - _EYE).ravel().astype(np.float32)
        bones = np.concatenate([turns, shifts[..., None]], axis=-1).reshape(16, 12).astype(np.float32)
        moved = (self.weights @ bones).reshape(-1, 3, 4)
        vertices = (moved[..., :3] @ rest.reshape(-1, 3, 1))[..., 0] + moved[..., 3]
        return vertices, points


def _own_buffers(model: HandModel) -> tuple[Tensor, ...]:
    return (model.template, model.shape_dirs, model.pose_dirs, model.weights, model._joints, model._joint_dirs)


mesh_of = remade(SkinnedMesh, lambda model: _own_buffers(model) + skeleton_buffers(model))
"""The model's mesh."""
