"""What each part of the synthetic hands does to photos: training on synthetic hands alone with one part changed.

Every row starts from the same weights, sees as many pictures and is measured on the same photos (docs/synth.md).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from densehand.ablation import compare
from densehand.ablation.data import PoolStream, rendered
from densehand.ablation.measure import TestHands, measure
from densehand.ablation.training import fit
from densehand.data.fits import Fits
from densehand.data.records import Records
from densehand.hand.model import HandModel
from densehand.network import zoo
from densehand.network.estimator import DHPE
from densehand.synth import Synthesizer
from densehand.synth.config import WIDE, SynthConfig
from densehand.train.config import TrainConfig
from densehand.train.module import Training
from densehand.train.run import load_start
from densehand.train.stream import pool_size
from densehand.train.validate import HeldBackPhotos


@dataclass(frozen=True)
class Variant:
    """One row. `changes`: what differs from `WIDE`; photos_behind: photos as backdrops where there are any; known:
    poses around those fitted to photos."""

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    photos_behind: bool = True
    known: bool = True

    @property
    def config(self) -> SynthConfig:
        """The synthesis of this row."""
        return replace(WIDE, **self.changes)


VARIANTS: dict[str, Variant] = {
    "all": Variant("all parts, as training has them"),
    "no-objects": Variant("nothing held", {"object_share": 0.0}),
    "no-occluders": Variant("nothing before the hand", {"occluder_share": 0.0}),
    "no-second-hand": Variant("no second hand", {"other_behind": 0.0, "other_before": 0.0}),
    "no-forearm": Variant("no forearm", {"forearm": False}),
    "bare-arms": Variant("no sleeves", {"sleeve_share": 0.0}),
    "even-light": Variant("no environments: even white light and a lamp", {"environments": False}),
    "flat-skin": Variant("no skin detail: no nails, creases, structure", {"skin_detail": False}),
    "made-up": Variant("made-up backdrops, no photos", photos_behind=False),
    "plain": Variant("backdrops of one colour", {"backdrop": False}),
    "families": Variant("families of poses alone", {"anchor_share": 0.0}),
    "known": Variant("poses around known ones alone (photos' and packaged)", {"anchor_share": 1.0}),
    "no-photos-poses": Variant("packaged poses in place of photos' poses", known=False),
    "wider": Variant("poses spread 1.6 times as wide", {"pose_spread": 1.6}),
    "no-camera": Variant("no blur, noise, JPEG or camera colours", {"photograph": False}),
    "weak": Variant("weak perspective: cameras 8 to 10 m away", {"nearest": 8.0, "farthest": 10.0}),
    "phones": Variant("half as phones and webcams process them (new)", {"phone_share": 0.5}),
    "views": Variant("half seen as photos' hands are (new)", {"view_share": 0.5}),
}

FIGURES: compare.Figures = {
    "mesh_px": ("mesh (px)", 2),
    "keypoint_px": ("keypoints (px)", 2),
    "pa_mm": ("PA-MPJPE (mm)", 2),
    "side": ("side right", 3),
}
"""Figures of a row: heading and digits. Pixels of a 224-px crop, means over photos."""


@dataclass(frozen=True)
class Options:
    """What all rows of a table share. pool: hands rendered for a row and seed; photos: how many are measured."""

    size: int = 96
    batch: int = 24
    steps: int = 32
    pool: int = 256
    lr: float = 5e-4
    photos: int = 160


EXPLAINED = 0.055  # of the hand's box: where trust is 0.5


def known_hands(fits: Fits) -> tuple[Float[Tensor, "k 45"], Float[Tensor, "k 4"]]:
    """Poses and views of the photos whose fits explain them: residual up to `EXPLAINED`."""
    good = fits.residual <= EXPLAINED
    return fits.pose[good], fits.rotation[good]


def synthesizer(
    variant: Variant,
    hand: HandModel,
    size: int,
    backgrounds: UInt8[Tensor, "m h w 3"] | None = None,
    known: tuple[Float[Tensor, "k 45"], Float[Tensor, "k 4"]] | None = None,
) -> Synthesizer:
    """The synthetic hands of a row, from the photos' backdrops, poses and views that it uses."""
    poses = known[0] if known is not None and variant.known else None
    views = known[1] if known is not None else None
    behind = backgrounds if variant.photos_behind else None
    return Synthesizer(hand, behind, "cpu", size, poses=poses, config=variant.config, views=views)


class Measurement:
    """Trains and measures rows on the CPU.

    real: held-back photos as records. start: weights every row begins with. backgrounds, known: see `synthesizer`.
    """

    def __init__(
        self,
        real: Records,
        start: Path,
        options: Options,
        backgrounds: UInt8[Tensor, "m h w 3"] | None = None,
        known: tuple[Float[Tensor, "k 45"], Float[Tensor, "k 4"]] | None = None,
    ) -> None:
        self.options, self.start, self.backgrounds, self.known = options, start, backgrounds, known
        self.hand = HandModel.load("open")
        # the same photos for both measures: evenly among those whose fits can be trusted
        chosen = real.select(real.trusted(options.photos))
        self.flat = HeldBackPhotos(chosen, self.hand, options.size, options.photos)
        self.solid = TestHands.cut(self.hand, chosen, options.size, options.photos)
        self.before = self.figures(self.network(0))

    def network(self, seed: int) -> DHPE:
        """The network with the start weights, early layers frozen."""
        torch.manual_seed(seed)
        network = zoo.build_model("dhpe-lite", hand=self.hand)
        load_start(network, self.start)
        network.evidence.trunk.freeze_early(True)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def figures(self, network: DHPE) -> dict[str, float]:
        """`FIGURES` of the network's regression on the photos; sides of both mirror images."""
        flat = self.flat(network)
        return {
            "mesh_px": flat["mesh_mean"], "keypoint_px": flat["refined_mean"],
            "pa_mm": measure(network, self.solid, masks=False)["pa_mm"], "side": flat["side"],
        }  # fmt: skip

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Render, train and measure one row and seed: a line of the results file."""
        options, began = self.options, time.process_time()
        config = TrainConfig(
            size=options.size, batch=options.batch, steps=options.steps, lr=options.lr,
            warmup=max(1, options.steps // 10), final_lr=0.05, ema=0.0, photo_share=0.0, negative_share=0.0,
            freeze_batchnorm=True, seed=seed, checkpoint_every=options.steps + 1, device="cpu",
        )  # fmt: skip
        maker = synthesizer(VARIANTS[name], self.hand, pool_size(options.size), self.backgrounds, self.known)
        pool = rendered(maker, options.pool, seed)
        module = Training(self.network(seed), PoolStream(config, self.hand, [(pool, options.batch)]), config)
        with tempfile.TemporaryDirectory() as folder:
            fit(module, Path(folder), watch=lambda _: {})
        after = self.figures(cast(DHPE, module.average.module))
        line: dict[str, Any] = {"row": name, "seed": seed} | vars(options) | {"start": self.start.stem}
        line["pictures"] = options.steps * options.batch
        for figure in FIGURES:
            line |= {f"{figure}_before": round(self.before[figure], 4), f"{figure}_after": round(after[figure], 4)}
        return line | {"cpu_seconds": round(time.process_time() - began, 1)}


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines of a results file as a Markdown table (`compare.table`), with differences to `all`."""
    titles = {name: variant.title for name, variant in VARIANTS.items()}
    return compare.table(lines, titles, FIGURES, [*vars(Options()), "start"], "all")
