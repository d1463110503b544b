"""The parametric hand: shape blend shapes, pose blend shapes (MANO only), linear blend skinning.

Source: Romero, Tzionas, Black, "Embodied Hands" (2017), eq. 2-6, whose 16-joint tree and 45 pose numbers are kept.
A right hand; a left hand is its exact mirror image (`mirror_mesh`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from densehand.errors import DensehandError
from densehand.hand import rotations as roma
from densehand.hand.keypoints import JOINT_PARENTS, KEYPOINT_SOURCE

_ASSETS = Path(__file__).parent / "assets"
FORMAT = "densehand-hand/1"

# name → (dimensions, may be absent). V, F, T are free; the sizes are checked by `_check`.
_ARRAYS: dict[str, tuple[tuple[str | int, ...], bool]] = {
    "template": (("V", 3), False),
    "shape_dirs": (("V", 3, 10), False),
    "pose_dirs": (("V", 3, 135), True),
    "weights": (("V", 16), False),
    "faces": (("F", 3), False),
    "joint_regressor": ((16, "V"), False),
    "tip_selector": ((5, "V"), False),
    "keypoint_order": ((21, 21), False),
    "uv": (("T", 2), True),
    "face_uv": (("F", 3), True),
    "wrist_loop": (("L",), True),
    "mean_pose": ((45,), False),
    "joint_axes": ((15, 3, 3), False),
    "limits_lower": ((15, 3), False),
    "limits_upper": ((15, 3), False),
    "source_frame": ((3, 3), True),
}
_INTEGERS = ("faces", "face_uv", "wrist_loop")


class HandMesh(NamedTuple):
    """A posed hand, metres, wrist joint at the origin."""

    vertices: Float[Tensor, "*b V 3"]
    joints: Float[Tensor, "*b 21 3"]


def user_data_dir() -> Path:
    """Folder for the user's own files: DENSEHAND_DATA, else XDG_DATA_HOME/densehand, else ~/.local/share/densehand."""
    if given := os.environ.get("DENSEHAND_DATA"):
        return Path(given)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "densehand"


