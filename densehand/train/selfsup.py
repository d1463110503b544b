"""Self-supervised data augmentation (paper, section 3.5): new samples from photos whose mesh is already good.

Each seed - a photo and the mesh fitted to it or estimated by the network - gives three new samples: the pose stays, the
shape is drawn uniformly within ±3 standard deviations a dimension, the viewpoint is turned by an angle drawn uniformly
for each axis; the new mesh wears the photo's skin (`synth/retexture.py`) before a random background.

Started only by realistic seeds. A seed is realistic where its mesh's projected keypoints lie near the 2D evidence
(mean distance as a share of the keypoints' box), no joint is far beyond its limits and no shape number beyond ±3; the
augmentation starts when a given share of the seeds that have 2D evidence is. (Our reading: the paper starts after a
number of epochs, because seeds are realistic by then.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor
from torch.nn.functional import pad

from densehand.data.augment import look_up
from densehand.data.fits import box_size, house_crop
from densehand.data.records import Records
from densehand.errors import InputError
from densehand.hand.anatomy import limit_violation
from densehand.hand.model import HandModel
from densehand.network.estimator import DHPE, evaluating
from densehand.network.mesh import MeshParameters
from densehand.synth.config import WIDE
from densehand.synth.retexture import Likeness, look_at_seeds
from densehand.synth.sampler import Synthesizer
from densehand.synth.sheet import contact_sheet
from densehand.views import from_crop


@dataclass(frozen=True)
class Reseeding:
    """How seeds are judged and what is made of them. Angles in degrees.

    children: samples a seed gives. shape: bound of each shape number, standard deviations. turn: bound of the angle
    about each camera axis (180 is any view). error: largest mean distance to the 2D evidence, a share of its box.
    beyond: how far an angle may lie beyond its joint's limit. start: share of realistic seeds at which it starts.
    """

    children: int = 3
    shape: float = 3.0
    turn: float = 180.0
    error: float = 0.05
    beyond: float = 8.0
    start: float = 0.5


@dataclass
class SeedCheck:
    """What was found of each seed; `good`: it is realistic, `started`: enough are."""

    error: Float[Tensor, " n"]  # NaN where there is no 2D evidence
    beyond: Float[Tensor, " n"]  # degrees, of the worst angle
    good: Bool[Tensor, " n"]
    share: float  # of the seeds with 2D evidence that are good
    started: bool


def parameters_of(records: Records) -> MeshParameters:
    """The records' own fits, in units of their pictures."""
    return MeshParameters(
        records.pose, records.shape, records.rotation, records.scale, pad(records.translation, (0, 1))
    )


