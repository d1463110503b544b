"""Shared fixtures. Data that does not belong to the project is optional: tests that need it skip where it is absent."""

import os
from pathlib import Path

import pytest
import torch

from densehand.hand.model import HandModel

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with measuring fixtures and photos (DENSEHAND_SHARED, else a neighbour of the checkout)."""
    path = Path(os.environ.get("DENSEHAND_SHARED", ROOT.parent / "shared"))
    if not (path / "fixtures").is_dir():
        pytest.skip("no folder of shared measuring data (set DENSEHAND_SHARED)")
    return path


@pytest.fixture(scope="session")
def hand() -> HandModel:
    """The open hand; tests leave it as it is."""
    return HandModel.load("open")
