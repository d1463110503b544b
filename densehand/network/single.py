"""f_E3D, f_Ref and the corrector for a few hands on a CPU, in numpy: `network/mesh.py` in an eighth of the time.

With one hand torch spends its time on being called, some hundred times an iteration. What the features add to each
layer is the same in every iteration and computed once.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from densehand.hand.model import HandModel
from densehand.hand.numpy_rotations import matrices, matrix_of, quaternions
from densehand.hand.vector_skeleton import FEW, skeleton_of
from densehand.network.corrector import corrector_inputs
from densehand.network.engine import Shortcut
from densehand.network.mesh import (
    NUM_PARAMETERS,
    POSE,
    R0,
    ROTATION,
    S0,
    SCALE,
    SHAPE,
    TRANSLATION,
    MeshParameters,
    MeshRegressor,
    decode,
)

_R0 = matrix_of(np.array(R0))
_IDENTITY = np.array([1, 0, 0, 0], np.float32)
_UNITS = torch.zeros(4, NUM_PARAMETERS)
_UNITS[:, ROTATION] = torch.from_numpy(np.eye(4, dtype=np.float32) - _IDENTITY)
_TIMES_R0 = decode(_UNITS).rotation.numpy()  # a quaternion's product with R0 is linear in it


class Placed(NamedTuple):
    """`mesh.MeshParameters` of one hand, its rotation as a matrix."""

    pose: Float64[np.ndarray, "15 3"]
    shape: Float64[np.ndarray, "10"]
    turn: Float64[np.ndarray, "3 3"]
    scale: float
    translation: Float64[np.ndarray, "3"]


def decode_one(h: Float64[np.ndarray, "63"]) -> Placed:
    """`mesh.decode` of one hand."""
    turn = matrix_of(h[ROTATION] + (1.0, 0.0, 0.0, 0.0)) @ _R0
    return Placed(h[POSE].reshape(15, 3), h[SHAPE], turn, S0 * float(np.exp(h[SCALE])), h[TRANSLATION])


def decode_few(h: Float[Tensor, "b 63"]) -> MeshParameters:
    """`mesh.decode` of a few hands on the CPU, float32."""
    rows = h.float().numpy()
    quaternion = rows[:, ROTATION] + _IDENTITY
    length = np.sqrt(np.einsum("bi,bi->b", quaternion, quaternion))[:, None]
    with np.errstate(all="ignore"):  # of h that is not finite
        rotation = quaternion / np.maximum(length, np.float32(1e-8)) @ _TIMES_R0
        scale = np.float32(S0) * np.exp(rows[:, SCALE])
    arrays = (rows[:, POSE], rows[:, SHAPE], rotation, scale, rows[:, TRANSLATION])
    return MeshParameters(*map(torch.from_numpy, arrays))


def encode_one(placed: Placed) -> Float64[np.ndarray, "63"]:
    """`mesh.encode` of one hand."""
    h = np.empty(NUM_PARAMETERS)
    h[POSE], h[SHAPE], h[TRANSLATION] = placed.pose.ravel(), placed.shape, placed.translation
    h[ROTATION] = quaternions((placed.turn @ _R0.T)[None])[0] - (1.0, 0.0, 0.0, 0.0)
    h[SCALE] = np.log(placed.scale / S0)
    return h


class SingleRegressor(Shortcut):
    """A regressor's layers, as they are now, and the skeleton of its hand model."""

    def __init__(self, regressor: MeshRegressor, hand: HandModel) -> None:
        self.hand, self.iterations = hand, regressor.iterations
        pair = (regressor.f_e3d, regressor.f_ref)
        layers = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in pair]
        width = layers[0][0].shape[1] - 42 - 63
        self.seen = np.ascontiguousarray(np.concatenate([weight[:, :width] for weight, _ in layers]))
        self.bias = np.concatenate([bias for _, bias in layers])
        self.f_e3d, self.f_ref = (weight[:, width:].astype(np.float64) for weight, _ in layers)
        self.corrector = copy.deepcopy(regressor.corrector)

    def takes(self, features: Tensor) -> bool:
        """Whether these are few enough features on the CPU, in float32 and without gradients."""
        return self.suits(features) and 0 < len(features) <= FEW

    def __call__(
        self, features: Float[Tensor, "b d"], keypoints: Float[Tensor, "b 21 2"], confidence: Float[Tensor, "b 21"]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """What `MeshRegressor.forward` gives."""
        given = zip(features.numpy(), keypoints.numpy(), confidence.numpy(), strict=True)
        rows = [self._regress(*one) for one in given]
        # hand by hand, iterates of one kind → one iterate a tensor
        all_j, all_h, all_y = (
            [torch.from_numpy(np.array(one, np.float32)) for one in zip(*column, strict=True)]
            for column in zip(*rows, strict=True)
        )
        return all_j, all_h, all_y

    def _regress(
        self, features: Float[np.ndarray, " d"], start: Float[np.ndarray, "21 2"], sure: Float[np.ndarray, "21"]
    ) -> tuple[list, list, list]:
        """All iterates of one hand."""
        seen = self.seen @ features + self.bias  # what the features add to the two layers
        h = np.zeros(NUM_PARAMETERS)
        h[POSE] = self.hand.mean_pose.numpy()
        j = start.astype(np.float64)
        all_j, all_h, all_y = [j], [h], []
        for _ in range(self.iterations):
            h = h + seen[:63] + self.f_e3d @ np.concatenate([j.ravel(), h])
            y = self._skeleton(h)
            j = (seen[63:] + self.f_ref @ np.concatenate([h, y.ravel(), j.ravel()])).reshape(21, 2)
            all_j.append(j)
            all_h.append(h)
            all_y.append(y)
        if self.corrector is not None:
            # in torch: numpy's threads would wait for each other with those of ONNX Runtime, several milliseconds long
            given = (
                torch.from_numpy(np.asarray(value, np.float32))[None] for value in (features, sure, start, j, h, y)
            )
            change, shift = (step[0].numpy() for step in self.corrector(corrector_inputs(*given)))
            h = h + change
            all_j.append(j + shift)
            all_h.append(h)
            all_y.append(self._skeleton(h))
        return all_j, all_h, all_y

    def _skeleton(self, h: Float64[np.ndarray, "63"]) -> Float64[np.ndarray, "21 3"]:
        """`mesh.skeleton_in_crop` of one hand."""
        pose, shape, turn, scale, translation = decode_one(h)
        points, _, _ = skeleton_of(self.hand).place(matrices(pose), shape, turn, scale)
        return points + translation
