"""The official MANO file, made here: its arrays, the classes it is pickled with, and the file."""

import numpy as np
import pytest
from mano_files import chumpy_classes, official_arrays, official_layout, write


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return official_arrays()


@pytest.fixture(scope="module")
def chumpy():
    with chumpy_classes() as classes:
        yield classes


@pytest.fixture
def good(tmp_path, arrays, chumpy):
    return write(tmp_path / "MANO_RIGHT.pkl", official_layout(arrays, chumpy))
