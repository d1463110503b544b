"""Augmentation on the training device: one affine look-up a picture, then what cameras do to colours.

Everything is a function of the generator given, so that step n of a run is the same whenever it is made.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from densehand.camera import in_plane
from densehand.data.augmentation import Augmentation
from densehand.data.fits import house_crop
from densehand.data.records import Records, TrainingBatch
from densehand.hand.keypoints import palm_turn
from densehand.hand.model import HandModel, turned_in_plane
from densehand.synth.photo import motion_blur

PADDINGS = ("zeros", "border", "reflection")


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=device) * (high - low) + low


def augment(
    hand: HandModel,
    records: Records,
    index: Int[Tensor, " b"],
    size: int,
    how: Augmentation,
    generator: Generator,
    backgrounds: UInt8[Tensor, "n s s 3"] | None = None,
) -> TrainingBatch:
    """Cut crops of `size`² around the chosen records' hands, turned, shifted, zoomed, recoloured.

    backgrounds: what `how.backdrop` of the hands are put before.
    """
    device, count = records.images.device, len(index)
    angle = torch.randn(count, generator=generator, device=device) * math.radians(how.rotation)
    anyway = uniform((count,), 0, 1, generator, device) < how.any_rotation
    angle = torch.where(anyway, uniform((count,), -math.pi, math.pi, generator, device), angle)
    if how.upright:
        straightened = uniform((count,), 0, 1, generator, device) < how.upright
        angle = angle - torch.where(straightened, palm_turn(records.keypoints[index]).nan_to_num(), 0)
    turn = in_plane(angle)
    keypoints = torch.einsum("bij,bkj->bki", turn, records.keypoints[index])
    middle, half = house_crop(keypoints)
    half = half * uniform((count,), *how.zoom, generator, device)
    shift = uniform((count, 2), -how.shift, how.shift, generator, device) * 2
    centre = middle + shift * half[:, None]

    to_crop = turn / half[:, None, None]  # crop = to_crop · picture − centre/half
    offset = centre / half[:, None]
    inverse = half[:, None, None] * turn.transpose(1, 2)
    affine = torch.cat([inverse, (inverse @ offset[..., None])], -1)
    # what lies beside a photo is black in a crop of it; a stored crop has more around it that nobody knows
    outside = PADDINGS[int(torch.randint(len(PADDINGS), (), generator=generator, device=device))]
    pictures = look_up(records.images[index], affine, half, size, outside)
    has_mask = records.masks[index].flatten(1).any(1)
    mask = look_up_mask(records.masks[index], affine, size)
    whole = look_up_mask(records.silhouettes[index], affine, size) if records.silhouettes.shape[-1] else mask

    rotation = turned_in_plane(records.rotation[index], angle)
    scale = records.scale[index] / half
    translation = torch.einsum("bij,bj->bi", to_crop, records.translation[index]) - offset
    with torch.no_grad():
        skeleton = scale[:, None, None] * hand.skeleton(records.pose[index], records.shape[index], rotation)
    skeleton = skeleton + F.pad(translation, (0, 1))[:, None]
    keypoints = keypoints / half[:, None, None] - offset[:, None]

    if backgrounds is not None and how.backdrop:
        pictures = change_backdrop(pictures, whole, keypoints, backgrounds, how, generator)
    pictures = recolour(pictures, how, generator)
    pictures, mask = occlude(pictures, mask, how, generator)
    flipped = uniform((count,), 0, 1, generator, device) < how.flip
    pictures = torch.where(flipped[:, None, None, None], pictures.flip(-1), pictures)
    mask, whole = (torch.where(flipped[:, None, None], m.flip(-1), m) for m in (mask, whole))
    mirror = torch.where(flipped[:, None, None], keypoints.new_tensor([-1.0, 1.0]), keypoints.new_tensor([1.0, 1.0]))
    weight = records.keypoint_weight[index] * (keypoints.abs().amax(-1) < 1)
    return TrainingBatch(
        pictures, keypoints * mirror, weight, skeleton, records.pose[index], records.shape[index], rotation,
        records.trust[index] * ~flipped, mask, whole, has_mask, (~flipped).float(), torch.ones_like(angle),
    )  # fmt: skip


def look_up(
    images: Tensor, affine: Float[Tensor, "b 2 3"], half: Float[Tensor, " b"], size: int, outside: str = "zeros"
) -> Float[Tensor, "b 3 s s"]:
    """Sample crops from uint8 pictures (b s s 3). Those that would shrink by 2 on average, so that bilinear sampling
    would leave out pixels, are halved first. outside: `grid_sample`'s padding.
    """
    pictures = images.permute(0, 3, 1, 2).float() / 255
    if float(half.mean()) * pictures.shape[-1] / size > 2:
        pictures = F.avg_pool2d(pictures, 2)
    grid = F.affine_grid(affine, [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def look_up_mask(stored: UInt8[Tensor, "b m m"], affine: Float[Tensor, "b 2 3"], size: int) -> Float[Tensor, "b s s"]:
    """Sample crops from masks of bytes; nothing but zeros where they are empty, and outside them."""
    if not stored.shape[-1]:
        return affine.new_zeros(len(stored), size, size)
    grid = F.affine_grid(affine, [len(stored), 1, size, size], align_corners=False)
    return F.grid_sample(stored[:, None].float() / 255, grid, mode="bilinear", align_corners=False)[:, 0]


def recolour(pictures: Float[Tensor, "b 3 s s"], how: Augmentation, generator: Generator) -> Float[Tensor, "b 3 s s"]:
    """White balance, exposure, gamma, saturation, grey, motion, blur and noise, each at random strength per picture."""
    device, count, size = pictures.device, len(pictures), pictures.shape[-1]

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return uniform((count, *shape), low, high, generator, device)

    c = how.colour
    grey = pictures.mean(1, keepdim=True)
    saturation = draw(1 - 0.5 * c, 1 + 0.4 * c, 1, 1, 1) * (draw(0, 1, 1, 1, 1) >= how.grey)
    pictures = grey + (pictures - grey) * saturation
    gain = draw(1 - 0.35 * c, 1 + 0.35 * c, 1, 1, 1) * draw(1 - 0.15 * c, 1 + 0.15 * c, 3, 1, 1)
    pictures = (pictures * gain + draw(-0.1 * c, 0.1 * c, 1, 1, 1)).clamp(1e-4, 1)
    pictures = pictures.pow(draw(1 - 0.3 * c, 1 + 0.4 * c, 1, 1, 1))
    if how.motion:
        rows = (draw(0, 1) < how.motion).nonzero()[:, 0]
        way = 0.1 * torch.randn((count, 2), generator=generator, device=device)  # crop units: 11 px of 224
        if len(rows):
            pictures[rows] = motion_blur(pictures[rows], way[rows])
    soft = draw(0, 1, 1, 1, 1) < how.blur  # lost resolution: shrink and enlarge
    kept = draw(*how.resolution)[0]  # one for all of them: a picture's own would take a call each
    low = F.interpolate(pictures, scale_factor=float(kept), mode="area")
    pictures = torch.where(soft, F.interpolate(low, size=(size, size), mode="bilinear"), pictures)
    noisy = (draw(0, 1, 1, 1, 1) < how.noise) * draw(0, 0.08, 1, 1, 1)
    pictures = pictures + noisy * torch.randn(pictures.shape, generator=generator, device=device)
    return pictures.clamp(0, 1)


def occlude(
    pictures: Float[Tensor, "b 3 s s"], mask: Float[Tensor, "b s s"], how: Augmentation, generator: Generator
) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b s s"]]:
    """Cover a random ellipse of some pictures by a shifted piece of another picture of the batch."""
    device, count, size = pictures.device, len(pictures), pictures.shape[-1]
    axis = torch.linspace(-1, 1, size, device=device)
    centre = uniform((count, 2, 1, 1), -0.8, 0.8, generator, device)
    radius = uniform((count, 2, 1, 1), 0.1, 0.35, generator, device)
    distance = ((axis[None, :] - centre[:, 0]) / radius[:, 0]).square() + (
        (axis[:, None] - centre[:, 1]) / radius[:, 1]
    ).square()
    chosen = uniform((count, 1, 1), 0, 1, generator, device) < how.occluder
    hidden = (distance < 1) & chosen
    other = pictures.roll(1, 0).roll(size // 2, -1)
    return torch.where(hidden[:, None], other, pictures), mask * ~hidden


def cut_backgrounds(
    backgrounds: UInt8[Tensor, "n m m 3"], count: int, size: int, generator: Generator
) -> Float[Tensor, "b 3 s s"]:
    """Random squares of random backgrounds."""
    device = backgrounds.device
    index = torch.randint(len(backgrounds), (count,), generator=generator, device=device)
    half = uniform((count,), 0.3, 1.0, generator, device)
    centre = uniform((count, 2), -1, 1, generator, device) * (1 - half[:, None])
    affine = torch.zeros(count, 2, 3, device=device)
    affine[:, 0, 0] = affine[:, 1, 1] = half
    affine[:, :, 2] = centre
    return look_up(backgrounds[index], affine, half, size)


def from_wrist(keypoints: Float[Tensor, "b 21 2"], size: int) -> tuple[Float[Tensor, "b s s"], Float[Tensor, "b s s"]]:
    """How far each pixel of crops of `size`² lies behind the wrist, seen from the middle knuckle, and beside that line;
    crop units."""
    wrist = keypoints[:, 0]
    arm = F.normalize(wrist - keypoints[:, 9], dim=-1)
    axis = (torch.arange(size, device=keypoints.device) + 0.5) / size * 2 - 1
    x, y = axis[None, None, :] - wrist[:, 0, None, None], axis[None, :, None] - wrist[:, 1, None, None]
    along = x * arm[:, 0, None, None] + y * arm[:, 1, None, None]
    return along, x * arm[:, 1, None, None] - y * arm[:, 0, None, None]


def change_backdrop(
    pictures: Float[Tensor, "b 3 s s"],
    silhouette: Float[Tensor, "b s s"],
    keypoints: Float[Tensor, "b 21 2"],
    backgrounds: UInt8[Tensor, "n m m 3"],
    how: Augmentation,
    generator: Generator,
) -> Float[Tensor, "b 3 s s"]:
    """Put `how.backdrop` of the hands that have a silhouette before pieces of backgrounds.

    What stays is the silhouette, widened by 3 % of the crop as it is a fitted mesh's, and a band behind the wrist for
    the forearm, which no silhouette shows. The seam is soft.
    """
    device, count, size = pictures.device, len(pictures), pictures.shape[-1]
    palm = (keypoints[:, 0] - keypoints[:, 9]).norm(dim=-1).clamp_min(0.4)[:, None, None]  # at least, seen end on
    along, across = from_wrist(keypoints, size)
    forearm = (along > -0.3 * palm) & (across.abs() < 0.5 * palm)
    reach = max(1, size // 32)
    kept = torch.maximum(silhouette, forearm.float())[:, None]
    windows = ((1, 2 * reach + 1), (0, reach)), ((2 * reach + 1, 1), (reach, 0))  # a square one costs far more
    for window, padding in windows:
        kept = F.max_pool2d(kept, window, 1, padding)
    for window, padding in windows:
        kept = F.avg_pool2d(kept, window, 1, padding, count_include_pad=False)
    changed = uniform((count, 1, 1, 1), 0, 1, generator, device) < how.backdrop
    changed = changed & silhouette.flatten(1).any(1)[:, None, None, None]
    behind = cut_backgrounds(backgrounds, count, size, generator)
    return torch.where(changed, torch.lerp(behind, pictures, kept), pictures)


def negatives(backgrounds: Tensor, count: int, size: int, how: Augmentation, generator: Generator) -> TrainingBatch:
    """Pictures without a hand: random cuts of uint8 backgrounds (n s s 3). All label weights are 0."""
    device = backgrounds.device
    pictures = recolour(cut_backgrounds(backgrounds, count, size, generator), how, generator)
    zeros = pictures.new_zeros
    pictures, mask = occlude(pictures, zeros(count, size, size), how, generator)  # else an ellipse would mean a hand
    identity = zeros(count, 4)
    identity[:, 0] = 1
    return TrainingBatch(
        pictures, zeros(count, 21, 2), zeros(count, 21), zeros(count, 21, 3), zeros(count, 45), zeros(count, 10),
        identity, zeros(count), mask, mask, torch.ones(count, dtype=torch.bool, device=device),
        zeros(count), zeros(count),
    )  # fmt: skip
