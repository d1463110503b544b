"""Train the correctors (`network/corrector.py`) of a network that is otherwise done: what they see is gathered once.

Everything beneath them stands still, so that a crop's features, keypoints and mesh are the same each time: `gather`
keeps them, with the labels, and `fit` goes over them as often as it wants at the price of two small layers and a
skeleton. The side's (`fit_side`) also learns from mirrored crops, of which nothing else is learnt. Rendered hands of
seeds that training had not drawn show the errors of hands never seen, with true labels; photos, whose hands the network
has been trained on, hold it to what photos look like.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from densehand import losses
from densehand.data.augment import augment
from densehand.data.augmentation import Augmentation
from densehand.data.records import Records, TrainingBatch
from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.network.corrector import Corrector, Perceptron, SideCorrector, corrector_inputs, side_inputs
from densehand.network.estimator import DHPE
from densehand.network.mesh import decode, place, skeleton_in_crop
from densehand.train.config import LossWeights

# crops as prediction cuts them, upright and of about 0.9 of the house's, as badly as a detector's boxes can be
CROPS = Augmentation(
    upright=0.9, rotation=15.0, any_rotation=0.03, zoom=(0.78, 1.05), shift=0.06, flip=0.0, blur=0.4,
    resolution=(0.1, 0.7), occluder=0.2, backdrop=0.3,
)  # fmt: skip
LOT = 16  # crops in one pass of the network
SAID = (
    "features",
    "confidence",
    "first",
    "j",
    "h",
    "side_logit",
)  # what of `Gathered` the network says; the rest are labels


@dataclass
class Gathered:
    """What a network's layers beneath the correctors say of n crops, and the crops' labels (crop units).

    is_right, has_hand: 1 or 0. Of mirrored crops, which show left hands, they are the only labels.
    """

    features: Float[Tensor, "n d"]
    confidence: Float[Tensor, "n 21"]
    first: Float[Tensor, "n 21 2"]  # j0, of the heat maps
    j: Float[Tensor, "n 21 2"]  # of the last iteration …
    h: Float[Tensor, "n 63"]
    side_logit: Float[Tensor, " n"]
    keypoints: Float[Tensor, "n 21 2"]  # … and the labels
    keypoint_weight: Float[Tensor, "n 21"]
    skeleton: Float[Tensor, "n 21 3"]
    pose: Float[Tensor, "n 45"]
    shape: Float[Tensor, "n 10"]
    rotation: Float[Tensor, "n 4"]
    trust: Float[Tensor, " n"]
    is_right: Float[Tensor, " n"]
    has_hand: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.h)

    def __getitem__(self, rows: Tensor | slice) -> Gathered:
        return Gathered(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def join(parts: list[Gathered]) -> Gathered:
        return Gathered(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Gathered)})


@dataclass(frozen=True)
class FitOptions:
    """How it is learnt: steps of `batch` crops, Adam at `lr`, which falls to nothing along a cosine after `warmup`."""

    steps: int = 8000
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int = 100
    dropout: float = 0.2
    seed: int = 0


SIDE = FitOptions(steps=2500, weight_decay=0.3, dropout=0.5)
"""The side's corrector, which has one number a crop to learn from and learns by heart what it may."""


@torch.no_grad()
def gather(
    network: DHPE,
    records: Records,
    rows: Tensor,
    generator: Generator,
    backgrounds: Tensor | None = None,
    both_ways: bool = False,
) -> Gathered:
    """What the network says of new crops of these rows of the records, and their labels.

    backgrounds: what some of them, real hands of known outline, are put before. both_ways: then of the same crops
    mirrored.
    """
    size = network.config.input_size
    batch = augment(network.hand, records, rows, size, CROPS, generator, backgrounds)
    seen = see(network, batch)
    if not both_ways:
        return seen
    mirrored = replace(batch, images=batch.images.flip(-1), is_right=1 - batch.is_right)
    return Gathered.join([seen, see(network, mirrored)])


@torch.no_grad()
def see(network: DHPE, batch: TrainingBatch) -> Gathered:
    """What the network says of a batch's crops, 8-bit ones as a photo's are, beneath its correctors."""
    last = network.config.iterations
    said: dict[str, list[Tensor]] = {name: [] for name in SAID}
    for part in batch.images.split(LOT):
        estimate = network((part * 255).round() / 255)
        said["features"].append(estimate.features)
        said["confidence"].append(estimate.keypoint_confidence)
        said["first"].append(estimate.keypoints[0])
        said["j"].append(estimate.keypoints[last])
        said["h"].append(estimate.parameters[last])
        said["side_logit"].append(network.side_head(estimate.features)[:, 0])
    labels = {f.name: getattr(batch, f.name) for f in fields(Gathered) if f.name not in SAID}
    return Gathered(**{name: torch.cat(parts) for name, parts in said.items()}, **labels)


