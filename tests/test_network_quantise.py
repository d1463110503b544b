"""8-bit integers: the pair rule, ranges in the card, and an engine whose answers stay near float32's."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_folder import make_photo_folder
from tool_loader import load_tool

from densehand.errors import InputError, WeightsError
from densehand.export import write_picture
from densehand.hand.model import HandModel
from densehand.network import engine as engines
from densehand.network.card import amend_card, card_beside
from densehand.network.engine import GRAPHS, EvidenceGraph, GraphEngine, engine
from densehand.network.quantise import (
    GraphTable,
    byte_scale,
    check_ranges,
    fill,
    pair_scale,
    quantise_convolution,
    round_together,
)
from densehand.network.zoo import WEIGHTS_FOLDER, load_card, load_model

INT16 = 2**15 - 1


@pytest.fixture(scope="module")
def both():
    """The packaged network in float32 and in 8-bit integers."""
    pytest.importorskip("onnxruntime")
    network = load_model("dhpe-lite", precision="float32")
    ranges = check_ranges(load_card("dhpe-lite").activation_ranges)
    return network, GraphEngine("dhpe-lite", EvidenceGraph(network.evidence), ranges)


@pytest.fixture(scope="module")
def hands():
    from densehand.synth.sampler import Synthesizer

    return Synthesizer(HandModel.load("open"), size=load_card("dhpe-lite").input_size, seed=5).sample(16)


@pytest.fixture
def package(tmp_path):
    """A copy of the packaged weights and their card."""
    for suffix in ("safetensors", "json"):
        shutil.copy(WEIGHTS_FOLDER / f"dhpe-lite.{suffix}", tmp_path)
    return tmp_path / "dhpe-lite.safetensors"


def weights(seed: int, spread: float, inputs: int, kernel: int) -> np.ndarray:
    """Channels of unlike sizes, one all zero and one of a single large weight among small ones."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(6, inputs, kernel, kernel)) * spread ** rng.uniform(-1, 1, (6, 1, 1, 1))
    weight[1], weight[2, 0] = 0, 100 * np.abs(weight[2]).max()
    weight[3] = np.abs(weight[3]).max()  # every pair of one sign
    return weight.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(1.5, 1e4), st.sampled_from([1, 2, 3, 7, 16]), st.sampled_from([1, 3]))
def test_no_pair_of_products_exceeds_16_bits_and_weights_are_within_a_scale(seed, spread, inputs, kernel):
    weight, bias = weights(seed, spread, inputs, kernel), np.zeros(6, np.float32)
    values, scale, *_ = quantise_convolution(weight, bias, 0.02)
    assert values.dtype == np.int8 and np.abs(values.astype(int)).max() <= 127
    steps = np.abs(values - weight / scale.reshape(-1, 1, 1, 1).astype(np.float64))
    assert steps.max() <= 1 + 1e-4
    if inputs > 1:
        for order in (values, np.moveaxis(values, 1, -1)):
            row = order.reshape(6, -1).astype(int)
            sums = np.stack([a * row[:, 1:] + b * row[:, :-1] for a in (0, 255) for b in (0, 255)])  # linear in a and b
            assert np.abs(sums).max() <= INT16


def rounded_one_by_one(row: np.ndarray, paired: bool) -> list[int]:
    """The twin of `round_together`."""
    values = [int(v) for v in np.clip(np.rint(row), -127, 127)]
    lacking = round(sum(row) - sum(values))
    way = int(np.sign(lacking))
    for _ in range(abs(lacking)):
        gain = [
            (x - v) * way if (v * way < 0 if paired else abs(v + way) <= 127) else 0
            for x, v in zip(row, values, strict=True)
        ]
        best = int(np.argmax(gain))
        if gain[best] <= 0:
            break
        values[best] += way
    return values


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 9, 40]), st.floats(0.1, 60), st.floats(-60, 60), st.booleans())
def test_weights_are_rounded_to_integers_of_their_sum(seed, count, spread, mean, paired):
    steps = np.clip(np.random.default_rng(seed).normal(mean, spread, (5, count)), -127, 127)
    steps[0] = 0
    values = round_together(steps, paired)
    assert [list(row) for row in values] == [rounded_one_by_one(row, paired) for row in steps]
    assert np.abs(values - steps).max() <= 1 and np.abs(values).max() <= 127
    plain = np.rint(steps)
    lost, lost_plain = np.abs((values - steps).sum(1)), np.abs((plain - steps).sum(1))
    assert (lost <= lost_plain + 1e-9).all()
    if paired:
        assert (np.abs(values) <= np.abs(plain)).all() and (values * plain >= 0).all()
    elif np.abs(steps).max() < 126:
        assert lost.max() <= 0.5 + 1e-9


