"""What most commands are given: a model and a folder of photos."""

from pathlib import Path

import pytest
from cli_helpers import default_model, three_pictures


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    return default_model(tmp_path_factory)


@pytest.fixture
def photos(tmp_path) -> Path:
    return three_pictures(tmp_path / "photos")
