"""`Hand`: what is known of one hand in one photo, and its entry in the JSON document `densehand/1` (document.py).

Frames: pixels of the full image (continuous, pixel (i, j) covers [j, j+1) × [i, i+1)); metres along the camera's axes
(x right, y down, z forward). The model inside is always a right hand: for a left hand `pose`, `shape` and `rotation`
are those of the mirrored picture (x → −x), while everything in the image or the camera frame (`keypoints_2d`,
`joints_3d`, `vertices`, `translation`) is mirrored back and shows the left hand as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from densehand.errors import InputError
from densehand.rays import turn_to_box
from densehand.refine.record import Refinement, plain

if TYPE_CHECKING:
    from densehand.hand.model import HandModel
    from densehand.render.single import Seen

SIDES = ("left", "right")

_SHAPES = {
    "box": (4,), "keypoints_2d": (21, 2), "keypoints_score": (21,), "joints_3d": (21, 3), "pose": (45,), "shape": (10,),
    "rotation": (4,), "translation": (3,), "center_px": (2,),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Hand:
    """One hand (arrays are float32 unless said otherwise).

    Attributes:
        side: "left" or "right", as the person's own.
        side_score: probability of `side`, 0.5…1 where estimated, 1 where given.
        score: confidence that a hand is there, 0…1 (docs/confidence.md).
        box: (4,) x0, y0, x1, y1, tight around the 21 keypoints, pixels.
        keypoints_2d: (21, 2) pixels of the full image; where refined by "fast" with the mesh's say (`crops.MESH_SAYS`).
        keypoints_score: (21,) probability of each keypoint to lie within a tenth of the hand's size of the true one.
        joints_3d: (21, 3) metres, camera axes, relative to the wrist.
        pose: (45,) 15 joints × axis-angle, radians (right-hand model, see the head of this file).
        shape: (10,) shape coefficients, standard deviations.
        rotation: (4,) quaternion w, x, y, z of the right-hand model.
        scale: pixels per metre at the hand's mean depth.
        translation: (3,) the wrist in the pinhole camera, metres (`rays.wrist_place`).
        focal_px: focal length, pixels (estimated from the image size unless given).
        center_px: (2,) principal point, pixels.
        vertices: (V, 3) metres, camera axes, relative to the wrist.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        refinement: what testing refinement did, None where there was none.
        keypoints_weight: (21,) the network's raw confidence in each keypoint, which refinement weighs them by; None:
            `keypoints_score` is all that is known.
        pinhole: whether the mesh was fitted under this very pinhole camera, a known one; else under weak perspective.
    """

    side: str
    side_score: float
    score: float
    box: Float32[np.ndarray, "4"]
    keypoints_2d: Float32[np.ndarray, "21 2"]
    keypoints_score: Float32[np.ndarray, "21"]
    joints_3d: Float32[np.ndarray, "21 3"]
    pose: Float32[np.ndarray, "45"]
    shape: Float32[np.ndarray, "10"]
    rotation: Float32[np.ndarray, "4"]
    scale: float
    translation: Float32[np.ndarray, "3"]
    focal_px: float
    center_px: Float32[np.ndarray, "2"]
    vertices: Float32[np.ndarray, "V 3"]
    faces: Int64[np.ndarray, "F 3"]
    refinement: Refinement | None = None
    keypoints_weight: Float32[np.ndarray, "21"] | None = None
    pinhole: bool = False

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise InputError(f"a hand's side is left or right, not {self.side!r}")
        given = {} if self.keypoints_weight is None else {"keypoints_weight": (21,)}
        for name, shape in (_SHAPES | given).items():
            value = np.asarray(getattr(self, name), dtype=np.float32)
            if value.shape != shape or not np.isfinite(value).all():
                raise InputError(f"{name} of a hand is {'×'.join(map(str, shape))} finite numbers")
            object.__setattr__(self, name, value)
        for name in ("side_score", "score", "scale", "focal_px"):
            number = float(getattr(self, name))
            if not math.isfinite(number):
                raise InputError(f"{name} of a hand is a finite number, not {number}")
            object.__setattr__(self, name, number)
        if not min(self.scale, self.focal_px, self.translation[2]) > 0:
            raise InputError("scale, focal_px and the z of translation of a hand are greater than 0")
        if not isinstance(self.refinement, Refinement | None):
            raise InputError(f"refinement of a hand is a Refinement or None, not {type(self.refinement).__name__}")
        object.__setattr__(self, "vertices", np.asarray(self.vertices, dtype=np.float32).reshape(-1, 3))
        object.__setattr__(self, "faces", np.asarray(self.faces, dtype=np.int64).reshape(-1, 3))

    @property
    def evidence_weight(self) -> Float32[np.ndarray, "21"]:
        """How much refinement goes by each keypoint, 0…1."""
        return self.keypoints_score if self.keypoints_weight is None else self.keypoints_weight

    @property
    def wrist_px(self) -> Float32[np.ndarray, "2"]:
        """The wrist's projection, pixels of the full image."""
        return (self.center_px + self.focal_px * self.translation[:2] / self.translation[2]).astype(np.float32)

    def project(self, points: Float32[np.ndarray, "N 3"]) -> Float32[np.ndarray, "N 2"]:
        """Metres relative to the wrist → pixels of the image: weak perspective along the ray to the hand (rays.py), or
        the camera's own where that is known."""
        if self.pinhole:
            from densehand.camera import project_pinhole

            place = self.translation.astype(np.float64)
            return project_pinhole(points, place, self.focal_px, self.center_px).astype(np.float32)
        seen = points @ turn_to_box(self.box, self.focal_px, self.center_px)
        return (seen[..., :2] * self.scale + self.wrist_px).astype(np.float32)

    def mask(self, size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """Which pixels of the full image (height, width) the hand's mesh covers (see `project`)."""
        picture = np.zeros(size, dtype=bool)
        for rows, columns, seen in self._seen(size):
            picture[rows, columns] = seen.column >= 0
        return picture

    def depth(self, size: tuple[int, int]) -> Float32[np.ndarray, "H W"]:
        """Depth map over the full image (height, width): metres from the camera plane, 0 where the hand is not.

        Only the pixels around the hand are rendered. The absolute distance rests on the focal length (the hand's mean
        is focal / scale); differences within the hand do not.
        """
        picture = np.zeros(size, dtype=np.float32)
        for rows, columns, seen in self._seen(size):
            z = np.append(seen.depth, np.float32(0))  # -1 is the last one
            picture[rows, columns] = z.take(seen.column, mode="wrap")
        return picture

    def screen_vertices(self) -> Float32[np.ndarray, "V 3"]:
        """Vertices as the renderer takes them: x, y in pixels of the full image, z in metres from the camera."""
        depth = self.vertices[:, 2:] + self.translation[2]
        return np.concatenate([self.project(self.vertices), depth], axis=1)

    def _seen(self, size: tuple[int, int]) -> Iterator[tuple[slice, slice, Seen]]:
        """Rows and columns of the picture around the hand, band by band, and what of the mesh is seen there."""
        from densehand.render.single import part_around, see

        screen = self.screen_vertices()
        part = part_around(screen, size)
        if part is not None:
            rows, columns = part
            corner = np.array([columns.start, rows.start, 0], np.float32)
            extent = rows.stop - rows.start, columns.stop - columns.start
            for band in see(screen - corner, self.faces, extent, screen[:, :0]):
                yield slice(rows.start + band.rows.start, rows.start + band.rows.stop), columns, band

    def to_json_dict(self) -> dict[str, Any]:
        """The hand's entry in the document `densehand/1` (plain numbers and lists; float32 survives exactly)."""
        record: dict[str, Any] = {
            "side": self.side,
            "side_score": plain(self.side_score),
            "score": plain(self.score),
            "box": plain(self.box),
            "keypoints_2d": plain(self.keypoints_2d),
            "keypoints_score": plain(self.keypoints_score),
            "joints_3d": plain(self.joints_3d),
            "pose": plain(self.pose),
            "shape": plain(self.shape),
            "rotation": plain(self.rotation),
            "scale": plain(self.scale),
            "translation": plain(self.translation),
            "camera": {"focal_px": plain(self.focal_px), "center_px": plain(self.center_px)},
        }
        if self.pinhole:
            record["camera"]["projection"] = "pinhole"
        if self.keypoints_weight is not None:
            record["keypoints_weight"] = plain(self.keypoints_weight)
        return record if self.refinement is None else record | {"refinement": asdict(self.refinement)}

    @classmethod
    def from_json_dict(cls, record: dict[str, Any], hand_model: HandModel) -> Hand:
        """Rebuild a hand from its JSON entry; the mesh is made anew from pose and shape.

        Args:
            record: an entry of "hands".
            hand_model: the hand model the entry was made with.

        Errors:
            InputError: an entry is missing or malformed, or the model does not give the entry's joints (another model).
        """
        try:
            camera = record["camera"]
            entries = {name: record[name] for name in _SHAPES if name != "center_px"}
            entries |= {name: record[name] for name in ("side", "side_score", "score", "scale")}
            entries |= {"focal_px": camera["focal_px"], "center_px": camera["center_px"]}
            entries["keypoints_weight"] = record.get("keypoints_weight")
            entries["pinhole"] = camera.get("projection") == "pinhole"
            if record.get("refinement") is not None:
                entries["refinement"] = Refinement.from_json_dict(record["refinement"])
            arrays = {n: np.asarray(entries[n], dtype=np.float32) for n in ("pose", "shape", "rotation")}
            for name, values in arrays.items():
                if values.shape != _SHAPES[name]:
                    raise ValueError(f"{name} has {values.size} numbers")
            vertices, joints, faces = posed_mesh(hand_model, **arrays, side=entries["side"])
            hand = cls(**entries, vertices=vertices, faces=faces)
        except KeyError as error:
            raise InputError(f"a hand in the JSON lacks {error}; write it with densehand predict") from error
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"a hand in the JSON is malformed ({error}); write it with densehand predict") from error
        if not np.abs(hand.joints_3d - joints).max() <= 1e-3:  # nor where a wild pose gives no numbers
            raise InputError(
                f"hand model {hand_model.name!r} does not give the joints in the JSON; name the one used with --hand"
            )
        return hand


def posed_mesh(
    hand_model: HandModel, pose: np.ndarray, shape: np.ndarray, rotation: np.ndarray, side: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mesh of one hand: vertices (V, 3) and joints (21, 3) in metres from the wrist, camera axes; faces (F, 3).

    A left hand is the exact mirror of the right one; its faces turn round so that outside stays outside.
    """
    import torch

    with torch.no_grad():
        mesh = hand_model(*(torch.as_tensor(value).to(hand_model.template) for value in (pose, shape, rotation)))
    vertices, joints = (points.float().cpu().numpy().copy() for points in mesh)
    return mirrored_if_left(vertices, side), mirrored_if_left(joints, side), faces_of(hand_model, side)


def mirrored_if_left(points: np.ndarray, side: str) -> np.ndarray:
    """x → −x for a left hand (*b 3), as a new array."""
    return points * np.array([-1 if side == "left" else 1, 1, 1], dtype=points.dtype)


def faces_of(hand_model: HandModel, side: str) -> np.ndarray:
    """(F, 3) int64 faces, counter-clockwise from outside for the given side."""
    faces = hand_model.faces.detach().cpu().numpy()
    return np.ascontiguousarray(faces[:, ::-1]) if side == "left" else faces
