"""Refinement of one hand from several pictures: views of one moment, or frames of a film.

Views share pose and shape, frames the shape alone; each picture has its own camera, weak perspective unless the cameras
are known. The energy is the sum of the pictures' own (`refine/fast.py`): their 2D keypoints, and their single estimates
as what is likely. Levenberg-Marquardt lowers it over all pictures' numbers at once (`hand/levenberg.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from densehand.camera import Crop
from densehand.errors import InputError
from densehand.hand import rotations as roma
from densehand.hand.articulate import ANGLES, SHAPE, TRANSLATION, TURN, left_jacobian
from densehand.hand.levenberg import Local, Solution, minimise
from densehand.hand.model import HandModel
from densehand.network.mesh import MeshParameters, decode, encode
from densehand.rays import turn_rotation, turn_to_box, wrist_place
from densehand.refine.cameras import KnownCamera, KnownProblem
from densehand.refine.fast import FastProblem, FastWeights
from densehand.refine.modes import FAST, FAST_STEPS, FRAMES, VIEWS
from densehand.refine.record import Refinement
from densehand.result import Hand, mirrored_if_left, posed_mesh

MOST_FRAMES = 40
"""One matrix holds the derivatives of all frames; beyond this many it would need seconds a step."""

SMOOTHED = [*range(ANGLES.start, ANGLES.stop), *range(TURN.start, TURN.stop)]
"""Of a frame's 62 numbers those that smoothing holds near the next frame's: with the angles alone held, the turn would
swing all the more to keep to the keypoints."""


@torch.no_grad()
def refine_views(
    model: HandModel,
    hands: Sequence[Hand],
    mode: str = VIEWS,
    cameras: Sequence[KnownCamera] | None = None,
    smooth: float | None = None,
    weights: FastWeights | None = None,
    iterations: int | None = None,
) -> list[Hand]:
    """The same hand in several pictures, refined together; their joint energy never rises.

    Args:
        model: the hand model the hands are of.
        hands: earlier estimates of one hand, one a picture, all of one side; frames in the order of time. Their
            `keypoints_2d` and `evidence_weight` are the evidence, pose, shape and camera the start.
        mode: "views" (one pose), "frames" (a pose each), or "fast" for a single hand.
        cameras: of the pictures, for views; the hands then come back in those cameras, in true size and place.
        smooth: frames only: usual change of a joint angle, and of the hand's turn about an axis, from one frame to the
            next, radians; None: any.
        weights, iterations: see `densehand.refine.fast`; by default a prior that counts once for all views, and at
            most 5 iterations for a single hand, else 15.

    Returns:
        The hands in their order; box and keypoints are as they were.

    Errors:
        InputError: no hand, different sides, too many frames, cameras that do not fit the hands or do not see them.
    """
    _check(hands, mode, cameras, smooth)
    crops = [Crop.from_box(hand.box, mirrored=hand.side == "left") for hand in hands]
    pairs = list(zip(hands, crops, strict=True))
    keypoints = torch.from_numpy(np.stack([crop.to_crop(hand.keypoints_2d.astype(float)) for hand, crop in pairs]))
    confidence = torch.from_numpy(np.stack([hand.evidence_weight for hand in hands])).double()
    h = torch.cat([_encoded(hand, crop) for hand, crop in pairs])
    # views of one pose share what is wrong with their estimates: together they are one prior, not several
    weights = weights or FastWeights(prior=FastWeights.prior / (len(hands) if mode == VIEWS else 1))
    if cameras is None:
        problem = FastProblem(model, h, keypoints, confidence, weights)
    else:
        seen = [camera.mirrored() if hands[0].side == "left" else camera for camera in cameras]
        problem = KnownProblem(model, h, keypoints, confidence, weights, seen, crops)
    if iterations is None:
        iterations = FAST_STEPS if mode == FAST else 15
    joint = JointProblem(problem, _columns(len(hands), mode, cameras is not None), smooth)
    found = minimise(joint.look, joint.start, joint.lower, joint.upper, joint.stride, iterations, 1e-3)
    rows = joint.spread(found.state)
    parameters = decode(problem.parameters(rows))
    refined = []
    for k, (hand, crop) in enumerate(pairs):
        if isinstance(problem, KnownProblem) and cameras is not None:
            wrist = problem.turns[k] @ rows[k, TRANSLATION] + problem.shifts[k]
            moved = _in_camera(model, hand, cameras[k], parameters, problem.turns[k], wrist, k)
        else:
            moved = _in_photo(model, hand, crop, parameters, k)
        refined.append(_noted(hand, moved, mode, found))
    return refined


class JointProblem:
    """The pictures' energies summed, as a function of all their numbers: `columns[v, i]` is where row v keeps its i."""

    def __init__(self, problem: FastProblem, columns: Int[Tensor, "v 62"], smooth: float | None = None) -> None:
        self.problem, self.columns, self.smooth = problem, columns, smooth
        size = int(columns.max()) + 1
        flat, like = columns.flatten(), problem.start
        count = like.new_zeros(size).index_add(0, flat, torch.ones_like(like).flatten())
        self.start = (like.new_zeros(size).index_add(0, flat, like.flatten()) / count)[None]
        edges = (
            like.new_empty(size).scatter_reduce(0, flat, bound.flatten(), kind, include_self=False)
            for bound, kind in ((problem.lower, "amin"), (problem.upper, "amax"))
        )
        self.lower, self.upper = edges
        self.stride = like.new_empty(size).scatter_(0, flat, problem.stride.repeat(len(columns)))
        self.square = (columns[:, :, None] * size + columns[:, None, :]).flatten()

    def spread(self, state: Float[Tensor, "1 p"]) -> Float[Tensor, "v 62"]:
        """Each picture's own numbers."""
        return state[0, self.columns]

    def look(self, state: Float[Tensor, "1 p"]) -> Local:
        rows = self.spread(state)
        local, size = self.problem.look(rows), state.shape[1]
        energy = local.energy.sum()
        gradient = state.new_zeros(size).index_add(0, self.columns.flatten(), local.gradient.flatten())
        curvature = state.new_zeros(size * size).index_add(0, self.square, local.curvature.flatten())
        if self.smooth is not None:
            step, by = self.steps(rows)
            places = torch.cat([self.columns[:-1, SMOOTHED], self.columns[1:, SMOOTHED]], dim=1)
            energy = energy + step.square().sum()
            gradient = gradient.index_add(0, places.flatten(), (step[:, None] @ by).flatten())
            square = (places[:, :, None] * size + places[:, None]).flatten()
            curvature = curvature.index_add(0, square, (by.mT @ by).flatten())
        return Local(energy[None], gradient[None], curvature.view(1, size, size))

    def steps(self, rows: Float[Tensor, "v 62"]) -> tuple[Float[Tensor, "t 54"], Float[Tensor, "t 54 96"]]:
        """What smoothing holds small, in units of `smooth`: the changes from each frame to the next (t = v − 1), and
        their derivatives by the `SMOOTHED` numbers of both.

        45 changes of angles, and the difference of the hands' rotation matrices over √2: it is of length 2 sin(θ/2)
        for a turn by θ, and has no seam at half a turn.
        """
        assert self.smooth is not None
        turn = rows[:, TURN]
        matrix = roma.rotvec_to_rotmat(turn) @ self.problem.base
        # frame, entry of turn, column, xyz
        swept = torch.linalg.cross(left_jacobian(turn).mT[:, :, None], matrix.mT[:, None])
        place = torch.cat([rows[:, ANGLES], matrix.mT.flatten(1) / 2**0.5], dim=1)
        by = rows.new_zeros(len(rows), 54, 48)
        by[:, :45, :45] = torch.eye(45)
        by[:, 45:, 45:] = swept.flatten(2).mT / 2**0.5
        return (place[1:] - place[:-1]) / self.smooth, torch.cat([-by[:-1], by[1:]], dim=2) / self.smooth


