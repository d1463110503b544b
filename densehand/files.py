"""Writing files whole or not at all, preparing the folder they go to, reading JSON, and the order files are read in."""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from densehand.errors import InputError


@contextmanager
def write_atomically(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes the place of `path`, on any failure it is removed.

    The temporary file lies in the same folder (so that the last step is one rename within one file system) and keeps
    the suffix (writers choose the format by it). A reader therefore never sees a half-written file under `path`.

    Errors:
        InputError: the folder is missing, full or may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".densehand-{secrets.token_hex(6)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({reason(error)}); choose another place or free it") from error
    finally:
        with suppress(OSError):  # after the rename there is nothing left to remove
            temporary.unlink()


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Errors: see `write_atomically`."""
    with write_atomically(path) as temporary:
        temporary.write_bytes(data)


def ensure_folder(path: str | Path) -> Path:
    """Make the folder (and its parents) where missing, and prove that files can be made in it.

    Errors:
        InputError: it is a file, cannot be made, or may not be written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".densehand-{secrets.token_hex(6)}"
        probe.touch()  # permission bits alone do not tell (read-only mounts, quotas, root)
        probe.unlink()
    except FileExistsError as error:
        raise InputError(f"{path}: is a file, not a folder; choose another output folder") from error
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({reason(error)}); choose another output folder") from error
    return path


def in_order(path: Path) -> list[tuple[int, str]]:
    """Sorts files as people count: the numbers in their names by size, the rest as text."""
    parts = re.split("([0-9]+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def reason(error: OSError) -> str:
    """What the operating system says, in lower case and without the path."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def read_json(path: str | Path, remedy: str) -> Any:
    """The JSON value in a file (UTF-8, with or without its mark).

    Errors:
        InputError: the file cannot be read, or is no JSON: `remedy` says what to do then.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({first_line(error)}); {remedy}") from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line (JSON nested too deep says nothing)."""
    return (str(error).splitlines() or ["too deep"])[0]
