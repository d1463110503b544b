"""One hand looked at in several ways: what a network says of crops that differ in padding, turn and mirroring.

Everything is carried back to the units of the stored picture ([-1, 1] over it), where a network that understood the
hand says the same each time; how far the answers lie apart is what it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

from densehand.camera import in_plane
from densehand.data.augment import look_up
from densehand.data.fits import box_size
from densehand.errors import InputError
from densehand.hand.model import turned_in_plane
from densehand.metrics import view_consistency
from densehand.network.estimator import DHPE, Estimate, evaluating
from densehand.network.mesh import MeshParameters, decode, encode, mean_mesh
from densehand.network.together import Together

CAP = 20.0
"""A hand counts at most this disagreement (%), so that a few that are none do not decide."""


@dataclass(frozen=True)
class View:
    """How a crop differs from the house's: its side over the house's, turn in degrees, mirrored or not."""

    zoom: float = 1.0
    turn: float = 0.0
    flip: bool = False


CONSENSUS = (View(zoom=0.85), View(), View(zoom=0.85, turn=-20), View(zoom=0.85, turn=20))
"""Crops whose mean is taken (tools/measure_looks.py)."""

# paddings 1.5, 1.28 and 1.8 of the hand's box; turns as far as training turns most crops; the mirrored hand
VIEWS = (View(), View(zoom=0.85), View(zoom=1.2), View(turn=-25), View(turn=25), View(flip=True))
"""Crops whose answers should agree."""

REACH = 1.35
"""Side of the square that holds all views, over the house's crop: turned by 25° a square reaches cos 25° + sin 25°."""


@dataclass
class Answers:
    """What a network says of n hands in v views, w of them not mirrored; units of the stored picture.

    mesh: parameters in the w views, (w n …), and its skeleton. keypoints, confidence: `Estimate.keypoints_2d` in the w
    views. heat: the heat maps' keypoints in all v. right: log-odds that the stored picture shows a right hand.
    present: probability of a hand. iou: of the mask head with the mesh's rendered mask, 0 to 1 (NaN if not asked for).
    """

    mesh: MeshParameters
    skeleton: Float[Tensor, "w n 21 3"]
    keypoints: Float[Tensor, "w n 21 2"]
    confidence: Float[Tensor, "w n 21"]
    heat: Float[Tensor, "v n 21 2"]
    right: Float[Tensor, "v n"]
    present: Float[Tensor, "v n"]
    iou: Float[Tensor, "w n"]
    views: tuple[View, ...]

    @staticmethod
    def join(parts: Sequence[Answers]) -> Answers:
        """Answers on several lots of hands as one."""
        return Answers._cat(parts, 1, parts[0].views)

    @staticmethod
    def together(parts: Sequence[Answers]) -> Answers:
        """Several networks' answers on the same hands, as if they were one network's in as many more views."""
        return Answers._cat(parts, 0, sum((part.views for part in parts), ()))

    @staticmethod
    def _cat(parts: Sequence[Answers], axis: int, views: tuple[View, ...]) -> Answers:
        names = [f.name for f in fields(Answers) if f.name not in ("mesh", "views")]
        mesh = MeshParameters(*(torch.cat(columns, axis) for columns in zip(*(p.mesh for p in parts), strict=True)))
        return Answers(mesh=mesh, views=views, **{n: torch.cat([getattr(p, n) for p in parts], axis) for n in names})