def _check(hands: Sequence[Hand], mode: str, cameras: Sequence[KnownCamera] | None, smooth: float | None) -> None:
    if mode not in (FAST, VIEWS, FRAMES):
        raise InputError(f"mode {mode!r}: use {VIEWS}, {FRAMES} or {FAST}")
    if not hands:
        raise InputError("there is no hand to refine; give at least one")
    if mode == FAST and len(hands) > 1:
        raise InputError(f"{len(hands)} hands are refined together as {VIEWS} or {FRAMES}; name one of them")
    for number, hand in enumerate(hands):
        if hand.side != hands[0].side:
            raise InputError(
                f"picture {number} shows a {hand.side} hand, picture 0 a {hands[0].side} one; give one hand"
            )
    if mode == FRAMES and len(hands) > MOST_FRAMES:
        raise InputError(f"{len(hands)} frames are too many at a time; give {MOST_FRAMES} or fewer")
    if smooth is not None and (mode != FRAMES or not (np.isfinite(smooth) and smooth > 0)):
        raise InputError(f"smooth is a positive number of radians, for {FRAMES} only")
    if cameras is not None:
        if mode != VIEWS or len(cameras) != len(hands):
            raise InputError(
                f"known cameras are for {VIEWS}, one a hand; there are {len(cameras)} for {len(hands)} hands"
            )
        if len(hands) < 2:
            raise InputError("one known camera gives no depth; give two views or more, or leave out the cameras")


