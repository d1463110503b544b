"""The network on crops of photos: pixels in, its answer on the CPU out.

Asked for a crop, the network is shown the middle `SHOWN` of it, turned as the look asks; what it says is carried back
to the units of the whole crop as it lies in the photo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8

from densehand.camera import SHOWN, Crop, in_plane
from densehand.hand import HandModel
from densehand.hand.numpy_skin import mesh_of
from densehand.hand.vector_skeleton import FEW
from densehand.network.engine import to_batch
from densehand.network.mesh import MeshParameters, decode, rescaled, turned
from densehand.network.single import decode_few
from densehand.photo import Photo
from densehand.refine.modes import FAST, PAPER
from densehand.refine.record import Refinement
from densehand.resample import crop_image
from densehand.retarget import retarget

if TYPE_CHECKING:
    from densehand.network.estimator import DHPE, Estimate
    from densehand.network.together import Together
    from densehand.refine.refined import Refined

MESH_SAYS = 0.35
"""Share of the refined mesh in the 2D keypoints: its errors and the evidence's partly cancel (docs/refinement.md)."""

CERTAIN = 6.0
"""Log-odds of one witness are cut here: none is ever surer than 400 : 1."""


class Look(NamedTuple):
    """What the network is asked for: a crop of the photo of that number, its pixels turned inside it by `turn` radians
    (`Crop.crop_to_image_affine`)."""

    photo: int
    crop: Crop
    turn: float = 0.0


class Meshes:
    """The hands of a batch in the parameters of the result's hand model, and their meshes, made when somebody asks for
    them: most looks at a crop are asked for less."""

    def __init__(self, own: HandModel, hand: HandModel, h: torch.Tensor, skeleton: torch.Tensor | None = None) -> None:
        """`h` (b 63): of the network's `own` hand model. `skeleton` (b 21 3): the keypoints that h has in the crop,
        crop units, where they are known."""
        self.own, self.hand, self.h, self.skeleton = own, hand, h, skeleton

    @cached_property
    def parameters(self) -> MeshParameters:
        """Decoded; of another hand model fitted to the joints of the own one."""
        few = self.h.device.type == "cpu" and len(self.h) <= FEW
        parameters = decode_few(self.h) if few else decode(self.h)
        if self.hand is self.own:
            return parameters
        joints = self.own.skeleton(parameters.pose, parameters.shape, parameters.rotation)
        return retarget(self.hand, parameters, joints)

    @cached_property
    def decoded(self) -> dict[str, np.ndarray]:
        """`parameters` by name."""
        return {name: value.float().cpu().numpy() for name, value in self.parameters._asdict().items()}

    @cached_property
    def arrays(self) -> tuple[Float[np.ndarray, "b V 3"], Float[np.ndarray, "b 21 3"]]:
        """Vertices and joints, metres."""
        pose, shape, rotation = self.parameters[:3]
        if pose.device.type == "cpu" and len(pose) <= FEW:
            columns = (value.numpy() for value in (pose, shape, rotation))
            vertices, joints = zip(*map(mesh_of(self.hand), *columns), strict=True)
            return np.stack(vertices), np.stack(joints).astype(np.float32)
        with torch.no_grad():
            mesh = self.hand(pose, shape, rotation)
        return mesh.vertices.float().cpu().numpy(), mesh.joints.float().cpu().numpy()

    @cached_property
    def projected(self) -> Float[np.ndarray, "b 21 2"]:
        """The keypoints in the crop, crop units (they may lie outside it)."""
        if self.skeleton is not None:
            return self.skeleton[..., :2].float().cpu().numpy()
        scale, place = self.decoded["scale"], self.decoded["translation"][:, :2]
        return scale[:, None, None] * self.arrays[1][..., :2] + place[:, None]