@dataclass
class Agreement:
    """How far n hands' answers agree. Lengths in % of the hand's box (of its keypoints).

    spread: of the mesh's projected keypoints over the views, root mean square to their mean. flip: mean distance of the
    heat maps' keypoints in mirrored views to the others' mean. bend: scatter of the 3D joints in the palm's frame, % of
    the palm (`metrics.view_consistency`; 100 where there is no palm). side: share of views that see a right hand. iou
    and present: of the worst view.
    """

    spread: Float[Tensor, " n"]
    flip: Float[Tensor, " n"]
    bend: Float[Tensor, " n"]
    side: Float[Tensor, " n"]
    iou: Float[Tensor, " n"]
    present: Float[Tensor, " n"]

    @property
    def disagreement(self) -> Float[Tensor, " n"]:
        """The measure: mean of spread and flip, %, at most `CAP`."""
        return ((self.spread + self.flip) / 2).nan_to_num(CAP, CAP, CAP).clamp_max(CAP)

    def __getitem__(self, rows: Tensor) -> Agreement:
        return Agreement(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@torch.no_grad()
def look(
    network: DHPE | Together,
    images: UInt8[Tensor, "n s s 3"],
    centre: Float[Tensor, "n 2"],
    half: Float[Tensor, " n"],
    views: tuple[View, ...] = VIEWS,
    batch: int = 8,
    masks: bool = True,
    turn: Float[Tensor, " n"] | None = None,
) -> Answers:
    """The network on every view of every hand. centre, half: the house's crop, in units of the stored pictures.

    masks: whether to render the meshes for `Answers.iou`. turn: radians by which each crop is turned before the view
    turns it (default: none).
    """
    turn = torch.zeros_like(half) if turn is None else turn
    with evaluating(network):
        parts = [
            _look_at(network, images[rows], centre[rows], half[rows], turn[rows], views, masks)
            for rows in torch.arange(len(images), device=images.device).split(batch)
        ]
    return Answers.join(parts)


def _look_at(
    network: DHPE | Together,
    images: Tensor,
    centre: Tensor,
    half: Tensor,
    turn: Tensor,
    views: tuple[View, ...],
    masks: bool,
) -> Answers:
    found = [_look(network, images, centre, half, turn, view, masks) for view in views]
    straight = [answer for answer, view in zip(found, views, strict=True) if not view.flip]

    def stacked(name: str, answers: list[dict[str, Tensor]]) -> Tensor:
        return torch.stack([answer[name] for answer in answers])

    return Answers(
        mesh=MeshParameters(*(stacked(name, straight) for name in MeshParameters._fields)),
        **{name: stacked(name, straight) for name in ("skeleton", "keypoints", "confidence", "iou")},
        **{name: stacked(name, found) for name in ("heat", "right", "present")},
        views=views,
    )


def _look(
    network: DHPE | Together, images: Tensor, centre: Tensor, half: Tensor, turn: Tensor, view: View, masks: bool
) -> dict[str, Tensor]:
    half = half * view.zoom
    angle = turn + math.radians(view.turn)
    back = half[:, None, None] * in_plane(-angle)  # crop → picture
    affine = torch.cat([back, centre[..., None]], dim=-1)
    if view.flip:
        affine = affine * affine.new_tensor([-1.0, 1.0, 1.0])
    size = network.config.input_size
    estimate = network(look_up(images, affine, half, size))

    def to_picture(points: Tensor) -> Tensor:
        return points @ affine[:, :, :2].mT + affine[:, None, :, 2]

    h = estimate.parameters[-1]
    found, skeleton = decode(h), estimate.skeletons[-1]
    place = to_picture(found.translation[:, None, :2])[:, 0]
    return {
        "pose": found.pose,
        "shape": found.shape,
        "rotation": turned_in_plane(found.rotation, -angle),
        "scale": found.scale * half,
        "translation": torch.cat([place, found.translation[:, 2:] * half[:, None]], dim=-1),
        "skeleton": torch.cat([to_picture(skeleton[..., :2]), skeleton[..., 2:] * half[:, None, None]], dim=-1),
        "keypoints": to_picture(estimate.keypoints_2d),
        "confidence": estimate.keypoint_confidence,
        "heat": to_picture(estimate.keypoints[0]),
        "right": -estimate.side_logit if view.flip else estimate.side_logit,
        "present": estimate.hand_logit.sigmoid(),
        "iou": mask_overlap(network, estimate) if masks else torch.full_like(half, torch.nan),
    }


def mask_overlap(network: DHPE | Together, estimate: Estimate) -> Float[Tensor, " b"]:
    """Soft intersection over union of the mask head with the mesh's rendered mask, on the head's grid."""
    head = estimate.mask_logits.sigmoid()
    rendered = network.render_mask(estimate.parameters[-1], head.shape[-1])
    return soft_iou(head, rendered)


def soft_iou(first: Float[Tensor, "b s s"], second: Float[Tensor, "b s s"]) -> Float[Tensor, " b"]:
    """Intersection over union of masks in [0, 1]: sums of the lesser and of the greater of each pixel."""
    common, union = torch.minimum(first, second).sum((1, 2)), torch.maximum(first, second).sum((1, 2))
    return common / union.clamp_min(1e-6)


def agreement(answers: Answers) -> Agreement:
    """How far the answers on each hand agree with each other."""
    mean = answers.skeleton[..., :2].mean(0)
    box = box_size(mean)
    spread = (answers.skeleton[..., :2] - mean).square().sum(-1).mean((0, 2)).sqrt() / box
    mirrored = torch.tensor([view.flip for view in answers.views], device=mean.device)
    usual = answers.heat[~mirrored].mean(0)
    flip = (answers.heat[mirrored] - usual).norm(dim=-1).mean((0, 2)) / box
    joints = answers.skeleton.transpose(0, 1).double().cpu().numpy()
    return Agreement(
        spread=100 * spread,
        flip=100 * flip,
        bend=torch.tensor([_bend(views) for views in joints], device=mean.device, dtype=mean.dtype),
        side=(answers.right > 0).float().mean(0),
        iou=answers.iou.amin(0),
        present=answers.present.amin(0),
    )


def _bend(joints: Float[np.ndarray, "w 21 3"]) -> float:
    try:
        return view_consistency(list(joints)).percent
    except InputError:  # a palm seen as a line
        return 100.0


def consensus(answers: Answers) -> tuple[MeshParameters, Float[Tensor, "n 21 2"], Float[Tensor, "n 21"]]:
    """The mean of the straight views: mesh, 2D skeleton (weighted by confidence) and confidence."""
    weight = answers.confidence[..., None].clamp_min(1e-3)
    return mean_mesh(answers.mesh), (answers.keypoints * weight).sum(0) / weight.sum(0), answers.confidence.mean(0)


def to_crop(mesh: MeshParameters, centre: Float[Tensor, "n 2"], half: Float[Tensor, " n"]) -> Float[Tensor, "n 63"]:
    """h of a mesh given in units of the picture, in the crop of that centre and half side."""
    move = (mesh.translation - pad(centre, (0, 1))) / half[:, None]
    return encode(mesh._replace(scale=mesh.scale / half, translation=move))


def from_crop(h: Float[Tensor, "n 63"], centre: Float[Tensor, "n 2"], half: Float[Tensor, " n"]) -> MeshParameters:
    """The inverse of `to_crop`."""
    mesh = decode(h)
    return mesh._replace(scale=mesh.scale * half, translation=mesh.translation * half[:, None] + pad(centre, (0, 1)))
