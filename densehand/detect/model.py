"""The detector's network: a truncated EfficientNet-lite0, a light top-down neck, and dense heads at stride 8.

Every cell of the stride-8 map answers five questions: is the centre of a hand's box here; where exactly is that centre;
how large is the box; is it a right hand; which way do its fingers point. One centre is one hand, as in Zhou et al.,
"Objects as points" (2019); sizes and centres are learnt from every cell near a centre, not the peak alone, as in Liu et
al., "Training-time-friendly network for real-time object detection" (2020).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from densehand.network.backbone import ConvBN, EfficientNetLite0, create_trunk

STRIDE = 8
SIDE_MULTIPLE = 32  # input sides must be multiples of this: the context branch works at stride 32
REFERENCE_SIZE = 64.0  # px; box sizes are regressed as logarithms relative to this


class DetectorOutput(NamedTuple):
    """Dense answers on the stride-8 grid, hs = height / 8 and ws = width / 8."""

    centre_logit: Float[Tensor, "b hs ws"]
    offset: Float[Tensor, "b 2 hs ws"]  # box centre minus the cell's centre, in cells (x, y)
    log_size: Float[Tensor, "b 2 hs ws"]  # log of the box's width and height over REFERENCE_SIZE pixels
    side_logit: Float[Tensor, "b hs ws"]  # > 0: a right hand
    turn: Float[Tensor, "b 2 hs ws"]  # mean sine and cosine of the palm's turn from upright: short where it is doubtful
    keypoints: Float[Tensor, "b 42 hs ws"] | None = None  # auxiliary: (keypoint − cell's centre) / box's larger side


class SeparableConv(nn.Module):
    """Depthwise k×k, then 1×1, with a shortcut where the shapes allow it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 5, stride: int = 1):
        super().__init__()
        relu6 = nn.ReLU6(inplace=True)
        self.depthwise = ConvBN(channels_in, channels_in, kernel, stride, groups=channels_in, act=relu6)
        self.pointwise = ConvBN(channels_in, channels_out, act=nn.Identity())
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        return F.relu6(x + y if self.has_shortcut else y)


class DetectorNet(nn.Module):
    """RGB pictures in [0, 1] → :class:`DetectorOutput`. About 0.8 million weights.

    Of EfficientNet-lite0 the stages to stride 16 are kept; the later ones hold three quarters of its weights. In their
    place a small branch at stride 32 sees enough of the picture for hands that fill it.
    """

    width = 64
    trunk_blocks = 11  # EfficientNet-lite0's blocks to the end of stage 5 (stride 16) …
    trunk_stride8 = 5  # … of which the first five end at stride 8

    def __init__(self, trunk: EfficientNetLite0 | None = None, auxiliary: bool = False):
        super().__init__()
        if trunk is None:
            created = create_trunk("efficientnet_lite0")
            assert isinstance(created, EfficientNetLite0)
            trunk = created
        channels8, channels16, _ = trunk.channels
        width, relu6 = self.width, nn.ReLU6(inplace=True)
        self.stem = trunk.stem
        self.blocks = nn.ModuleList(list(trunk.blocks)[: self.trunk_blocks])
        self.context = nn.Sequential(
            SeparableConv(channels16, 128, stride=2),
            SeparableConv(128, 128),
            SeparableConv(128, 128),
            ConvBN(128, width),
        )
        self.lateral16 = ConvBN(channels16, width)
        self.lateral8 = ConvBN(channels8, width)
        self.smooth16 = SeparableConv(width, width)
        self.smooth8 = nn.Sequential(SeparableConv(width, width), SeparableConv(width, width, 3))
        self.centre_branch = ConvBN(width, width, act=relu6)
        self.box_branch = ConvBN(width, width, act=relu6)
        self.side_branch = nn.Sequential(SeparableConv(width, 96), SeparableConv(96, 96))
        self.centre = nn.Conv2d(width, 1, 1)
        self.box = nn.Conv2d(width, 4, 1)
        self.side = nn.Conv2d(96, 1, 1)
        self.turn = nn.Conv2d(96, 2, 1)  # fitted when all else is trained (`detect/turn.py`)
        # Which side a hand is shows in where its thumb is and which face it turns to us: the branch learns it sooner,
        # and better, if it must tell the keypoints too. Not part of the shipped network.
        self.keypoints = nn.Conv2d(96, 42, 1) if auxiliary else None
        for head in (self.centre, self.box, self.side):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.turn.weight)
        nn.init.zeros_(self.turn.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.centre.bias, -4.0)  # type: ignore[arg-type]  # hands are rare: start near "nothing here"

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> DetectorOutput:
        """``h`` and ``w`` must be multiples of :data:`SIDE_MULTIPLE`."""
        x = self.stem((images * 255 - 127) / 128)  # the trunk's own ImageNet normalisation
        stride8 = x
        for done, block in enumerate(self.blocks, start=1):
            x = block(x)
            if done == self.trunk_stride8:
                stride8 = x
        merged16 = self.smooth16(self.lateral16(x) + F.interpolate(self.context(x), scale_factor=2.0))
        merged8 = self.smooth8(self.lateral8(stride8) + F.interpolate(merged16, scale_factor=2.0))
        box = self.box(self.box_branch(merged8))
        side = self.side_branch(merged8)
        return DetectorOutput(
            centre_logit=self.centre(self.centre_branch(merged8))[:, 0],
            offset=box[:, :2],
            log_size=box[:, 2:],
            side_logit=self.side(side)[:, 0],
            turn=self.turn(side),
            keypoints=None if self.keypoints is None else self.keypoints(side),
        )


def cell_centres(height: int, width: int, device: torch.device | str = "cpu") -> Float[Tensor, "2 hs ws"]:
    """Pixel coordinates (x, y) of the centres of an hs × ws grid of cells."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * STRIDE
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * STRIDE
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def boxes_of(output: DetectorOutput) -> Float[Tensor, "b 4 hs ws"]:
    """The box [x0, y0, x1, y1] in input pixels that every cell proposes."""
    height, width = output.offset.shape[-2:]
    centre = cell_centres(height, width, output.offset.device) + output.offset * STRIDE
    half = 0.5 * REFERENCE_SIZE * output.log_size.clamp(-4, 4).exp()
    return torch.cat([centre - half, centre + half], dim=1)