def inputs_of(hand: HandModel, seen: Gathered, side: bool = False) -> Float[Tensor, "n i"]:
    """The corrector's inputs, or the side's."""
    parts = seen.h.split(512)
    skeletons = torch.cat([skeleton_in_crop(hand, part) for part in parts])
    inputs = corrector_inputs(seen.features, seen.confidence, seen.first, seen.j, seen.h, skeletons)
    return side_inputs(inputs, skeletons) if side else inputs


def corrector_loss(
    hand: HandModel, h: Float[Tensor, "b 63"], j: Float[Tensor, "b 21 2"], labels: Gathered, w: LossWeights
) -> Tensor:
    """Training's own terms of mesh and 2D skeleton (`train/module.py`), of the corrector's answers."""
    found = decode(h)
    y = place(found, hand.skeleton(found.pose, found.shape, found.rotation))
    seen = labels.keypoints, labels.keypoint_weight
    terms = {
        "articulation": losses.articulation(y, labels.skeleton, w.robust) * labels.trust,
        "projection": losses.keypoints_2d(y[..., :2], *seen, w.robust),
        "refiner": losses.keypoints_2d(j, *seen, w.robust),
    } | losses.hand_parameters(found, labels.pose, labels.shape, labels.rotation, labels.trust, w.robust)
    return torch.stack([getattr(w, name) * value.mean() for name, value in terms.items()]).sum()


def fit(
    corrector: Corrector,
    hand: HandModel,
    sets: Iterable[tuple[float, Gathered]],
    options: FitOptions | None = None,
    weights: LossWeights | None = None,
) -> Iterator[tuple[int, float]]:
    """Train a corrector in place; gives (step, loss) after every hundredth step and the last.

    sets: how often each set's crops are drawn against the others', and the crops; mirrored ones are passed over.

    Raises InputError where there is nothing to learn from.
    """
    options, terms = options or FitOptions(), weights or LossWeights()
    seen, odds = _pooled((share, part[part.is_right > 0]) for share, part in sets)

    def loss(inputs: Tensor, rows: Tensor) -> Tensor:
        labels = seen[rows]
        change, shift = corrector(inputs)
        return corrector_loss(hand, labels.h + change, labels.j + shift, labels, terms)

    yield from _descend(corrector, inputs_of(hand, seen), odds, loss, options)


def fit_side(
    corrector: SideCorrector, hand: HandModel, sets: Iterable[tuple[float, Gathered]], options: FitOptions = SIDE
) -> Iterator[tuple[int, float]]:
    """Train a side's corrector in place on crops and mirrored ones, as many as they are; see `fit`."""
    seen, odds = _pooled((share, part[part.has_hand > 0]) for share, part in sets)

    def loss(inputs: Tensor, rows: Tensor) -> Tensor:
        return losses.yes_no(
            seen.side_logit[rows] + corrector(inputs), seen.is_right[rows], torch.ones(len(rows))
        ).mean()

    yield from _descend(corrector, inputs_of(hand, seen, side=True), odds, loss, options)


def _pooled(sets: Iterable[tuple[float, Gathered]]) -> tuple[Gathered, Float[Tensor, " n"]]:
    """All crops, and how likely each is drawn."""
    given = [(share, part) for share, part in sets if share and len(part)]
    if not given:
        raise InputError("no crops to train a corrector on; gather some first")
    odds = torch.cat([torch.full((len(part),), share / len(part)) for share, part in given])
    return Gathered.join([part for _, part in given]), odds


def _descend(
    perceptron: Perceptron,
    inputs: Float[Tensor, "n i"],
    odds: Float[Tensor, " n"],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    options: FitOptions,
) -> Iterator[tuple[int, float]]:
    """`loss_of` (a batch's inputs, its rows) goes down."""
    drawn = torch.Generator().manual_seed(options.seed)
    perceptron.standardise(inputs[torch.multinomial(odds, min(len(odds), 20_000), True, generator=drawn)])
    optimiser = torch.optim.AdamW(perceptron.parameters(), options.lr, weight_decay=options.weight_decay)
    perceptron.train()
    perceptron.dropout.p = options.dropout
    torch.manual_seed(options.seed)  # of dropout
    for step in range(options.steps):
        rate = min(1.0, (step + 1) / options.warmup) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimiser.param_groups:
            group["lr"] = options.lr * rate
        rows = torch.multinomial(odds, options.batch, True, generator=drawn)
        loss = loss_of(inputs[rows], rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 99 or step + 1 == options.steps:
            yield step + 1, float(loss.detach())
    perceptron.eval()
    perceptron.dropout.p = 0.0
