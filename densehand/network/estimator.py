"""DHPE: the whole chain from a crop to mesh parameters, skeleton and mask (paper, section 3; Fig. 2)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.network.calibration import Calibration
from densehand.network.config import DHPEConfig
from densehand.network.corrector import SideCorrector, corrector_inputs, side_inputs
from densehand.network.engine import GraphEngine
from densehand.network.evidence import Evidence, EvidenceNet
from densehand.network.mesh import MeshRegressor, decode, place
from densehand.network.single import SingleRegressor

HEATMAPS_SAY = 0.25
"""Share of a keypoint of full confidence that its heat map has in `Estimate.keypoints_2d`."""


@dataclass
class Estimate:
    """Everything DHPE says about a batch of crops; crop units: ±1 at the crop's edges, x right, y down, z forward."""

    features: Float[Tensor, "b d"]  # F
    heatmaps: Float[Tensor, "b 21 32 32"]  # H: probabilities (softmax) or regressed Gaussians (linear)
    heatmap_logits: list[Float[Tensor, "b 21 32 32"]]  # by stage, for supervision; raw maps where linear
    mask_logits: Float[Tensor, "b 32 32"]  # foreground, last stage
    stage_mask_logits: list[Float[Tensor, "b 32 32"]]  # by stage
    keypoints: list[Float[Tensor, "b 21 2"]]  # j0 (heat maps) … j3 (refined), then the corrector's; crop units
    parameters: list[Float[Tensor, "b 63"]]  # h0 … h3, then the corrector's
    skeletons: list[Float[Tensor, "b 21 3"]]  # y1 … y3, then the corrector's; crop units
    keypoint_confidence: Float[Tensor, "b 21"]  # in [0, 1]
    side_logit: Float[Tensor, " b"]  # > 0: the crop shows a right hand
    hand_logit: Float[Tensor, " b"]  # > 0: the crop shows a hand at all

    @property
    def keypoints_2d(self) -> Float[Tensor, "b 21 2"]:
        """The 2D skeleton to go by, crop units: the last refined one and the heat maps' j0, whose errors partly
        cancel, j0 as far as it is sure (tools/measure_looks.py)."""
        return torch.lerp(self.keypoints[-1], self.keypoints[0], HEATMAPS_SAY * self.keypoint_confidence[..., None])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Estimate":
        """The estimate with every tensor changed."""

        def changed(value: Any) -> Any:
            return [change(one) for one in value] if isinstance(value, list) else change(value)

        return Estimate(**{name: changed(value) for name, value in vars(self).items()})


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """In here the network is in evaluation mode; afterwards in the one that it was in."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


class DHPE(nn.Module):
    """The estimator of a configuration with a hand model (:class:`densehand.hand.HandModel`).

    ``forward(images)``: (B, 3, S, S) RGB in [0, 1], S a multiple of 32 (224 is the paper's) → :class:`Estimate`. Works
    under ``torch.autocast``: convolutions run in the lower precision, everything from F and the heat maps on in
    float32.
    """

    hand: HandModel

    def __init__(self, config: DHPEConfig, hand: nn.Module):
        super().__init__()
        self.config = config
        self.hand = hand  # type: ignore[assignment]
        self.calibration = Calibration()  # of its card, where weights were loaded; `forward` gives raw scores
        self.evidence = EvidenceNet(config)
        self.engine: GraphEngine | None = None  # runs the evidence of pictures that it takes; `load_model` sets it
        self.single: SingleRegressor | None = None  # regresses few hands on a CPU; `load_model` sets it
        width = self.evidence.trunk.width
        self.regressor = MeshRegressor(width, config.iterations, config.dropout, config.corrector)
        self.side_head = nn.Linear(width, 1)
        self.hand_head = nn.Linear(width, 1)
        for head in (self.side_head, self.hand_head):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.side_corrector = SideCorrector(width, config.side_corrector) if config.side_corrector else None

    def extract_features(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d"]:
        """f_Feat alone: F of the crops (for L_Feat and the testing refinement)."""
        self._check(images)
        return self.evidence.extract_features(images)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Estimate:
        self._check(images)
        evidence = self._see(images)
        with torch.autocast(images.device.type, enabled=False):  # radians and crop units need float32
            found = self._regress(evidence.features, evidence.keypoints, evidence.confidence)
            keypoints, parameters, skeletons = found
            side_logit = self.side_head(evidence.features)[:, 0]
            if self.side_corrector is not None:  # of what it says before the corrector, as that was trained
                last = self.config.iterations
                h, y = parameters[last], skeletons[last - 1]
                seen = evidence.features, evidence.confidence, keypoints[0], keypoints[last], h, y
                side_logit = side_logit + self.side_corrector(side_inputs(corrector_inputs(*seen), y))
            hand_logit = self.hand_head(evidence.features)[:, 0]
        return Estimate(
            features=evidence.features,
            heatmaps=evidence.heatmaps,
            heatmap_logits=evidence.heatmap_logits,
            mask_logits=evidence.stage_mask_logits[-1],
            stage_mask_logits=evidence.stage_mask_logits,
            keypoints=keypoints,
            parameters=parameters,
            skeletons=skeletons,
            keypoint_confidence=evidence.confidence,
            side_logit=side_logit,
            hand_logit=hand_logit,
        )

    def _see(self, images: Float[Tensor, "b 3 s s"]) -> Evidence:
        if self.engine is None or self.training or not self.engine.takes(images):
            return self.evidence(images)
        features, heatmaps, logits, mask, keypoints, confidence = self.engine(images)
        return Evidence(features, [logits], [mask], heatmaps, keypoints, confidence)

    def _regress(
        self, features: Float[Tensor, "b d"], keypoints: Float[Tensor, "b 21 2"], confidence: Float[Tensor, "b 21"]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """All iterates, see `MeshRegressor.forward`."""
        if self.single is None or self.training or not self.single.takes(features):
            found: tuple[list[Tensor], list[Tensor], list[Tensor]]
            found = self.regressor(self.hand, features, keypoints, confidence)
            return found
        return self.single(features, keypoints, confidence)

    def mesh(self, h: Estimate | Float[Tensor, "*b 63"]) -> tuple[Float[Tensor, "*b V 3"], Float[Tensor, "*b 21 3"]]:
        """Vertices and keypoints of h (of an estimate: its last h), both in crop units."""
        parameters = decode(h.parameters[-1] if isinstance(h, Estimate) else h)
        vertices, joints = self.hand(parameters.pose, parameters.shape, parameters.rotation)
        return place(parameters, vertices), place(parameters, joints)

    def render_mask(self, h: Estimate | Float[Tensor, "*b 63"], size: int) -> Float[Tensor, "*b size size"]:
        """f_Ren: the silhouette of h in a crop of ``size`` pixels, in [0, 1], differentiable in h."""
        from densehand.render import silhouette

        vertices, _ = self.mesh(h)
        # crop units → pixels; z is scaled alike, so that the mesh keeps its proportions
        pixels = (vertices + vertices.new_tensor([1.0, 1.0, 0.0])) * (size / 2)
        return silhouette(pixels, self.hand.get_buffer("faces"), (size, size))

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[2] % 32:
            raise InputError(
                f"crops of shape {tuple(images.shape)} cannot be estimated; "
                "give (batch, 3, S, S) with S a multiple of 32"
            )
