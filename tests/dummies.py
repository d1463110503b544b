"""A stand-in for HandModel: right interface, tiny mesh, no asset files; keeps the network's tests fast."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class DummyMesh(NamedTuple):
    vertices: Tensor
    joints: Tensor


def rotate(quaternion: Tensor, points: Tensor) -> Tensor:
    """Points (*b n 3) by unit quaternions (*b 4), [w, x, y, z]: p + 2 w v×p + 2 v×(v×p)."""
    w, v = quaternion[..., None, :1], quaternion[..., None, 1:].expand_as(points)
    cross = torch.linalg.cross(v, points)
    return points + 2 * w * cross + 2 * torch.linalg.cross(v, cross)


class DummyHand(nn.Module):
    """21 points on a fan of five fingers that move linearly with pose and shape; the mesh is a ribbon along them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        rest = torch.zeros(21, 3)
        for finger in range(5):
            for joint in range(4):
                length, angle = 0.08 + 0.025 * joint, 0.3 * (2 - finger)
                angle = torch.tensor(angle)
                rest[1 + 4 * finger + joint] = length * torch.stack((angle.sin(), -angle.cos(), torch.tensor(0.0)))
        directions = 0.01 * torch.randn(55, 21, 3, generator=generator)
        directions[:, 0] = 0  # the wrist stays at the origin
        self.register_buffer("rest", rest)
        self.register_buffer("directions", directions)
        self.register_buffer("mean_pose", 0.1 * torch.randn(45, generator=generator))
        chains = torch.tensor([[0, *range(1 + 4 * f, 5 + 4 * f)] for f in range(5)])
        a, b = chains[:, :-1].flatten(), chains[:, 1:].flatten()
        self.register_buffer("faces", torch.cat((torch.stack((a, b, a + 21), 1), torch.stack((b, b + 21, a + 21), 1))))

    def skeleton(self, pose: Tensor, shape: Tensor, rotation: Tensor | None = None) -> Tensor:
        points = self.rest + torch.einsum("...k,kjc->...jc", torch.cat((pose, shape), -1), self.directions)
        return points if rotation is None else rotate(rotation, points)

    def forward(self, pose: Tensor, shape: Tensor, rotation: Tensor | None = None) -> DummyMesh:
        joints = self.skeleton(pose, shape)
        vertices = torch.cat((joints, joints + joints.new_tensor([0.015, 0.0, 0.004])), -2)
        if rotation is not None:
            vertices, joints = rotate(rotation, vertices), rotate(rotation, joints)
        return DummyMesh(vertices, joints)
