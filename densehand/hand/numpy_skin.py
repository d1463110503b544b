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
    """The constants of a hand model's mesh, float32; x, y and z of all vertices are three rows, added up as a whole."""

    def __init__(self, model: HandModel) -> None:
        self.skeleton = skeleton_of(model)
        template, shape_dirs, pose_dirs, weights, self.joints, self.joint_dirs = (
            buffer.detach().cpu().float().numpy() for buffer in _own_buffers(model)
        )
        self.template, self.weights = template.T.ravel(), np.ascontiguousarray(weights.T)
        self.shape_dirs, self.pose_dirs = (
            np.ascontiguousarray(dirs.swapaxes(0, 1)).reshape(template.size, -1) for dirs in (shape_dirs, pose_dirs)
        )

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
        bones = np.concatenate([turns, shifts[..., None]], axis=-1).astype(np.float32)  # 16 3 4
        moved = (bones.transpose(2, 1, 0).reshape(12, 16) @ self.weights).reshape(4, 3, -1)
        moved[:3] *= rest.reshape(3, 1, -1)
        return np.ascontiguousarray(moved.sum(0).T), points


def _own_buffers(model: HandModel) -> tuple[Tensor, ...]:
    return (model.template, model.shape_dirs, model.pose_dirs, model.weights, model._joints, model._joint_dirs)


mesh_of = remade(SkinnedMesh, lambda model: _own_buffers(model) + skeleton_buffers(model))
"""The model's mesh."""
