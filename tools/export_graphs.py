"""Write the ONNX graphs that ONNX Runtime runs on CPUs: ``python tools/export_graphs.py`` (needs ``pip install onnx``).

A graph holds no weights: they are handed over from the packaged safetensors at load time under the same names
(densehand/network/engine.py), so that new weights need no new graph. Only a change of a network's code does.
Beside NAME.onnx stand its twin in 8-bit integers, NAME.int8.onnx, and the table that densehand/network/quantise.py
fills it by, NAME.int8.json.
"""

import argparse
import copy
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from densehand.detect.model import DetectorNet
from densehand.network.engine import GRAPHS, DetectorGraph, EvidenceGraph
from densehand.network.fuse import fuse_batch_norms
from densehand.network.quantise import GraphTable
from densehand.network.zoo import available_models, build_model, load_card

LARGE = 64  # numbers from which on an initialiser is a weight; smaller ones are kept too if they are of the network
OPSET = 17
KEPT_FLOAT = {  # positions, sizes, sides, turns and the mask are read off what these write
    "dhpe-lite": ("stage1.maps", "stage2.maps"),
    "dhpe-r50": ("stage1.maps", "stage2.maps"),
    "detector": ("net.centre", "net.box", "net.side", "net.turn"),
}


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
            tensor.CopyFrom(handed_over(tensor.name, tensor.data_type, tensor.dims))
    fold_pads(graph.graph)
    left = [t.name for t in graph.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    large = [t.name for t in graph.graph.initializer if t.name in left and len(t.raw_data) > 4 * LARGE]
    if large:
        raise SystemExit(f"the exporter renamed weights: {large[:5]}; they would be frozen into the graph")
    return graph


def handed_over(name: str, kind: int, shape: Iterable[int] = ()) -> onnx.TensorProto:
    """An initialiser without its numbers."""
    tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights")  # never read: the engine hands them over
    return tensor


def bytes_of(graph: onnx.GraphProto, kept_float: tuple[str, ...]) -> GraphTable:
    """Which tensors become bytes: what convolutions, sums and joints of maps read and write.

    Not those of the first convolution, which sees the picture, of the convolutions `kept_float`, of resizing, and of
    what comes after the last convolution.
    """
    inputs_of = {tensor.name: tensor.dims[1] for tensor in graph.initializer if len(tensor.dims) == 4}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    maps: set[str] = set()
    tensors: dict[str, None] = {}  # a set in order
    reads: dict[str, str] = {}
    last = max(index for index, node in enumerate(graph.node) if node.op_type == "Conv")
    for node in graph.node[: last + 1]:
        if node.op_type == "Conv":
            name = node.input[1].removesuffix(".weight")
            maps.add(node.output[0])
            if inputs_of[node.input[1]] == 3 or name.endswith(kept_float):
                continue
            reads[name] = node.input[0]
            read = [node.input[0]]
        elif node.op_type in ("Relu", "Clip", "Resize") and node.input[0] in maps:
            maps.add(node.output[0])
            continue
        elif node.op_type in ("Add", "Concat") and maps.issuperset(node.input):
            maps.add(node.output[0])
            read = list(node.input)
        else:
            continue
        after = readers[node.output[0]]
        alone = len(after) == 1 and after[0].op_type in ("Relu", "Clip")  # one operation with it
        tensors.update(dict.fromkeys([*read, (after[0] if alone else node).output[0]]))
    return GraphTable(tuple(tensors), reads)


def quantised(model: onnx.ModelProto, table: GraphTable) -> onnx.ModelProto:
    """The graph with the table's tensors rounded to bytes and back, and with weights and biases from integers.

    ONNX Runtime makes one integer operation of a float one between such steps.
    """
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    graph, nodes = twin.graph, []
    kinds = onnx.TensorProto
    parts = {"weight": kinds.INT8, "bias": kinds.INT32}

    def from_integers(values: str, result: str, **options: Any) -> None:
        names = [values, f"{result.removesuffix('::float')}::scale", f"{result.removesuffix('::float')}::zero"]
        nodes.append(onnx.helper.make_node("DequantizeLinear", names, [result], **options))

    for node in model.graph.node:
        node = copy.deepcopy(node)
        convolution = node.input[1].removesuffix(".weight") if node.op_type == "Conv" else ""
        if convolution in table.reads:
            for name in node.input[1:]:
                from_integers(name, f"{name}::float", axis=0)
        for index, name in enumerate(node.input):
            if name in table.tensors or (index and convolution in table.reads):
                node.input[index] = f"{name}::float"
        nodes.append(node)
        for name in table.tensors:
            if name in node.output:
                steps = [name, f"{name}::scale", f"{name}::zero"]
                nodes.append(onnx.helper.make_node("QuantizeLinear", steps, [f"{name}::byte"]))
                from_integers(f"{name}::byte", f"{name}::float")
                graph.initializer.extend([handed_over(steps[1], kinds.FLOAT), handed_over(steps[2], kinds.UINT8)])
    integers = {f"{name}.{part}": kind for name in table.reads for part, kind in parts.items()}
    for tensor in [t for t in graph.initializer if t.name in integers]:
        kind, channels = integers[tensor.name], list(tensor.dims[:1])
        tensor.data_type = kind
        graph.initializer.append(handed_over(f"{tensor.name}::scale", kinds.FLOAT, channels))
        graph.initializer.append(handed_over(f"{tensor.name}::zero", kind, channels))
    del graph.node[:]
    graph.node.extend(nodes)
    return twin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=GRAPHS, help="folder to write to")
    parser.add_argument(
        "--size", type=int, help="side of the estimators' crops, pixels, where the next weights see another"
    )
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    detector = DetectorGraph(fuse_batch_norms(DetectorNet().eval()))
    exported: list[tuple[str, nn.Module, int, dict[int, str]]] = [
        ("detector", detector, 64, {0: "batch", 2: "height", 3: "width"})
    ]
    for name in available_models():
        evidence = EvidenceGraph(fuse_batch_norms(build_model(name).eval()).evidence)
        exported.append((name, evidence, options.size or load_card(name).input_size, {0: "batch"}))
    for name, module, size, free in exported:
        graph = graph_of(module.eval(), size, free)
        table = bytes_of(graph.graph, KEPT_FLOAT[name])
        files = {
            f"{name}.onnx": graph.SerializeToString(),
            f"{name}.int8.onnx": quantised(graph, table).SerializeToString(),
            f"{name}.int8.json": table.to_json().encode(),
        }
        for file, data in files.items():
            (out / file).write_bytes(data)
            print(f"{out / file}: {len(data)} bytes")


if __name__ == "__main__":
    main()
