"""Known cameras for refinement from several views: their file, triangulation, and the energy under them.

A camera takes a point of the world X (metres) to its own frame, R · X + t (x right, y down, z forward), and from there
to pixels, (fx · x/z + cx, fy · y/z + cy); pictures are free of lens distortion. For a left hand the world and the
cameras are mirrored (x → −x), as the crops are, so that the hand inside is a right one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from densehand.camera import Crop, project_pinhole
from densehand.errors import InputError
from densehand.files import read_json
from densehand.hand import rotations as roma
from densehand.hand.articulate import LOG_SCALE, TRANSLATION, TURN, place
from densehand.hand.levenberg import Local
from densehand.hand.model import HandModel
from densehand.refine.fast import FastProblem, FastWeights
from densehand.refine.prior import load_precision

NEAREST = 0.01  # metres before a camera: what comes closer has no image
PARALLEL = 1e-4  # least share of a sideways look, sin² of about half a degree, that gives a depth


@dataclass(frozen=True, eq=False)
class KnownCamera:
    """Intrinsics fx, fy, cx, cy in pixels, and world → camera: rotation 3×3, translation in metres.

    Errors:
        InputError: not finite, of another form, a focal length that is not positive, or a matrix that is no rotation.
    """

    intrinsics: Float64[np.ndarray, "4"]
    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, "3"]

    def __post_init__(self) -> None:
        for name, form in (("intrinsics", (4,)), ("rotation", (3, 3)), ("translation", (3,))):
            try:
                value = np.asarray(getattr(self, name), dtype=np.float64)
            except (TypeError, ValueError, OverflowError):
                value = np.zeros(0)
            if value.shape != form or not np.isfinite(value).all():
                raise InputError(f"{name} of a camera is {'×'.join(map(str, form))} finite numbers")
            object.__setattr__(self, name, value)
        if self.intrinsics[:2].min() <= 0:
            raise InputError("the focal lengths of a camera are positive numbers of pixels")
        off = np.abs(self.rotation @ self.rotation.T - np.eye(3)).max()
        if off > 1e-3 or np.linalg.det(self.rotation) < 0:
            raise InputError("rotation of a camera is no rotation matrix (world → camera, rows of unit length)")

    def mirrored(self) -> KnownCamera:
        """The camera of the mirrored world (x → −x); its principal point stays with the picture, see `in_crop`."""
        flip = np.diag([-1.0, 1.0, 1.0])
        return KnownCamera(self.intrinsics, flip @ self.rotation @ flip, flip @ self.translation)

    def pixels(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        """Where points in the camera's frame, metres, are seen; NaN on or behind its plane."""
        flat = project_pinhole(points, np.zeros(3), np.ones(()), np.zeros(2))
        return flat * self.intrinsics[:2] + self.intrinsics[2:]

    @property
    def focal_px(self) -> float:
        """One focal length for both axes, pixels: the geometric mean."""
        return float(np.sqrt(self.intrinsics[0] * self.intrinsics[1]))

    def in_crop(self, crop: Crop) -> tuple[np.ndarray, np.ndarray]:
        """Focal lengths and principal point (2 each) in units of a crop: points are focal · (x, y)/z + centre."""
        return self.intrinsics[:2] / crop.half_side, crop.to_crop(self.intrinsics[2:])


def read_cameras(path: str | Path) -> dict[str, KnownCamera]:
    """Cameras by the file name of their picture: {"NAME.jpg": {"intrinsics", "rotation", "translation"}, …}.

    Errors:
        InputError: the file cannot be read, is no such object, or a camera in it is malformed.
    """
    record = read_json(path, "see docs/refinement.md")
    if not isinstance(record, dict):
        raise InputError(f'{path}: cameras are an object {{"NAME.jpg": {{...}}}}, not a {type(record).__name__}')
    cameras = {}
    for name, entry in record.items():
        keys = ("intrinsics", "rotation", "translation")
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise InputError(f"{path}: {name!r} is no object with {', '.join(keys)}; see docs/refinement.md")
        try:
            cameras[name] = KnownCamera(*(entry[key] for key in keys))
        except InputError as error:
            raise InputError(f"{path}: {name!r}: {error}; see docs/refinement.md") from error
    return cameras


