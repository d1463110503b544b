"""The detector's network: sizes, its engine, weights files, and calibration baked into them."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from densehand.detect import DetectorNet
from densehand.detect.calibrate import fit_logistic
from densehand.detect.detector import FrozenNet
from densehand.detect.weights import calibrated, load_net, save_net
from densehand.errors import WeightsError
from densehand.network.fuse import fuse_batch_norms


@pytest.fixture(scope="module")
def small_net() -> DetectorNet:
    torch.manual_seed(0)
    net = DetectorNet()
    for module in net.modules():  # statistics that are not those of an untrained network
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


def test_any_sides_that_are_multiples_of_32_run_and_folding_changes_nothing(small_net):
    with torch.no_grad():
        images = torch.rand(2, 3, 96, 160)
        plain, fused = small_net(images), fuse_batch_norms(small_net)(images)
        assert plain.centre_logit.shape == (2, 12, 20) and plain.offset.shape == (2, 2, 12, 20)
        assert plain.keypoints is None
        for a, b in zip(plain[:4], fused[:4], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_engine_gives_the_same_answers_at_every_size(small_net):
    pytest.importorskip("onnxruntime")
    frozen = FrozenNet(small_net, torch.device("cpu"))
    assert frozen.engine is not None
    for batch, height, width in ((1, 32, 32), (1, 64, 256), (3, 160, 96), (1, 192, 256)):
        with torch.no_grad():
            images = torch.rand(batch, 3, height, width)
            for a, b in zip(small_net(images)[:4], frozen(images)[:4], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_weights_survive_saving_and_loading(small_net, tmp_path):
    card = save_net(small_net, tmp_path / "net.safetensors", recipe={"note": "test"})
    assert card.bytes == (tmp_path / "net.safetensors").stat().st_size < 3_000_000
    again = load_net(tmp_path / "net.safetensors")
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        a, b = small_net(images), again(images)
    torch.testing.assert_close(a.centre_logit, b.centre_logit, atol=0.02, rtol=0.02)


def test_damaged_or_foreign_weights_are_refused(small_net, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(WeightsError):
        load_net(path)
    save_net(small_net, path)
    data = path.read_bytes()
    for damaged in (data[:1000], data[:-1] + bytes([data[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            load_net(path)
    path.write_bytes(data)
    values = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(values | {"model": "dhpe-lite"}))
    with pytest.raises(WeightsError):
        load_net(path)
    broken = DetectorNet()
    nn.init.constant_(broken.side.weight, float("nan"))
    with pytest.raises(WeightsError, match="finite"):
        save_net(broken, tmp_path / "broken.safetensors")
    assert not (tmp_path / "broken.safetensors").exists()


def test_calibration_is_baked_into_the_weights(small_net):
    torch.manual_seed(1)
    net = DetectorNet().eval()
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        before = net(images)
        after = calibrated(net, 2.0, 0.5, 3.0)(images)
        torch.testing.assert_close(after.centre_logit, 2 * before.centre_logit + 0.5)
        torch.testing.assert_close(after.side_logit, 3 * before.side_logit)


def test_platt_scaling_recovers_the_truth():
    random = np.random.default_rng(0)
    logit = random.normal(-1, 2, 20000)
    truth = random.uniform(size=20000) < 1 / (1 + np.exp(-(1.7 * logit + 0.6)))
    scale, bias = fit_logistic(logit, truth, ridge=0.0)
    assert scale == pytest.approx(1.7, abs=0.1) and bias == pytest.approx(0.6, abs=0.1)
    unbiased, none = fit_logistic(logit, random.uniform(size=20000) < 1 / (1 + np.exp(-0.5 * logit)), with_bias=False)
    assert unbiased == pytest.approx(0.5, abs=0.05) and none == 0
    for shift in (-6.0, 8.0):  # far from the start, where a whole Newton step leads too far
        wide = random.uniform(-12, 20, 4000)
        truth = random.uniform(size=4000) < 1 / (1 + np.exp(-1.5 * (wide + shift)))
        assert fit_logistic(wide, truth, ridge=0.0) == pytest.approx((1.5, 1.5 * shift), rel=0.15)
    assert fit_logistic(np.zeros(0), np.zeros(0, bool)) == (1.0, 0.0)
    assert np.isfinite(fit_logistic(np.array([-3.0, 3.0]), np.array([False, True]))).all()
