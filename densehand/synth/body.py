"""The hand as synthesis draws it: texture, forearm and held object, in one mesh with one topology for all pictures."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from densehand.hand.model import HandModel
from densehand.render import vertex_normals

from .config import SynthConfig
from .detail import paint_texture
from .light import LUMINANCE
from .photo import to_linear
from .render import BARE_ARM, HAND, OBJECT, SLEEVE, Meshes
from .scene import build_forearms, build_objects, forearm_faces, sphere_topology
from .skins import MAP_SIZE, SkinLook, load_skin_patches, lookup, noise_maps, relative_albedo


class HandBody:
    """What does not change from picture to picture, made once for a float32 hand model on its device.

    albedo (K·MAP_SIZE², 3), detail (MAP_SIZE², C) and noise: see skins.py and detail.py. texture_darkness (K,): rank of
    each texture, 0 the lightest, 1 the darkest. Of the configuration, skin_detail, forearm and sleeve_share count.
    """

    def __init__(self, hand: HandModel, config: SynthConfig | None = None) -> None:
        self.hand, self.config = hand, config or SynthConfig()
        self.device = hand.template.device
        self._prepare_surface()
        self._prepare_topology()

    def _prepare_surface(self) -> None:
        texture = paint_texture(self.hand)
        patches = load_skin_patches(self.device)
        palm = texture.detail[:, 0].view(MAP_SIZE, MAP_SIZE).clamp(0, 1)
        if texture.has_body_uv and self.config.skin_detail:
            albedo = relative_albedo(patches, palm, texture.inside)
        else:
            albedo = torch.ones(len(patches), MAP_SIZE, MAP_SIZE, 3, device=self.device)
        self.texture, self.albedo = texture, albedo.reshape(-1, 3).contiguous()
        luminance = (to_linear(patches) * patches.new_tensor(LUMINANCE).view(3, 1, 1)).sum(1).mean((1, 2))
        ranks = luminance.argsort(descending=True).argsort().float()
        self.texture_darkness = ranks / (len(patches) - 1)
        self.noise = noise_maps(self.device)
        if not self.config.skin_detail:
            texture.detail[:, 1:] = 0.0  # what is left tells palm from back
            self.noise = torch.zeros_like(self.noise)

    def _prepare_topology(self) -> None:
        hand, loop = self.hand, self.hand.wrist_loop
        on_loop = torch.zeros(len(hand.template), dtype=torch.bool, device=self.device)
        on_loop[loop] = True
        # the wrist's cap: faces around a vertex that has neighbours on the loop only; the forearm's skin goes on there
        inner = torch.ones_like(on_loop)
        for a, b in ((0, 1), (1, 2), (2, 0)):
            inner[hand.faces[:, a][~on_loop[hand.faces[:, b]]]] = False
            inner[hand.faces[:, b][~on_loop[hand.faces[:, a]]]] = False
        capped = (inner | on_loop)[hand.faces].all(-1)
        own = hand.faces[~capped]
        vertices = len(hand.template)
        arm, is_sleeve = forearm_faces(loop, hand.template[loop], vertices)
        arm_vertices = int(arm.max()) + 1 - vertices
        self.sphere_angles, sphere = sphere_topology()
        self.sphere_angles = self.sphere_angles.to(self.device)
        thing = sphere.to(self.device) + vertices + arm_vertices
        self.faces = torch.cat([hand.faces, arm, thing])
        self.smooth_faces = torch.cat([own, arm, thing])
        self.hand_faces = len(hand.faces)
        part = torch.full((len(self.faces),), OBJECT, device=self.device)
        part[: self.hand_faces] = HAND
        part[self.hand_faces : self.hand_faces + len(arm)] = torch.where(is_sleeve, SLEEVE, BARE_ARM)
        self.part = part
        # one texture coordinate per loop vertex, for the forearm's skin
        corner = (own[None] == loop[:, None, None]).flatten(1).float().argmax(1)
        self.loop_uv = self.texture.face_uv[~capped].reshape(-1, 2)[corner]

    def meshes(
        self, vertices: Tensor, joints: Tensor, view: Tensor, offset: Tensor, centre: Tensor, half: Tensor,
        size: int, looks: SkinLook, held: Bool[Tensor, " n"], generator: torch.Generator,
    ) -> Meshes:  # fmt: skip
        """Hand, forearm and object in camera axes and on the screen; vertices and joints come in the hand frame."""
        n = len(vertices)
        vertices, joints = vertices @ view.mT, joints @ view.mT
        loop = vertices[:, self.hand.wrist_loop]
        arm = build_forearms(loop, view, offset[:, 2], generator, self.config.sleeve_share)
        if not self.config.forearm:  # all its rings on the wrist's: faces without area
            arm.vertices = loop.repeat(1, arm.vertices.shape[1] // loop.shape[1], 1)
        thing, unit = build_objects(joints, held, self.sphere_angles, generator)
        points = torch.cat([vertices, arm.vertices, thing], dim=1)
        normals = vertex_normals(points, self.smooth_faces)
        points = points + offset[:, None]
        flat = (points[..., :2] / points[..., 2:] - centre[:, None]) / half[:, None, None]
        screen = torch.cat([(flat + 1.0) * (0.5 * size), points[..., 2:]], dim=-1)

        pattern = torch.zeros_like(points)
        first, last = vertices.shape[1], vertices.shape[1] + arm.vertices.shape[1]
        pattern[:, first:last, 0] = arm.along
        pattern[:, first:last, 1] = arm.around
        pattern[:, last:] = unit
        rings = arm.vertices.shape[1] // len(self.loop_uv)
        loop_uv = self.loop_uv.repeat(n, 1)
        structure = lookup(self.albedo, MAP_SIZE, loop_uv, looks.texture.repeat_interleave(len(self.loop_uv)))
        palm = lookup(self.texture.detail[:, :1], MAP_SIZE, loop_uv)
        skin = torch.cat([structure, palm], dim=-1).view(n, -1, 4)
        arm_skin = torch.zeros(*points.shape[:2], 4, device=self.device)
        arm_skin[:, first:last] = skin.repeat(1, rings, 1)
        arm_skin[:, self.hand.wrist_loop] = skin
        return Meshes(
            points, screen, normals, self.faces, self.hand_faces, self.part, self.texture.face_uv, pattern, arm_skin
        )  # fmt: skip