def triangulate(
    rays: Float[Tensor, "v k 3"], centres: Float[Tensor, "v 3"], weight: Float[Tensor, "v k"]
) -> Float[Tensor, "k 3"]:
    """The points nearest to all their rays (unit directions from the cameras' centres), by weighted least squares.

    Errors:
        InputError: the rays run side by side, so that they meet nowhere.
    """
    across = torch.eye(3).to(rays) - rays[..., :, None] * rays[..., None, :]
    share = (weight / weight.sum(0).clamp_min(1e-12))[..., None, None]
    matrix = (share * across).sum(0)
    if torch.linalg.eigvalsh(matrix)[:, 0].median() < PARALLEL:
        raise InputError("the cameras see the hand from the same direction: no depth can be had; leave out --cameras")
    matrix = matrix + 1e-9 * torch.eye(3).to(rays)
    return torch.linalg.solve(matrix, (share * across @ centres[:, None, :, None]).sum(0))[..., 0]


class KnownProblem(FastProblem):
    """The energy of one hand in the world under known cameras, one row a view, by `articulate.place`'s 62 numbers.

    Rows are all the same state: turn and translation place the hand in the world (metres), log scale stays 0. The terms
    that hold depth and camera near the single estimates are left out, as the cameras are known.
    """

    def __init__(
        self,
        hand: HandModel,
        h: Float[Tensor, "v 63"],
        keypoints: Float[Tensor, "v 21 2"],
        confidence: Float[Tensor, "v 21"],
        weights: FastWeights,
        cameras: Sequence[KnownCamera],
        crops: Sequence[Crop],
    ) -> None:
        super().__init__(hand, h, keypoints, confidence, weights)
        like = self.start
        self.turns, self.shifts = (
            torch.as_tensor(np.stack([getattr(c, name) for c in cameras])).to(like)
            for name in ("rotation", "translation")
        )
        lenses = [camera.in_crop(crop) for camera, crop in zip(cameras, crops, strict=True)]
        self.focal, self.centre = (torch.as_tensor(np.stack(column)).to(like) for column in zip(*lenses, strict=True))

        beam = torch.nn.functional.pad((self.keypoints - self.centre[:, None]) / self.focal[:, None], (0, 1), value=1.0)
        rays = torch.nn.functional.normalize(beam, dim=-1) @ self.turns  # rows: Rᵀ · beam
        centres = -(self.shifts[:, None] @ self.turns)[:, 0]
        seen = triangulate(rays, centres, self.confidence + 1e-6)
        middle = self.start.mean(0, keepdim=True)
        middle[:, TURN], middle[:, LOG_SCALE], middle[:, TRANSLATION] = 0.0, 0.0, 0.0
        skeleton = place(self.articulation, middle, torch.eye(3).to(like)[None])[0][0]
        base, shift = roma.rigid_points_registration(skeleton, seen, self.confidence.sum(0) + 1e-6)
        self.base = base.expand(len(like), 3, 3)
        self.start[:, TURN], self.start[:, LOG_SCALE], self.start[:, TRANSLATION] = 0.0, 0.0, shift
        self.lower[:, TURN.start :], self.upper[:, TURN.start :] = -torch.inf, torch.inf
        self.lower[:, LOG_SCALE] = self.upper[:, LOG_SCALE] = 0.0
        self.trust = weights.prior * load_precision(hand, TURN.start).to(like)
        if (self.project(self.start)[1] <= NEAREST).any():
            raise InputError("the hand lies behind a camera; check rotation and translation (world → camera)")

    def project(self, state: Float[Tensor, "v 62"]) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints in the crops (v 21 2), their depth (v 21), and the derivatives of the former (v 21 2 62)."""
        points, by = place(self.articulation, state, self.base)
        points = points @ self.turns.mT + self.shifts[:, None]
        by = self.turns[:, None] @ by
        depth = points[..., 2]
        flat = points[..., :2] / depth[..., None]
        slope = (by[..., :2, :] - flat[..., None] * by[..., 2:, :]) * (self.focal[:, None] / depth[..., None])[
            ..., None
        ]
        return flat * self.focal[:, None] + self.centre[:, None], depth, slope

    def look(self, state: Float[Tensor, "v 62"]) -> Local:
        points, depth, by = self.project(state)
        energy, pull, off = self.draw(points)
        # behind a camera there is no picture: such a step is never taken
        energy = torch.where((depth > NEAREST).all(-1), energy, torch.inf)
        return self.local(energy, pull, off, by, state)
