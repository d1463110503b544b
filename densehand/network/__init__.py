"""The estimator's networks: trunks, 2D evidence, mesh regression, and the named models with their weights."""

from densehand.network.card import ModelCard
from densehand.network.config import DHPEConfig
from densehand.network.estimator import DHPE, Estimate
from densehand.network.mesh import MeshParameters, decode, encode, place
from densehand.network.zoo import MODELS, build_model, load_model, resolve_device, save_weights

__all__ = [
    "DHPE",
    "MODELS",
    "DHPEConfig",
    "Estimate",
    "MeshParameters",
    "ModelCard",
    "build_model",
    "decode",
    "encode",
    "load_model",
    "place",
    "resolve_device",
    "save_weights",
]