@dataclass(frozen=True)
class CropAnswer:
    """What the network says of one crop (crop units and metres, a right hand)."""

    keypoints: np.ndarray  # the 2D evidence, `Estimate.keypoints_2d`; after the fast refinement with the mesh's say
    confidence: np.ndarray  # probability of each keypoint (`network.calibration`)
    weight: np.ndarray  # the network's raw confidence, which refinement goes by
    code: np.ndarray  # the network's own 63 numbers
    meshes: Meshes  # of the batch it was read in …
    row: int  # … and its place there
    right: float  # log-odds of a right hand in the photo
    hand: float  # the network's raw log-odds of a hand …
    present: float  # … and the probability of one (`network.calibration`)
    refinement: Refinement | None = None  # lengths in crop units

    @property
    def h(self) -> dict[str, np.ndarray]:
        """Decoded, in the parameters of the result's hand model."""
        return {name: value[self.row] for name, value in self.meshes.decoded.items()}

    @property
    def vertices(self) -> Float[np.ndarray, "V 3"]:
        return self.meshes.arrays[0][self.row]

    @property
    def joints(self) -> Float[np.ndarray, "21 3"]:
        return self.meshes.arrays[1][self.row]

    @property
    def projected(self) -> Float[np.ndarray, "21 2"]:
        """The mesh's keypoints in the crop, crop units (they may lie outside it)."""
        return self.meshes.projected[self.row]


class CropReader:
    """Runs a network on crops, `batch` at a time; `hand` is the hand model of the answers."""

    def __init__(self, network: DHPE | Together, hand: HandModel, device: torch.device, batch: int) -> None:
        self.network, self.hand, self.device, self.batch = network, hand, device, batch

    def run(self, photos: Sequence[Photo], looks: Sequence[Look], refine: int = 0) -> list[CropAnswer]:
        """The answer on each crop, after `refine` steps of testing refinement."""
        answers: list[CropAnswer] = []
        for start in range(0, len(looks), self.batch):
            part = looks[start : start + self.batch]
            images = to_batch(_pixels(photos, part, SHOWN, self.network.config.input_size), self.device)
            estimate = self.network(images)
            refined = self._refined(images, estimate, refine)
            read = self._read(estimate, refined, part)
            if refined is not None:
                notes = zip(read, _notes(PAPER, refined), strict=True)
                read = [replace(answer, refinement=note.scaled(SHOWN)) for answer, note in notes]
            answers += read
        return answers

    def refine_fast(self, answers: list[CropAnswer]) -> list[CropAnswer]:
        """The answers after the fast refinement (`densehand/refine/fast.py`); the network is not run."""
        from densehand.refine.fast import refine_fast

        refined: list[CropAnswer] = []
        for start in range(0, len(answers), self.batch):
            part = answers[start : start + self.batch]
            h, keypoints, confidence = (
                torch.from_numpy(np.stack([getattr(answer, name) for answer in part])).to(self.device)
                for name in ("code", "keypoints", "weight")
            )
            found = refine_fast(self.network.hand, h, keypoints, confidence)
            rows = zip(part, self._meshes(found.h), _notes(FAST, found), strict=True)
            refined += [_with_its_say(replace(answer, **mesh, refinement=note)) for answer, mesh, note in rows]
        return refined

    def consensus(
        self, photos: Sequence[Photo], looks: Sequence[Look], answers: Sequence[CropAnswer]
    ) -> list[CropAnswer]:
        """The answers with the mean over several views of each crop in place of mesh, keypoints and confidence."""
        from densehand.views import CONSENSUS, REACH, consensus, look, to_crop

        agreed: list[CropAnswer] = []
        size = round(REACH * self.network.config.input_size)
        for start in range(0, len(looks), self.batch):
            part = looks[start : start + self.batch]
            images = torch.from_numpy(_pixels(photos, part, REACH, size)).to(self.device)
            centre = torch.zeros(len(part), 2, device=self.device)
            half = torch.full((len(part),), 1 / REACH, device=self.device)
            mesh, keypoints, confidence = consensus(look(self.network, images, centre, half, CONSENSUS, masks=False))
            points, sure = (keypoints * REACH).float().cpu().numpy(), confidence.float().cpu().numpy()
            points, meshes = self._turned_back(part, points, to_crop(mesh, centre, half))
            likely = self.network.calibration.keypoints(sure)
            rows = zip(answers[start : start + self.batch], meshes, points, likely, sure, strict=True)
            agreed += [replace(answer, keypoints=p, confidence=c, weight=w, **m) for answer, m, p, c, w in rows]
        return agreed

    def _refined(self, images: torch.Tensor, estimate: Estimate, steps: int) -> Refined | None:
        if steps == 0:
            return None
        from densehand.refine.paper import refine_estimate

        return refine_estimate(self.network, images, estimate, steps=steps)

    def _read(self, estimate: Estimate, refined: Refined | None, part: Sequence[Look]) -> list[CropAnswer]:
        """Bring a batch's answers to the CPU, one a look, their scores calibrated."""
        h, skeleton = (estimate.parameters[-1], estimate.skeletons[-1]) if refined is None else (refined.h, None)
        calibration = self.network.calibration
        columns: dict[str, np.ndarray] = {
            name: value.float().cpu().numpy()
            for name, value in {
                "keypoints": SHOWN * estimate.keypoints_2d, "confidence": estimate.keypoint_confidence,
                "side": estimate.side_logit, "hand": estimate.hand_logit,
            }.items()
        }  # fmt: skip
        likely = calibration.keypoints(columns["confidence"])
        sides = [min(max(calibration.side(odds), -CERTAIN), CERTAIN) for odds in columns["side"].tolist()]
        known = None if skeleton is None else SHOWN * skeleton
        points, meshes = self._turned_back(part, columns["keypoints"], rescaled(h, SHOWN), known)
        return [
            CropAnswer(
                keypoints=points[k],
                confidence=likely[k],
                weight=columns["confidence"][k],
                **mesh,
                right=sides[k] * (-1 if look.crop.mirrored else 1),
                hand=float(columns["hand"][k]),
                present=probability(calibration.hand(float(columns["hand"][k]))),
            )
            for k, (look, mesh) in enumerate(zip(part, meshes, strict=True))
        ]

    def _turned_back(
        self,
        looks: Sequence[Look],
        points: Float[np.ndarray, "b 21 2"],
        h: torch.Tensor,
        skeleton: torch.Tensor | None = None,
    ) -> tuple[Float[np.ndarray, "b 21 2"], list[dict[str, Any]]]:
        """Keypoints, and `_meshes` of h, said of turned pixels: in the crops as they lie in the photos."""
        if any(look.turn for look in looks):
            angles = np.array([look.turn for look in looks], np.float32)
            points, skeleton = points @ in_plane(angles).swapaxes(1, 2), None
            h = turned(h, torch.from_numpy(angles).to(h))
        return points, self._meshes(h, skeleton)

    def _meshes(self, h: torch.Tensor, skeleton: torch.Tensor | None = None) -> list[dict[str, Any]]:
        """For each h, the entries of `CropAnswer` that follow from it; `skeleton`: its own in the crop, where known."""
        meshes = Meshes(self.network.hand, self.hand, h, skeleton)
        return [{"code": code, "meshes": meshes, "row": k} for k, code in enumerate(h.float().cpu().numpy())]


