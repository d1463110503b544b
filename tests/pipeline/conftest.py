"""An untrained network, a picture for it, and an estimator of both."""

import numpy as np
import pytest
from untrained import untrained, waves

from densehand.network.estimator import DHPE
from densehand.pipeline import HandEstimator


@pytest.fixture(autouse=True)
def one_look(monkeypatch):
    """An untrained network finds its hands anywhere, so crops stay as they are unless a test says otherwise."""
    monkeypatch.setattr("densehand.looks.SAME_WINDOW", 0.0)


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return waves()


@pytest.fixture(scope="session")
def network(image) -> DHPE:
    return untrained(image)


@pytest.fixture(scope="session")
def estimator(network) -> HandEstimator:
    return HandEstimator(network, device="cpu", batch=3, refine="off")
