"""Configuration files of `densehand train`: TOML with the fields of `TrainConfig`, and the ones in the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from densehand.errors import DependencyError, InputError
from densehand.files import reason
from densehand.options import updated
from densehand.train.config import TrainConfig, paper_config

CONFIGS = Path(__file__).resolve().parent / "configs"


def packaged() -> list[str]:
    """Names of the configurations in the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.toml"))


def find_config(name: str | Path) -> Path:
    """The file of a packaged configuration's name or of a path. Raises InputError naming the packaged ones."""
    path = Path(name)
    if path.is_file():
        return path
    inside = CONFIGS / f"{name}.toml"
    if path.name == str(name) and inside.is_file():
        return inside
    raise InputError(f"{name}: no such configuration file; give a .toml file or one of {', '.join(packaged())}")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises InputError where it cannot be read, DependencyError on Python 3.10 alone."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise DependencyError(
                "configuration files need tomli on Python 3.10: pip install 'densehand[train]'"
            ) from error
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check the path and its rights") from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both
        raise InputError(f"{path}: not a TOML file ({error}); repair that line") from error


def load_config(name: str | Path = "", given: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration of a run: what is `given` wins over the file, the file over the defaults, which for the model
    "dhpe-paper" have the paper's loss.

    Args:
        name: a .toml file or the name of a packaged configuration; "" for none.
        given: nested tables of options, as the command line gives them.

    Errors:
        InputError: no such file, no TOML, an unknown or impossible option. DependencyError: see `read_toml`.
    """
    path = find_config(name) if name else None
    table = read_toml(path) if path else {}
    given = given or {}
    base = TrainConfig()
    if given.get("model", table.get("model")) == "dhpe-paper":
        paper = paper_config()
        base = replace(base, weights=paper.weights, mask_terms_share=paper.mask_terms_share)
    return updated(updated(base, table, str(path)), given, "command line")