class HandModel(nn.Module):
    """A parametric right hand.

    The 21 keypoints (`HandMesh.joints`) are the posed pivots of the 16 joints and the posed tip vertices, in the house
    order: this is what MANO-annotated datasets publish. The skeleton matrices (f_Reg, docs/hand.md) are the buffers
    `joint_regressor` (16 × V, applied to the hand at rest), `tip_selector` (5 × V, applied to the posed vertices) and
    `keypoint_order` (21 × 21, a permutation of [16 joints, 5 tips]).

    Buffers: `template` (V,3) m, `shape_dirs` (V,3,10) m per standard deviation, `pose_dirs` (V,3,135) m or (V,3,0),
    `weights` (V,16), `faces` (F,3), `uv` (T,2) and `face_uv` (F,3) or empty, `wrist_loop` (L,) the vertices around the
    wrist's opening in order (the cap is in `faces`), `mean_pose` (45,), `joint_axes` (15,3,3), `limits_lower` and
    `limits_upper` (15,3); see `hand/anatomy.py` for the last three; `source_frame` (3,3) the rotation that took the
    source's axes to the hand frame (identity for the open hand). Nothing is trained: no parameters.
    """

    template: Tensor
    shape_dirs: Tensor
    pose_dirs: Tensor
    weights: Tensor
    faces: Tensor
    joint_regressor: Tensor
    tip_selector: Tensor
    keypoint_order: Tensor
    uv: Tensor
    face_uv: Tensor
    wrist_loop: Tensor
    mean_pose: Tensor
    joint_axes: Tensor
    limits_lower: Tensor
    limits_upper: Tensor
    source_frame: Tensor
    _joints: Tensor
    _joint_dirs: Tensor
    _tips: Tensor
    _tip_shape: Tensor
    _tip_pose: Tensor

    def __init__(self, arrays: dict[str, np.ndarray], name: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        _check(arrays, name)
        self.name = name
        self.parents = JOINT_PARENTS
        data = {key: torch.as_tensor(np.asarray(value)) for key, value in arrays.items()}
        data = {key: value.long() if key in _INTEGERS else value.double() for key, value in data.items()}
        # The wrist is the origin for every shape.
        joints = data["joint_regressor"] @ data["template"]
        joint_dirs = torch.einsum("jv,vcs->jcs", data["joint_regressor"], data["shape_dirs"])
        data["template"] = data["template"] - joints[0]
        data["shape_dirs"] = data["shape_dirs"] - joint_dirs[0]
        for key, value in data.items():
            self.register_buffer(key, value if key in _INTEGERS else value.to(dtype), persistent=False)

        # Tip keypoint = Σ_k T_k A_k(shape, pose): the tip's share of each bone, moved with that bone.
        share = torch.einsum("tv,vk->tkv", data["tip_selector"], data["weights"])
        derived = {
            "_joints": joints - joints[0],
            "_joint_dirs": joint_dirs - joint_dirs[0],
            "_tips": torch.cat([share @ data["template"], share.sum(-1, keepdim=True)], dim=-1),
            "_tip_shape": torch.einsum("tkv,vcs->tkcs", share, data["shape_dirs"]),
            "_tip_pose": torch.einsum("tkv,vcp->tkcp", share, data["pose_dirs"]),
        }
        for key, value in derived.items():
            self.register_buffer(key, value.to(dtype), persistent=False)

    @classmethod
    def load(cls, name_or_path: str | Path = "open", dtype: torch.dtype = torch.float32) -> HandModel:
        """Load `"open"` (in the package), `"mano"` (the user's own, see `densehand hand import-mano`) or an .npz file.

        Raises DensehandError where the file is missing or is no hand model.
        """
        name = str(name_or_path)
        if name == "open":
            path = _ASSETS / "open_hand.npz"
        elif name == "mano":
            path = user_data_dir() / "mano.npz"
            if not path.is_file():
                raise DensehandError(
                    f"no MANO hand at {path}: run `densehand hand import-mano MANO_RIGHT.pkl` on your own copy"
                )
        else:
            path, name = Path(name_or_path), Path(name_or_path).stem
        if not path.is_file():
            raise DensehandError(f"no hand model {str(path)!r}: use 'open', 'mano' or the path of an .npz file")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except (ValueError, OSError, EOFError, KeyError) as error:
            raise DensehandError(f"{path} is no hand model ({error}): build or import it again") from error
        except Exception as error:  # zipfile.BadZipFile and zlib.error share no base class
            if type(error).__module__ in ("zipfile", "zlib"):
                raise DensehandError(f"{path} is damaged ({error}): build or import it again") from error
            raise
        stored = str(arrays.pop("format", ""))
        if stored != FORMAT:
            raise DensehandError(f"{path} has format {stored!r}, not {FORMAT!r}: build or import it again")
        return cls({key: value for key, value in arrays.items() if key in _ARRAYS}, name, dtype)

    def forward(
        self,
        pose: Float[Tensor, "*b 45"],
        shape: Float[Tensor, "*b 10"],
        rotation: Float[Tensor, "*b 4"] | None = None,
    ) -> HandMesh:
        """Pose the mesh: metres, wrist at the origin, then turned by the quaternion [w, x, y, z] (any norm)."""
        local, bones, offsets, pivots = self._bones(pose, shape)
        rest = self.template + torch.einsum("vcs,...s->...vc", self.shape_dirs, shape)
        if self.pose_dirs.shape[-1]:
            rest = rest + torch.einsum("vcp,...p->...vc", self.pose_dirs, _pose_feature(local))
        turn = torch.einsum("vk,...kij->...vij", self.weights, bones)
        shift = torch.einsum("vk,...ki->...vi", self.weights, offsets)
        vertices = (turn @ rest.unsqueeze(-1)).squeeze(-1) + shift
        tips = self.tip_selector @ vertices
        joints = torch.cat([pivots, tips], dim=-2)[..., KEYPOINT_SOURCE, :]
        if rotation is not None:
            matrix = quaternion_to_matrix(rotation)
            vertices, joints = vertices @ matrix.mT, joints @ matrix.mT
        return HandMesh(vertices, joints)

    def skeleton(
        self,
        pose: Float[Tensor, "*b 45"],
        shape: Float[Tensor, "*b 10"],
        rotation: Float[Tensor, "*b 4"] | None = None,
    ) -> Float[Tensor, "*b 21 3"]:
        """The 21 keypoints alone: equal to `forward(...).joints` without making a vertex."""
        local, bones, offsets, pivots = self._bones(pose, shape)
        rest = self._tips[..., :3] + torch.einsum("tkcs,...s->...tkc", self._tip_shape, shape)
        if self.pose_dirs.shape[-1]:
            rest = rest + torch.einsum("tkcp,...p->...tkc", self._tip_pose, _pose_feature(local))
        tips = torch.einsum("...kij,...tkj->...ti", bones, rest) + self._tips[..., 3] @ offsets
        joints = torch.cat([pivots, tips], dim=-2)[..., KEYPOINT_SOURCE, :]
        if rotation is not None:
            joints = joints @ quaternion_to_matrix(rotation).mT
        return joints

    def _bones(self, pose: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Local rotations (*b 15 3 3); bone transforms x ↦ R x + t, R (*b 16 3 3), t (*b 16 3); pivots (*b 16 3)."""
        local = roma.rotvec_to_rotmat(pose.unflatten(-1, (15, 3)))
        rest = self._joints + torch.einsum("jcs,...s->...jc", self._joint_dirs, shape)
        batch = torch.broadcast_shapes(pose.shape[:-1], shape.shape[:-1])
        rest = rest.expand(*batch, 16, 3)
        # five chains of three joints behind the wrist, all fingers at once
        fingers, turns_in_chain = rest[..., 1:, :].unflatten(-2, (5, 3)), local.unflatten(-3, (5, 3))
        turn = torch.eye(3, dtype=pose.dtype, device=pose.device).expand(*batch, 5, 3, 3)
        pivot = before = rest[..., :1, :].expand(*batch, 5, 3)
        turns, pivots = [], []
        for place in range(3):
            bone = fingers[..., place, :] - before
            pivot, before = pivot + (turn @ bone.unsqueeze(-1)).squeeze(-1), fingers[..., place, :]
            turn = turn @ turns_in_chain[..., place, :, :]
            turns.append(turn)
            pivots.append(pivot)
        wrist = torch.eye(3, dtype=pose.dtype, device=pose.device).expand(*batch, 1, 3, 3)
        all_turns = torch.cat([wrist, torch.stack(turns, dim=-3).flatten(-4, -3)], dim=-3)
        all_pivots = torch.cat([rest[..., :1, :], torch.stack(pivots, dim=-2).flatten(-3, -2)], dim=-2)
        return local, all_turns, all_pivots - (all_turns @ rest.unsqueeze(-1)).squeeze(-1), all_pivots

    def extra_repr(self) -> str:
        return f"{self.name}: {len(self.template)} vertices, {len(self.faces)} faces"


def _pose_feature(local: Float[Tensor, "*b 15 3 3"]) -> Float[Tensor, "*b 135"]:
    return (local - torch.eye(3, dtype=local.dtype, device=local.device)).flatten(-3)


def quaternion_to_matrix(quaternion: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """[w, x, y, z] of any norm > 0 → rotation matrix."""
    unit = torch.nn.functional.normalize(quaternion, dim=-1)
    return roma.unitquat_to_rotmat(unit[..., [1, 2, 3, 0]])


def turned_in_plane(rotation: Float[Tensor, "*b 4"], angle: Float[Tensor, "*b"]) -> Float[Tensor, "*b 4"]:
    """Quaternions [w, x, y, z] of any norm followed by `camera.in_plane`'s turn (radians)."""
    w, x, y, z = rotation.unbind(-1)
    c, s = (angle / 2).cos(), (angle / 2).sin()
    return torch.stack((c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w), -1)


def mirror_mesh(mesh: HandMesh) -> HandMesh:
    """The left hand of a right one: x → −x. Its faces are `mirror_faces(model.faces)`."""
    flip = mesh.vertices.new_tensor([-1.0, 1.0, 1.0])
    return HandMesh(mesh.vertices * flip, mesh.joints * flip)


def mirror_faces(faces: Int[Tensor, "F 3"]) -> Int[Tensor, "F 3"]:
    """Faces of the mirrored mesh: their orientation turned, so that normals still point outwards."""
    return faces.flip(-1)


def _absent(key: str, sizes: dict[str, int]) -> np.ndarray:
    if key == "pose_dirs":
        return np.zeros((sizes["V"], 3, 0))
    width = [d for d in _ARRAYS[key][0][1:] if isinstance(d, int)]
    return np.zeros([0, *width], np.int64 if key in _INTEGERS else np.float64)


def _check(arrays: dict[str, np.ndarray], name: str) -> None:
    """Fill in what may be absent (in place); raise DensehandError where something is missing or of a wrong shape."""
    sizes: dict[str, int] = {}
    for key, (dimensions, optional) in _ARRAYS.items():
        if key not in arrays:
            if not optional:
                raise DensehandError(f"hand model {name!r} lacks {key!r}: build or import it again")
            arrays[key] = np.eye(3) if key == "source_frame" else _absent(key, sizes)
            continue
        shape = list(arrays[key].shape)
        expected = [
            sizes.setdefault(d, size) if isinstance(d, str) else d for d, size in zip(dimensions, shape, strict=False)
        ]
        empty = optional and arrays[key].size == 0
        if not empty and (len(shape) != len(dimensions) or shape != expected):
            wanted = "×".join(str(d) for d in dimensions)
            raise DensehandError(f"hand model {name!r}: {key} is {'×'.join(map(str, shape))}, not {wanted}")
