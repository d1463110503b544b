"""The rows of the ablation: what each takes away from the full system (Baek et al. 2019, section 4, figure 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from densehand.data.augment import Augmentation
from densehand.network.estimator import DHPE
from densehand.network.storage import is_stored
from densehand.train.config import LossWeights, paper_config

KEYPOINT_NUMBERS = 42

PRACTICAL = replace(LossWeights(), features=0.5, shape=5.0, laplacian=1.0)
"""The full objective of the practical models: their usual weights with the paper's three mesh terms switched on."""

EVIDENCE_OFF = {"features": 0.0, "heatmaps": 0.0, "coordinates": 0.0, "mask": 0.0, "refiner": 0.0}
"""No 2D losses: L_Feat and L_J2D (the paper's eqs. 2 and 3), our supervision of the same maps, and the refiner's, whose
2D skeleton begins at them. The projection of the mesh stays: it is the mesh's own term, as in Kanazawa et al. 2018,
which the paper says this row corresponds to."""

HEAD_START_OFF = {**EVIDENCE_OFF, "shape": 0.0, "laplacian": 0.0}
"""The common start of all rows is trained without anything that a row takes away."""

UPRIGHT = Augmentation(rotation=20.0, any_rotation=0.0, flip=0.0, occluder=0.15)
"""Milder than training's own: a short run then sees the mesh terms on every picture."""


@dataclass(frozen=True)
class Row:
    """One row. `weights`: the loss weights that differ from the full system's. `trained_as`: the row whose network it
    measures, where it needs no training of its own. `refiner`: whether f_Ref is there; `augmented`: whether new samples
    are made from the network's own meshes; `refined`: whether testing refinement belongs to it."""

    title: str
    weights: Mapping[str, float | bool] = field(default_factory=dict)
    refiner: bool = True
    augmented: bool = True
    refined: bool = True
    trained_as: str = ""


ROWS: dict[str, Row] = {
    "full": Row("full"),
    "no-refinement": Row("without testing refinement", refined=False, trained_as="full"),
    "no-augmentation": Row("without self-supervised augmentation", augmented=False),
    "no-2d": Row("without 2D losses", EVIDENCE_OFF),
    "no-refiner": Row("without the refiner", {"refiner": 0.0}, refiner=False),
    "no-shape": Row("without shape loss", {"shape": 0.0}),
    "constant": Row("constant shape weight", {"hierarchical": False}),
}


def full_weights(model: str) -> LossWeights:
    """The full system's weights: the paper's own for dhpe-paper, else `PRACTICAL`."""
    return paper_config().weights if model == "dhpe-paper" else PRACTICAL


class NoRefiner(nn.Module):
    """Stands in for f_Ref: gives back the 2D skeleton it is given, so that j3 is j0, the heat maps' own."""

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, D + 63 + 63 + 42) → its last 42 numbers, j."""
        return inputs[..., -KEYPOINT_NUMBERS:]


def take_refiner_out(network: DHPE) -> DHPE:
    """The same network with f_Ref, and the corrector, which refines too, taken out (changed in place)."""
    network.regressor.f_ref, network.regressor.corrector = NoRefiner(), None  # type: ignore[assignment]
    return network


def state_of(network: DHPE) -> dict[str, Tensor]:
    """Weights without the hand model's, on the CPU, for a file."""
    return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items() if is_stored(k)}
