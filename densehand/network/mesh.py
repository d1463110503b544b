"""f_E3D and f_Ref: from 2D evidence to mesh parameters h, iterated (paper, section 3.1), and what the 63 numbers mean.

    h(t+1) = h(t) + f_E3D(F, j(t), h(t))              one fully connected layer, D + 42 + 63 → 63
    y(t+1) = skeleton of decode(h(t+1))               crop units
    j(t+1) = f_Ref(F, h(t+1), y(t+1), j(t))           one fully connected layer, D + 63 + 63 + 42 → 42

The same two layers serve every iteration; a corrector (`network/corrector.py`), where there is one, takes one more
step. All inputs are in crop units (crop centre 0, edges ±1).
"""

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from densehand.camera import in_plane
from densehand.hand.model import turned_in_plane
from densehand.network.corrector import Corrector, corrector_inputs

NUM_PARAMETERS = 63
POSE, SHAPE, ROTATION, SCALE, TRANSLATION = slice(0, 45), slice(45, 55), slice(55, 59), 59, slice(60, 63)

# h = 0 shows the hand edge-on from the thumb's side, fingers up: +90° about the vertical axis turns the thumb (+x) to
# the camera (-z). Views of the palm and of the back are then a quarter turn away on either side, and the half-turns,
# where a quaternion near the identity is at its most awkward, are views from the little finger's side and fingers
# pointing down.
R0 = (0.5**0.5, 0.0, 0.5**0.5, 0.0)

# crop units per metre: an open hand 0.18 m long fills two thirds of the crop, which is 2 units wide (1.33 / 0.18)
S0 = 7.5


class MeshParameters(NamedTuple):
    """A posed hand in the crop: points are ``scale · R(rotation) · X + translation``, X in metres, hand frame."""

    pose: Float[Tensor, "*b 45"]  # axis-angle of 15 joints, radians
    shape: Float[Tensor, "*b 10"]  # standard deviations
    rotation: Float[Tensor, "*b 4"]  # unit quaternion [w, x, y, z], hand frame → camera axes
    scale: Float[Tensor, "*b"]  # crop units per metre
    translation: Float[Tensor, "*b 3"]  # the wrist, crop units


class Skeleton(Protocol):
    """The part of :class:`densehand.hand.model.HandModel` that regression needs."""

    mean_pose: Tensor

    def skeleton(self, pose: Tensor, shape: Tensor, rotation: Tensor | None = None) -> Tensor: ...


def _right_product(right: tuple[float, ...], like: Tensor) -> Float[Tensor, "4 4"]:
    """Matrix M with ``q @ M`` = q · right (Hamilton product of [w, x, y, z] quaternions)."""
    w, x, y, z = right
    return torch.tensor(
        [[w, x, y, z], [-x, w, -z, y], [-y, z, w, -x], [-z, -y, x, w]], dtype=like.dtype, device=like.device
    )


def decode(h: Float[Tensor, "*b 63"]) -> MeshParameters:
    """Mesh parameters of h (docs/architecture.md): the rotation is h's quaternion around the identity, times R0.

    Defined and finite for every finite h; the quaternion (0, 0, 0, 0) decodes to a zero rotation only where h[55] is
    exactly −1 and h[56:59] exactly 0, which normalisation with an epsilon keeps finite.
    """
    identity = h.new_tensor([1.0, 0.0, 0.0, 0.0])
    quaternion = F.normalize(h[..., ROTATION] + identity, dim=-1, eps=1e-8)
    return MeshParameters(
        pose=h[..., POSE],
        shape=h[..., SHAPE],
        rotation=quaternion @ _right_product(R0, h),
        scale=S0 * h[..., SCALE].exp(),
        translation=h[..., TRANSLATION],
    )


def encode(parameters: MeshParameters) -> Float[Tensor, "*b 63"]:
    """The h that decodes to the given parameters: inverse of :func:`decode`; the quaternion's sign makes w ≥ 0."""
    inverse = (R0[0], -R0[1], -R0[2], -R0[3])
    quaternion = F.normalize(parameters.rotation, dim=-1) @ _right_product(inverse, parameters.rotation)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    identity = quaternion.new_tensor([1.0, 0.0, 0.0, 0.0])
    log_scale = (parameters.scale / S0).log()[..., None]
    return torch.cat((parameters.pose, parameters.shape, quaternion - identity, log_scale, parameters.translation), -1)


