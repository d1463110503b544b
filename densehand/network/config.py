"""What distinguishes one DHPE from another: a frozen dataclass per named model."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DHPEConfig:
    """Architecture of a :class:`densehand.network.estimator.DHPE`: equal configurations have equal state dicts."""

    name: str
    backbone: Literal["resnet50", "efficientnet_lite0"]
    head_block: Literal["separable", "dense"]  # convolutions of the heat-map head
    head_width: int
    head_depth: tuple[int, int]  # blocks in stage 1 and stage 2
    head_kernel: int
    shared_trunk: bool = True  # f_J2D reads f_Feat's maps; False: a convolutional net of its own, as in the paper
    heatmap_activation: Literal["softmax", "linear"] = "softmax"
    iterations: int = 3  # of f_E3D and f_Ref
    dropout: float = 0.0  # on F, in training
    corrector: int = 512  # width of the step after the iterations (network/corrector.py); 0: none, as in the paper
    side_corrector: int = 256  # width of the side's, which goes with it; 0: none
    input_size: int = 224  # pixels; any multiple of 32 runs, this is what packaged weights were finished at
    storage: Literal["fp16", "int8"] = "fp16"  # of the packaged weights


CONFIGS: dict[str, DHPEConfig] = {
    config.name: config
    for config in (
        DHPEConfig("dhpe-lite", "efficientnet_lite0", "separable", head_width=96, head_depth=(2, 3), head_kernel=5),
        DHPEConfig("dhpe-r50", "resnet50", "dense", head_width=128, head_depth=(2, 2), head_kernel=3, storage="int8"),
        DHPEConfig(
            "dhpe-paper",
            "resnet50",
            "dense",
            head_width=128,
            head_depth=(3, 5),
            head_kernel=7,
            shared_trunk=False,
            heatmap_activation="linear",
            corrector=0,
            side_corrector=0,
            storage="int8",
        ),
    )
}
