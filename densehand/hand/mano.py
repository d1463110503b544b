"""Import of a user's own MANO file, without chumpy and without running any code the file asks for.

MANO (Romero, Tzionas, Black 2017) is distributed under its own licence by its authors; nothing of it is in this
package. `import_mano` reads `MANO_RIGHT.pkl` as downloaded, by `safe_pickle.py`: the worst a hostile file can do is to
be refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from densehand.errors import DensehandError
from densehand.files import ensure_folder, write_atomically
from densehand.hand import rotations as roma
from densehand.hand.anatomy import joint_frames, joint_limits
from densehand.hand.keypoints import JOINT_PARENTS, keypoint_matrices
from densehand.hand.model import FORMAT, HandModel, quaternion_to_matrix, user_data_dir
from densehand.hand.safe_pickle import Refused, as_numbers, load_arrays

MANO_TIPS: tuple[int, ...] = (744, 320, 443, 554, 671)
"""Vertices taken as fingertips: thumb, index, middle, ring, little (the field's custom since hand3d and FreiHAND)."""

MAX_BYTES = 64 * 2**20
_SHAPES: dict[str, tuple[int, ...]] = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "f": (1538, 3),
    "kintree_table": (2, 16),
    "hands_mean": (45,),
}


def read_official_pickle(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of `MANO_RIGHT.pkl` that make up the hand, checked for shape.

    Raises DensehandError: missing, too large, truncated, not a pickle, asks for code, or of another layout.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise DensehandError(f"no file {str(path)!r}: give the path of your MANO_RIGHT.pkl")
        if path.stat().st_size > MAX_BYTES:
            raise DensehandError(f"{path} is larger than {MAX_BYTES >> 20} MiB: no MANO file is")
        data = path.read_bytes()
    except OSError as error:
        raise DensehandError(f"cannot read {path}: {error.strerror}") from error
    try:
        content = load_arrays(data)
        if not isinstance(content, dict):
            raise DensehandError(f"{path} holds a {type(content).__name__}, not MANO's dictionary: use MANO_RIGHT.pkl")
        missing = [key for key in _SHAPES if key not in content]
        if missing:
            raise DensehandError(f"{path} lacks {', '.join(missing)}: is this the official MANO_RIGHT.pkl?")
        arrays = {key: as_numbers(content[key]) for key in _SHAPES}
    except DensehandError:
        raise
    except Refused as error:
        raise DensehandError(f"{path} refused: it asks for {error}, which no MANO file needs") from None
    except Exception as error:  # a damaged pickle can fail anywhere, with anything
        raise DensehandError(f"{path} is truncated or no pickle ({type(error).__name__}: {error})") from error
    for key, shape in _SHAPES.items():
        if arrays[key].shape != shape:
            found = "×".join(map(str, arrays[key].shape)) or "a number"
            raise DensehandError(f"{path}: {key} is {found}, MANO's is {'×'.join(map(str, shape))}")
    return arrays


def _convert(mano: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """MANO's arrays → this package's, turned into the hand frame."""
    mano = {key: value.astype(np.int64 if key in ("f", "kintree_table") else np.float64) for key, value in mano.items()}
    problems = [key for key, value in mano.items() if not np.isfinite(value).all()]
    # The wrist's parent is stored as 2³²−1.
    if not np.array_equal(mano["kintree_table"][0][1:], JOINT_PARENTS[1:]):
        problems.append("kintree_table")
    if mano["f"].min() < 0 or mano["f"].max() >= 778:
        problems.append("f")
    for key, axis in (("weights", 1), ("J_regressor", 1)):
        if np.abs(mano[key].sum(axis) - 1).max() > 1e-3:
            problems.append(key)
    if problems:
        raise DensehandError(f"{path}: implausible {', '.join(problems)}: is this the official MANO_RIGHT.pkl?")

    joints = mano["J_regressor"] @ mano["v_template"]
    turn = hand_frame(joints)
    template = (mano["v_template"] - joints[0]) @ turn.T
    joints = (joints - joints[0]) @ turn.T
    # In a right hand the thumb's joints lie on the palm's side of the wrist and knuckles: −z.
    if joints[13:16, 2].mean() > 0:
        raise DensehandError(f"{path} holds a left hand: import MANO_RIGHT.pkl (left hands are its mirror image)")

    selector, order = keypoint_matrices(MANO_TIPS, 778)
    keypoints = order @ np.concatenate([joints, selector @ template])
    lower, upper = joint_limits()
    # MANO's pose correctives are linear in its own rotation matrices Qᵀ R Q.
    pose_dirs = np.einsum(
        "ex,vxjcd,ac,bd->vejab", turn, mano["posedirs"].reshape(778, 3, 15, 3, 3), turn, turn, optimize=True
    )
    arrays: dict[str, np.ndarray] = {
        "template": template,
        "shape_dirs": np.einsum("ex,vxs->ves", turn, mano["shapedirs"]),
        "pose_dirs": pose_dirs.reshape(778, 3, 135),
        "weights": mano["weights"],
        "joint_regressor": mano["J_regressor"],
        "tip_selector": selector,
        "keypoint_order": order,
        "mean_pose": (mano["hands_mean"].reshape(15, 3) @ turn.T).reshape(45),
        "joint_axes": joint_frames(torch.from_numpy(keypoints)).numpy(),
        "limits_lower": lower.numpy(),
        "limits_upper": upper.numpy(),
        "source_frame": turn,
    }
    arrays = {key: value.astype(np.float32) for key, value in arrays.items()}
    return {"format": np.array(FORMAT), "faces": mano["f"].astype(np.int32), **arrays}


def hand_frame(joints: np.ndarray) -> np.ndarray:
    """Rotation (3,3) into the hand frame (fingers −y, thumb +x, palm −z) from 16 joints in MANO's order."""
    y = joints[0] - joints[4]
    y = y / np.linalg.norm(y)
    across = joints[1] - joints[7]
    x = across - (across @ y) * y
    x = x / np.linalg.norm(x)
    return np.stack([x, y, np.cross(x, y)])


def import_mano(path: str | Path, out: str | Path | None = None) -> Path:
    """Read the official `MANO_RIGHT.pkl` and store it as an .npz for `HandModel.load("mano")`.

    `out`: another place for the file (then load it by its path). Returns the path written; a failed import leaves an
    earlier one as it was. Raises DensehandError, see `read_official_pickle`.
    """
    arrays = _convert(read_official_pickle(path), Path(path))
    target = Path(out) if out is not None else user_data_dir() / "mano.npz"
    if target.suffix != ".npz":
        raise DensehandError(f"cannot write {target}: the name must end in .npz")
    ensure_folder(target.parent)
    with write_atomically(target) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return target


def to_mano_parameters(
    model: HandModel, pose: Float[Tensor, "*b 45"], rotation: Float[Tensor, "*b 4"]
) -> tuple[Float[Tensor, "*b 45"], Float[Tensor, "*b 3"]]:
    """Pose and rotation of an imported MANO hand → MANO's own `hand_pose` (flat_hand_mean=True) and `global_orient`.

    Both axis-angle. MANO turns about its own wrist joint: compare positions relative to the wrist.
    """
    frame = model.source_frame.to(pose)
    orient = roma.rotmat_to_rotvec(quaternion_to_matrix(rotation) @ frame)
    return (pose.unflatten(-1, (15, 3)) @ frame).flatten(-2), orient


def from_mano_parameters(
    model: HandModel, hand_pose: Float[Tensor, "*b 45"], global_orient: Float[Tensor, "*b 3"]
) -> tuple[Float[Tensor, "*b 45"], Float[Tensor, "*b 4"]]:
    """Inverse of `to_mano_parameters`: (pose, rotation [w, x, y, z])."""
    frame = model.source_frame.to(hand_pose)
    rotation = roma.rotmat_to_unitquat(roma.rotvec_to_rotmat(global_orient) @ frame.mT)
    return (hand_pose.unflatten(-1, (15, 3)) @ frame.mT).flatten(-2), rotation[..., [3, 0, 1, 2]]
