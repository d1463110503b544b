"""What a training run is made of; every field is an option of `densehand train` and a key of its files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from densehand.data.augmentation import Augmentation
from densehand.options import option
from densehand.synth.config import WIDE, SynthConfig


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term (densehand/losses.py). `robust` swaps squared norms for smooth L1 ones.

    articulation, refiner, heatmaps, features, shape and laplacian are the paper's terms (section 3.3); coordinates
    (heat maps' maxima), projection, pose, shape_prior, rotation, side, hand and mask are ours.
    """

    articulation: float = option(5.0, "L_Art, the 3D skeleton (eq. 8).", 0)
    projection: float = option(5.0, "The skeleton's projection against the 2D keypoints.", 0)
    refiner: float = option(5.0, "L_Ref, the refined 2D keypoints (eq. 6).", 0)
    heatmaps: float = option(0.1, "L_J2D, the heat maps (eq. 3).", 0)
    coordinates: float = option(5.0, "The heat maps' maxima against the 2D keypoints.", 0)
    features: float = option(
        0.0, "L_Feat, features of the hand without its background (eq. 2).", 0, names=("features",)
    )
    shape: float = option(0.0, "L_Sh, the rendered silhouette (eq. 9).", 0, names=("shape",))
    laplacian: float = option(0.0, "L_Lap, a smooth mesh.", 0, names=("laplacian",))
    pose: float = option(1.0, "The fitted pose.", 0)
    shape_prior: float = option(0.02, "A hand's shape near the labelled or the mean one.", 0)
    rotation: float = option(0.5, "The fitted rotation.", 0)
    side: float = option(0.3, "Left or right, cross-entropy.", 0)
    hand: float = option(0.3, "Hand or none, cross-entropy.", 0)
    mask: float = option(0.5, "The coarse mask head, cross-entropy.", 0)
    robust: bool = option(True, "Smooth L1 norms in place of the paper's squared ones.")
    hierarchical: bool = option(True, "λ of eq. 12: the shape term waits for the skeleton.")


@dataclass(frozen=True)
class DatasetShare:
    """One labelled dataset of a mixture (docs/datasets.md), a `[[dataset]]` table of a configuration file."""

    name: str = option("", "Its name, one of docs/datasets.md.")
    root: str = option("", "The folder it lies in.")
    split: str = option("", "The split; empty for the dataset's first.")
    weight: float = option(1.0, "How often its hands are drawn, against the other datasets and the photos.", 0)
    limit: int = option(4096, "Hands kept in memory, drawn evenly from the split; about 0.2 MB each.", 1)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    photos / backgrounds: folders of real crops and of hand-free pictures (either may be empty). The shares say what
    a batch is made of; what is left of 1 is synthetic. pool: how many synthetic pictures are kept and re-cut, and
    replay: how often each is used on average before a new one takes its place (1 renders every picture afresh).
    """

    model: str = option("dhpe-lite", "dhpe-lite, dhpe-r50 or dhpe-paper (the paper's separate nets and loss).")
    photos: str = option("", "Folder with labels.jsonl and crops/: real hands with 2D evidence.")
    backgrounds: str = option("", "Folder of hand-free pictures: negatives, and behind synthetic hands.")
    fits: str = option("", "File to keep the photos' hand model fits in; made when it is missing.")
    out: str = option("runs/densehand", "Folder for checkpoints, logs, sample sheets and weights.safetensors.")
    start: str = option("imagenet", "imagenet, none, a .safetensors file or a training checkpoint.")
    size: int = option(160, "Side of the crops in pixels, a multiple of 32.", 32)
    batch: int = option(32, "Pictures a step, over all processes.", 2)
    steps: int = option(20_000, "Optimiser steps in all.", 1)
    lr: float = option(1e-3, "Highest learning rate (warm-up, then cosine).", 0)
    warmup: int = option(200, "Steps until the highest learning rate is reached.", 1)
    final_lr: float = option(0.01, "Learning rate at the end, as a share of the highest.", 0)
    weight_decay: float = option(0.02, "Weight decay of matrices and kernels (AdamW).", 0)
    ema: float = option(0.999, "Decay of the running average that is saved as the weights.", 0, 1)
    clip: float = option(5.0, "Largest gradient norm; 0 for no limit.", 0)
    photo_share: float = option(0.5, "Share of real hands in a batch (photos and datasets).", 0, 1)
    rare: float = option(
        0.0, "Power by which photos of rare poses and views are drawn more often; 0 draws all alike.", 0
    )
    photos_weight: float = option(1.0, "How often photos are drawn, against the weights of the datasets.", 0)
    negative_share: float = option(0.04, "Share of pictures without a hand.", 0, 1)
    selfsup_share: float = option(
        0.0, "Share of new views made of photos whose fits are realistic, in their own skin (docs/adapt.md).", 0, 1
    )
    pool: int = option(4096, "Synthetic pictures kept and cut anew.", 1)
    replay: float = option(4.0, "How often a synthetic picture is used on average; 1 renders each afresh.", 1)
    mask_terms_share: float = option(0.25, "Share of a batch that L_Feat, L_Sh and L_Lap look at.", 0, 1)
    freeze_batchnorm: bool = option(False, "Batch norms keep their statistics (small batches, fine-tuning).")
    freeze_early: bool = option(False, "The trunk's layers down to stride 4 stay as they start (faster on CPUs).")
    bf16: bool = option(False, "bfloat16 convolutions (faster on GPUs, and on CPUs with AMX).")
    channels_last: bool = option(True, "Pictures in channels-last layout (faster).")
    seed: int = option(0, "Seed of everything random.")
    checkpoint_every: int = option(500, "Steps between checkpoints.", 1)
    validate_every: int = option(1000, "Steps between measurements on held-back photos; 0 for none.", 0)
    samples_every: int = option(1000, "Steps between sample sheets (samples-STEP.png); 0 for none.", 0)
    threads: int = option(0, "CPU threads of a process; 0 leaves torch's choice.", 0)
    device: str = option("auto", "auto, cpu or cuda.")
    devices: int = option(1, "Processes on this machine, one GPU each (torchrun's own count wins).", 1)
    nodes: int = option(1, "Machines (torchrun's own count wins).", 1)
    rank_batches: str = option(
        "slice",
        "slice: every process makes the whole batch and keeps its part, so that the pictures are the same for any "
        "number of processes. own: each makes its own part alone, which is cheaper.",
        choices=("slice", "own"),
    )
    sync_batchnorm: bool = option(True, "Batch norms over all GPUs; on CPUs each process has its own statistics.")
    weights: LossWeights = field(default_factory=LossWeights)
    augmentation: Augmentation = field(default_factory=Augmentation)
    synthesis: SynthConfig = WIDE
    dataset: tuple[DatasetShare, ...] = option((), "Labelled datasets, [[dataset]] tables of a configuration file.")


def paper_config(**changes: object) -> TrainConfig:
    """The paper's own objective: squared norms, its six terms with hierarchical λ, nothing of ours."""
    weights = LossWeights(
        articulation=1.0, refiner=1.0, heatmaps=1.0, features=1.0, shape=1.0, laplacian=1.0, projection=0.0,
        coordinates=0.0, pose=0.0, shape_prior=0.0, rotation=0.0, side=0.0, hand=0.0, mask=0.0, robust=False,
    )  # fmt: skip
    config = TrainConfig(model="dhpe-paper", out="runs/dhpe-paper", size=224, mask_terms_share=1.0, weights=weights)
    return replace(config, **changes)  # type: ignore[arg-type]
