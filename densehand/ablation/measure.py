"""How good a network is on labelled hands, with and without testing refinement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from densehand import losses
from densehand.camera import ERROR_CROP
from densehand.data.augment import augment
from densehand.data.records import Records, TrainingBatch
from densehand.errors import InputError
from densehand.hand.model import HandModel
from densehand.metrics import THRESHOLDS_0_50, THRESHOLDS_20_50, auc, mask_iou, pa_mpjpe, pck
from densehand.metrics.shape import WRIST_TO_MIDDLE
from densehand.network.estimator import DHPE, Estimate, evaluating
from densehand.network.mesh import decode, skeleton_in_crop
from densehand.refine.fast import refine_fast
from densehand.refine.modes import FAST
from densehand.refine.paper import refine_estimate
from densehand.train.validate import PLAIN

PIXELS = ERROR_CROP / 2  # crop units → pixels
CURVE_MM = np.linspace(0.0, 50.0, 51)
FIGURES: dict[str, tuple[str, int, bool]] = {
    "px": ("2D error (px)", 2, False),
    "pa_mm": ("PA-MPJPE (mm)", 2, False),
    "auc_20_50": ("AUC 20–50", 3, True),
    "auc_0_50": ("AUC 0–50", 3, True),
    "iou": ("mask IoU", 3, True),
}
"""Figures of a row: heading, digits, and whether more is better."""


@dataclass
class TestHands:
    """Crops with labels, in batches, and each hand's joints at its true size (mm, camera axes)."""

    batches: list[TrainingBatch]
    joints: list[Float[np.ndarray, "b 21 3"]]

    __test__ = False  # its name is no test's

    @staticmethod
    def cut(hand: HandModel, records: Records, size: int, limit: int, batch: int = 32) -> TestHands:
        """Centred crops of `size`² of the first `limit` records with 3D labels, nothing turned or recoloured.

        Raises InputError where no record has 3D labels.
        """
        rows = torch.nonzero(records.trust > 0.5).flatten()[:limit]
        if len(rows) == 0:
            raise InputError(
                f"none of {len(records)} test hands has trusted 3D labels; choose another dataset or split"
            )
        batches, joints = [], []
        for part in rows.split(batch):
            generator = Generator(device=records.images.device).manual_seed(0)
            cut = augment(hand, records, part, size, PLAIN, generator)
            batches.append(cut)
            with torch.no_grad():
                metres = hand.skeleton(cut.pose, cut.shape, cut.rotation)
            joints.append(metres.double().cpu().numpy() * 1000.0)
        return TestHands(batches, joints)

    def first(self, count: int) -> TestHands:
        """The first batches that together hold at least `count` hands."""
        held = np.cumsum([len(batch) for batch in self.batches])
        enough = int(np.searchsorted(held, count)) + 1
        return TestHands(self.batches[:enough], self.joints[:enough])


def refined(network: DHPE, images: Tensor, estimate: Estimate, mode: str, steps: int | None) -> Float[Tensor, "b 63"]:
    """h of the last iterate ("off"), or after so many iterations of testing refinement (None: as many as usual)."""
    if mode == "off" or steps == 0:
        return estimate.parameters[-1]
    if mode == FAST:
        hand = network.hand
        given: dict[str, Any] = {} if steps is None else {"iterations": steps}
        h, confidence = estimate.parameters[-1], estimate.keypoint_confidence
        return refine_fast(hand, h, estimate.keypoints[-1], confidence, **given).h
    given = {} if steps is None else {"steps": steps}
    return refine_estimate(network, images, estimate, **given).h


def scaled_errors(found: Float[np.ndarray, "n 21 3"], truth: Float[np.ndarray, "n 21 3"]) -> np.ndarray:
    """hand3d's protocol: wrists at the origin, the prediction scaled to the true length of one bone; (n, 21)."""
    root, tip = WRIST_TO_MIDDLE
    found, truth = found - found[:, root : root + 1], truth - truth[:, root : root + 1]
    own, true = (np.linalg.norm(points[:, tip], axis=-1) for points in (found, truth))
    return np.linalg.norm(found * (true / np.maximum(own, 1e-9))[:, None, None] - truth, axis=-1)


@torch.no_grad()
def measure(
    network: DHPE, hands: TestHands, mode: str = "off", steps: int | None = None, masks: bool = True
) -> dict[str, Any]:
    """Figures (`FIGURES`, and `evidence_px` of the last 2D skeleton, `near` the share of hands for which λ is 1) and
    the PCK curve at `CURVE_MM` of the errors that AUC is taken of. `iou` is None where the hands have no masks."""
    pixels, evidence, near, aligned, scaled, overlaps = [], [], [], [], [], []
    with evaluating(network):
        for batch, truth in zip(hands.batches, hands.joints, strict=True):
            estimate = network(batch.images)
            h = refined(network, batch.images, estimate, mode, steps)
            flat = skeleton_in_crop(network.hand, h)
            pixels.append((flat[..., :2] - batch.keypoints).norm(dim=-1) * PIXELS)
            evidence.append((estimate.keypoints[-1] - batch.keypoints).norm(dim=-1) * PIXELS)
            near.append(losses.hierarchical_weight(flat, batch.keypoints, batch.keypoint_weight))
            parameters = decode(h)
            metres = network.hand.skeleton(parameters.pose, parameters.shape, parameters.rotation)
            found = metres.double().cpu().numpy() * 1000.0
            aligned += [pa_mpjpe(f, t) for f, t in zip(found, truth, strict=True)]
            scaled.append(scaled_errors(found, truth))
            if masks and bool(batch.has_mask.all()):
                drawn = (network.render_mask(h, batch.images.shape[-1]) > 0.5).cpu().numpy()
                there = (batch.mask > 0.5).cpu().numpy()
                overlaps += [mask_iou(a, b) for a, b in zip(drawn, there, strict=True)]
    errors = np.concatenate(scaled)
    return {
        "px": float(torch.cat(pixels).mean()),
        "pa_mm": float(np.mean(aligned)),
        "auc_20_50": auc(errors, THRESHOLDS_20_50, per_keypoint=True),
        "auc_0_50": auc(errors, THRESHOLDS_0_50, per_keypoint=True),
        "iou": float(np.mean(overlaps)) if overlaps else None,
        "evidence_px": float(torch.cat(evidence).mean()),
        "near": float(torch.cat(near).mean()),
        "pck": pck(errors, CURVE_MM, per_keypoint=True).tolist(),
    }
