"""What refinement gives and costs: on synthetic hands that no training sees, and on measuring fixtures.

Modes: "off" the network's own h; "fast", "paper"; "oracle" the fast one with the true 2D keypoints for evidence, the
most that better keypoints could give; "keypoints" is not a mesh but the evidence itself, the network's 2D skeleton.
"mask head" is the network's own foreground map, a mask that no refinement reads. "same off" and "same fast" are those
modes on the few hands that "paper" is measured on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from densehand.camera import ERROR_CROP
from densehand.evaluation.errors import crop_pixel
from densehand.hand.model import HandModel
from densehand.metrics import keypoint_error, mask_iou, pa_mpjpe
from densehand.network.estimator import DHPE, Estimate
from densehand.network.mesh import decode, skeleton_in_crop
from densehand.photo import HandBox
from densehand.pipeline import HandEstimator
from densehand.refine.fast import refine_fast
from densehand.refine.paper import refine_estimate
from densehand.refine.refined import Refined
from densehand.result import Hand
from densehand.synth import Synthesizer

Result = TypeVar("Result")

HELD_OUT = 90417
"""Seed of the measured hands; nothing was chosen on them."""

MODES = ("keypoints", "mask head", "off", "fast", "oracle", "same off", "same fast", "paper")
PUBLISHED_STEP_MS = 5.0  # Baek et al. 2019, section 3.4, on their GPU
FAST_CURVE = (0, 1, 2, 3, 4, 5, 6, 8)
SINGLE = 24  # hands timed one by one
BATCH = 20  # synthetic hands made together
CLOSING = 0.006  # metres: radius of the disc that closes the gaps between a mesh's vertices


@dataclass
class Figures:
    """Errors and times of one mode; errors: pixels of a 224-px crop, mm."""

    hands: int = 0
    mesh_px: list[float] = field(default_factory=list)  # a hand, or of fixtures a visible keypoint
    pa_mm: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # CPU time a hand, one at a time
    batch_ms: list[float] = field(default_factory=list)  # CPU time a hand in a batch

    def row(self) -> dict[str, Any]:
        """Means as a row of a results file; empty where a figure is not known."""
        columns = {name: values for name, values in vars(self).items() if name != "hands"}
        means = {name: round(float(np.mean(values)), 4) if values else "" for name, values in columns.items()}
        return {"hands": self.hands} | means


@dataclass
class Curve:
    """Mean errors after each number of steps, the same hands throughout."""

    steps: list[int] = field(default_factory=list)
    mesh_px: list[float] = field(default_factory=list)
    pa_mm: list[float] = field(default_factory=list)


@dataclass
class Synthetic:
    """A batch of synthetic hands with the network's answer."""

    images: Float[Tensor, "n 3 s s"]
    keypoints: Float[Tensor, "n 21 2"]
    joints: Float[Tensor, "n 21 3"]  # metres, camera axes
    masks: Bool[Tensor, "n s s"]  # of the whole hand, as if nothing lay before it
    estimate: Estimate


@torch.no_grad()
def synthetic(network: DHPE, count: int, seed: int) -> Iterator[Synthetic]:
    """`count` hands of a seed, before made-up backgrounds, at the network's size."""
    hand = _hand(network)
    maker = Synthesizer(hand, size=network.config.input_size, seed=seed)
    for start in range(0, count, BATCH):
        made = maker.sample(BATCH)  # whole batches, so that fewer hands are the first of more
        keep = min(BATCH, count - start)
        images = (made.images[:keep] * 255).round() / 255
        yield Synthetic(
            images, made.keypoints[:keep], _joints(hand, made.parameters[:keep]), made.mask_full[:keep], network(images)
        )


def bench_synthetic(
    network: DHPE, count: int, paper: int, paper_steps: int, seed: int
) -> tuple[dict[str, Figures], dict[str, Curve]]:
    """Errors and times of every mode on `count` hands, of "paper" on the first `paper` of them; and the curves."""
    figures = {mode: Figures() for mode in MODES[: None if paper else 5]}
    traces: dict[str, list[Tensor]] = {"fast": [], "paper": []}
    truths: list[Tensor] = []
    for cases in synthetic(network, count, seed):
        _measure(network, cases, figures, paper - len(truths) if paper else 0, paper_steps, traces, truths)
    return figures, {name: _curve(network, trace, truths, name) for name, trace in traces.items() if trace}


