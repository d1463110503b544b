"""Fit the detector's last answer, which way a hand's fingers point: ``python -m densehand.detect.turn --data FOLDER``.

The branch that tells the side learnt to tell the keypoints too (the auxiliary head of training), so a linear map of its
features knows the palm's turn. Least squares find it, for the mean of sine and cosine, on the pictures that training is
composed of; nothing else of the network changes. Where the features leave the turn open, that mean is short.
"""

import argparse
import math
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from densehand.detect.compose import Composer
from densehand.detect.detector import KNOWN_TURN
from densehand.detect.losses import make_targets
from densehand.detect.model import STRIDE, DetectorNet
from densehand.detect.train import collate
from densehand.detect.weights import INPUT_SIZE, PACKAGED, load_net, save_net
from densehand.hand.keypoints import palm_turn
from densehand.network.card import amend_card, card_beside

BATCH = 16
RIDGE = 1e-4  # of the features' mean square: they are many and alike
SEED = 613  # no training's


@torch.no_grad()
def see(
    net: DetectorNet, composer: Composer, batch: int
) -> tuple[Float[Tensor, "m 96"], Float[Tensor, "m 2"], Float[Tensor, "m 2"], Float[Tensor, " m"]]:
    """Of the cells near the hands' centres of a batch of pictures, every second of them close-ups: the features of the
    side, what the network says of the palm's turn, its true sine and cosine, and what the cell counts, 1 in all for a
    hand that is found."""
    composer.begin(SEED, batch)
    make = composer if batch % 2 else composer.close_up
    images, labels = collate([make(INPUT_SIZE) for _ in range(BATCH)], torch.device("cpu"))
    kept = []
    watch = net.side_branch.register_forward_hook(lambda _, __, features: kept.append(features))
    output = net(images)
    watch.remove()
    targets = make_targets((INPUT_SIZE // STRIDE, INPUT_SIZE // STRIDE), *labels)
    turn = palm_turn(targets.keypoints.unflatten(1, (21, 2)).permute(0, 3, 4, 1, 2))
    weight = targets.weight * output.centre_logit.sigmoid()  # what is told of hands that are not found is never read
    cells = (weight > 0) & turn.isfinite()
    direction = torch.stack([turn[cells].sin(), turn[cells].cos()], dim=-1)
    features, told = (values.permute(0, 2, 3, 1)[cells] for values in (kept[0], output.turn))
    return features, told, direction, weight[cells]


@torch.no_grad()
def fit(net: DetectorNet, composer: Composer, pictures: int) -> DetectorNet:
    """Give the network the map, in place."""
    channels = net.turn.in_channels
    square, product = torch.zeros(channels + 1, channels + 1).double(), torch.zeros(channels + 1, 2).double()
    for batch in range(pictures // BATCH):
        features, _, direction, weight = (values.double() for values in see(net, composer, batch))
        features = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
        square += features.mT @ (features * weight[:, None])
        product += features.mT @ (direction * weight[:, None])
    pull = RIDGE * square.diagonal().mean() * torch.eye(channels + 1).double()
    pull[-1, -1] = 0
    solution = torch.linalg.solve(square + pull, product).float()
    assert net.turn.bias is not None
    net.turn.weight.copy_(solution[:-1].mT[:, :, None, None])
    net.turn.bias.copy_(solution[-1])
    return net


@torch.no_grad()
def measure(net: DetectorNet, composer: Composer, pictures: int, known: float = KNOWN_TURN) -> dict[str, float]:
    """Shares of hands (by what their cells count) of which the turn is told, of these within 30° and beyond 90° of the
    true one, and the median error in degrees."""
    told, weights = [], []
    for batch in range(pictures // BATCH):
        _, found, direction, weight = see(net, composer, batch)
        cosine = (found * direction).sum(-1) / found.norm(dim=-1).clamp_min(1e-9)
        told.append(torch.stack([found.norm(dim=-1) >= known, cosine.clamp(-1, 1).acos() * (180 / math.pi)]))
        weights.append(weight)
    (sure, off), counts = torch.cat(told, dim=1).numpy(), torch.cat(weights).numpy()
    kept, error = counts[sure > 0], off[sure > 0]
    order = np.argsort(error)
    middle = np.searchsorted(np.cumsum(kept[order]), kept.sum() / 2)
    return {
        "told": float(kept.sum() / counts.sum()),
        "within_30": float(kept[error <= 30].sum() / kept.sum()),
        "beyond_90": float(kept[error > 90].sum() / kept.sum()),
        "median_degrees": float(error[order][middle]),
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line of the fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with photos/ and backgrounds/")
    parser.add_argument("--weights", type=Path, default=PACKAGED, help="a detector's weights file, written anew")
    parser.add_argument("--pictures", type=int, default=4000, help="pictures composed for the fit; a fifth to measure")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    net, card = load_net(options.weights), card_beside(options.weights)
    fit(net, Composer.of(options.data, held_back=False), options.pictures)
    figures = measure(net, Composer.of(options.data, held_back=True), options.pictures // 5)
    for name, value in figures.items():
        print(f"{name:16}{value:8.3f}")
    recipe = card.recipe | {
        "turn": {"command": "python -m densehand.detect.turn", "pictures": options.pictures, "seed": SEED}
    }
    accuracy = card.accuracy | {"turn, held-back pictures": {k: round(v, 4) for k, v in figures.items()}}
    written = save_net(net, options.weights, recipe=recipe, accuracy=accuracy)
    if card.activation_ranges:
        amend_card(options.weights, activation_ranges=card.activation_ranges)  # the features are the same
    print(f"{options.weights}: {written.bytes} bytes, SHA-256 {written.sha256}")


if __name__ == "__main__":
    main()
