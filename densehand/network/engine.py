"""The convolutions on CPUs by ONNX Runtime, faster than torch's operations one by one.

The package holds graphs without weights (``graphs/*.onnx``, written by ``tools/export_graphs.py``); the weights are
those of a torch module whose batch norms are folded in, handed over by name. Where ONNX Runtime is missing, the
pictures are of another size than the graph's, or gradients are wanted, torch runs the same network.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

GRAPHS = Path(__file__).parent / "graphs"


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
    """The detector's four dense answers, without its auxiliary head."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, ...]:
        return tuple(self.net(images)[:4])


class Shortcut:
    """Runs a part of a network faster than torch on a CPU, with the weights it had when this was made."""

    @staticmethod
    def suits(values: Tensor) -> bool:
        """Whether these are float32 on the CPU and no gradients are wanted."""
        return values.device.type == "cpu" and values.dtype == torch.float32 and not torch.is_grad_enabled()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied network may be given other weights: it goes without."""


class GraphEngine(Shortcut):
    """The packaged graph ``name`` with a module's weights: pictures in, the graph's outputs out, float32 on the CPU.

    Raises ``ImportError`` where ONNX Runtime is not installed, ``OSError`` without such a graph, ``ValueError`` where
    the weights are not the graph's.
    """

    def __init__(self, name: str, module: nn.Module):
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # newer versions report each start to their makers
        import onnxruntime

        graph = (GRAPHS / f"{name}.onnx").read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # threads wait for each other by spinning within a call, but must not take the cores from what comes after it
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 4
        state = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
        arrays = [onnxruntime.OrtValue.ortvalue_from_numpy(v.float().contiguous().numpy()) for v in state.values()]
        options.add_external_initializers(list(state), arrays)
        try:
            self.runner: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, all of them straight from Exception
            raise ValueError(f"{name}: the weights do not fit the packaged graph ({error})") from error
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


def engine(name: str, module: nn.Module) -> GraphEngine | None:
    """The engine of a named network, or None where it cannot be had: torch gives the same answers, only later."""
    try:
        return GraphEngine(name, module)
    except (ImportError, OSError, ValueError):
        return None