def _measure(
    network: DHPE,
    cases: Synthetic,
    figures: dict[str, Figures],
    wanted: int,
    paper_steps: int,
    traces: dict[str, list[Tensor]],
    truths: list[Any],
) -> None:
    start = cases.estimate.parameters[-1]
    evidence = cases.estimate.keypoints_2d
    gap = (evidence - cases.keypoints).norm(dim=-1).mean(-1) * (ERROR_CROP / 2)
    figures["keypoints"].mesh_px += gap.tolist()
    for evidence_only in ("keypoints", "mask head"):
        figures[evidence_only].hands += len(gap)
    logits = cases.estimate.mask_logits[:, None]
    size = cases.masks.shape[-1]
    head = torch.nn.functional.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)[:, 0] > 0
    figures["mask head"].iou += [mask_iou(a, b) for a, b in zip(head.numpy(), cases.masks.numpy(), strict=True)]
    _add(network, cases, start, figures["off"])
    found, spent = _timed(lambda: _fast(network, cases, slice(None)))
    figures["fast"].batch_ms += [spent / len(start)] * len(start)
    _add(network, cases, found.h, figures["fast"])
    for k in range(min(len(start), SINGLE - len(figures["fast"].cpu_ms))):
        figures["fast"].cpu_ms.append(_timed(lambda k=k: _fast(network, cases, slice(k, k + 1)))[1])  # type: ignore[misc]
    sure = torch.ones_like(cases.estimate.keypoint_confidence)
    _add(network, cases, refine_fast(_hand(network), start, cases.keypoints, sure).h, figures["oracle"])
    for k in range(min(len(start), wanted)):
        one = slice(k, k + 1)
        path = [start[one]]
        part = _part(cases, one)
        found, spent = _timed(
            lambda c=part, p=path: refine_estimate(network, c.images, c.estimate, paper_steps, watch=p.append)  # type: ignore[misc]
        )
        figures["paper"].cpu_ms.append(spent)
        _add(network, part, start[one], figures["same off"])
        _add(network, part, _fast(network, cases, one).h, figures["same fast"])
        _add(network, part, found.h, figures["paper"])
        traces["paper"].append(torch.cat(path))
        traces["fast"].append(torch.cat([_fast(network, cases, one, steps).h for steps in FAST_CURVE]))
        truths.append((part.keypoints, part.joints))


def _fast(network: DHPE, cases: Synthetic, which: slice, steps: int | None = None) -> Refined:
    estimate = cases.estimate
    rows = (estimate.parameters[-1][which], estimate.keypoints_2d[which], estimate.keypoint_confidence[which])
    return refine_fast(_hand(network), *rows) if steps is None else refine_fast(_hand(network), *rows, iterations=steps)


def _add(network: DHPE, cases: Synthetic, h: Tensor, figures: Figures) -> None:
    """Errors of the meshes of h."""
    hand = _hand(network)
    figures.hands += len(h)
    off = (skeleton_in_crop(hand, h)[..., :2] - cases.keypoints).norm(dim=-1).mean(-1)
    figures.mesh_px += (off * (ERROR_CROP / 2)).tolist()
    joints = _joints(hand, h)
    pairs = zip(joints.numpy() * 1000.0, cases.joints.numpy() * 1000.0, strict=True)
    figures.pa_mm += [pa_mpjpe(found, true) for found, true in pairs]
    with torch.no_grad():
        seen = (network.render_mask(h, cases.masks.shape[-1]) > 0.5).numpy()
    figures.iou += [mask_iou(found, true) for found, true in zip(seen, cases.masks.numpy(), strict=True)]


def _curve(network: DHPE, trace: list[Tensor], truths: list[Any], name: str) -> Curve:
    hand, curve = _hand(network), Curve()
    steps = FAST_CURVE if name == "fast" else range(len(trace[0]))
    for column, step in enumerate(steps):
        figures: tuple[list[float], list[float]] = ([], [])
        for path, (keypoints, joints) in zip(trace, truths, strict=True):
            h = path[column : column + 1]
            off = (skeleton_in_crop(hand, h)[..., :2] - keypoints).norm(dim=-1).mean() * (ERROR_CROP / 2)
            figures[0].append(float(off))
            figures[1].append(pa_mpjpe(_joints(hand, h)[0].numpy() * 1e3, joints[0].numpy() * 1e3))
        curve.steps.append(step)
        curve.mesh_px.append(float(np.mean(figures[0])))
        curve.pa_mm.append(float(np.mean(figures[1])))
    return curve


