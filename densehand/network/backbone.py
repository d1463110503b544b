"""Convolutional trunks: ResNet-50 and EfficientNet-lite0, written so that their public ImageNet weights fit exactly.

Both take RGB in [0, 1] and do the input normalisation they were trained with themselves. Both return a
:class:`TrunkOutput`: maps at strides 8, 16 and 32 for the heat-map head, and the map whose spatial mean is the feature
vector F of the paper.

Sources: He et al., "Deep residual learning for image recognition" (Keras variant: a stage's stride sits on its first
1×1 convolution, batch-norm eps 1e-3); Tan & Le, "EfficientNet" in the mobile "lite" form (no squeeze-excite, ReLU6,
TensorFlow "SAME" padding).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from densehand.network.depthwise import depthwise, is_slow

BN_EPS = 1e-3  # of both sets of ImageNet weights; torch's default is 1e-5


class TrunkOutput(NamedTuple):
    """Feature maps of a trunk; S is the input size in pixels."""

    stride8: Float[Tensor, "b c8 s/8 s/8"]
    stride16: Float[Tensor, "b c16 s/16 s/16"]
    stride32: Float[Tensor, "b c32 s/32 s/32"]
    final: Float[Tensor, "b d s/32 s/32"]


class ConvBN(nn.Sequential):
    """Convolution + batch norm (+ activation) as ``conv``, ``bn``, ``act``.

    ``same=True`` pads like TensorFlow's "SAME" (the odd pixel goes right and below); otherwise padding is k // 2 on all
    sides.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: nn.Module | None = None,
        same: bool = False,
    ):
        super().__init__()
        self._tf_padding = same and stride > 1  # at stride 1 both paddings agree
        padding = 0 if self._tf_padding else kernel // 2
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(channels_out, eps=BN_EPS)
        self.act = act if act is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self._tf_padding:
            kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
            bottom, right = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:])
            x = F.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))
        y = depthwise(self.conv, x) if is_slow(self.conv, x) else self.conv(x)
        return self.act(self.bn(y))


class FreezableTrunk(nn.Module):
    """A trunk whose earliest layers can be kept at their ImageNet weights.

    They are edge and texture filters, of use as they are, and the dearest to train: without them a CPU trains
    EfficientNet-lite0 1.7 times as fast.
    """

    def early_layers(self) -> list[nn.Module]:
        """The layers down to stride 4."""
        raise NotImplementedError

    def freeze_early(self, frozen: bool = True) -> None:
        """Stop (or resume) training of the layers down to stride 4, batch-norm statistics included."""
        self._frozen_early = frozen
        for layer in self.early_layers():
            layer.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> "FreezableTrunk":
        super().train(mode)
        if getattr(self, "_frozen_early", False):
            for layer in self.early_layers():
                layer.eval()
        return self


class Bottleneck(nn.Module):
    """ResNet bottleneck with the stride on the first 1×1 convolution (the original, and Keras, placement)."""

    def __init__(self, channels_in: int, width: int, stride: int, project: bool):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        self.reduce = ConvBN(channels_in, width, 1, stride, act=relu)
        self.spatial = ConvBN(width, width, 3, act=relu)
        self.expand = ConvBN(width, 4 * width)
        self.shortcut = ConvBN(channels_in, 4 * width, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.expand(self.spatial(self.reduce(x))) + self.shortcut(x), inplace=True)


class ResNet50(FreezableTrunk):
    """ResNet-50 without its classifier. Maps of 512, 1024 and 2048 channels; F has 2048 numbers."""

    width = 2048
    channels = (512, 1024, 2048)
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1), persistent=False)
        self.stem = ConvBN(3, 64, 7, 2, act=nn.ReLU(inplace=True))
        stages, channels_in = [], 64
        for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            blocks = [Bottleneck(channels_in, width, stride, project=True)]
            blocks += [Bottleneck(4 * width, width, 1, project=False) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            channels_in = 4 * width
        self.stages = nn.ModuleList(stages)

    def early_layers(self) -> list[nn.Module]:
        return [self.stem, self.stages[0]]

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> TrunkOutput:
        x = images.flip(1) * 255 - self.mean  # BGR, 0–255, ImageNet means (Caffe's convention, which Keras kept)
        x = F.max_pool2d(self.stem(x), 3, 2, padding=1)
        stride8 = self.stages[1](self.stages[0](x))
        stride16 = self.stages[2](stride8)
        stride32 = self.stages[3](stride16)
        return TrunkOutput(stride8, stride16, stride32, stride32)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand 1×1, depthwise k×k, project 1×1; a shortcut where the shapes allow it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        width, relu6 = channels_in * expansion, nn.ReLU6(inplace=True)
        self.expand = ConvBN(channels_in, width, act=relu6, same=True) if expansion > 1 else nn.Identity()
        self.depthwise = ConvBN(width, width, kernel, stride, groups=width, act=relu6, same=True)
        self.project = ConvBN(width, channels_out, same=True)
        self.has_shortcut = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.has_shortcut else y


class EfficientNetLite0(FreezableTrunk):
    """EfficientNet-lite0 without its classifier. Maps of 40, 112 and 320 channels; F has 1280 numbers."""

    width = 1280
    channels = (40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        relu6 = nn.ReLU6(inplace=True)
        self.stem = ConvBN(3, 32, 3, 2, act=relu6, same=True)
        blocks, channels_in, ends = [], 32, []
        #          kernel, stride, expansion, channels, repeats
        for kernel, stride, expansion, channels, repeats in (
            (3, 1, 1, 16, 1),
            (3, 2, 6, 24, 2),
            (5, 2, 6, 40, 2),
            (3, 2, 6, 80, 3),
            (5, 1, 6, 112, 3),
            (5, 2, 6, 192, 4),
            (3, 1, 6, 320, 1),
        ):
            for repeat in range(repeats):
                blocks.append(InvertedResidual(channels_in, channels, kernel, stride if repeat == 0 else 1, expansion))
                channels_in = channels
            ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self._taps = (ends[2], ends[4], ends[6])  # numbers of blocks before the stride 8, 16 and 32 maps are complete
        self.head = ConvBN(320, 1280, act=relu6, same=True)

    def early_layers(self) -> list[nn.Module]:
        return [self.stem, *self.blocks[:3]]

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> TrunkOutput:
        x = self.stem((images * 255 - 127) / 128)
        taps = []
        for done, block in enumerate(self.blocks, start=1):
            x = block(x)
            if done in self._taps:
                taps.append(x)
        return TrunkOutput(taps[0], taps[1], taps[2], self.head(x))


Trunk = ResNet50 | EfficientNetLite0
TRUNKS: dict[str, type[ResNet50] | type[EfficientNetLite0]] = {
    "resnet50": ResNet50,
    "efficientnet_lite0": EfficientNetLite0,
}


def create_trunk(name: str) -> Trunk:
    """A trunk with random weights; ``name`` is a key of :data:`TRUNKS` (``KeyError`` otherwise)."""
    trunk = TRUNKS[name]()
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # fan_in: right for depthwise too
    return trunk
