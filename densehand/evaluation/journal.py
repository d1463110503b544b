"""Results on disk as they come, so that a run can be stopped at any moment and continued."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densehand.errors import InputError
from densehand.files import reason, write_bytes

SCHEMA = "densehand-evaluation/1"


class Journal:
    """JSON lines: a head with the settings, then a row a hand, written at once. Without a path, in memory only.

    A last line that was cut off (the run was killed while it wrote) is dropped.

    Errors:
        InputError: the file is of other settings, damaged before its end, or cannot be written to.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any], restart: bool = False) -> None:
        self.path, self.rows = path, {}  # type: Path | None, dict[str, dict[str, Any]]
        head = {"schema": SCHEMA, "settings": json.loads(json.dumps(settings))}
        self._file = None
        if path is None:
            return
        if path.is_file() and not restart:
            self._read(path, head)
        else:
            write_bytes(path, _line(head))
        self._file = path.open("ab")

    def _read(self, path: Path, head: dict[str, Any]) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({reason(error)}); check its rights") from error
        whole = data[: data.rfind(b"\n") + 1]
        rows = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no object")
            except ValueError as error:
                raise InputError(f"{path}:{number}: damaged ({error}); begin anew with --restart") from error
            rows.append(row)
        if rows and rows[0] != head:
            raise InputError(f"{path}: {_difference(rows[0], head)}; choose another --report, or --restart")
        if not rows or len(whole) < len(data):
            write_bytes(path, whole or _line(head))
        self.rows = {row["name"]: row for row in rows[1:]}

    def known(self, name: str, labels: str) -> dict[str, Any] | None:
        """The row of a hand that was done before. Raises InputError where its labels were others then."""
        row = self.rows.get(name)
        if row is not None and row.get("labels") != labels:
            raise InputError(f"{self.path}: the labels of {name} have changed since; begin anew with --restart")
        return row

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row (it has a `name`); what comes back is what a later run would read."""
        line = _line(row)
        row = json.loads(line)
        self.rows[row["name"]] = row
        if self._file is not None:
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise InputError(f"{self.path}: cannot be written ({reason(error)}); free space and go on") from error
        return row

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The settings that differ, in words."""
    if old.get("schema") != SCHEMA or not isinstance(old.get("settings"), dict):
        return "no results of densehand evaluate"
    a, b = old["settings"], new["settings"]
    changed = [f"{k} {a.get(k)!r} → {b.get(k)!r}" for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)]
    return "results of other settings: " + ", ".join(changed)
