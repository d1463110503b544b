"""Convolutions in 8-bit integers: folded weights and ranges of activations → what a quantised graph takes.

`tools/export_graphs.py` writes beside a graph its quantised twin, and a table of it (`GraphTable`). In the twin every
tensor of the table is an unsigned byte, (value / scale) + zero point, its scale and zero point chosen so that the range
measured on pictures fits (`tools/calibrate_activations.py`; the ranges are part of the model card). Weights are signed
bytes with one scale for each output channel, biases 32-bit. Jacob et al. 2018 is the scheme; the pair rule is ours:

CPUs without VNNI add the products of two neighbouring inputs in 16 bits and saturate: 255·127·2 does not fit. So a
channel's scale is also large enough that two neighbouring weights of one sign together are at most 128, and no such sum
saturates.

Neighbouring pixels are alike, and so are many channels: what they have in common passes a kernel by the sum of its
weights, often a small difference of large ones. So weights are rounded to integers of that sum (`round_together`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int8

LARGEST = 127  # of a weight, and of two neighbours before they are rounded
SMALLEST_SCALE = 1e-9  # of channels all zero
MOST_BIAS = 2**30  # half of what 32 bits hold, so that the products can be added

Ranges = Mapping[str, tuple[float, float]]  # lowest and highest value of tensors, by their names in the graph


@dataclass(frozen=True)
class GraphTable:
    """What must be known of a quantised graph to fill it. tensors: those that are bytes in it. reads: the tensor that
    each quantised convolution reads, by the convolution's name in the network."""

    tensors: tuple[str, ...]
    reads: Mapping[str, str]

    @classmethod
    def load(cls, path: Path) -> GraphTable:
        """Back from the file beside the graph. Raises OSError where it is missing."""
        record = json.loads(path.read_bytes())
        return cls(tuple(record["tensors"]), record["reads"])

    def to_json(self) -> str:
        """As the file beside the graph has it."""
        return json.dumps({"tensors": self.tensors, "reads": self.reads}, indent=1) + "\n"


def check_ranges(record: Any) -> dict[str, tuple[float, float]]:
    """Ranges of a model card, {tensor: [lowest, highest]}; empty where it has none. ValueError where malformed."""
    if not isinstance(record, dict):
        raise ValueError(f"activation_ranges is an object, not {record!r}")
    for name, pair in record.items():
        numbers = isinstance(pair, list | tuple) and len(pair) == 2
        if not numbers or any(isinstance(v, bool) or not isinstance(v, int | float) for v in pair):
            raise ValueError(f"activation_ranges of {name} are two numbers, not {pair!r}")
        if not (all(math.isfinite(v) and abs(v) < 1e30 for v in pair) and pair[0] <= pair[1]):
            raise ValueError(f"activation_ranges of {name} are the lowest and the highest value, not {pair!r}")
    return {name: (float(low), float(high)) for name, (low, high) in record.items()}


