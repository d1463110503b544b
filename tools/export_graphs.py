"""Write the ONNX graphs that ONNX Runtime runs on CPUs: ``python tools/export_graphs.py`` (needs ``pip install onnx``).

A graph holds no weights: they are handed over from the packaged safetensors at load time under the same names
(densehand/network/engine.py), so that new weights need no new graph. Only a change of a network's code does.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from densehand.detect.model import DetectorNet
from densehand.network.engine import GRAPHS, DetectorGraph, EvidenceGraph
from densehand.network.fuse import fuse_batch_norms
from densehand.network.zoo import build_model, load_card

LARGE = 64  # numbers from which on an initialiser is a weight; smaller ones are kept too if they are of the network
OPSET = 17


def fold_pads(graph: onnx.GraphProto) -> None:
    """Let strided convolutions pad for themselves: nodes less, and no change of memory layout between two layers.

    TensorFlow's "same" padding, which torch writes as a layer of its own (`network/backbone.py`), is kernel − stride
    wherever the stride divides the map's side, and pictures come in multiples of 32.
    """
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        (conv,) = (node for node in graph.node if pad.output[0] in node.input)
        given = {a.name: list(a.ints) for a in conv.attribute}
        if conv.op_type != "Conv" or any(given["pads"]) or given["strides"] != [2, 2]:
            raise SystemExit(f"{pad.name}: not the padding of a strided convolution")
        total = [kernel - 2 for kernel in given["kernel_shape"]]
        pads = next(a for a in conv.attribute if a.name == "pads")
        pads.ints[:] = [n // 2 for n in total] + [n - n // 2 for n in total]
        conv.input[0] = pad.input[0]
    wanted = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):  # sorted: whoever uses a node comes after it
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        wanted.update(node.input if not wanted.isdisjoint(node.output) else ())


def graph_of(module: nn.Module, size: int, free: dict[int, str]) -> onnx.ModelProto:
    """The module's graph, its weights left out; `free`: the axes of the pictures whose lengths are open."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_()  # the exporter would keep one of several equal ones
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's future, and of sizes that tracing takes for constants
        path = Path(folder) / "graph.onnx"
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, size, size),),
            str(path),
            dynamo=False,
            input_names=["images"],
            dynamic_axes={"images": free},
            opset_version=OPSET,
        )
        graph = onnx.load(path)
    weights = set(module.state_dict())
    for tensor in graph.graph.initializer:
        if tensor.name in weights:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights")  # never read: the engine hands them over
    fold_pads(graph.graph)
    left = [t.name for t in graph.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    large = [t.name for t in graph.graph.initializer if t.name in left and len(t.raw_data) > 4 * LARGE]
    if large:
        raise SystemExit(f"the exporter renamed weights: {large[:5]}; they would be frozen into the graph")
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=GRAPHS, help="folder to write to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    lite = fuse_batch_norms(build_model("dhpe-lite").eval())
    detector = fuse_batch_norms(DetectorNet().eval())
    for name, module, size, free in (
        ("dhpe-lite", EvidenceGraph(lite.evidence), load_card("dhpe-lite").input_size, {0: "batch"}),
        ("detector", DetectorGraph(detector), 64, {0: "batch", 2: "height", 3: "width"}),
    ):
        path = out / f"{name}.onnx"
        path.write_bytes(graph_of(module.eval(), size, free).SerializeToString())
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
