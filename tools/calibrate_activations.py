"""Measure the ranges of an estimator's activations, which its 8-bit integers need (densehand/network/quantise.py).

    python tools/calibrate_activations.py WEIGHTS --photos PHOTOS --backgrounds BACKGROUNDS [--write]

WEIGHTS: a weights file or a packaged model's name. The network sees what `densehand predict` would show it of training
photos and of hand-free pictures (none that is held back, and nothing it is measured on), and rendered hands. With
--write the lowest and highest value of each tensor go into the model card; the weights stay as they are. Without ranges
in their card, weights run in float32. Also prints how far 8-bit integers move the keypoints of held-back photos and of
other rendered hands. Needs `pip install onnx`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from jaxtyping import Float
from torch import Tensor, nn

from densehand.camera import ERROR_CROP
from densehand.data.photos import load_photos
from densehand.detect.data import background_selected
from densehand.errors import DensehandError, InputError
from densehand.hand.model import HandModel
from densehand.images import find_images
from densehand.metrics import tight_box
from densehand.network.card import amend_card
from densehand.network.engine import GRAPHS, EvidenceGraph, GraphEngine, open_session, weights_of
from densehand.network.estimator import DHPE
from densehand.network.quantise import GraphTable, Ranges
from densehand.network.zoo import open_model, weights_path
from densehand.pipeline import HandEstimator
from densehand.synth.sampler import Synthesizer
from densehand.train.stream import load_backgrounds

SEED = 20_261_124  # of the rendered hands, and the next one of those compared; no other measurement's


class Watch:
    """In an engine's place: keeps the crops of the graph's size (None: of any) that a network is given, and leaves them
    to torch."""

    def __init__(self, size: int | None) -> None:
        self.size, self.crops = size, list[Tensor]()

    def takes(self, images: Tensor) -> bool:
        if self.size in (None, images.shape[-1]):
            self.crops.extend(images.clone())
        return False


def photo_crops(network: DHPE, photos: Path, split: str, count: int, backgrounds: Path | None = None) -> list[Tensor]:
    """The crops that the network looks at: of `count` photos of a split, and of a third as many hand-free training
    pictures. Raises InputError where a folder has none that can be used."""
    watch = Watch(network.config.input_size)
    network.engine = watch  # type: ignore[assignment]
    estimator = HandEstimator(network, device="cpu", refine="off")
    hands = load_photos(photos, split, count)
    side = hands.images.shape[1]
    for image, points in zip(hands.images.numpy(), (hands.keypoints.numpy() + 1) * (side / 2), strict=True):
        estimator(image, [tight_box(points).tolist()])
    if backgrounds is not None:
        paths = [p for p in find_images([backgrounds]) if p.stem.isdigit() and background_selected(int(p.stem), False)]
        if not paths:
            raise InputError(
                f"{backgrounds}: no picture named by its number here; give the folder that others are gathered from"
            )
        chosen = paths[:: max(3 * len(paths) // count, 1)]
        for image in load_backgrounds(backgrounds, wanted=chosen.__contains__).numpy():
            estimator(image, whole_image=True)
    return watch.crops


def rendered_crops(network: DHPE, count: int, seed: int) -> list[Tensor]:
    """Rendered hands."""
    maker = Synthesizer(HandModel.load("open"), size=network.config.input_size, seed=seed)
    return [image for start in range(0, count, 32) for image in maker.sample(min(32, count - start)).images]


def measure_ranges(name: str, module: nn.Module, crops: Iterable[Tensor]) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each tensor of the quantised graph's table, by the float graph of the same name."""
    tensors = GraphTable.load(GRAPHS / f"{name}.int8.json").tensors
    model = onnx.load(GRAPHS / f"{name}.onnx", load_external_data=False)
    shown = [onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None) for tensor in tensors]
    model.graph.output.extend(shown)
    session = open_session(model.SerializeToString(), weights_of(module))
    low, high = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    for crop in crops:
        values = session.run(list(tensors), {"images": crop[None].numpy()})
        low = np.minimum(low, [value.min() for value in values])
        high = np.maximum(high, [value.max() for value in values])
    return {t: (float(f"{a:.6g}"), float(f"{b:.6g}")) for t, a, b in zip(tensors, low, high, strict=True)}


def shifts(network: DHPE, ranges: Ranges, crops: Sequence[Tensor]) -> Float[np.ndarray, " n"]:
    """How far 8-bit integers move each keypoint of f_J2D, pixels of a 224-px crop."""
    engines = [GraphEngine(network.config.name, EvidenceGraph(network.evidence), known) for known in (None, ranges)]
    exact, near = (torch.cat([engine(crop[None])[4] for crop in crops]) for engine in engines)
    return (near - exact).norm(dim=-1).flatten().numpy() * (ERROR_CROP / 2)


def run(options: argparse.Namespace) -> None:
    """Measure, print and perhaps write. Errors: those of the weights and folders."""
    path = weights_path(options.weights)
    network = open_model(str(path), precision="float32")
    crops = photo_crops(network, options.photos, "train", options.count, options.backgrounds)
    crops += rendered_crops(network, options.rendered, SEED)
    ranges = measure_ranges(network.config.name, EvidenceGraph(network.evidence), crops)
    for name, (low, high) in ranges.items():
        print(f"{low:10.4f} {high:10.4f}  {name}")
    print(f"{len(ranges)} tensors, {len(crops)} crops")
    for name, others in (
        ("held-back photos", photo_crops(network, options.photos, "held-back", options.count)),
        ("rendered hands", rendered_crops(network, options.rendered, SEED + 1)),
    ):
        moved = np.quantile(shifts(network, ranges, others), [0.5, 0.95])
        print(f"{name}, {len(others)} crops: keypoints moved by {moved[0]:.2f} px, the median, 95 % by {moved[1]:.2f}")
    if options.write:
        amend_card(path, activation_ranges=ranges)
        print(f"written: {path.with_suffix('.json')}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a weights file, or the name of a packaged model")
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.jsonl and crops/")
    parser.add_argument("--backgrounds", type=Path, help="folder of hand-free pictures")
    parser.add_argument("--count", type=int, default=200, help="most training photos")
    parser.add_argument("--rendered", type=int, default=100, help="number of rendered hands")
    parser.add_argument("--write", action="store_true", help="write the ranges into the model card")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        run(options)
    except DensehandError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
