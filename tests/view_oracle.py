"""A network that knows the truth in every view, for tests of views and of what is learnt from them."""

from types import SimpleNamespace

import roma
import torch

from densehand.adapt.gather import HOUSE
from densehand.network.mesh import MeshParameters, encode
from densehand.views import look

SIDE = 96


def ramp(count):
    """Pictures whose red and green tell the place: x and y in [-1, 1] as 0 to 255; blue is 255 everywhere."""
    axis = (torch.arange(256) + 0.5) / 256
    x, y = axis.expand(256, 256), axis[:, None].expand(256, 256)
    picture = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    return (picture * 255).round().byte().expand(count, 256, 256, 3)


def true_mesh(hand, count):
    generator = torch.Generator().manual_seed(0)
    rotation = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=-1)
    return MeshParameters(
        pose=hand.mean_pose + 0.1 * torch.randn(count, 45, generator=generator),
        shape=torch.randn(count, 10, generator=generator),
        rotation=rotation,
        scale=torch.full((count,), 5.0),
        translation=torch.nn.functional.pad(0.2 * torch.randn(count, 2, generator=generator), (0, 1)),
    )


class Oracle:
    """Reads from a ramp's crop where the crop lies, and answers the true mesh in it (or, `blind`, always the same)."""

    training = True

    def __init__(self, hand, truth, blind=False):
        self.hand, self.truth, self.blind, self.calls = hand, truth, blind, 0
        self.config = SimpleNamespace(input_size=SIDE)

    def eval(self):
        self.training = False

    def train(self, mode):
        self.training = mode

    def render_mask(self, h, size):
        return torch.ones(len(h), size, size)

    def place(self, crops):
        """(b 2 3) crop units → picture units, fitted to the colours of the middle."""
        middle = slice(SIDE // 4, -SIDE // 4)
        axis = ((torch.arange(SIDE) + 0.5) * 2 / SIDE - 1)[middle]
        x, y = axis.expand(len(axis), -1).flatten(), axis[:, None].expand(-1, len(axis)).flatten()
        design = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        seen = crops[:, :2, middle, middle].flatten(2) * 2 - 1
        return torch.linalg.lstsq(design, seen.mT.reshape(len(crops), -1, 2).permute(1, 0, 2).flatten(1)).solution

    def __call__(self, crops):
        assert not self.training
        count, rows = len(crops), torch.arange(self.calls, self.calls + len(crops)) % len(self.truth.pose)
        self.calls += count
        affine = self.place(crops).T.reshape(count, 2, 3)
        mirrored = torch.linalg.det(affine[:, :, :2]) < 0
        truth = MeshParameters(*(value[rows] for value in self.truth))
        skeleton = self.hand.skeleton(truth.pose, truth.shape, truth.rotation) * truth.scale[:, None, None]
        points = skeleton[..., :2] + truth.translation[:, None, :2]
        back = torch.linalg.inv(affine[:, :, :2])
        flat = (points - affine[:, None, :, 2]) @ back.mT
        half = torch.linalg.det(affine[:, :, :2]).abs().sqrt()
        angle = torch.atan2(back[:, 1, 0], back[:, 0, 0])
        spin = roma.rotvec_to_unitquat(torch.stack([0 * angle, 0 * angle, angle], dim=-1))
        turned = roma.quat_product(spin, truth.rotation[:, [1, 2, 3, 0]])[:, [3, 0, 1, 2]]
        wrist = ((truth.translation[:, None, :2] - affine[:, None, :, 2]) @ back.mT)[:, 0]
        h = encode(
            truth._replace(
                rotation=turned, scale=truth.scale / half, translation=torch.nn.functional.pad(wrist, (0, 1))
            )
        )
        if self.blind:
            h, flat = torch.zeros_like(h) + 0.01, torch.zeros_like(flat) + torch.linspace(-0.5, 0.5, 21)[:, None]
        joints = torch.cat([flat, skeleton[..., 2:] / half[:, None, None]], dim=-1)
        return SimpleNamespace(
            parameters=[h], skeletons=[joints], keypoints=[flat, flat], keypoints_2d=flat,
            keypoint_confidence=torch.ones(count, 21),
            mask_logits=torch.full((count, 32, 32), 20.0), hand_logit=torch.full((count,), 3.0),
            side_logit=torch.where(mirrored, -2.0, 2.0),
        )  # fmt: skip


def answers_of(hand, count=1, blind=False):
    truth = true_mesh(hand, count)
    centre, half = torch.full((count, 2), 0.05), torch.full((count,), HOUSE)
    return look(Oracle(hand, truth, blind), ramp(count), centre, half), truth, centre, half
