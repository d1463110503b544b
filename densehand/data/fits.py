"""Hand model fits to a teacher's 2D evidence: the labels with which real photos train (the paper's third idea).

The teacher's keypoints do not lie where the hand model has them, so each fit explains them through one fixed linear
map of the skeleton, `M` (21×21, close to the identity, rows sum to 1), estimated on all photos together. The label
of a photo is then the teacher's point carried back: `j* = k + (I − M) · project(skeleton)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from densehand.camera import HOUSE_PADDING
from densehand.data.photos import PhotoSet
from densehand.errors import InputError
from densehand.files import write_atomically
from densehand.hand.anatomy import limit_violation, pose_to_anatomical
from densehand.hand.keypoints import PALM
from densehand.hand.model import HandModel

MASK_SIZE = 64  # side of masks over the stored picture: the mask head has 32 cells over a part of it
TOGETHER = 1000  # hands fitted at a time
RATE = 0.04  # Adam's, of the numbers of a fit


@dataclass
class Fits:
    """Weak-perspective fits: `points = scale · R · X + translation`, in the units of the given keypoints.

    residual: mean distance of the mapped projection to the teacher, as a share of the keypoints' box (0.02 is good).
    keypoint_map: M. labels: the teacher's keypoints where the hand model has its own.

    What labels of a later round say besides (`densehand/train/selflabel.py`), None where they are the first round's:
    keypoint_weight, trust: of the labels and of the mesh, 0…1. masked: whether the mesh's outline may serve as a mask.
    """

    pose: Float[Tensor, "n 45"]
    shape: Float[Tensor, "n 10"]
    rotation: Float[Tensor, "n 4"]
    scale: Float[Tensor, " n"]
    translation: Float[Tensor, "n 2"]
    residual: Float[Tensor, " n"]
    keypoint_map: Float[Tensor, "21 21"]
    labels: Float[Tensor, "n 21 2"]
    keypoint_weight: Float[Tensor, "n 21"] | None = None
    trust: Float[Tensor, " n"] | None = None
    masked: Bool[Tensor, " n"] | None = None
    photos: UInt8[Tensor, " 16"] | None = None  # digest of the crops' names, in a file

    def save(self, path: Path | str, photos: Sequence[str]) -> None:
        """Write them, `photos`: the names of the crops they are of, so that no others are taken for them."""
        known = {k: v.numpy(force=True) for k, v in vars(self).items() if v is not None}
        known["photos"] = digest(photos)
        with write_atomically(path) as temporary:
            np.savez_compressed(temporary, **known)

    def check(self, photos: Sequence[str], path: Path | str) -> None:
        """Raises InputError where these fits, read from `path`, are not those of crops of these names."""
        if len(self.scale) != len(photos):
            raise InputError(f"{path}: {len(self.scale)} fits for {len(photos)} photos; delete it to fit again")
        if self.photos is not None and self.photos.tolist() != digest(photos).tolist():
            raise InputError(f"{path}: fits of other photos, or in another order; delete it to fit again")

    @classmethod
    def load(cls, path: Path | str) -> Fits:
        """Read what `save` wrote. Raises InputError where the file is damaged or is none of this kind."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                names = set(archive.files)
                return cls(**{f.name: torch.from_numpy(archive[f.name]) for f in fields(cls)
                              if f.name in names or f.default is MISSING})  # fmt: skip
        except Exception as error:  # zipfile, zlib and numpy each have their own
            raise InputError(f"{path}: no file of fits that can be read; delete it to fit again") from error


def known_fits(path: Path | str, hand: HandModel, photos: PhotoSet) -> Fits:
    """The photos' fits: those of a file, or computed and then kept there ("" keeps none).

    Raises InputError where the file is damaged or its fits are of other photos.
    """
    kept = Path(path) if path else None
    if kept is not None and kept.is_file():
        fits = Fits.load(kept)
        fits.check(photos.names, kept)
        return fits
    fits = fit_photos(hand, photos.keypoints, photos.world)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        fits.save(kept, photos.names)
    return fits


def digest(names: Sequence[str]) -> UInt8[np.ndarray, " 16"]:
    """Sixteen bytes that tell lists of names apart."""
    return np.frombuffer(hashlib.blake2b("\n".join(names).encode(), digest_size=16).digest(), np.uint8)


def box_size(keypoints: Float[Tensor, "*b 21 2"]) -> Float[Tensor, "*b"]:
    """The larger side of the tight box around the keypoints, in their unit."""
    return (keypoints.amax(-2) - keypoints.amin(-2)).amax(-1).clamp_min(1e-6)


def ramp(value: Float[Tensor, "*n"], none: float, full: float) -> Float[Tensor, "*n"]:
    """0 at `none`, 1 at `full`, straight between; `none` may be the larger."""
    return ((value - none) / (full - none)).clamp(0, 1)


