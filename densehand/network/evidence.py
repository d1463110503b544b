"""f_E2D = (f_Feat, f_J2D): from a crop to the feature vector F, 21 heat maps H and the 2D skeleton j (paper, section
3.1).

f_Feat is a trunk and global pooling. f_J2D is a convolutional pose machine of two stages (Wei et al. 2016): stage 2
sees the features and stage 1's maps. Every stage also gives one foreground logit map. Heat maps are 32×32 whatever the
input size; a cell's position is its centre in crop units (crop edges at ±1).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from densehand.network.backbone import ConvBN, Trunk, create_trunk
from densehand.network.config import DHPEConfig

HEATMAP_SIZE = 32
NUM_KEYPOINTS = 21
WINDOW = 2  # cells on each side of a peak that count as "at" the peak: 5×5


@dataclass
class Evidence:
    """What is seen in the crop; stages are ordered, the last is the answer and the earlier ones are for supervision."""

    features: Float[Tensor, "b d"]
    heatmap_logits: list[Float[Tensor, "b 21 32 32"]]
    stage_mask_logits: list[Float[Tensor, "b 32 32"]]
    heatmaps: Float[Tensor, "b 21 32 32"]
    keypoints: Float[Tensor, "b 21 2"]
    confidence: Float[Tensor, "b 21"]


def cell_centers(size: int, like: Tensor) -> Float[Tensor, " size"]:
    """Centres of ``size`` cells across the crop, in crop units."""
    return (2 * torch.arange(size, dtype=like.dtype, device=like.device) + 1) / size - 1


def soft_argmax(probabilities: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b 2"]:
    """Expected position (x, y), crop units, under maps that sum to 1."""
    height, width = probabilities.shape[-2:]
    x = probabilities.sum(-2) @ cell_centers(width, probabilities)
    y = probabilities.sum(-1) @ cell_centers(height, probabilities)
    return torch.stack((x, y), -1)


def local_soft_argmax(maps: Float[Tensor, "*b h w"]) -> Float[Tensor, "*b 2"]:
    """Position (x, y) of each map's maximum, crop units, to a fraction of a cell.

    The mean of the cells within the 5×5 window around the largest, weighted by their squared positive values: squaring
    halves a Gaussian's variance, so that cutting it off at the window hardly biases the mean. Differentiable in the
    window's values.
    """
    height, width = maps.shape[-2:]
    peak = maps.detach().flatten(-2).argmax(-1)
    rows, columns = (torch.arange(n, device=maps.device) for n in (height, width))
    near_row = (rows - (peak // width)[..., None]).abs() <= WINDOW
    near_column = (columns - (peak % width)[..., None]).abs() <= WINDOW
    at_peak = F.one_hot(peak, height * width).unflatten(-1, (height, width)).to(maps.dtype)
    # the tiny weight at the peak alone decides where no value of the window is positive
    weights = maps.clamp(min=0).square() * (near_row[..., :, None] & near_column[..., None, :]) + 1e-12 * at_peak
    return soft_argmax(weights / weights.sum((-2, -1), keepdim=True))


def mass_near(probabilities: Float[Tensor, "*b h w"], points: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    """Probability mass in the 5×5-cell window centred on each point (crop units): a confidence in [0, 1]."""
    height, width = probabilities.shape[-2:]
    points = points.detach()
    reach = (2 * WINDOW + 1) / torch.tensor(
        [width, height], dtype=points.dtype, device=points.device
    )  # half the window
    near_x = ((cell_centers(width, points) - points[..., :1]).abs() <= reach[0]).to(probabilities.dtype)
    near_y = ((cell_centers(height, points) - points[..., 1:]).abs() <= reach[1]).to(probabilities.dtype)
    return (probabilities * near_y[..., :, None] * near_x[..., None, :]).sum((-2, -1))


class SeparableBlock(nn.Module):
    """Depthwise k×k and 1×1 convolution with a shortcut: large receptive fields at a small price on a CPU."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.depthwise = ConvBN(width, width, kernel, groups=width, act=nn.ReLU(inplace=True))
        self.pointwise = ConvBN(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(self.depthwise(x)) + x, inplace=True)


