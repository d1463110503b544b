"""`Synthesizer`: batches of pictures of right hands with every label, made on the training device."""

from __future__ import annotations

import copy
import math
import random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from densehand.camera import HOUSE_PADDING
from densehand.errors import InputError
from densehand.hand.model import HandModel, quaternion_to_matrix
from densehand.network.mesh import MeshParameters, encode

from .backdrop import clutter, made_up_backdrops, occluders, other_hands, photo_backdrops
from .batch import SynthBatch
from .body import HandBody
from .chance import Draw
from .config import SynthConfig
from .light import LUMINANCE, even_light, load_environments, sample_lights
from .photo import gaussian_blur, photograph, to_linear, to_srgb
from .poses import (
    FAMILY_NAMES,
    GRASPS,
    load_anchor_poses,
    poses_to_anchors,
    sample_poses,
    sample_rotations,
    sample_shapes,
)
from .render import Materials, Meshes, Visibility, see, shade
from .skins import SkinLook, sample_looks

if TYPE_CHECKING:
    from densehand.data.records import Records

    from .retexture import GivenHands

# How far before a joint's centre its skin may lie (m), in a hand of 95 mm from wrist to middle knuckle
_FLESH = (0.034, 0.030, 0.024, 0.020, 0.016, *(0.026, 0.019, 0.016, 0.014) * 3, 0.024, 0.017, 0.015, 0.013)
_PALM_LENGTH = 0.095


