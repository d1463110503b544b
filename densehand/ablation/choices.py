"""What each choice of a training is worth: the same training with one option changed (docs/training.md).

Every row begins with ImageNet's trunk and all else new, sees as many pictures, and is measured on the same held-back
photos and rendered hands. Seeds draw weights, batches and rendered hands.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from densehand.ablation.compare import Figures
from densehand.ablation.data import TEST_SEED
from densehand.ablation.measure import TestHands, measure
from densehand.ablation.training import fit
from densehand.data.augmentation import WIDE_CROPS
from densehand.data.records import Records
from densehand.hand.model import HandModel
from densehand.network import zoo
from densehand.network.config import CONFIGS
from densehand.network.estimator import DHPE
from densehand.options import nested, updated
from densehand.train.config import LossWeights, TrainConfig
from densehand.train.module import Training
from densehand.train.stream import BatchStream, SynthPool
from densehand.train.validate import HeldBackPhotos

USUAL = replace(WIDE_CROPS, occluder=0.35, blur=0.4, backdrop=0.5)
TESTED = 300  # rendered hands to measure on

BASE = TrainConfig(
    size=96, steps=240, warmup=24, ema=0.98, photo_share=0.56, negative_share=0.06, rare=1.2, pool=512,
    replay=1e9,  # nothing is rendered anew while a row trains
    mask_terms_share=0.125, freeze_early=True, weights=LossWeights(shape=2.0), augmentation=USUAL, device="cpu",
)  # fmt: skip
"""What all rows share: `tools/train_lite.sh` made small."""


@dataclass(frozen=True)
class Choice:
    """One row. `changes`: options of `TrainConfig` by dotted name; `network`: fields of `DHPEConfig`."""

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)

    def config(self, base: TrainConfig) -> TrainConfig:
        """The options of this row."""
        return updated(base, nested(self.changes), self.title)


def _augmentation(**values: Any) -> dict[str, Any]:
    return {f"augmentation.{name}": value for name, value in values.items()}


CHOICES: dict[str, Choice] = {
    "usual": Choice("as the packaged weights are trained"),
    # the optimiser
    "no-ema": Choice("no running average", {"ema": 0.0}),
    "ema-995": Choice("a longer running average (0.995)", {"ema": 0.995}),
    "lr-half": Choice("half the learning rate", {"lr": 5e-4}),
    "lr-double": Choice("twice the learning rate", {"lr": 2e-3}),
    "constant-lr": Choice("learning rate stays up", {"final_lr": 1.0}),
    "no-clip": Choice("gradients not clipped", {"clip": 0.0}),
    "clip-1": Choice("gradients clipped at 1 in place of 5", {"clip": 1.0}),
    "batch-16": Choice("batches of 16, twice as many steps", {"batch": 16, "steps": 480, "warmup": 48}),
    "all-layers": Choice("early layers trained, too", {"freeze_early": False}),
    "frozen-norms": Choice("batch norms keep ImageNet's statistics", {"freeze_batchnorm": True}),
    "no-imagenet": Choice("from random weights, all layers", {"start": "none", "freeze_early": False}),
    # pictures
    "photos-only": Choice("no synthetic hands", {"photo_share": 0.94}),
    "synthetic-only": Choice("no photos", {"photo_share": 0.0}),
    "not-rare": Choice("all photos drawn alike", {"rare": 0.0}),
    "size-128": Choice("crops of 128 px in place of 96", {"size": 128}),
    "size-160": Choice("crops of 160 px", {"size": 160}),
    # augmentation
    "no-turns": Choice("hands not turned", _augmentation(rotation=0.0, any_rotation=0.0)),
    "house-crops": Choice("crops well centred", _augmentation(zoom=[1.0, 1.0], shift=0.0)),
    "no-colour": Choice("colours as they are", _augmentation(colour=0.0, grey=0.0)),
    "no-blur": Choice("no lost resolution, no noise", _augmentation(blur=0.0, noise=0.0)),
    "no-cover": Choice("nothing covered", _augmentation(occluder=0.0)),
    "no-backdrops": Choice("photos' own backgrounds", _augmentation(backdrop=0.0)),
    "no-flip": Choice("no mirrored pictures", _augmentation(flip=0.0)),
    "flat-skin": Choice("rendered hands without skin detail", {"synthesis.skin_detail": False}),
    # the objective
    "no-shape": Choice("no shape loss", {"weights.shape": 0.0}),
    "no-mask": Choice("no mask head", {"weights.mask": 0.0}),
    "no-coordinates": Choice("heat maps' maxima not taught", {"weights.coordinates": 0.0}),
    "no-heatmaps": Choice("heat maps' form not taught", {"weights.heatmaps": 0.0}),
    "no-projection": Choice("the mesh's projection not taught", {"weights.projection": 0.0}),
    # the heads
    "width-64": Choice("heat-map head of 64 channels in place of 96", network={"head_width": 64}),
    "width-160": Choice("heat-map head of 160 channels", network={"head_width": 160}),
    "shallow": Choice("head of 1 + 1 blocks in place of 2 + 3", network={"head_depth": (1, 1)}),
    "kernel-3": Choice("head's kernels 3×3 in place of 5×5", network={"head_kernel": 3}),
    "dense": Choice("head of dense 3×3 convolutions", network={"head_block": "dense", "head_kernel": 3}),
    "one-iteration": Choice("one iteration in place of three", network={"iterations": 1}),
}

FIGURES: Figures = {
    "photo_px": ("photos (px)", 2),
    "mesh_px": ("photos' mesh (px)", 2),
    "changed_px": ("changed photos (px)", 2),
    "side": ("side right", 3),
    "rendered_px": ("rendered (px)", 2),
    "rendered_pa_mm": ("rendered PA-MPJPE (mm)", 2),
}
"""Figures of a row: heading and digits. Pixels of a 224-px crop: the 2D skeleton's error, mean over hands; `changed`:
turned, covered, blurred, badly centred, before other backgrounds."""


class Measurement:
    """Trains and measures rows on the CPU.

    base: what all rows share, with its photos and backgrounds. held_back: the photos to measure on, as records. tested:
    rendered hands to measure on.
    """

    def __init__(self, base: TrainConfig, held_back: Records, tested: int = TESTED) -> None:
        self.base, self.hand = base, HandModel.load("open")
        self.held_back = held_back
        self.stream = BatchStream(base, self.hand)
        self.rendered = self.stream.synthesizer().records(tested, torch.Generator().manual_seed(TEST_SEED))
        self.pools: dict[tuple[Any, ...], SynthPool] = {}

    def batches(self, config: TrainConfig) -> BatchStream:
        """A row's stream: photos and pictures are loaded, and hands of a seed rendered, once for all rows."""
        stream = copy.copy(self.stream)
        stream.config = config
        known = (config.seed, config.size, config.pool, config.synthesis)
        if known not in self.pools:
            self.pools[known] = SynthPool(stream.synthesizer(), config.pool, config.seed)
        stream.pool = self.pools[known]
        if config.rare != self.base.rare:
            stream.rarity = stream.weigh_photos()
        return stream

    def figures(self, network: DHPE, size: int) -> dict[str, float]:
        """`FIGURES` of the network's regression on crops of `size`²."""
        plain = HeldBackPhotos(self.held_back, self.hand, size)(network)
        backgrounds = self.stream.backgrounds
        changed = HeldBackPhotos(self.held_back, self.hand, size, how=USUAL, backgrounds=backgrounds)(network)
        hands = TestHands.cut(self.hand, self.rendered, size, len(self.rendered))
        rendered = measure(network, hands, masks=False)
        return {
            "photo_px": plain["refined_mean"], "mesh_px": plain["mesh_mean"], "changed_px": changed["refined_mean"],
            "side": plain["side"], "rendered_px": rendered["evidence_px"], "rendered_pa_mm": rendered["pa_mm"],
        }  # fmt: skip

    def network(self, choice: Choice, config: TrainConfig) -> DHPE:
        """A row's network before training."""
        torch.manual_seed(config.seed)
        model = replace(CONFIGS[config.model], **choice.network)
        network = zoo.build_model(model, hand=self.hand, imagenet=config.start == "imagenet")
        network.evidence.trunk.freeze_early(config.freeze_early)
        return network

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train and measure one row and seed: a line of the results file."""
        choice, began = CHOICES[name], time.process_time()
        config = choice.config(replace(self.base, seed=seed))
        config = replace(config, checkpoint_every=config.steps + 1)
        stream = self.batches(config)
        if stream.pool is not None:
            stream.pool.records(0, config.replay)  # rendered here, so that no row's time has another's hands in it
        training = time.process_time()
        module = Training(self.network(choice, config), stream, config)
        with tempfile.TemporaryDirectory() as folder:
            fit(module, Path(folder), watch=lambda _: {})
        took = time.process_time() - training
        line: dict[str, Any] = {"row": name, "seed": seed} | shared_of(self.base)
        line["pictures"] = config.steps * config.batch
        found = self.figures(cast(DHPE, module.average.module), config.size)
        line |= {f"{figure}_after": round(found[figure], 4) for figure in FIGURES}
        return line | {"training_seconds": round(took, 1), "cpu_seconds": round(time.process_time() - began, 1)}


def shared_of(base: TrainConfig) -> dict[str, Any]:
    """What the lines of one table have in common."""
    return {"base_size": base.size, "base_batch": base.batch, "base_steps": base.steps, "base_pool": base.pool}
