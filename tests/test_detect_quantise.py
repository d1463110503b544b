"""The detector in 8-bit integers: near float32's answers, taken where the card allows it, its ranges measured."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_files import make_detector_folder
from tool_loader import load_tool

from densehand.detect import Detector
from densehand.detect.detector import FrozenNet
from densehand.detect.weights import PACKAGED, load
from densehand.errors import InputError, WeightsError
from densehand.images import read_image
from densehand.metrics import box_iou
from densehand.network import engine as engines
from densehand.network.card import amend_card, card_beside
from densehand.network.quantise import check_ranges
from densehand.pipeline import HandEstimator

DEMO_PHOTOS = sorted((Path(__file__).resolve().parent.parent / "demo_photos").glob("*.jpg"))


@pytest.fixture
def package(tmp_path):
    """A copy of the packaged weights and their card."""
    for file in (PACKAGED, PACKAGED.with_suffix(".json")):
        shutil.copy(file, tmp_path)
    return tmp_path / PACKAGED.name


@pytest.mark.parametrize("photo", DEMO_PHOTOS, ids=lambda path: path.name)
@pytest.mark.parametrize("quarters", range(4))
def test_hands_are_found_where_float32_finds_them(photo, quarters):
    pytest.importorskip("onnxruntime")
    image = np.rot90(read_image(photo), quarters).copy()
    (exact,), (near,) = (Detector.load("cpu", precision=precision)(image) for precision in ("float32", "auto"))
    assert box_iou(exact.box[None].astype(np.float32), near.box[None].astype(np.float32))[0, 0] > 0.8
    assert abs(exact.score - near.score) < 0.1
    assert exact.side == near.side or max(exact.side_score, near.side_score) < 0.75


@torch.no_grad()
def test_maps_stay_near_float32_and_a_wrong_range_is_seen():
    pytest.importorskip("onnxruntime")
    image = torch.from_numpy(read_image(DEMO_PHOTOS[0])).permute(2, 0, 1)[None].float() / 255
    image = torch.nn.functional.interpolate(image, (256, 192), mode="area")
    (net, ranges), cpu = load(), torch.device("cpu")
    exact = FrozenNet(net, cpu)(image)
    wrong = dict(ranges)
    wrong["/net/centre_branch/act/Clip_output_0"] = (0.0, 1.0)

    def off(known) -> float:
        found = FrozenNet(net, cpu, known)
        assert found.engine is not None and found.engine.precision == "int8"
        apart = found(image).centre_logit.sigmoid() - exact.centre_logit.sigmoid()
        return float(apart.abs().max())

    assert off(ranges) < 0.15 < off(wrong)


def test_integers_are_taken_where_they_may(package, monkeypatch):
    pytest.importorskip("onnxruntime")

    def precision_of(**options) -> str:
        return Detector.load("cpu", path=package, **options).net.engine.precision

    for machine, expected in (("x86_64", "int8"), ("aarch64", "float32")):
        monkeypatch.setattr(engines.platform, "machine", lambda found=machine: found)
        assert precision_of() == expected and precision_of(precision="float32") == "float32"
        for asked in ("auto", "float32"):
            estimator = HandEstimator(device="cpu", precision=asked)
            wanted = expected if asked == "auto" else "float32"
            assert (estimator.detector.net.engine.precision, estimator.network.engine.precision) == (wanted, wanted)
    monkeypatch.setattr(engines.platform, "machine", lambda: "x86_64")
    with pytest.raises(InputError, match="unknown precision 'int4'"):
        Detector.load("cpu", precision="int4")
    amend_card(package, activation_ranges={})
    assert precision_of() == "float32"
    package.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match="the card of model 'detector' is missing"):
        load(package)


def test_measured_ranges_come_back_from_the_card(package, tmp_path, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    before = card_beside(package)
    data = tmp_path / "data"
    data.mkdir()
    make_detector_folder(data)
    load_tool("calibrate_activations")  # which the next one imports
    load_tool("calibrate_detector_activations").main(["--data", str(data), "--weights", str(package), "--count", "2"])
    assert "70 tensors" in capsys.readouterr().out
    after = card_beside(package)
    found = check_ranges(after.activation_ranges)
    assert found.keys() == before.activation_ranges.keys() and found != check_ranges(before.activation_ranges)
    assert all(low >= 0 and high <= 6 for name, (low, high) in found.items() if "/Clip" in name)
    assert vars(before) | {"activation_ranges": 0} == vars(after) | {"activation_ranges": 0}
    assert Detector.load("cpu", path=package).net.engine.precision in ("int8", "float32")
