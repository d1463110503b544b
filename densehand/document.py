"""The JSON document `densehand/1`: the hands of one photo with the photo's name and size, made and read back.

`Hand.to_json_dict` makes a hand's own entry; `export.write_json` writes the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densehand.errors import InputError
from densehand.files import read_json
from densehand.result import Hand

SCHEMA = "densehand/1"


def document(image: str, width: int, height: int, model: str, hands: Sequence[Hand]) -> dict[str, Any]:
    """The JSON document of one photo, schema `densehand/1`."""
    entries = [hand.to_json_dict() for hand in hands]
    return {"schema": SCHEMA, "image": image, "width": width, "height": height, "model": model, "hands": entries}


def read_document(path: str | Path) -> dict[str, Any]:
    """Read a document written by `document` (its hands stay plain entries: see `Hand.from_json_dict`).

    Errors:
        InputError: not readable, not JSON, not of this schema, or without the entries every document has.
    """
    path = Path(path)
    record = read_json(path, "write it with densehand predict")
    found = record.get("schema") if isinstance(record, dict) else None
    if found != SCHEMA:
        raise InputError(f"{path}: schema {found!r}, not {SCHEMA!r}; write it with densehand predict")
    kinds = {"image": str, "width": int, "height": int, "model": str, "hands": list}
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise InputError(f"{path}: {name!r} is missing or of the wrong kind; write it with densehand predict")
    if min(record["width"], record["height"]) < 1:
        raise InputError(f"{path}: the image size is not positive; write it with densehand predict")
    return record
