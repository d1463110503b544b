"""The skeleton of one hand as sums of vectors, in numpy: `hand/articulate.py` for a single hand, ten times as fast.

Every keypoint is a sum of vectors each of which one bone turns rigidly: from joint to joint up to a joint, and for a
tip, whose vertices may hang on several bones, its share of each of them besides. So x_i = Σ_q W_iq T_q e_q(shape), T_q
the rotation of vector q's bone; and when a joint turns about a line w, x_i moves by w × Σ W_iq T_q e_q over the vectors
beyond the joint. W and what lies beyond which joint never change: points and derivatives are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from densehand.hand.keypoints import JOINT_PARENTS, KEYPOINT_SOURCE
from densehand.hand.model import HandModel

FEW = 8
"""Up to so many hands are worked on one after another in numpy on a CPU; more are faster as one batch of torch's."""

T = TypeVar("T")
_EYE = np.eye(3)
# x and y of w × p: by the entries of p and, within them, of the product (rows), and those of w (columns)
_ACROSS = np.array([[0, 0, 0], [0, 0, 1], [0, 0, -1], [0, 0, 0], [0, 1, 0], [-1, 0, 0]], np.float64)


class Posed(NamedTuple):
    """A posed skeleton: its points (from the wrist), and what `VectorSkeleton.slopes` needs to differentiate it."""

    points: Float64[np.ndarray, "21 3"]
    vectors: Float64[np.ndarray, "q 3"]  # turned and scaled
    turns: Float64[np.ndarray, "16 3 3"]
    local: Float64[np.ndarray, "15 3 3"]
    lines: Float64[np.ndarray, "15 3 3"]  # columns: what each angle turns about, as the joint's parent holds it
    scale: float


class VectorSkeleton:
    """The constants of a hand model's skeleton, float64.

    Attributes:
        axes, lower, upper: the joints' axes and limits (`hand/anatomy.py`).
    """

    def __init__(self, model: HandModel) -> None:
        joints, dirs, tips, tip_shape, tip_pose, self.axes, lower, upper = (
            buffer.detach().cpu().double().numpy() for buffer in skeleton_buffers(model)
        )
        self.waves = _waves(self.axes)
        self.lower, self.upper = lower.ravel(), upper.ravel()
        parents = np.array(JOINT_PARENTS[1:])
        # vectors 0…15 lead to the joints: the wrist's place, then from each joint's parent to it, held by the parent
        starts, start_dirs, share = joints.copy(), dirs.copy(), tips[..., 3]
        starts[1:] -= joints[parents]
        start_dirs[1:] -= dirs[parents]
        # the others lead from a bone's joint to a tip, times the bone's share of the tip
        own = tips[..., :3] - share[..., None] * joints
        own_dirs = tip_shape - share[..., None, None] * dirs
        used = (share != 0) | own.any(-1) | own_dirs.any((-2, -1)) | tip_pose.any((-2, -1))
        tip, bone = np.nonzero(used)
        self.at = np.concatenate([starts, own[tip, bone]])
        self.dirs = np.concatenate([start_dirs, own_dirs[tip, bone]])
        self.flat_dirs = self.dirs.reshape(-1, self.dirs.shape[-1])
        self.bone = np.concatenate([[0], parents, bone])
        self.parents = self.bone[1:16]

        # reach[k, q] = 1 where vector q is on the way from the wrist to joint k
        reach = np.zeros((16, len(self.at)))
        reach[0, 0] = 1
        for joint, parent in enumerate(parents, start=1):
            reach[joint] = reach[parent]
            reach[joint, joint] = 1
        to_tips = np.zeros((5, len(self.at)))
        for number, (t, k) in enumerate(zip(tip, bone, strict=True)):
            to_tips[t] += share[t, k] * reach[k]
            to_tips[t, 16 + number] += 1
        self.sums = np.concatenate([reach, to_tips])[list(KEYPOINT_SOURCE)]
        # a joint's turn carries the vectors of its own bone and of those that hang on it
        carried = reach[self.bone, 1:16]
        self.arms = (self.sums * carried.T[:, None]).reshape(15 * 21, -1)
        self.pose_dirs = None
        if tip_pose.shape[-1] and tip_pose.any():
            self.pose_dirs = np.zeros((len(self.at), 3, 135))
            self.pose_dirs[16:] = tip_pose[tip, bone]

    def pose(
        self,
        angles: Float64[np.ndarray, "15 3"],
        shape: Float64[np.ndarray, "10"],
        turn: Float64[np.ndarray, "3 3"],
        scale: float,
    ) -> Posed:
        """The hand of anatomical `angles` (radians) and `shape`, under the rotation `turn`, times `scale`."""
        wave = np.ones((3, 3, 15))  # of each angle 1, sine and cosine, as `_waves` wants them
        np.sin(angles.T, out=wave[:, 1])
        np.cos(angles.T, out=wave[:, 2])
        products = (wave[0, :, None, None] * wave[1, :, None] * wave[2]).reshape(27, 15)
        local, lines = (self.waves @ products.T[..., None]).reshape(15, 2, 3, 3).swapaxes(0, 1)
        points, vectors, turns = self.place(local, shape, turn, scale)
        return Posed(points, vectors, turns, local, lines, scale)

    def place(
        self,
        local: Float64[np.ndarray, "15 3 3"],
        shape: Float64[np.ndarray, "10"],
        turn: Float64[np.ndarray, "3 3"],
        scale: float,
    ) -> tuple[Float64[np.ndarray, "21 3"], Float64[np.ndarray, "q 3"], Float64[np.ndarray, "16 3 3"]]:
        """Points, vectors and bones' rotations (see `Posed`) of the joints' rotations `local` and so on."""
        turns = np.empty((16, 3, 3))
        turns[0] = turn
        for first in (1, 2, 3):  # five chains of three (`keypoints.JOINT_PARENTS`), joint by joint
            held = turn if first == 1 else turns[first - 1 : -1 : 3]
            np.matmul(held, local[first - 1 :: 3], out=turns[first::3])
        at = self.at + (self.flat_dirs @ shape).reshape(-1, 3)
        if self.pose_dirs is not None:
            at += self.pose_dirs @ (local - _EYE).ravel()
        vectors = (turns[self.bone] @ (scale * at)[..., None])[..., 0]
        return self.sums @ vectors, vectors, turns

    def slopes(self, posed: Posed, by: Float64[np.ndarray, "21 2 p"]) -> None:
        """Write how far x and y of the points move a radian of each angle and a unit of shape into by[:, :, :55]."""
        across = (_ACROSS @ posed.turns[self.parents] @ posed.lines).reshape(15, 3, 6)
        moves = (self.arms @ posed.vectors).reshape(15, 21, 3) @ across
        by[:, :, :45].reshape(21, 2, 15, 3)[:] = moves.reshape(15, 21, 2, 3).transpose(1, 2, 0, 3)
        flat = posed.scale * posed.turns[self.bone, :2]
        if self.pose_dirs is not None:
            by[:, :, :45] += self._corrections(posed, flat)
        by[:, :, 45:55] = (self.sums @ (flat @ self.dirs).reshape(-1, 20)).reshape(21, 2, 10)

    def _corrections(self, posed: Posed, flat: np.ndarray) -> Float64[np.ndarray, "21 2 45"]:
        """What the pose blend shapes (MANO's) add to the derivatives by the angles."""
        assert self.pose_dirs is not None
        lines, columns = (turned.transpose(0, 2, 1) for turned in (posed.lines, posed.local))
        turned = np.cross(lines[:, :, None], columns[:, None]).swapaxes(-1, -2).reshape(15, 3, 9)  # of each angle
        moved = np.einsum("qcjm,jnm->qcjn", self.pose_dirs.reshape(-1, 3, 15, 9), turned)
        found: np.ndarray = (self.sums @ (flat @ moved.reshape(-1, 3, 45)).reshape(-1, 90)).reshape(21, 2, 45)
        return found