class Synthesizer:
    """Pictures of a hand model's right hand: `Synthesizer(HandModel.load("open")).sample(64)`.

    hand: the model, copied. backgrounds: (m, h, w, 3) uint8 pictures, or None for made-up ones.
    device: where everything is done. size: side of the pictures in pixels. seed: of `sample` without a generator.
    poses: (k, 45) axis-angle poses, e.g. fitted to photos, around which `config.anchor_share` of the hands are drawn
    (the packaged ones join them). views: (k, 4) unit quaternions, e.g. of photos' hands, around which
    `config.view_share` of the viewpoints are drawn.

    The same seed gives the same pictures on a CPU. Raises InputError for unusable arguments.
    """

    def __init__(
        self,
        hand: HandModel,
        backgrounds: UInt8[Tensor, "m h w 3"] | None = None,
        device: torch.device | str = "cpu",
        size: int = 224,
        seed: int = 0,
        poses: Float[Tensor, "k 45"] | None = None,
        config: SynthConfig | None = None,
        views: Float[Tensor, "k 4"] | None = None,
    ) -> None:
        if size < 32:
            raise InputError(f"pictures of {size} px are too small for a hand; give a size of 32 or more")
        if not len(hand.wrist_loop):
            raise InputError(
                f"hand model {hand.name!r} names no wrist loop, so it cannot get a forearm; use the open hand"
            )
        self.device = torch.device(device)
        self.hand = copy.deepcopy(hand).float().to(self.device)  # the caller's stays as it is
        self.size, self.config = size, config or SynthConfig()
        self.config.check()
        if views is not None and (views.ndim != 2 or views.shape[1] != 4):
            raise InputError(f"views must be quaternions (k, 4), not {tuple(views.shape)}")
        self.views = None if views is None else views.to(self.device)
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.backgrounds = None
        if backgrounds is not None:
            self.backgrounds = torch.as_tensor(backgrounds)
            if self.backgrounds.ndim != 4 or self.backgrounds.shape[-1] != 3 or self.backgrounds.dtype != torch.uint8:
                raise InputError("backgrounds must be an array (m, height, width, 3) of uint8")
            self.backgrounds = self.backgrounds.to(self.device)
        anchors = [load_anchor_poses().to(self.device)]
        if poses is not None:
            # the packaged poses are few: keep them a fifth of all
            own = poses_to_anchors(poses.to(self.device), self.hand)
            anchors = anchors * max(1, round(len(own) / 4 / max(1, len(anchors[0])))) + [own]
        self.anchors = torch.cat(anchors)
        self.body = HandBody(self.hand, self.config)
        self.environments = (load_environments if self.config.environments else even_light)(self.device)
        grasps = torch.zeros(len(FAMILY_NAMES) + 1)
        grasps[[FAMILY_NAMES.index(name) for name in GRASPS]] = 3.0
        self._hold_chance = (0.3 + grasps).to(self.device)
        self._flesh = torch.tensor(_FLESH, device=self.device)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, like: GivenHands | None = None) -> SynthBatch:
        """Draw n pictures with labels. A generator, if given, must live on the synthesizer's device.

        like: the n hands to show instead of drawn ones, perhaps with the skin of photos (`retexture.py`).
        """
        if n < 1:
            raise InputError(f"cannot make {n} pictures; ask for at least one")
        if like is not None and len(like.pose) != n:
            raise InputError(f"{len(like.pose)} hands are given for {n} pictures; ask for as many")
        generator = generator or self.generator
        config, size, hand = self.config, self.size, self.hand
        draw = Draw(n, generator)
        # choices for slices of the batch are made on the host from one number
        seed = torch.randint(2**62, (1,), generator=generator, device=self.device)
        chance = random.Random(int(seed.item()))

        if like is None:
            pose, family = sample_poses(
                n, hand, generator, self.anchors, config.anchor_share, config.pose_spread, config.free_share
            )
            shape = sample_shapes(n, generator, self.device)
            rotation = sample_rotations(n, generator, self.device, config.upright_share, self.views, config.view_share)
        else:
            pose, shape, rotation = like.pose, like.shape, like.rotation
            family = torch.full((n,), len(FAMILY_NAMES), device=self.device)
        view = quaternion_to_matrix(rotation)
        posed = hand(pose, shape)
        joints = posed.joints @ view.mT
        distance = torch.exp(draw.uniform(math.log(config.nearest), math.log(config.farthest)))
        offset = -joints.mean(1)
        offset[:, 2] += distance

        seen = joints + offset[:, None]
        rays = seen[..., :2] / seen[..., 2:]
        low, high = rays.amin(1), rays.amax(1)
        half = 0.5 * HOUSE_PADDING * (high - low).amax(-1).clamp_min(1e-3) * draw.uniform(*config.zoom)
        centre = 0.5 * (low + high) + 2.0 * half[:, None] * draw.uniform(-config.centre_jitter, config.centre_jitter, 2)
        keypoints = (rays - centre[:, None]) / half[:, None, None]
        scale, shift = fit_weak_perspective(joints[..., :2], keypoints)
        translation = torch.nn.functional.pad(shift, (0, 1))

        looks = sample_looks(n, self.body.texture_darkness, generator, config.tones)
        held = draw.uniform(0, 1) < config.object_share * self._hold_chance[family]
        meshes = self.body.meshes(
            posed.vertices, posed.joints, view, offset, centre, half, size, looks, held, generator
        )
        visibility = see(meshes, size)
        layer = self._layer(meshes, visibility, looks, draw, like)

        images = self._backdrop(draw, looks, chance)
        rows = self._rows(n, config.other_behind, chance)
        if len(rows):
            behind = other_hands(layer, (rows + n // 2) % n, Draw(len(rows), generator))
            images[rows] = torch.lerp(images[rows], behind[:, :3], behind[:, 3:])
        images = torch.lerp(images, layer[:, :3], layer[:, 3:])
        hidden = self._cover(images, layer, visibility, keypoints, looks, generator, chance)
        if config.photograph:
            images = photograph(images, generator, chance, config.phone_share)
        mask = visibility.hand_seen & (hidden < 0.5)
        flesh = self._flesh * ((joints[:, 9] - joints[:, 0]).norm(dim=-1, keepdim=True) / _PALM_LENGTH)
        visible = self._keypoints_visible(keypoints, seen[..., 2] - flesh, visibility, hidden)
        parameters = MeshParameters(pose, shape, rotation, scale, translation)
        return SynthBatch(
            images=images.clamp_(0.0, 1.0),
            keypoints=keypoints,
            skeleton=scale[:, None, None] * joints + translation[:, None],
            parameters=encode(parameters),
            pose=pose, shape=shape, rotation=rotation, scale=scale, translation=translation,
            mask=mask,
            mask_full=torch.isfinite(visibility.hand),
            depth=torch.where(mask, visibility.hand, 0.0),
            visible=visible,
            camera_distance=distance,
            family=family,
            tone=looks.tone,
        )  # fmt: skip

    def records(self, n: int, generator: torch.Generator | None = None, like: GivenHands | None = None) -> Records:
        """`sample` as the training room stores hands: bytes, everything trusted, hidden keypoints included."""
        from densehand.data.records import Records  # the one look upwards: only training asks, and only when it does

        batch = self.sample(n, generator, like)
        return Records(
            images=(batch.images * 255.0).round().byte().permute(0, 2, 3, 1).contiguous(),
            keypoints=batch.keypoints,
            keypoint_weight=torch.ones(n, 21, device=self.device),
            pose=batch.pose,
            shape=batch.shape,
            rotation=batch.rotation,
            scale=batch.scale,
            translation=batch.translation[:, :2],
            trust=torch.ones(n, device=self.device),
            masks=batch.mask.byte() * 255,
            silhouettes=batch.mask_full.byte() * 255,
        )

    def _layer(
        self, meshes: Meshes, visibility: Visibility, looks: SkinLook, draw: Draw, like: GivenHands | None
    ) -> Float[Tensor, "n 4 s s"]:
        """The lit hand with arm and object as sRGB and soft coverage (n, 4, s, s)."""
        n, size = draw.n, self.size
        lights = sample_lights(self.environments, n, draw.generator)
        colours = torch.stack([draw.colour() for _ in range(4)], dim=1).view(n, 2, 2, 3)
        plain = (draw.uniform(0, 1, 2, 1, 1) < 0.6).expand(-1, -1, 1, 3)
        colours = torch.cat([colours[:, :, :1], torch.where(plain, colours[:, :, :1], colours[:, :, 1:])], dim=2)
        ranges = torch.tensor([[250.0, 4.0], [4.0, 4.0]], device=self.device)
        materials = Materials(
            to_linear(colours), draw.uniform(0.0, 1.0, 2, 2) * ranges, draw.uniform(0.0, 1.0, 2).square()
        )
        linear = shade(
            meshes, visibility, size, looks, materials, lights, self.body.albedo, self.body.texture.detail,
            self.body.noise
        )  # fmt: skip
        # a camera exposes for the light there is, and partly for the skin
        light = 0.75 + 0.55 * lights.lamp_colour.mean(-1, keepdim=True)
        skin = (looks.back @ looks.back.new_tensor(LUMINANCE))[:, None] / 0.3
        exposure = torch.exp(draw.gauss(0.22, 1)) / light * skin.clamp(0.05, 2.0) ** -0.25
        colour = to_srgb(linear * exposure[visibility.covered.picture])
        # the shoulder of a tone curve instead of a hard clip
        colour = torch.where(colour < 0.8, colour, 0.8 + 0.2 * torch.tanh((colour - 0.8) / 0.2))
        if like is not None:
            colour = like.paint(colour, meshes, visibility.covered)
        plane = torch.zeros(n * size * size, 4, device=self.device)
        plane[visibility.covered.pixel] = torch.nn.functional.pad(colour, (0, 1), value=1.0)
        plane = plane.view(n, size, size, 4).permute(0, 3, 1, 2).contiguous()
        # edges: coverage a little blurred, its colour taken from the hand alone
        soft = gaussian_blur(plane, 0.55)
        return torch.cat([soft[:, :3] / soft[:, 3:].clamp_min(1e-3), soft[:, 3:]], dim=1)

    def _backdrop(self, draw: Draw, looks: SkinLook, chance: random.Random) -> Float[Tensor, "n 3 s s"]:
        if not self.config.backdrop:
            return draw.colour()[..., None, None].expand(-1, -1, self.size, self.size).contiguous()
        if self.backgrounds is None:
            images = made_up_backdrops(self.size, draw)
        else:
            images = photo_backdrops(self.backgrounds, self.size, draw)
            images = (images * torch.exp(draw.gauss(0.25, 1, 1, 1))).clamp_(0.0, 1.0)
        for _ in range(2):
            rows = self._rows(draw.n, 0.45, chance)
            if len(rows):
                colour, coverage = clutter(self.size, Draw(len(rows), draw.generator), looks.tone[rows])
                images[rows] = torch.lerp(images[rows], colour, coverage)
        return images

    def _cover(
        self, images: Tensor, layer: Tensor, visibility: Visibility, keypoints: Tensor, looks: SkinLook,
        generator: torch.Generator, chance: random.Random,
    ) -> Float[Tensor, "n s s"]:  # fmt: skip
        """Lay things and other hands before the hands, into `images`; returns how far each pixel is hidden by them."""
        n = len(images)
        hidden = torch.zeros_like(images[:, 0])
        rows = self._rows(n, self.config.occluder_share, chance)
        if len(rows):
            colour, coverage = occluders(self.size, Draw(len(rows), generator), keypoints[rows], looks.tone[rows])
            images[rows] = torch.lerp(images[rows], colour, coverage)
            hidden[rows] = coverage[:, 0]
        rows = self._rows(n, self.config.other_before, chance)
        if len(rows):
            other = other_hands(layer, (rows + 1 + n // 3) % n, Draw(len(rows), generator))
            own = visibility.hand_seen[rows]
            share = (other[:, 3] * own).sum((1, 2)) / own.sum((1, 2)).clamp_min(1)
            # a hand that would hide most of this one stays away
            alpha = other[:, 3:] * (share < 0.45).view(-1, 1, 1, 1)
            images[rows] = torch.lerp(images[rows], other[:, :3], alpha)
            hidden[rows] = torch.maximum(hidden[rows], alpha[:, 0])
        return hidden

    def _keypoints_visible(
        self, keypoints: Tensor, nearest_skin: Tensor, visibility: Visibility, hidden: Tensor
    ) -> Bool[Tensor, "n 21"]:
        pixel = ((keypoints + 1.0) * (0.5 * self.size)).floor().long()
        inside = ((pixel >= 0) & (pixel < self.size)).all(-1)
        pixel = pixel.clamp(0, self.size - 1)
        row = torch.arange(len(pixel), device=self.device)[:, None]
        front = visibility.front[row, pixel[..., 1], pixel[..., 0]]
        covered = hidden[row, pixel[..., 1], pixel[..., 0]] > 0.5
        return inside & ~covered & (front > nearest_skin)

    def _rows(self, n: int, share: float, chance: random.Random) -> Tensor:
        """About `share`·n of the batch: a run of rows from a random start, around the end."""
        count = min(n, int(share * n + chance.random()))
        return (torch.arange(count, device=self.device) + chance.randrange(n)) % n


def fit_weak_perspective(
    points: Float[Tensor, "*b k 2"], targets: Float[Tensor, "*b k 2"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b 2"]]:
    """Least squares scale and shift with scale · points + shift ≈ targets."""
    mean, goal = points.mean(-2, keepdim=True), targets.mean(-2, keepdim=True)
    centred = points - mean
    scale = (centred * (targets - goal)).sum((-1, -2)) / centred.square().sum((-1, -2)).clamp_min(1e-12)
    return scale, (goal - scale[..., None, None] * mean).squeeze(-2)
