"""One more step of regression, by a perceptron: what the linear iterations leave of mesh and 2D skeleton (ours).

f_E3D and f_Ref are single layers, so that they cannot weigh what one keypoint says by how sure it is, nor by how the
hand is turned. This step can:

    (Δh, Δj) = two hidden layers of (F, h(T), y(T), j(T) − y(T), j(0) − y(T), both times c, c)

with c the keypoints' confidence and y the projected skeleton. It is learnt when all else has been
(`densehand/train/corrector.py`), on hands that were not drawn in training. A second perceptron, of the same inputs and
the skeleton's depths, adds to the side's log-odds what a linear layer of F cannot tell.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

PARAMETERS, KEYPOINTS = 63, 42
SKELETONS = PARAMETERS + 5 * KEYPOINTS + KEYPOINTS // 2
"""Numbers of `corrector_inputs` beside F."""
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


def side_inputs(inputs: Float[Tensor, "b i"], y: Float[Tensor, "b 21 3"]) -> Float[Tensor, "b n"]:
    """What the side's corrector sees: `corrector_inputs` and the skeleton's depths."""
    return torch.cat((inputs, y[..., 2]), 1)


class Perceptron(nn.Module):
    """Two hidden layers of `width` on standardised inputs. Gives 0 until it is trained: its last layer starts there.

    `centre`, `spread`: mean and standard deviation of each input, set before training (`standardise`).
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.hidden = nn.ModuleList((nn.Linear(inputs, width), nn.Linear(width, width)))
        self.dropout = nn.Dropout(0.0)  # training sets it
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def standardise(self, inputs: Float[Tensor, "n i"]) -> None:
        """Take mean and standard deviation from what it will see."""
        self.centre.copy_(inputs.mean(0))
        self.spread.copy_(inputs.std(0).clamp_min(1e-3))

    def outputs(self, inputs: Float[Tensor, "b i"]) -> Float[Tensor, "b o"]:
        """The last layer's."""
        x = ((inputs - self.centre) / self.spread).clamp(-CUT, CUT)
        for layer in self.hidden:
            x = self.dropout(nn.functional.silu(layer(x)))
        answer: Tensor = self.last(x)
        return answer


class Corrector(Perceptron):
    """The step of mesh and 2D skeleton."""

    def __init__(self, features_width: int, width: int) -> None:
        super().__init__(features_width + SKELETONS, width, PARAMETERS + KEYPOINTS)

    def forward(self, inputs: Float[Tensor, "b i"]) -> tuple[Float[Tensor, "b 63"], Float[Tensor, "b 21 2"]]:
        """What to add to h and to j, of `corrector_inputs`."""
        step = self.outputs(inputs)
        return step[:, :PARAMETERS], step[:, PARAMETERS:].unflatten(1, (21, 2))


class SideCorrector(Perceptron):
    """The step of the side."""

    def __init__(self, features_width: int, width: int) -> None:
        super().__init__(features_width + SKELETONS + KEYPOINTS // 2, width, 1)

    def forward(self, inputs: Float[Tensor, "b i"]) -> Float[Tensor, " b"]:
        """What to add to the log-odds of a right hand, of `side_inputs`."""
        return self.outputs(inputs)[:, 0]