def test_plain_scales_would_saturate():
    weight = np.full((1, 4, 1, 1), 0.3, np.float32)
    plain = np.rint(weight / (np.abs(weight).max() / 127)).astype(int).ravel()
    assert 255 * (plain[0] + plain[1]) > INT16
    assert pair_scale(weight)[0] == pytest.approx(0.6 / 127)
    assert pair_scale(weight.transpose(1, 0, 2, 3))[0] == pytest.approx(0.3 / 127)  # depthwise: nothing is paired


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-6, 10), st.floats(1e-3, 1e4))
def test_biases_fit_and_are_within_half_a_step(seed, input_scale, size):
    rng = np.random.default_rng(seed)
    weight, bias = weights(seed, 10, 5, 1), (size * rng.normal(size=6)).astype(np.float32)
    _, scale, integers, bias_scale = quantise_convolution(weight, bias, input_scale)
    assert integers.dtype == np.int32 and np.abs(integers.astype(np.int64)).max() <= 2**30 * (1 + 1e-6)
    np.testing.assert_allclose(bias_scale, scale * np.float32(input_scale), rtol=1e-6)
    error = np.abs(integers * bias_scale.astype(np.float64) - bias)
    assert (error <= 0.5 * bias_scale + 1e-6 * np.abs(bias)).all()


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(0, 1e4), st.floats(0, 1))
def test_bytes_hold_their_range_and_zero(low, width, place):
    scale, zero = byte_scale(low, low + width)
    value = low + place * width
    byte = np.clip(np.rint(value / scale) + zero, 0, 255)
    assert scale.dtype == np.float32 and zero.dtype == np.uint8 and scale.shape == zero.shape == ()
    assert abs((byte - zero) * scale - value) <= 1.01 * scale + 1e-9  # of the zero point's own rounding half


def near(outputs, exact) -> bool:
    """Whether the engine's outputs are as near to float32's as 8 bits should be."""
    features, _, _, mask, keypoints, confidence = outputs
    shift = (keypoints - exact[4]).norm(dim=-1) * 112  # pixels of a 224-px crop
    together = torch.corrcoef(torch.stack([features.flatten(), exact[0].flatten()]))[0, 1]
    return bool(
        0 < shift.median() < 0.7
        and shift.flatten().quantile(0.9) < 2.5
        and (confidence - exact[5]).abs().median() < 0.008
        and together > 0.998  # 0.9991 to 0.9996 on samples of 16 to 128 hands
        and ((mask > 0) == (exact[3] > 0)).float().mean() > 0.99
    )


@pytest.mark.parametrize("count", [1, 4])
@torch.no_grad()
def test_answers_stay_near_float32(both, hands, count):
    network, integers = both
    assert integers.precision == "int8" and network.engine.precision == "float32"
    parts = [integers(part) for part in hands.images.split(count)]
    assert near([torch.cat(column) for column in zip(*parts, strict=True)], network.engine(hands.images))
    heatmaps = torch.cat([part[1] for part in parts])
    torch.testing.assert_close(heatmaps.sum((-2, -1)), torch.ones(heatmaps.shape[:2]))


@pytest.mark.parametrize(
    "faults",
    [
        {"/net/stage2/body/body.3/Relu_output_0::scale": 0.25},
        {"/net/trunk/head/act/Clip_output_0::scale": 0.25},
        {"net.trunk.blocks.7.project.conv.weight::scale": 2},
        {"net.stage1.body.0.pointwise.conv.bias::scale": 3},
    ],
)
@torch.no_grad()
def test_a_wrong_scale_is_seen(both, hands, faults):
    """What the bounds above are worth."""
    network, _ = both
    table = GraphTable.load(GRAPHS / "dhpe-lite.int8.json")
    ranges = check_ranges(load_card("dhpe-lite").activation_ranges)
    filled = fill(table, engines.weights_of(EvidenceGraph(network.evidence)), ranges)
    filled |= {name: (filled[name] * factor).astype(np.float32) for name, factor in faults.items()}
    session = engines.open_session((GRAPHS / "dhpe-lite.int8.onnx").read_bytes(), filled)
    wrong = [torch.from_numpy(output) for output in session.run(None, {"images": hands.images.numpy()})]
    assert not near(wrong, network.engine(hands.images))