def sideways(points: Float64[np.ndarray, "n 3"], lines: Float64[np.ndarray, "3 k"]) -> Float64[np.ndarray, "n 2 k"]:
    """How far x and y of points move a radian of turning about each line (columns)."""
    return (points @ (_ACROSS @ lines).reshape(3, -1)).reshape(len(points), 2, -1)


def _waves(axes: Float64[np.ndarray, "15 3 3"]) -> Float64[np.ndarray, "15 18 27"]:
    """Factors of the products (1, sin or cos φ) · (1, sin or cos α) · (1, sin or cos τ) of a joint's angles, 27 in all:
    every entry of its rotation Rot_f · Rot_a · Rot_t (`anatomy.rotation_from_angles`; nine rows), and of the lines that
    it turns about (`articulate._lines`, as columns; nine more), is a sum of some of them."""
    one = np.array([1.0, 0.0, 0.0])  # of a wave 1, sine, cosine
    about = []
    for axis in _EYE:  # Rot = 1 + sin [axis]× + (1 − cos) [axis]×²
        cross = np.cross(axis, _EYE).T
        about.append(np.stack([_EYE + cross @ cross, cross, -cross @ cross]))
    first, second, third = about
    rotation = np.einsum("fpq,aqr,trs->psfat", first, second, third)
    lines = np.zeros_like(rotation)
    lines[:, 0] = np.einsum("p,f,a,t->pfat", _EYE[0], one, one, one)
    lines[:, 1] = np.einsum("fp,a,t->pfat", first[:, :, 1], one, one)
    lines[:, 2] = np.einsum("fpq,aq,t->pfat", first, second[:, :, 2], one)
    table = np.empty((15, 2, 3, 3, 27))
    table[:, 0] = np.einsum("jpa,pqw,jqb->jabw", axes, rotation.reshape(3, 3, 27), axes)
    table[:, 1] = np.einsum("jpa,pqw->jaqw", axes, lines.reshape(3, 3, 27))
    return table.reshape(15, 18, 27)


def remade(
    make: Callable[[HandModel], T], buffers: Callable[[HandModel], tuple[Tensor, ...]]
) -> Callable[[HandModel], T]:
    """`make` once a model, and anew where one of the `buffers` it was made of has been replaced."""
    known: WeakKeyDictionary[HandModel, tuple[tuple[Tensor, ...], T]] = WeakKeyDictionary()

    def of(model: HandModel) -> T:
        source, held = buffers(model), known.get(model)
        if held is None or any(a is not b for a, b in zip(held[0], source, strict=True)):
            held = known[model] = source, make(model)
        return held[1]

    return of


def skeleton_buffers(model: HandModel) -> tuple[Tensor, ...]:
    """What a `VectorSkeleton` is made of."""
    tips = (model._tips, model._tip_shape, model._tip_pose)
    return (model._joints, model._joint_dirs, *tips, model.joint_axes, model.limits_lower, model.limits_upper)


skeleton_of = remade(VectorSkeleton, skeleton_buffers)
"""The model's skeleton."""
