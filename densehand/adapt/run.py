"""`adapt`: from a folder of photos to weights that know them better, or an honest refusal.

Detect and estimate; look at each hand in several views; hold photos back; believe what agrees with itself; learn from
it, from new samples made of it and from synthetic hands; measure on what was held back; write only what is better.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densehand.adapt.gather import HOUSE, Watch, find_photos, gather, hold_back, teacher_keypoints
from densehand.adapt.labels import Keep, believable, label_error, pseudo_labels
from densehand.adapt.stream import AdaptStream, Shares
from densehand.errors import InputError
from densehand.export import picture_format, write_picture
from densehand.files import ensure_folder
from densehand.network.estimator import DHPE
from densehand.network.zoo import open_model, resolve_device, save_weights
from densehand.pipeline import HandEstimator
from densehand.train.config import TrainConfig
from densehand.train.selfsup import sheet
from densehand.train.stream import load_backgrounds, seeded
from densehand.views import CAP, Agreement, Answers, agreement, consensus, look

MOST_ROWS = 8  # seeds on a sheet
PART = 32  # hands looked at between two words of progress


@dataclass(frozen=True)
class AdaptConfig:
    """An adaptation. model: packaged name or weights file. labels, backgrounds: optional (see `densehand adapt -h`).

    sheet: picture file for some seeds and their new samples, written where there are any.
    size: side of training crops, 0 for the model's own. held_back: share of the photos. looser: factor on what `Keep`
    allows. Measured at the model's own crop size whatever `size` is.
    """

    model: str = "dhpe-lite"
    labels: str = ""
    backgrounds: str = ""
    sheet: str = ""
    whole_image: bool = False
    steps: int = 300
    size: int = 0
    batch: int = 16
    lr: float = 2e-5
    held_back: float = 0.2
    looser: float = 1.0
    shares: Shares = field(default_factory=Shares)
    pool: int = 256
    seed: int = 0
    device: str = "auto"
    force: bool = False


@dataclass
class AdaptReport:
    """What was found and learnt. before, after: figures on all held-back hands (`figures`)."""

    photos: int
    unreadable: list[InputError]
    empty: int
    hands: int
    believed: int  # of the hands to learn from
    held_back: int
    reseeded: bool  # whether new samples were made from the believed hands
    before: dict[str, float]
    after: dict[str, float]
    written: Path | None

    @property
    def measure(self) -> str:
        """The figure that decides: against the teacher where there is one, else the disagreement."""
        return "teacher" if "teacher" in self.before else "disagreement"

    @property
    def worse(self) -> bool:
        return not self.after[self.measure] <= self.before[self.measure]


def adapt(folder: Path, out: Path, config: AdaptConfig | None = None, watch: Watch | None = None) -> AdaptReport:
    """Adapt a model to the photos of a folder and write `out` (.safetensors) with its card beside it.

    Nothing is written (`report.written` is None) where the held-back measure became worse, unless `config.force`.

    Raises InputError: no photos, none readable, no hands, nothing agreed, an unusable label file or output;
    DependencyError without the training extra.
    """
    config = config or AdaptConfig()
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: weights are written as .safetensors; choose a name that ends so")
    if config.size % 32 or config.size < 0:
        raise InputError(f"crops of {config.size} px cannot be learnt from; give a multiple of 32")
    from densehand.adapt.learn import learn  # first, so that a missing extra is told before the work

    ensure_folder(out.parent)
    if config.sheet:
        picture_format(config.sheet)
    paths = find_photos(folder)
    backgrounds = load_backgrounds(config.backgrounds) if config.backgrounds else None
    device = resolve_device(config.device)
    network = open_model(config.model, device, fuse=False)  # batch norms apart, so that it can be trained
    hand = network.hand
    found = gather(paths, HandEstimator(network, device=str(device)), config.whole_image, watch)

    images = found.images.to(device)
    centre, half = torch.zeros(len(found), 2, device=device), torch.full((len(found),), HOUSE, device=device)
    held = hold_back(found, config.held_back).to(device)
    answers = look_in_parts(network, images, centre, half, "comparing views", watch)
    agreed = agreement(answers)
    _, usual, _ = consensus(answers)
    labels = torch.full_like(usual, torch.nan)
    if config.labels:
        labels = teacher_keypoints(found, Path(config.labels), usual)
    keep = Keep().looser(config.looser)
    good = believable(agreed, keep, label_error(usual, labels)) & ~held
    if not good.any():
        raise InputError(
            f"none of {int((~held).sum())} hands agrees with itself over crops, turns and mirroring (median "
            f"disagreement {float(agreed[~held].disagreement.median()):.1f} %); give clearer photos, or --looser 2"
        )
    before = figures(answers, agreed, labels, held)

    records = pseudo_labels(hand, images, answers, agreed, centre, half, keep).select(good)
    size = config.size or network.config.input_size
    stream = AdaptStream(
        hand, records, None if backgrounds is None else backgrounds.to(device), size, config.batch, config.shares,
        config.seed, config.pool,
    )  # fmt: skip
    if config.sheet and stream.reseeding:
        rows = min(MOST_ROWS, len(stream.source.good))
        write_picture(Path(config.sheet), sheet(stream.source, rows, seeded(device, config.seed, 2)))
    torch.manual_seed(config.seed)  # dropout, where a model has it
    learnt = learn(network, stream, train_config(config, network.config.name, size), watch)
    again = look_in_parts(learnt, images[held], centre[held], half[held], "measuring", watch)
    after = figures(again, agreement(again), labels[held], torch.ones_like(held[held]))

    report = AdaptReport(
        len(paths), found.unreadable, found.empty, len(found), int(good.sum()), int(held.sum()), stream.reseeding,
        before, after, None,
    )  # fmt: skip
    if not report.worse or config.force:
        save_weights(learnt, out, card=card(config, network, report))
        report.written = out
    return report


def look_in_parts(
    network: DHPE, images: Tensor, centre: Tensor, half: Tensor, task: str, watch: Watch | None
) -> Answers:
    """`views.look` with word of its progress."""
    parts = []
    for start in range(0, len(images), PART):
        rows = slice(start, start + PART)
        parts.append(look(network, images[rows], centre[rows], half[rows]))
        if watch:
            watch(task, min(start + PART, len(images)), len(images))
    return Answers.join(parts)


def figures(answers: Answers, agreed: Agreement, labels: Tensor, rows: Tensor) -> dict[str, float]:
    """Means over some of the hands: disagreement and its parts (%), mask IoU, share of views with the right side.

    teacher: of the mesh's keypoints in the plain crop to the teacher's, % of the box, where it has any; `CAP` at most.
    """
    some = agreed[rows]
    values = {
        "disagreement": some.disagreement,
        "spread": some.spread.clamp_max(CAP),
        "flip": some.flip.clamp_max(CAP),
        "bend": some.bend.clamp_max(CAP),
        "iou": some.iou,
        "side": some.side,
    }
    error = label_error(answers.skeleton[0, ..., :2], labels)[rows]
    if error.isfinite().any():
        values["teacher"] = error[error.isfinite()].clamp_max(CAP)
    return {name: float(value.mean()) for name, value in values.items()}


def train_config(config: AdaptConfig, model: str, size: int) -> TrainConfig:
    """The objective's settings: the usual terms, a short schedule, an average over its last fifth."""
    return TrainConfig(
        model=model, size=size, batch=config.batch, steps=config.steps, lr=config.lr, final_lr=0.05,
        warmup=max(1, config.steps // 10), ema=min(0.999, 1 - 5 / max(config.steps, 10)), seed=config.seed,
        weight_decay=0.0, freeze_batchnorm=True,
    )  # fmt: skip


def card(config: AdaptConfig, network: DHPE, report: AdaptReport) -> dict[str, Any]:
    """What the model card says of how the weights were made; no path of the user's machine."""
    name = network.config.name
    own = name if config.model == name else Path(config.model).name
    command = f"densehand adapt PHOTOS --model {own} --steps {config.steps} --batch {config.batch} --lr {config.lr:g}"
    data = f"{report.believed} hands of the user's own photos with labels of the model's agreement, synthetic hands"
    rounded = {when: {k: round(v, 4) for k, v in values.items()}
               for when, values in (("before", report.before), ("after", report.after))}  # fmt: skip
    return {
        "recipe": {"command": command, "seed": config.seed, "steps": config.steps, "start": own, "data": data},
        "input_size": network.config.input_size,
        "accuracy": {"held-back agreement": {"hands": report.held_back, **rounded}},
    }