def mean_mesh(meshes: MeshParameters) -> MeshParameters:
    """The mean over the first axis, of several meshes of one hand: of the scales the geometric one."""
    first = meshes.rotation[:1]
    aligned = meshes.rotation * torch.where((meshes.rotation * first).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return MeshParameters(
        pose=meshes.pose.mean(0),
        shape=meshes.shape.mean(0),
        rotation=F.normalize(aligned.mean(0), dim=-1),
        scale=meshes.scale.log().mean(0).exp(),
        translation=meshes.translation.mean(0),
    )


def rescaled(h: Float[Tensor, "*b 63"], factor: float) -> Float[Tensor, "*b 63"]:
    """h of the same hands in the units of a crop around the same centre whose side is 1 / factor of theirs."""
    scale = h[..., SCALE : SCALE + 1] + math.log(factor)
    return torch.cat((h[..., :SCALE], scale, h[..., TRANSLATION] * factor), -1)


def turned(h: Float[Tensor, "*b 63"], angle: Float[Tensor, "*b"]) -> Float[Tensor, "*b 63"]:
    """h of the same hands in a crop that is turned back by `angle` (radians): they are turned by `camera.in_plane`."""
    identity = h.new_tensor([1.0, 0.0, 0.0, 0.0])
    quaternion = turned_in_plane(h[..., ROTATION] + identity, angle)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    flat, depth = h[..., TRANSLATION].split((2, 1), -1)
    moved = (in_plane(angle) @ flat[..., None])[..., 0]
    return torch.cat((h[..., : ROTATION.start], quaternion - identity, h[..., SCALE : SCALE + 1], moved, depth), -1)


def place(parameters: MeshParameters, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """Points that are already rotated (metres, wrist at the origin) → crop units."""
    return parameters.scale[..., None, None] * points + parameters.translation[..., None, :]


def skeleton_in_crop(hand: Skeleton, h: Float[Tensor, "*b 63"]) -> Float[Tensor, "*b 21 3"]:
    """f_Proj's skeleton: the 21 keypoints of h, crop units (x, y are the weak perspective projection)."""
    parameters = decode(h)
    return place(parameters, hand.skeleton(parameters.pose, parameters.shape, parameters.rotation))


class MeshRegressor(nn.Module):
    """f_E3D and f_Ref. ``features_width`` is D (2048 for ResNet-50, 1280 for EfficientNet-lite0); ``corrector`` the
    width of the corrector after them, 0 for none.

    At the start both layers are nearly zero on everything (HMR's small gain) and f_Ref is the identity on j, so that
    training begins at the mean hand and the heat maps' skeleton. (Our reading: the paper does not give its
    initialisation.)
    """

    def __init__(self, features_width: int, iterations: int = 3, dropout: float = 0.0, corrector: int = 0):
        super().__init__()
        self.iterations = iterations
        self.dropout = nn.Dropout(dropout)
        self.f_e3d = nn.Linear(features_width + 42 + 63, 63)
        self.f_ref = nn.Linear(features_width + 63 + 63 + 42, 42)
        for layer in (self.f_e3d, self.f_ref):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.f_ref.weight[:, -42:] += torch.eye(42)
        self.corrector = Corrector(features_width, corrector) if corrector else None

    def initial_parameters(self, hand: Skeleton, like: Float[Tensor, "b d"]) -> Float[Tensor, "b 63"]:
        """h(0): zeros, except the pose, which is the hand model's mean."""
        h = like.new_zeros(63)
        h[POSE] = hand.mean_pose.to(like)
        return h.expand(like.shape[0], 63)

    def forward(
        self,
        hand: Skeleton,
        features: Float[Tensor, "b d"],
        keypoints: Float[Tensor, "b 21 2"],
        confidence: Float[Tensor, "b 21"] | None = None,
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """All iterates: keypoints j0…jT (b 21 2), parameters h0…hT (b 63), skeletons y1…yT (b 21 3).

        The corrector's step, which asks for the keypoints' confidence, counts as one more.
        """
        features = self.dropout(features)
        j, h = keypoints, self.initial_parameters(hand, features)
        all_j, all_h, all_y = [j], [h], []
        for _ in range(self.iterations):
            h = h + self.f_e3d(torch.cat((features, j.flatten(1), h), 1))
            y = skeleton_in_crop(hand, h)
            j = self.f_ref(torch.cat((features, h, y.flatten(1), j.flatten(1)), 1)).unflatten(1, (21, 2))
            all_j.append(j)
            all_h.append(h)
            all_y.append(y)
        if self.corrector is not None:
            if confidence is None:
                raise ValueError("a regressor with a corrector needs the keypoints' confidence")
            change, shift = self.corrector(corrector_inputs(features, confidence, keypoints, j, h, y))
            all_j.append(j + shift)
            all_h.append(h + change)
            all_y.append(skeleton_in_crop(hand, h + change))
        return all_j, all_h, all_y
