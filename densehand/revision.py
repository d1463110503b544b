"""Which commit's code runs: what results and model cards name."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """The checkout's short commit, "-dirty" behind it where files differ from it; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    folder = Path(__file__).resolve().parent
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
