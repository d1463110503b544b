"""Functions compiled by numba on their first call, their machine code kept for later processes.

It is kept in the folder `$NUMBA_CACHE_DIR`, `$DENSEHAND_CACHE` or `~/.cache/densehand`, never beside the source; where
that cannot be written a function is compiled anew in every process. Imported only where numba is installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

__all__ = ["compiled"]


def compiled(function: Callable[..., Any]) -> Any:
    """The function compiled: without the interpreter's lock, dividing by zero as numpy does."""
    config: Any = numba.config
    before = config.CACHE_DIR
    folder = before or _writable_folder()
    # numba reads the folder while it decorates; set for that moment only, as it is everybody's setting
    config.CACHE_DIR = folder
    try:
        return numba.njit(function, cache=bool(folder), nogil=True, error_model="numpy")
    finally:
        config.CACHE_DIR = before


def _writable_folder() -> str:
    """Folder for machine code, "" where none can be written."""
    try:
        folder = Path(os.environ.get("DENSEHAND_CACHE") or Path.home() / ".cache" / "densehand") / "numba"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""