def _pixels(
    photos: Sequence[Photo], looks: Sequence[Look], zoom: float, size: int
) -> UInt8[np.ndarray, "b size size 3"]:
    """What is shown of each look: its crop `zoom` times as wide."""
    cut = [(photos[index].image, crop.times(zoom), turn) for index, crop, turn in looks]
    return np.stack([crop_image(image, crop, size, turn=turn) for image, crop, turn in cut])


def _with_its_say(answer: CropAnswer) -> CropAnswer:
    """The answer with the refined mesh's share in the keypoints."""
    return replace(answer, keypoints=answer.keypoints + MESH_SAYS * (answer.projected - answer.keypoints))


def _notes(mode: str, refined: Refined) -> list[Refinement]:
    """What the result says of each hand's refinement, lengths in crop units."""
    columns = (refined.steps, refined.converged, refined.moved, refined.before, refined.after, refined.residual)
    return [Refinement(mode, *row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def log_odds(probability: float) -> float:
    """Log-odds of a probability, cut at ±CERTAIN."""
    limit = 1 / (1 + math.exp(CERTAIN))
    p = min(max(float(probability), limit), 1 - limit)
    return math.log(p / (1 - p))


def probability(log_odds: float) -> float:
    """The inverse of `log_odds`."""
    return 1 / (1 + math.exp(-max(min(log_odds, 60.0), -60.0)))