def test_loading_takes_integers_where_it_may(monkeypatch, package):
    pytest.importorskip("onnxruntime")
    for machine, expected in (("x86_64", "int8"), ("AMD64", "int8"), ("aarch64", "float32")):
        monkeypatch.setattr(engines.platform, "machine", lambda found=machine: found)
        assert load_model("dhpe-lite", path=package).engine.precision == expected
        assert load_model("dhpe-lite", path=package, precision="float32").engine.precision == "float32"
    monkeypatch.setattr(engines.platform, "machine", lambda: "x86_64")
    amend_card(package, activation_ranges={})
    assert load_model("dhpe-lite", path=package).engine.precision == "float32"
    with pytest.raises(InputError, match="unknown precision 'int4'; use auto or float32"):
        load_model("dhpe-lite", precision="int4")


def test_ranges_of_another_graph_are_not_taken(both):
    network, _ = both
    module, ranges = EvidenceGraph(network.evidence), check_ranges(load_card("dhpe-lite").activation_ranges)
    first = next(iter(ranges))
    lacking = {name: pair for name, pair in ranges.items() if name != first}
    with pytest.raises(ValueError, match=f"another graph .first of 1 differences: {first}"):
        GraphEngine("dhpe-lite", module, lacking)
    assert engine("dhpe-lite", module, lacking).precision == "float32"
    table = GraphTable.load(GRAPHS / "dhpe-lite.int8.json")
    with pytest.raises(ValueError, match="the network has no convolution"):
        fill(table, {}, ranges)
    assert GraphTable(**json.loads(table.to_json())).reads == table.reads


@pytest.mark.parametrize("spoilt", [[1], {"t": 1}, {"t": [1]}, {"t": [2, 1]}, {"t": [0, "1"]}, {"t": [0, True]},
                                    {"t": [0, float("nan")]}, {"t": [0, 1e300]}])  # fmt: skip
def test_damaged_ranges_are_named(package, spoilt):
    card = package.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"activation_ranges": spoilt}))
    with pytest.raises(WeightsError, match=r"dhpe-lite\.json: not a model card \(activation_ranges"):
        load_model("dhpe-lite", path=package)


def test_measured_ranges_come_back_from_the_card(package, tmp_path, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    tool = load_tool("calibrate_activations")
    before = card_beside(package)
    photos = make_photo_folder(tmp_path / "photos", 20)
    options = [str(package), "--photos", str(photos), "--count", "3", "--rendered", "2"]
    tool.main(options)
    said = capsys.readouterr().out
    assert "83 tensors" in said and "rendered hands, 2 crops: keypoints moved" in said
    assert card_beside(package) == before
    tool.main([*options, "--write"])
    after = card_beside(package)
    found = check_ranges(after.activation_ranges)
    assert found.keys() == before.activation_ranges.keys() and found != check_ranges(before.activation_ranges)
    assert all(low >= 0 and high <= 6 for name, (low, high) in found.items() if "/Clip" in name)
    assert vars(before) | {"activation_ranges": 0} == vars(after) | {"activation_ranges": 0}
    assert load_model("dhpe-lite", path=package).engine.precision in ("int8", "float32")
    line = next(line for line in package.with_suffix(".json").read_text().splitlines() if next(iter(found)) in line)
    assert line.rstrip(",").endswith("]")  # a pair stands on one line
    gathered = tmp_path / "gathered"
    gathered.mkdir()
    write_picture(gathered / "room_3.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(SystemExit, match="named by its number"):
        tool.main([*options, "--backgrounds", str(gathered)])


def test_ranges_are_those_of_the_tensors():
    """Against hooks on torch's own layers."""
    pytest.importorskip("onnx")
    network = load_model("dhpe-lite", precision="float32")
    images = torch.rand(3, 3, *(network.config.input_size,) * 2, generator=torch.Generator().manual_seed(0))
    seen = {}
    for name, layer in network.evidence.named_modules():
        layer.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        network.evidence(images)
    found = load_tool("calibrate_activations").measure_ranges("dhpe-lite", EvidenceGraph(network.evidence), images)
    for name, layer in (("trunk/blocks.3/project/conv/Conv", "trunk.blocks.3.project"),
                        ("laterals.1/conv/Conv", "laterals.1"), ("stage1/maps/Conv", "stage1.maps")):  # fmt: skip
        low, high = found[f"/net/{name}_output_0"]
        assert low == pytest.approx(float(seen[layer].min()), rel=1e-3, abs=1e-4)
        assert high == pytest.approx(float(seen[layer].max()), rel=1e-3, abs=1e-4)
