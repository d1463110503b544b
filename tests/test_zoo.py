"""Named models: round trips of weights, bounded errors of compact storage, and refusal of every wrong file."""

import json
from dataclasses import replace

import pytest
import torch
from dummies import DummyHand
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from densehand.errors import InputError, WeightsError
from densehand.network import zoo
from densehand.network.card import amend_card, card_beside
from densehand.network.storage import dequantise, quantise
from densehand.network.zoo import (
    MODELS,
    build_model,
    hand_fingerprint,
    load_card,
    load_model,
    resolve_device,
    save_weights,
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model("dhpe-lite", DummyHand())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return model.eval()


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "dhpe-lite.safetensors"
    save_weights(model, path, card={"recipe": {"command": "densehand train", "seed": 1}, "input_size": 160})
    return path


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), magnitude=st.floats(1e-6, 1e4))
def test_quantisation_error_is_at_most_half_a_step(seed, magnitude):
    weight = magnitude * torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    weight[3] = 0
    values, scale = quantise(weight)
    assert values.dtype == torch.int8 and values.shape == weight.shape and scale.shape == (5,)
    step = weight.flatten(1).abs().amax(1) / 127
    error = (dequantise(values, scale) - weight).flatten(1).abs().amax(1)
    assert (error <= 0.5001 * step).all() and error[3] == 0


@pytest.mark.parametrize(("storage", "tolerance", "most_bytes"), [("fp16", 5e-3, 1.1e7), ("int8", 0.1, 7.6e6)])
def test_round_trip(model, tmp_path, storage, tolerance, most_bytes):
    path = tmp_path / "dhpe-lite.safetensors"
    card = save_weights(model, path, storage)
    loaded = load_model("dhpe-lite", path=path, hand=DummyHand())
    assert card.storage == storage and card.bytes == path.stat().st_size < most_bytes
    assert not loaded.training and next(loaded.parameters()).dtype == torch.float32
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in loaded.modules())
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        a, b = model(images), loaded(images)
    for x, y in zip([*a.keypoints, *a.skeletons, a.features], [*b.keypoints, *b.skeletons, b.features], strict=True):
        assert (x - y).abs().max() < tolerance * max(1.0, x.abs().max().item())


def test_stored_weights_come_back_to_the_bit_a_second_time(saved, tmp_path):
    once = load_model("dhpe-lite", path=saved, hand=DummyHand(), fuse=False)
    again = tmp_path / "again" / "dhpe-lite.safetensors"
    save_weights(once, again)
    assert again.read_bytes() == saved.read_bytes()


def test_large_model_fits_the_budget(tmp_path):
    """Both shipped models together are at most 45 MB."""
    r50 = save_weights(build_model("dhpe-r50", DummyHand()), tmp_path / "dhpe-r50.safetensors")
    assert r50.storage == "int8" and r50.bytes < 36e6


def test_card_tells_what_must_be_known(saved):
    card = json.loads(saved.with_suffix(".json").read_text())
    assert card["recipe"]["seed"] == 1 and card["licence"] == "Apache-2.0" and len(card["sha256"]) == 64
    assert card["hand_fingerprint"] == hand_fingerprint(DummyHand())
    assert card_beside(saved).sha256 == card["sha256"]
    assert load_model("dhpe-lite", path=saved, hand=DummyHand()).config.input_size == 160


def test_fingerprint_follows_the_hand():
    other = DummyHand()
    other.mean_pose[3] += 0.01
    assert hand_fingerprint(other) != hand_fingerprint(DummyHand())


def test_hand_model_is_not_stored(saved):
    assert not any(key.startswith("hand.") for key in load_file(saved))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "truncated"),
        (lambda p: p.write_bytes(b""), "truncated"),
        (lambda p: p.write_bytes(p.read_bytes()[:5000] + b"\x01" + p.read_bytes()[5001:]), "damaged or changed"),
        (lambda p: p.unlink(), "weights of model 'dhpe-lite' are missing"),
        (lambda p: p.with_suffix(".json").unlink(), "card of model 'dhpe-lite' is missing"),
        (lambda p: p.with_suffix(".json").write_text("{"), "not a model card"),
        (lambda p: p.with_suffix(".json").write_text("[1]"), "not a model card"),
        (lambda p: p.with_suffix(".json").write_text('{"model": "dhpe-lite"}'), "not a model card"),
        (lambda p: p.with_suffix(".json").write_bytes(b" " * 2_000_000), "not a model card"),
    ],
)
def test_spoilt_files_are_refused(saved, spoil, message):
    spoil(saved)
    with pytest.raises(WeightsError, match=message) as caught:
        load_model("dhpe-lite", path=saved, hand=DummyHand())
    assert "dhpe-lite." in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(saved, monkeypatch):
    monkeypatch.setattr(zoo, "MAX_WEIGHTS_BYTES", 1000)
    with pytest.raises(WeightsError, match="too many"):
        load_model("dhpe-lite", path=saved, hand=DummyHand())


