"""Sample sheets of a running training: what the network is shown, what it should say and what it says."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from densehand.data.records import TrainingBatch
from densehand.draw import draw_skeleton
from densehand.network.estimator import DHPE, evaluating
from densehand.synth.sheet import contact_sheet

SHOWN, SIDE = 8, 192  # pictures a sheet, and the side of each in pixels


@torch.no_grad()
def sample_sheet(network: DHPE, batch: TrainingBatch) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures of a batch, spread over its kinds, in columns of three.

    Above the labelled keypoints, in the middle the refined 2D keypoints, below the mesh's skeleton. Unlabelled ones are
    drawn small; nothing is drawn where there is no hand (label above, the network's opinion below), and no skeleton on
    pictures shown as the other hand, which the mesh does not learn.
    """
    rows = torch.linspace(0, len(batch) - 1, min(SHOWN, len(batch))).round().long().to(batch.images.device)
    with evaluating(network):
        estimate = network(batch.images[rows])
    pictures = (batch.images[rows].permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
    labelled, right = batch.has_hand[rows] > 0, batch.is_right[rows] > 0
    found = estimate.hand_logit > 0
    weight = (batch.keypoint_weight[rows] > 0).float()
    certain = estimate.keypoint_confidence
    lines = [
        _drawn(pictures, batch.keypoints[rows], weight, labelled),
        _drawn(pictures, estimate.keypoints[-1], certain, found),
        _drawn(pictures, estimate.skeletons[-1][..., :2], torch.ones_like(certain), found & (right | ~labelled)),
    ]
    return contact_sheet(np.concatenate(lines), columns=len(rows))


def _drawn(
    pictures: UInt8[np.ndarray, "n s s 3"], keypoints: Tensor, confidence: Tensor, shown: Tensor
) -> UInt8[np.ndarray, "n S S 3"]:
    """The pictures at `SIDE`² with their skeletons; keypoints (n 21 2) in crop units."""
    copies = np.stack([cv2.resize(p, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for p in pictures])
    places, certain = ((keypoints + 1) * (SIDE / 2)).cpu().numpy(), confidence.cpu().numpy()
    for index in torch.nonzero(shown).flatten().tolist():
        draw_skeleton(copies[index], places[index], certain[index])
    return copies