def _columns(count: int, mode: str, known: bool) -> Int[Tensor, "v 62"]:
    """Where each picture's 62 numbers lie among all: what is shared has one place."""
    shared = torch.zeros(62, dtype=torch.bool)
    shared[SHAPE] = True
    shared[ANGLES] = mode != FRAMES
    shared[TURN.start :] = known
    common, own = int(shared.sum()), 62 - int(shared.sum())
    columns = torch.empty(count, 62, dtype=torch.long)
    columns[:, shared] = torch.arange(common)
    columns[:, ~shared] = common + torch.arange(count * own).view(count, own)
    return columns


def _encoded(hand: Hand, crop: Crop) -> Float[Tensor, "1 63"]:
    """h of a hand in its crop, which looks along the ray to it."""
    wrist = np.append(crop.to_crop(hand.wrist_px.astype(float)), 0.0)
    rotation = turn_rotation(_turn(hand).T, hand.rotation)
    values = (hand.pose, hand.shape, rotation, np.float64(hand.scale / crop.half_side), wrist)
    return encode(MeshParameters(*(torch.as_tensor(value).double()[None] for value in values)))


def _turn(hand: Hand) -> np.ndarray:
    """From the axes of the hand's crop to its camera's, for the right hand inside."""
    return turn_to_box(hand.box, hand.focal_px, hand.center_px, mirrored=hand.side == "left")


def _posed(model: HandModel, hand: Hand, parameters: MeshParameters, rotation: np.ndarray, k: int) -> Hand:
    """The hand with row k's pose and shape under `rotation`, where it was."""
    pose, shape = parameters.pose[k].numpy(), parameters.shape[k].numpy()
    vertices, joints, faces = posed_mesh(model, pose, shape, rotation, hand.side)
    return replace(hand, pose=pose, shape=shape, rotation=rotation, vertices=vertices, joints_3d=joints, faces=faces)


def _in_photo(model: HandModel, hand: Hand, crop: Crop, parameters: MeshParameters, k: int) -> Hand:
    """Row k in the photo, under the camera the hand has."""
    moved = _posed(model, hand, parameters, turn_rotation(_turn(hand), parameters.rotation[k].numpy()), k)
    scale = float(parameters.scale[k]) * crop.half_side
    wrist = crop.to_image(parameters.translation[k, :2].numpy())
    place = wrist_place(scale, wrist, moved.joints_3d, hand.focal_px, hand.center_px)
    return replace(moved, scale=scale, translation=place, pinhole=False)


def _in_camera(
    model: HandModel, hand: Hand, camera: KnownCamera, parameters: MeshParameters, turn: Tensor, wrist: Tensor, k: int
) -> Hand:
    """Row k in its known camera: `turn` is the (mirrored) camera's, `wrist` lies in its frame, metres."""
    rotation = turn_rotation(turn.numpy(), parameters.rotation[k].numpy())
    moved = _posed(model, hand, parameters, rotation, k)
    place = mirrored_if_left(wrist.numpy(), hand.side)
    return replace(
        moved,
        scale=camera.focal_px / (place[2] + moved.joints_3d[:, 2].mean()),
        translation=place,
        focal_px=camera.focal_px,
        center_px=camera.intrinsics[2:],
        pinhole=True,
    )


def _noted(before: Hand, after: Hand, mode: str, found: Solution) -> Hand:
    """`after` with what the joint refinement did."""
    first, last = (hand.project(hand.joints_3d) for hand in (before, after))
    gap = np.linalg.norm(last - after.keypoints_2d, axis=1)
    note = Refinement(
        mode=mode,
        steps=int(found.steps[0]),
        converged=bool(found.converged[0]),
        moved_px=float(np.linalg.norm(last - first, axis=1).mean()),
        energy_before=float(found.first[0]),
        energy_after=float(found.energy[0]),
        residual_px=float(gap @ before.evidence_weight / max(before.evidence_weight.sum(), 1e-9)),
    )
    return replace(after, refinement=note)