@torch.no_grad()
def estimate_seeds(network: DHPE, records: Records, size: int, batch: int = 32) -> MeshParameters:
    """The network's meshes of all records, from crops of `size`² around their keypoints; units of their pictures."""
    centre, half = house_crop(records.keypoints)
    affine = torch.cat([half[:, None, None] * torch.eye(2, device=half.device), centre[..., None]], dim=-1)
    parts = []
    with evaluating(network):
        for rows in torch.arange(len(records), device=half.device).split(batch):
            crops = look_up(records.images[rows], affine[rows], half[rows], size)
            parts.append(from_crop(network(crops).parameters[-1], centre[rows], half[rows]))
    return MeshParameters(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


@torch.no_grad()
def check_seeds(
    hand: HandModel, records: Records, parameters: MeshParameters, how: Reseeding | None = None
) -> SeedCheck:
    """Which seeds are realistic, measured against the records' keypoints of weight above 0."""
    how = how or Reseeding()
    skeleton = hand.skeleton(parameters.pose, parameters.shape, parameters.rotation)
    projected = parameters.scale[:, None, None] * skeleton[..., :2] + parameters.translation[:, None, :2]
    known = (records.keypoint_weight > 0).float()
    count = known.sum(1)
    apart = (projected - records.keypoints).norm(dim=-1) / box_size(records.keypoints)[:, None]
    error = torch.where(count > 0, (apart * known).sum(1) / count.clamp_min(1), torch.nan)
    beyond = torch.rad2deg(limit_violation(parameters.pose, hand).amax((1, 2)))
    finite = torch.cat([p.flatten(1) for p in (*parameters[:3], parameters.translation)], dim=1).isfinite().all(1)
    good = (error <= how.error) & (beyond <= how.beyond) & (parameters.shape.abs().amax(1) <= 3) & finite
    judged = int((count > 0).sum())
    share = float(good.sum()) / judged if judged else 0.0
    return SeedCheck(error, beyond, good, share, bool(good.any()) and share >= how.start)


class Reseeder:
    """Makes new samples from seeds: `records(n, generator)`, as a `Synthesizer` does, so that `SynthPool` takes it.

    parameters: meshes of the records, by default their own fits. backgrounds: (m, h, w, 3) uint8, else made up. size:
    side of the new pictures. synthesizer: renders them; by default one is made.

    `check` holds what was found of the seeds; where it has not `started`, `records` raises InputError.
    """

    def __init__(
        self,
        hand: HandModel,
        records: Records,
        parameters: MeshParameters | None = None,
        backgrounds: UInt8[Tensor, "m h w 3"] | None = None,
        size: int = 224,
        how: Reseeding | None = None,
        synthesizer: Synthesizer | None = None,
    ) -> None:
        self.device = records.images.device
        self.how = how or Reseeding()
        if synthesizer is None:
            synthesizer = Synthesizer(hand, backgrounds, self.device, size, config=WIDE)
        self.synthesizer, self.hand = synthesizer, synthesizer.hand
        self.images, self.parameters = records.images, parameters or parameters_of(records)
        if len(self.parameters.pose) != len(records):
            raise InputError(f"{len(self.parameters.pose)} meshes for {len(records)} records; give one for each")
        self.check = check_seeds(self.hand, records, self.parameters, self.how)
        self.good = self.check.good.nonzero().squeeze(1)

    @torch.no_grad()
    def records(self, count: int, generator: Generator) -> Records:
        """`count` new samples from seeds drawn at random, each seed once before any is used again."""
        seed, like = self.draw(count, generator)
        return self.synthesizer.records(len(seed), generator, like)

    def draw(self, count: int, generator: Generator) -> tuple[Tensor, Likeness]:
        """The number of the seed of each new sample, and the new hands. Raises InputError where not started."""
        if not self.check.started:
            raise InputError(
                f"self-supervised samples need realistic seeds: {self.check.share:.0%} of the meshes are, "
                f"{self.how.start:.0%} are asked for; train longer first"
            )
        how = self.how
        wanted = math.ceil(count / how.children)
        rounds = math.ceil(wanted / len(self.good))
        order = [torch.randperm(len(self.good), generator=generator, device=self.device) for _ in range(rounds)]
        chosen = self.good[torch.cat(order)[:wanted]]
        index = torch.arange(wanted, device=self.device).repeat_interleave(how.children)[:count]
        seed = chosen[index]

        def uniform(columns: int, bound: float) -> Tensor:
            return (2 * torch.rand(count, columns, generator=generator, device=self.device) - 1) * bound

        turned = roma.rotmat_to_unitquat(_about_each_axis(uniform(3, math.radians(how.turn))))
        own = self.parameters.rotation[seed][:, [1, 2, 3, 0]]
        rotation = roma.quat_product(turned, torch.nn.functional.normalize(own, dim=-1))[:, [3, 0, 1, 2]]
        mesh = MeshParameters(*(value[chosen] for value in self.parameters))
        seeds = look_at_seeds(self.hand, self.images[chosen], mesh)
        pose, shape = self.parameters.pose[seed], uniform(10, how.shape)
        return seed, Likeness(pose, shape, rotation, seeds, index)


def _about_each_axis(angles: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Rotation by the first angle about x, then by the second about y, then by the third about z."""
    total = torch.eye(3, device=angles.device, dtype=angles.dtype).expand(len(angles), 3, 3)
    for axis in range(3):
        step = torch.zeros_like(angles)
        step[:, axis] = angles[:, axis]
        total = roma.rotvec_to_rotmat(step) @ total
    return total


def reseeded(
    records: Records,
    parameters: MeshParameters | None,
    count: int,
    generator: Generator,
    synthesizer: Synthesizer | None = None,
    how: Reseeding | None = None,
) -> Records:
    """`count` new samples from records and their meshes (None: their own fits); none where the seeds are not realistic.

    synthesizer: renders the pictures (backgrounds, size); by default the open hand's, at the records' size with made-up
    backgrounds. What is asked for more than once is cheaper with a `Reseeder` kept.
    """
    if synthesizer is None:
        hand = HandModel.load("open").to(records.images.device)
        synthesizer = Synthesizer(hand, device=records.images.device, size=records.images.shape[1], config=WIDE)
    source = Reseeder(synthesizer.hand, records, parameters, how=how, synthesizer=synthesizer)
    if source.check.started:
        return source.records(count, generator)
    size = synthesizer.size
    empty = records.images.new_empty
    masks = empty(0, size, size)
    return replace(records.select(slice(0)), images=empty(0, size, size, 3), masks=masks, silhouettes=masks)


def sheet(source: Reseeder, seeds: int, generator: Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Seeds and their new samples side by side, `seeds` rows: the photo, then its children."""
    children = source.how.children
    state = generator.get_state()
    chosen, _ = source.draw(seeds * children, generator)
    generator.set_state(state)  # the pictures below are of the same draw
    pictures = source.records(seeds * children, generator).images.permute(0, 3, 1, 2).float()
    photos = source.images[chosen[::children]].permute(0, 3, 1, 2).float()
    photos = torch.nn.functional.interpolate(photos, size=tuple(pictures.shape[-2:]), mode="bilinear", antialias=True)
    rows = torch.cat([photos[:, None], pictures.unflatten(0, (seeds, children))], dim=1).round().clamp(0, 255).byte()
    return contact_sheet(rows.flatten(0, 1).permute(0, 2, 3, 1).cpu().numpy(), 1 + children)
