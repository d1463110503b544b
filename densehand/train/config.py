"""What a training run is made of; every field is an option of `densehand train`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from densehand.data.augment import Augmentation


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term (densehand/losses.py). `robust` swaps squared norms for smooth L1 ones.

    articulation, refiner, heatmaps, features, shape and laplacian are the paper's terms (section 3.3); coordinates
    (heat maps' maxima), projection, pose, shape_prior, rotation, side, hand and mask are ours.
    """

    articulation: float = 5.0
    projection: float = 5.0
    refiner: float = 5.0
    heatmaps: float = 0.1
    coordinates: float = 5.0
    features: float = 0.0
    shape: float = 0.0
    laplacian: float = 0.0
    pose: float = 1.0
    shape_prior: float = 0.02
    rotation: float = 0.5
    side: float = 0.3
    hand: float = 0.3
    mask: float = 0.5
    robust: bool = True
    hierarchical: bool = True


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    photos / backgrounds: folders of real crops and of hand-free pictures (either may be empty). The shares say what
    a batch is made of; what is left of 1 is synthetic. pool: how many synthetic pictures are kept and re-cut, and
    replay: how often each is used on average before a new one takes its place (1 renders every picture afresh).
    """

    model: str = "dhpe-lite"
    photos: str = ""
    backgrounds: str = ""
    fits: str = ""
    out: str = "runs/dhpe-lite"
    start: str = "imagenet"  # "imagenet", "none", or a weights file / checkpoint to start from
    size: int = 160
    batch: int = 32
    steps: int = 20_000
    lr: float = 1e-3
    warmup: int = 200
    final_lr: float = 0.01
    weight_decay: float = 0.02
    ema: float = 0.999
    clip: float = 5.0
    photo_share: float = 0.5
    negative_share: float = 0.04
    pool: int = 4096
    replay: float = 4.0
    mask_terms_share: float = 0.25  # share of a batch on which the costly mask terms (features, shape) are taken
    bf16: bool = False
    channels_last: bool = True
    seed: int = 0
    checkpoint_every: int = 500
    validate_every: int = 1000
    threads: int = 0
    device: str = "auto"
    weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)


def paper_config(**changes: object) -> TrainConfig:
    """The paper's own objective: squared norms, its six terms with hierarchical λ, nothing of ours but the mask."""
    weights = LossWeights(
        articulation=1.0, refiner=1.0, heatmaps=1.0, features=1.0, shape=1.0, laplacian=1.0, projection=0.0,
        coordinates=0.0, pose=0.0, shape_prior=0.0, rotation=0.0, side=0.0, hand=0.0, mask=0.0, robust=False,
    )  # fmt: skip
    config = TrainConfig(model="dhpe-paper", out="runs/dhpe-paper", size=224, mask_terms_share=1.0, weights=weights)
    return replace(config, **changes)  # type: ignore[arg-type]