def rewrite_card(path, **changes):
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def test_another_model_s_file_is_refused(saved):
    with pytest.raises(WeightsError, match="'dhpe-lite', not 'dhpe-r50'"):
        load_model("dhpe-r50", path=saved, hand=DummyHand())
    rewrite_card(saved, model="dhpe-r50")  # even with a forged card the tensors do not fit
    with pytest.raises(WeightsError, match="another model, or version"):
        load_model("dhpe-r50", path=saved, hand=DummyHand())


def test_a_hash_that_fits_does_not_make_a_weights_file(saved):
    import hashlib

    for data in (b"\x00" * 5000, (2**62).to_bytes(8, "little") + bytes(5000)):
        saved.write_bytes(data)
        rewrite_card(saved, sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(WeightsError, match="not a safetensors file"):
            load_model("dhpe-lite", path=saved, hand=DummyHand())
    save_file({"a": torch.zeros(2)}, saved)
    rewrite_card(saved, sha256=hashlib.sha256(saved.read_bytes()).hexdigest())
    with pytest.raises(WeightsError, match="another model, or version"):
        load_model("dhpe-lite", path=saved, hand=DummyHand())


def test_weights_that_cannot_be_stored_are_not_written(model, tmp_path):
    path = tmp_path / "dhpe-lite.safetensors"
    bias = model.side_head.bias
    bias.data.fill_(float("nan"))
    try:
        with pytest.raises(WeightsError, match="side_head"):
            save_weights(model, path)
    finally:
        bias.data.zero_()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="safetensors"):
        save_weights(model, tmp_path / "weights.pt")


def test_unknown_model_lists_the_names():
    for call in (load_model, build_model, load_card):
        with pytest.raises(InputError, match=r"'resnet'.*dhpe-lite, dhpe-r50, dhpe-paper"):
            call("resnet")


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu") == resolve_device(torch.device("cpu"))
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for device in ("gpu", "mps", ""):
        with pytest.raises(InputError, match="use auto, cpu or cuda"):
            resolve_device(device)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA; use --device cpu"):
            resolve_device("cuda")


def test_configurations_are_named_by_their_keys():
    assert all(name == config.name for name, config in MODELS.items())
    with pytest.raises(AttributeError):
        MODELS["dhpe-lite"].head_width = 3  # type: ignore[misc]
    assert build_model(replace(MODELS["dhpe-lite"], iterations=2), DummyHand()).regressor.iterations == 2


@pytest.mark.parametrize("name", list(MODELS))
def test_packaged_weights_belong_to_the_packaged_hand(name):
    if name not in zoo.available_models():
        pytest.skip(f"no packaged weights of {name}")
    loaded = load_model(name)
    card = load_card(name)
    assert card.hand_fingerprint == hand_fingerprint(loaded.hand)
    with torch.inference_mode():
        estimate = loaded(torch.rand(1, 3, 64, 64))
    assert all(x.isfinite().all() for x in [*estimate.keypoints, *estimate.skeletons])


def test_a_card_is_amended_and_nothing_else_in_it_changes(saved):
    before = json.loads(saved.with_suffix(".json").read_text())
    amend_card(saved, calibration={"hand_bias": 0.5})
    after = json.loads(saved.with_suffix(".json").read_text())
    assert after == before | {"calibration": {"hand_bias": 0.5}}
    with pytest.raises(TypeError, match="figures"):
        amend_card(saved, figures={})
    assert json.loads(saved.with_suffix(".json").read_text()) == after


def test_weights_of_another_hand_are_refused(saved):
    other = DummyHand()
    other.mean_pose += 0.01
    with pytest.raises(WeightsError, match="trained with another hand model"):
        load_model("dhpe-lite", path=saved, hand=other)


def test_folded_batch_norms_are_not_written(saved, tmp_path):
    with pytest.raises(WeightsError, match="fuse=False"):
        save_weights(load_model("dhpe-lite", path=saved, hand=DummyHand()), tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()