def evenly(available: int, most: int) -> Int[Tensor, " k"]:
    """At most so many of the rows that there are, evenly drawn."""
    return torch.linspace(0, available - 1, min(most, available)).long()


def house_crop(keypoints: Float[Tensor, "n 21 2"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Centre and half side of the house's crop around keypoints."""
    low, high = keypoints.amin(1), keypoints.amax(1)
    return (low + high) / 2, HOUSE_PADDING / 2 * (high - low).amax(-1).clamp_min(0.02)


def first_guess(
    hand: HandModel, keypoints: Float[Tensor, "n 21 2"], world: Float[Tensor, "n 21 3"]
) -> dict[str, Tensor]:
    """Mean pose, turned so that the palm agrees with the teacher's 3D palm (Kabsch), scaled and moved in 2D."""
    count = len(keypoints)
    pose = hand.mean_pose.expand(count, 45).clone()
    shape = keypoints.new_zeros(count, 10)
    rest = hand.skeleton(pose[:1], shape[:1])[0, list(PALM)]
    palm = world[:, list(PALM)]
    turn = roma.rigid_vectors_registration(
        (rest - rest.mean(0)).expand_as(palm).contiguous(), palm - palm.mean(1, keepdim=True)
    )
    rotation = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(turn))
    points = hand.skeleton(pose, shape, rotation)[..., :2]
    centred, target = points - points.mean(1, keepdim=True), keypoints - keypoints.mean(1, keepdim=True)
    scale = (target.square().sum((1, 2)) / centred.square().sum((1, 2)).clamp_min(1e-9)).sqrt()
    translation = keypoints.mean(1) - scale[:, None] * points.mean(1)
    return {"pose": pose, "shape": shape, "rotation": rotation, "log_scale": scale.log(), "translation": translation}


def fit_energy(
    hand: HandModel,
    variables: dict[str, Tensor],
    keypoints: Float[Tensor, "n 21 2"],
    world: Float[Tensor, "n 21 3"],
    keypoint_map: Float[Tensor, "21 21"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 21"]]:
    """Energy of each fit and its 2D errors as shares of the box.

    Terms, each a squared number of standard deviations: 2D (2 % of the box, Geman-McClure beyond 8 %), the
    teacher's 3D up to scale (15 mm: a hint, it is noisy), joint limits (0.05 rad), pose near the mean (0.9 rad),
    twist (0.15 rad), shape (1).
    """
    skeleton = hand.skeleton(variables["pose"], variables["shape"], variables["rotation"])
    mapped = torch.einsum("jk,nkc->njc", keypoint_map, skeleton)
    projected = variables["log_scale"].exp()[:, None, None] * mapped[..., :2] + variables["translation"][:, None]
    error = (projected - keypoints).square().sum(-1).clamp_min(1e-12).sqrt() / box_size(keypoints)[:, None]
    robust = error.square() / (1 + (error / 0.08).square()) / 0.02**2

    ours, theirs = mapped - mapped.mean(1, keepdim=True), world - world.mean(1, keepdim=True)
    ratio = (ours * theirs).sum((1, 2)) / theirs.square().sum((1, 2)).clamp_min(1e-9)
    apart = (ours - ratio.detach().clamp(0.3, 3)[:, None, None] * theirs).square().sum(-1)
    hint = apart / (1 + apart / 0.03**2) / 0.015**2

    angles = pose_to_anatomical(variables["pose"], hand)
    prior = (
        (limit_violation(variables["pose"], hand) / 0.05).square().sum((1, 2))
        + ((variables["pose"] - hand.mean_pose) / 0.9).square().sum(1)
        + (angles[..., 2] / 0.15).square().sum(1)
        + variables["shape"].square().sum(1)
    )
    return robust.sum(1) + 0.5 * hint.sum(1) + prior, error


def estimate_keypoint_map(
    projected: Float[Tensor, "n 21 2"],
    keypoints: Float[Tensor, "n 21 2"],
    weight: Float[Tensor, " n"],
    ridge: float = 0.3,
) -> Float[Tensor, "21 21"]:
    """Ridge regression of the teacher's keypoints on the projected skeleton, drawn towards the identity.

    Both are taken relative to their mean and divided by the box, so rows of the result sum to 1 exactly after the
    mean is put back.
    """
    size = box_size(keypoints)[:, None, None]
    source = (projected - projected.mean(1, keepdim=True)) / size * weight.sqrt()[:, None, None]
    offset = ((keypoints - keypoints.mean(1, keepdim=True)) / size) * weight.sqrt()[:, None, None] - source
    x, d = source.permute(0, 2, 1).reshape(-1, 21).double(), offset.permute(0, 2, 1).reshape(-1, 21).double()
    gram = x.T @ x
    penalty = ridge * gram.diagonal().mean() * torch.eye(21, dtype=gram.dtype, device=gram.device)
    correction = torch.linalg.solve(gram + penalty, x.T @ d).T
    correction = correction - correction.mean(1, keepdim=True)  # rows of M sum to 1: moving the hand moves the points
    return torch.eye(21, dtype=projected.dtype, device=projected.device) + correction.to(projected.dtype)


def fit_photos(
    hand: HandModel,
    keypoints: Float[Tensor, "n 21 2"],
    world: Float[Tensor, "n 21 3"],
    steps: int = 250,
) -> Fits:
    """Fit the hand model to every hand: first the keypoint map on a spread of `TOGETHER` of them, then each with it.

    keypoints and world are of right hands (mirror left ones first). On one CPU core it takes about 10 ms a hand.
    """
    spread = evenly(len(keypoints), TOGETHER)
    some_keypoints, some_world = keypoints[spread], world[spread]
    mapping = torch.eye(21).to(keypoints)
    for _ in range(2):
        fits = fit_with_map(hand, some_keypoints, some_world, mapping, steps)
        projected = project_fits(hand, fits)
        good = (fits.residual < 0.05).to(projected)
        mapping = estimate_keypoint_map(projected, some_keypoints, good)
    parts = [
        fit_with_map(hand, k, w, mapping, steps)
        for k, w in zip(keypoints.split(TOGETHER), world.split(TOGETHER), strict=True)
    ]
    own = [f.name for f in fields(Fits) if f.default is MISSING and f.name != "keypoint_map"]
    return Fits(**{n: torch.cat([getattr(p, n) for p in parts]) for n in own}, keypoint_map=mapping)


def project_fits(hand: HandModel, fits: Fits) -> Float[Tensor, "n 21 2"]:
    """The hand model's own keypoints of each fit, in the unit of the fitted keypoints."""
    skeleton = hand.skeleton(fits.pose, fits.shape, fits.rotation)
    return fits.scale[:, None, None] * skeleton[..., :2] + fits.translation[:, None]


@torch.no_grad()
def render_masks(hand: HandModel, fits: Fits) -> UInt8[Tensor, "n m m"] | None:
    """Soft outlines of the meshes that may serve as masks, over the stored pictures; empty for the others.

    None where there are none. Under 1 ms a hand on one CPU core, 4 kB each.
    """
    from densehand.render import silhouette  # compiles at its first import

    if fits.masked is None or not fits.masked.any():
        return None
    masks = torch.zeros(len(fits.scale), MASK_SIZE, MASK_SIZE, dtype=torch.uint8)
    faces = hand.get_buffer("faces")
    for rows in fits.masked.nonzero().squeeze(1).split(128):
        vertices, _ = hand(fits.pose[rows], fits.shape[rows], fits.rotation[rows])
        placed = fits.scale[rows, None, None] * vertices
        placed[..., :2] += fits.translation[rows, None] + 1
        masks[rows] = (silhouette(placed * (MASK_SIZE / 2), faces, (MASK_SIZE, MASK_SIZE)) * 255).round().byte()
    return masks


def fit_with_map(
    hand: HandModel,
    keypoints: Float[Tensor, "n 21 2"],
    world: Float[Tensor, "n 21 3"],
    keypoint_map: Float[Tensor, "21 21"],
    steps: int,
) -> Fits:
    """Fit all hands at once with Adam, the keypoint map given."""
    variables = {k: v.detach().requires_grad_() for k, v in first_guess(hand, keypoints, world).items()}
    rates = dict.fromkeys(variables, RATE)
    rates["translation"] = RATE * float(box_size(keypoints).mean())  # steps in units of the hand
    optimiser = torch.optim.Adam([{"params": [variables[k]], "lr": r} for k, r in rates.items()])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=RATE * 0.05)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        energy, _ = fit_energy(hand, unit(variables), keypoints, world, keypoint_map)
        energy.sum().backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        final = unit(variables)
        _, error = fit_energy(hand, final, keypoints, world, keypoint_map)
        fits = Fits(
            final["pose"].detach(), final["shape"].detach(), final["rotation"].detach(),
            final["log_scale"].detach().exp(), final["translation"].detach(), error.mean(1), keypoint_map, keypoints,
        )  # fmt: skip
        projected = project_fits(hand, fits)
        fits.labels = keypoints + projected - torch.einsum("jk,nkc->njc", keypoint_map, projected)
    return fits


def unit(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The variables with their quaternions normalised."""
    return variables | {"rotation": torch.nn.functional.normalize(variables["rotation"], dim=-1)}
