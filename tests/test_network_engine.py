"""ONNX Runtime in float32 against torch: the same answers, and torch alone wherever the engine cannot serve."""

import copy
import os

import pytest
import torch

from densehand.detect.model import DetectorNet
from densehand.network import engine as engines
from densehand.network.engine import GRAPHS, DetectorGraph, EvidenceGraph, GraphEngine, engine
from densehand.network.fuse import fuse_batch_norms
from densehand.network.zoo import build_model, load_model


@pytest.fixture(scope="module")
def lite():
    pytest.importorskip("onnxruntime")
    return load_model("dhpe-lite", precision="float32")


def lite_size(lite) -> tuple[int, int]:
    return (lite.config.input_size,) * 2


def test_the_engine_reports_to_nobody(lite):
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("count", [1, 3])
def test_the_engine_answers_as_torch_does(lite, count):
    images = torch.rand(count, 3, *lite_size(lite), generator=torch.Generator().manual_seed(count))
    assert lite.engine is not None and not lite.engine.takes(images)  # gradients are wanted here
    with torch.no_grad():
        assert lite.engine.takes(images)
        fast, plain = lite(images), copy.deepcopy(lite)(images)
    for name in ("features", "heatmaps", "mask_logits", "keypoint_confidence", "side_logit", "hand_logit"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), rtol=1e-4, atol=1e-4)
    for name in ("keypoints", "parameters", "skeletons"):
        torch.testing.assert_close(getattr(fast, name), getattr(plain, name), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.heatmap_logits[-1], plain.heatmap_logits[-1], rtol=1e-4, atol=1e-3)


def test_torch_serves_other_sizes_types_and_gradients(lite):
    other, double = torch.rand(1, 3, 128, 128), torch.rand(1, 3, *lite_size(lite), dtype=torch.float64)
    with torch.no_grad():
        assert not lite.engine.takes(other) and not lite.engine.takes(double)
        assert lite(other).heatmaps.shape == (1, 21, 32, 32)
    images = torch.rand(1, 3, *lite_size(lite), requires_grad=True)
    lite(images).features.sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0


def test_a_copy_may_have_other_weights_so_it_has_no_engine(lite):
    assert copy.deepcopy(lite).engine is None and build_model("dhpe-lite").engine is None


def test_new_weights_need_no_new_graph(lite):
    torch.manual_seed(1)
    net = fuse_batch_norms(build_model("dhpe-lite").eval())
    for weight in net.evidence.parameters():
        weight.mul_(1.1)
    images = torch.rand(1, 3, *lite_size(lite))
    with torch.no_grad():
        fast, plain = GraphEngine("dhpe-lite", EvidenceGraph(net.evidence))(images)[0], net.evidence(images).features
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused():
    pytest.importorskip("onnxruntime")
    detector = DetectorGraph(fuse_batch_norms(DetectorNet().eval()))
    with pytest.raises(ValueError, match="dhpe-lite: the weights do not fit"):
        GraphEngine("dhpe-lite", detector)
    assert engine("dhpe-lite", detector) is None
    assert engine("no such network", detector) is None


def test_without_onnx_runtime_torch_answers(monkeypatch, lite):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)  # importing it raises ImportError
    alone = load_model("dhpe-lite")
    assert alone.engine is None and engines.engine("dhpe-lite", engines.EvidenceGraph(alone.evidence)) is None
    images = torch.rand(1, 3, *lite_size(lite))
    with torch.no_grad():
        torch.testing.assert_close(alone(images).features, lite(images).features, rtol=1e-4, atol=1e-4)


def test_graphs_hold_no_weights():
    onnx = pytest.importorskip("onnx")
    for path in sorted(GRAPHS.glob("*.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        left = [t for t in graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
        assert path.stat().st_size < 200_000 and all(len(t.raw_data) <= 256 for t in left)