def byte_scale(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Scale (float32) and zero point (uint8), no dimensions, of bytes for values of a range; 0 is always exact."""
    low, high = min(low, 0.0), max(high, 0.0)  # what is added around a picture is 0
    scale = np.float32(max((high - low) / 255, 1e-8))
    return np.array(scale), np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)


def pair_scale(weight: Float[np.ndarray, "o i *k"]) -> Float[np.ndarray, " o"]:
    """The least scale of each output channel by the pair rule; of depthwise convolutions, where nothing is paired, by
    the largest weight alone."""
    flat = weight.reshape(len(weight), -1)
    largest = np.abs(flat).max(1)
    if weight.shape[1] > 1:
        # a kernel's inputs may be taken channels first or pixels first; of opposite signs no sum exceeds the larger
        orders = [flat] if flat.shape == weight.shape[:2] else [flat, np.moveaxis(weight, 1, -1).reshape(flat.shape)]
        largest = np.maximum.reduce([largest, *(np.abs(row[:, 1:] + row[:, :-1]).max(1) for row in orders)])
    return largest / LARGEST


def round_together(steps: Float[np.ndarray, "o n"], paired: bool) -> Int[np.ndarray, "o n"]:
    """Integers within 1 of the numbers, at most `LARGEST`, whose sum in each row is within half of the numbers' (or as
    near as the rest allows): those farthest from their nearest integer go to the other side of it.

    paired: only towards zero, so that no sum of two neighbours of one sign gets larger.
    """
    values = np.clip(np.rint(steps), -LARGEST, LARGEST)
    left = steps - values
    lacking = np.rint(left.sum(1, keepdims=True))
    way, count = np.sign(lacking), int(np.abs(lacking).max(initial=0))
    free = values * way < 0 if paired else np.abs(values + way) <= LARGEST
    gain = np.where(free, left * way, 0) - 1e-12 * np.arange(steps.shape[1])  # of equal ones the first
    first = np.argpartition(-gain, min(count, gain.shape[1] - 1), axis=1)[:, :count]  # rows are long, few are moved
    first = np.take_along_axis(first, np.argsort(-np.take_along_axis(gain, first, 1), axis=1), 1)
    moved = (np.take_along_axis(gain, first, 1) > 0) & (np.arange(first.shape[1]) < np.abs(lacking))
    np.put_along_axis(values, first, np.take_along_axis(values, first, 1) + way * moved, 1)
    return values.astype(np.int64)


def quantise_convolution(
    weight: Float[np.ndarray, "o i *k"], bias: Float[np.ndarray, " o"], input_scale: float
) -> tuple[Int8[np.ndarray, "o i *k"], Float[np.ndarray, " o"], Int[np.ndarray, " o"], Float[np.ndarray, " o"]]:
    """Weights as int8 with their scales (float32), biases as int32 with theirs, which are input_scale times those.

    The error of a weight is at most its scale, and half that, if it can be, the error of a channel's sum of weights.
    """
    least = np.maximum(np.abs(bias.astype(np.float64)) / (input_scale * MOST_BIAS), SMALLEST_SCALE)
    scale = np.maximum(pair_scale(weight), least).astype(np.float32)
    steps = weight.reshape(len(weight), -1) / scale[:, None].astype(np.float64)
    values = round_together(steps, paired=weight.shape[1] > 1).astype(np.int8).reshape(weight.shape)
    bias_scale = (scale * np.float32(input_scale)).astype(np.float32)
    return values, scale, np.rint(bias / bias_scale.astype(np.float64)).astype(np.int32), bias_scale


def fill(table: GraphTable, state: Mapping[str, np.ndarray], ranges: Ranges) -> dict[str, np.ndarray]:
    """All that the quantised graph takes, by name: `state` is of the folded network, in float32.

    Raises ValueError where the ranges are not of this graph's tensors, or the network lacks a convolution.
    """
    odd = sorted(set(table.tensors) ^ set(ranges))
    if odd:
        raise ValueError(f"activation_ranges are of another graph (first of {len(odd)} differences: {odd[0]})")
    filled = dict(state)
    scales = {name: byte_scale(*ranges[name]) for name in table.tensors}
    for name, (scale, zero) in scales.items():
        filled |= {f"{name}::scale": scale, f"{name}::zero": zero}
    for name, read in table.reads.items():
        weight, bias = f"{name}.weight", f"{name}.bias"
        if weight not in state or bias not in state:
            raise ValueError(f"the network has no convolution {name} with a bias")
        values = quantise_convolution(state[weight], state[bias], float(scales[read][0]))
        filled |= dict(zip((weight, f"{weight}::scale", bias, f"{bias}::scale"), values, strict=True))
        filled |= {
            f"{weight}::zero": np.zeros(len(values[0]), np.int8),
            f"{bias}::zero": np.zeros(len(values[0]), np.int32),
        }
    return filled
