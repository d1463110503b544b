"""The convolutions on CPUs by ONNX Runtime, faster than torch's operations one by one.

The package holds graphs without weights (``graphs/*.onnx``, written by ``tools/export_graphs.py``); the weights are
those of a torch module whose batch norms are folded in, handed over by name. Where ONNX Runtime is missing, the
pictures are of another size than the graph's, or gradients are wanted, torch runs the same network.

On x86-64 most convolutions run in 8-bit integers where the weights' card holds the ranges of their activations
(`quantise.py`); on other processors nobody has measured them.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from densehand.errors import InputError
from densehand.network.quantise import GraphTable, Ranges, fill

GRAPHS = Path(__file__).parent / "graphs"
PRECISIONS = ("auto", "float32")
INTEGER_MACHINES = ("x86_64", "amd64")  # whose 8-bit speed and answers were measured


class EvidenceGraph(nn.Module):
    """f_E2D with outputs that a graph can have: F, last heat maps and mask logits, 2D keypoints, confidence."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, ...]:
        seen = self.net(images)
        return seen.features, seen.heatmaps, seen.heatmap_logits[-1], seen.stage_mask_logits[-1], seen.keypoints, (
            seen.confidence
        )  # fmt: skip


class DetectorGraph(nn.Module):
    """The detector's five dense answers, without its auxiliary head."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        return tuple(self.net(images)[:5])


class Shortcut:
    """Runs a part of a network faster than torch on a CPU, with the weights it had when this was made."""

    @staticmethod
    def suits(values: Tensor) -> bool:
        """Whether these are float32 on the CPU and no gradients are wanted."""
        return values.device.type == "cpu" and values.dtype == torch.float32 and not torch.is_grad_enabled()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied network may be given other weights: it goes without."""


def open_session(graph: bytes, weights: Mapping[str, np.ndarray]) -> Any:
    """An ONNX Runtime session on the CPU of a graph without weights, and weights by name.

    Raises ``ImportError`` where ONNX Runtime is not installed, ``ValueError`` where the weights are not the graph's.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # newer versions report each start to their makers
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # threads wait for each other by spinning within a call, but must not take the cores from what comes after it
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4
    # named, as they must live until the session is made
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(v, order="C")) for v in weights.values()]
    options.add_external_initializers(list(weights), values)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes, all of them straight from Exception
        raise ValueError(f"the weights do not fit the packaged graph ({error})") from error


def weights_of(module: nn.Module) -> dict[str, np.ndarray]:
    """A module's numbers in float32, as a graph of it takes them."""
    state = module.state_dict().items()
    return {name: value.float().contiguous().numpy() for name, value in state if value.is_floating_point()}


class GraphEngine(Shortcut):
    """The packaged graph ``name`` with a module's weights: pictures in, the graph's outputs out, float32 on the CPU.

    With ``ranges`` of its activations, the graph's twin in 8-bit integers (``precision`` "int8", else "float32").
    Raises ``ImportError`` where ONNX Runtime is not installed, ``OSError`` without such a graph, ``ValueError`` where
    the weights or ranges are not the graph's.
    """

    def __init__(self, name: str, module: nn.Module, ranges: Ranges | None = None):
        self.precision = "int8" if ranges else "float32"
        file, weights = GRAPHS / f"{name}.onnx", weights_of(module)
        try:
            if ranges:
                file = GRAPHS / f"{name}.int8.onnx"
                weights = fill(GraphTable.load(file.with_suffix(".json")), weights, ranges)
            self.runner = open_session(file.read_bytes(), weights)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        self.size = self.runner.get_inputs()[0].shape[-1]

    def takes(self, images: Tensor) -> bool:
        """Whether these pictures can be run here: float32 on the CPU, without gradients, of the graph's size."""
        return (
            self.suits(images) and len(images) > 0 and (not isinstance(self.size, int) or images.shape[-1] == self.size)
        )

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        outputs = self.runner.run(None, {"images": images.contiguous().numpy()})
        return [torch.from_numpy(output) for output in outputs]


def to_batch(pixels: UInt8[np.ndarray, "b h w 3"], device: torch.device | str) -> Float[Tensor, "b 3 h w"]:
    """Pictures as networks take them, in [0, 1]; by numpy, as torch's threads would spin while the engine's work."""
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
    return torch.from_numpy(planes / np.float32(255)).to(device)


def check_precision(precision: str) -> str:
    """The word itself; ``InputError`` where it is none of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; use {' or '.join(PRECISIONS)}")
    return precision


def engine(name: str, module: nn.Module, ranges: Ranges | None = None) -> GraphEngine | None:
    """The engine of a named network: in 8-bit integers where there are ranges of this graph and the processor is an
    x86-64, else in float32; None where it cannot be had: torch gives float32's answers, only later."""
    for known in [ranges, None] if ranges and platform.machine().lower() in INTEGER_MACHINES else [None]:
        try:
            return GraphEngine(name, module, known)
        except (ImportError, OSError, ValueError):
            continue
    return None
