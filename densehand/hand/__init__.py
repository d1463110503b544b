"""The parametric hand: model, keypoints, anatomy, import of a user's own MANO file."""

from densehand.hand.anatomy import anatomical_to_pose, clamp_pose, pose_to_anatomical
from densehand.hand.keypoints import BONES, FINGERS, FINGERTIPS, KEYPOINT_NAMES
from densehand.hand.model import HandMesh, HandModel, mirror_faces, mirror_mesh

__all__ = [
    "BONES",
    "FINGERS",
    "FINGERTIPS",
    "KEYPOINT_NAMES",
    "HandMesh",
    "HandModel",
    "anatomical_to_pose",
    "clamp_pose",
    "mirror_faces",
    "mirror_mesh",
    "pose_to_anatomical",
]
