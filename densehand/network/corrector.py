"""One more step of regression, by a perceptron: what the linear iterations leave of mesh and 2D skeleton (ours).

f_E3D and f_Ref are single layers, so that they cannot weigh what one keypoint says by how sure it is, nor by how the
hand is turned. This step can:

    (Δh, Δj) = two hidden layers of (F, h(T), y(T), j(T) − y(T), j(0) − y(T), both times c, c)

with c the keypoints' confidence and y the projected skeleton. It is learnt when all else has been
(`densehand/train/corrector.py`), on hands that were not drawn in training.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

PARAMETERS, KEYPOINTS = 63, 42
CUT = 6.0
"""Inputs are cut at so many standard deviations: of stranger ones than were learnt from, nothing should follow."""


def corrector_inputs(
    features: Float[Tensor, "b d"],
    confidence: Float[Tensor, "b 21"],
    first: Float[Tensor, "b 21 2"],
    j: Float[Tensor, "b 21 2"],
    h: Float[Tensor, "b 63"],
    y: Float[Tensor, "b 21 3"],
) -> Float[Tensor, "b n"]:
    """What the corrector sees: F, confidence, the heat maps' j(0), and the last j, h and skeleton y (crop units)."""
    place, sure = y[..., :2], confidence[..., None]
    refined, heat = j - place, first - place
    skeletons = torch.stack((place, refined, heat, sure * refined, sure * heat), 1)
    return torch.cat((features, h, skeletons.flatten(1), confidence), 1)


class Corrector(nn.Module):
    """The step's two hidden layers of `width`. Changes nothing until it is trained: its last layer starts at 0.

    `centre`, `spread`: mean and standard deviation of each input, set before training (`standardise`).
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, features_width: int, width: int) -> None:
        super().__init__()
        inputs = features_width + PARAMETERS + 5 * KEYPOINTS + KEYPOINTS // 2
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.hidden = nn.ModuleList((nn.Linear(inputs, width), nn.Linear(width, width)))
        self.dropout = nn.Dropout(0.0)  # `fit` sets it
        self.last = nn.Linear(width, PARAMETERS + KEYPOINTS)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def standardise(self, inputs: Float[Tensor, "n i"]) -> None:
        """Take mean and standard deviation from what it will see."""
        self.centre.copy_(inputs.mean(0))
        self.spread.copy_(inputs.std(0).clamp_min(1e-3))

    def forward(self, inputs: Float[Tensor, "b i"]) -> tuple[Float[Tensor, "b 63"], Float[Tensor, "b 21 2"]]:
        """What to add to h and to j, of `corrector_inputs`."""
        x = ((inputs - self.centre) / self.spread).clamp(-CUT, CUT)
        for layer in self.hidden:
            x = self.dropout(nn.functional.silu(layer(x)))
        step = self.last(x)
        return step[:, :PARAMETERS], step[:, PARAMETERS:].unflatten(1, (21, 2))