class PoseStage(nn.Module):
    """One stage of the pose machine: features (and the last stage's maps) → 21 heat-map logits and one mask logit."""

    def __init__(self, channels_in: int, width: int, depth: int, kernel: int, block: str):
        super().__init__()
        relu = nn.ReLU(inplace=True)
        layers: list[nn.Module] = [ConvBN(channels_in, width, act=relu)] if channels_in != width else []
        for _ in range(depth):
            layers.append(
                SeparableBlock(width, kernel) if block == "separable" else ConvBN(width, width, kernel, act=relu)
            )
        self.body = nn.Sequential(*layers)
        self.maps = nn.Conv2d(width, NUM_KEYPOINTS + 1, 1)
        nn.init.normal_(self.maps.weight, std=0.01)  # near-flat maps: the first skeleton lies in the middle of the crop
        nn.init.constant_(self.maps.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Float[Tensor, "b 22 h w"]:
        return self.maps(self.body(x))


class PoseNet(nn.Module):
    """The paper's separate f_J2D trunk: the VGG-like layers of a convolutional pose machine, to stride 8.

    Wei et al. 2016 and Zimmermann & Brox 2017 (PoseNet), with batch norm so that it trains from random weights.
    """

    channels = 256

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels_in = 3
        for repeats, channels, pool in (
            (2, 64, True),
            (2, 128, True),
            (4, 256, True),
            (2, 512, False),
            (2, 256, False),
        ):
            for _ in range(repeats):
                layers.append(ConvBN(channels_in, channels, 3, act=nn.ReLU(inplace=True)))
                channels_in = channels
            if pool:
                layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 256 s/8 s/8"]:
        return self.layers(images * 2 - 1)


def _to_heatmap_size(x: Tensor) -> Float[Tensor, "b c 32 32"]:
    if x.shape[-2:] == (HEATMAP_SIZE, HEATMAP_SIZE):
        return x
    return F.interpolate(x, size=(HEATMAP_SIZE, HEATMAP_SIZE), mode="bilinear", align_corners=False)


class EvidenceNet(nn.Module):
    """f_E2D of a configuration. Input: RGB in [0, 1], square, side a multiple of 32."""

    def __init__(self, config: DHPEConfig):
        super().__init__()
        self.activation = config.heatmap_activation
        self.trunk: Trunk = create_trunk(config.backbone)
        width = config.head_width
        if config.shared_trunk:
            self.pose_net = None
            self.laterals = nn.ModuleList(ConvBN(channels, width) for channels in self.trunk.channels)
        else:
            self.pose_net = PoseNet()
            self.laterals = nn.ModuleList([ConvBN(PoseNet.channels, width)])
        stage1, stage2 = config.head_depth
        self.stage1 = PoseStage(width, width, stage1, config.head_kernel, config.head_block)
        self.stage2 = PoseStage(width + NUM_KEYPOINTS + 1, width, stage2, config.head_kernel, config.head_block)

    def extract_features(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """f_Feat alone (losses compare f_Feat(x) with f_Feat(x ⊙ m))."""
        return self.trunk(images).final.float().mean((2, 3))

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Evidence:
        maps = self.trunk(images)
        sources = (maps.stride8, maps.stride16, maps.stride32) if self.pose_net is None else (self.pose_net(images),)
        fused = self.laterals[0](sources[0])
        for conv, x in zip(self.laterals[1:], sources[1:], strict=True):
            fused = fused + F.interpolate(conv(x), size=fused.shape[-2:], mode="bilinear", align_corners=False)
        fused = F.relu(fused)
        first = self.stage1(fused)
        second = self.stage2(torch.cat((fused, first), 1))
        # the head works on the grid of stride 8 and only its maps are resized: at small inputs that is a quarter of the
        # work
        stages = [
            _to_heatmap_size(maps.float()) for maps in (first, second)
        ]  # float32: positions need more than 8 bits
        heatmap_logits = [stage[:, :NUM_KEYPOINTS] for stage in stages]
        with torch.autocast(images.device.type, enabled=False):  # soft-argmax is a matrix product too
            heatmaps, keypoints, confidence = self._locate(heatmap_logits[-1])
        return Evidence(
            features=maps.final.float().mean((2, 3)),
            heatmap_logits=heatmap_logits,
            stage_mask_logits=[stage[:, NUM_KEYPOINTS] for stage in stages],
            heatmaps=heatmaps,
            keypoints=keypoints,
            confidence=confidence,
        )

    def _locate(self, logits: Float[Tensor, "b 21 32 32"]) -> tuple[Tensor, Tensor, Tensor]:
        """Heat maps, positions (crop units) and confidences of the last stage's maps."""
        if self.activation == "linear":
            return logits, local_soft_argmax(logits), logits.amax((-2, -1)).clamp(0, 1)
        heatmaps = logits.flatten(-2).softmax(-1).unflatten(-1, (HEATMAP_SIZE, HEATMAP_SIZE))
        keypoints = soft_argmax(heatmaps)
        return heatmaps, keypoints, mass_near(heatmaps, keypoints)