def bench_fixtures(network: DHPE, folder: Path | str, name: str, modes: Sequence[str | int]) -> dict[str, Figures]:
    """The same figures on a fixture file; mask IoU where the hand's vertices are known (`vertex_mask`)."""
    from densehand.evaluate import labelled_box, read_fixture
    from densehand.images import read_image

    rows = read_fixture(folder, name)
    figures: dict[str, Figures] = {"keypoints": Figures()}
    for mode in modes:
        estimator = HandEstimator(network, device="cpu", refine=mode)
        own = figures.setdefault("paper" if isinstance(mode, int) else mode, Figures())
        for row in rows:
            box = labelled_box(row)
            image = read_image(Path(folder) / row["image"])
            (hand,), spent = _timed(lambda e=estimator, i=image, b=box: e(i, [HandBox(b)]))  # type: ignore[misc]
            own.cpu_ms.append(spent)  # with the network
            _add_row(row, box, hand, image.shape[:2], own, figures["keypoints"] if mode == modes[0] else None)
    return figures


def _add_row(
    row: dict[str, Any], box: tuple[float, ...], hand: Hand, size: tuple[int, int], own: Figures, first: Figures | None
) -> None:
    for figures in (own, first):
        if figures is not None:
            figures.hands += 1
    visible = np.asarray(row.get("visible", [True] * 21))
    pixel = crop_pixel(np.array(box))
    own.mesh_px += (keypoint_error(hand.project(hand.joints_3d), row["keypoints_px"])[visible] / pixel).tolist()
    if first is not None:
        first.mesh_px += (keypoint_error(hand.keypoints_2d, row["keypoints_px"])[visible] / pixel).tolist()
    if row.get("joints_mm"):
        own.pa_mm.append(pa_mpjpe(hand.joints_3d * 1000.0, np.asarray(row["joints_mm"], float)))
    if row.get("vertices_mm") and row.get("intrinsics"):
        vertices = np.asarray(row["vertices_mm"], float) / 1000
        own.iou.append(mask_iou(hand.mask(size), vertex_mask(vertices, np.asarray(row["intrinsics"], float), size)))


def vertex_mask(
    vertices: Float[np.ndarray, "V 3"], intrinsics: Float[np.ndarray, "4"], size: tuple[int, int]
) -> Bool[np.ndarray, "H W"]:
    """Mask of a mesh of which only the vertices are known: their projections, closed with a disc of `CLOSING` metres.

    vertices: metres, camera frame. intrinsics: fx, fy, cx, cy, pixels. Gaps between neighbouring vertices are filled;
    the outline runs through the outermost vertices.
    """
    depth = vertices[:, 2:]
    points = vertices[:, :2] / depth * intrinsics[:2] + intrinsics[2:]
    radius = max(round(CLOSING * float(intrinsics[:2].mean()) / float(depth.mean())), 1)
    height, width = size
    padded = np.zeros((height + 2 * radius, width + 2 * radius), np.uint8)  # the border must not eat into the hand
    for x, y in np.floor(points).astype(int) + radius:
        if 0 <= x < padded.shape[1] and 0 <= y < padded.shape[0]:
            padded[y, x] = 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    closed = cv2.erode(cv2.dilate(padded, disc), disc, borderValue=1)
    return closed[radius : radius + height, radius : radius + width] > 0


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What `work` gives and the CPU milliseconds it took; CPU time, as other work may share the machine."""
    begin = time.process_time()
    found = work()
    return found, 1000 * (time.process_time() - begin)


def _part(cases: Synthetic, which: slice) -> Synthetic:
    tensors = (cases.images[which], cases.keypoints[which], cases.joints[which], cases.masks[which])
    return Synthetic(*tensors, cases.estimate.each(itemgetter(which)))


def _joints(hand: HandModel, h: Tensor) -> Float[Tensor, "n 21 3"]:
    parameters = decode(h)
    return hand.skeleton(parameters.pose, parameters.shape, parameters.rotation)


def _hand(network: DHPE) -> HandModel:
    hand = network.hand
    assert isinstance(hand, HandModel)
    return hand
