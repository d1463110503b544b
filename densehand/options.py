"""Frozen dataclasses as options: every field with its help and range, set from nested tables (as TOML gives them)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from densehand.errors import InputError

T = TypeVar("T")


def option(
    default: Any,
    text: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its help.

    low, high: smallest and largest value allowed, of pairs for both of the two. choices: the words allowed.
    names: further names on the command line.
    """
    how = {"help": text, "low": low, "high": high, "choices": choices, "names": names}
    return field(default=default, metadata=how)


@dataclass(frozen=True)
class Option:
    """One field of a dataclass or of one nested in it. name: dotted; group: the nested field it belongs to or ""."""

    name: str
    kind: Any
    default: Any
    text: str
    group: str
    names: tuple[str, ...]


def options_of(base: Any, group: str = "") -> Iterator[Option]:
    """All options of a dataclass instance, nested ones after the field that holds them; tables in lists left out."""
    kinds = get_type_hints(type(base))
    for f in fields(base):
        value = getattr(base, f.name)
        if is_dataclass(value):
            yield from options_of(value, f"{group}{f.name}.")
        elif not any(is_dataclass(a) for a in get_args(kinds[f.name])):
            text, names = f.metadata.get("help", ""), f.metadata.get("names", ())
            yield Option(f"{group}{f.name}", kinds[f.name], value, text, group.rstrip("."), names)


def updated(base: T, table: Mapping[str, Any], where: str, group: str = "") -> T:
    """`base`, a dataclass instance, with the values of a table; nested tables change nested dataclasses.

    Args:
        base: what holds where the table is silent.
        table: names and values as TOML gives them.
        where: whence the table comes, for the messages.

    Errors:
        InputError: an unknown name (with the nearest known one), a value of another kind or out of its range.
    """
    kinds = get_type_hints(type(base))
    known = {f.name: f for f in fields(base)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{group}{key}"
        if key not in known:
            raise InputError(
                f"{where}: unknown option {name!r}; the nearest known one is {nearest(key, base, group)!r}"
            )
        current = getattr(base, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise InputError(f"{where}: {name} is a table of options; write [{name}] and one line for each of them")
            changes[key] = updated(current, value, where, f"{name}.")
            continue
        try:
            changes[key] = _convert(kinds[key], value, where, name)
        except (TypeError, ValueError):
            wanted = _say(kinds[key])
            raise InputError(f"{where}: {name} = {value!r} is not {wanted}; its default is {current!r}") from None
        _check_range(changes[key], known[key].metadata, where, name)
    return replace(base, **changes)  # type: ignore[type-var]


def nearest(key: str, base: Any, group: str = "") -> str:
    """The known option whose name is most like `key`; names of nested options count too."""
    names = {f.name: f"{group}{f.name}" for f in fields(base)}
    for nested in options_of(base, group):
        names.setdefault(nested.name.rsplit(".", 1)[-1], nested.name)
    return names[difflib.get_close_matches(key.lower(), names, 1, 0.0)[0]]


def differences(base: Any, other: Any) -> dict[str, Any]:
    """Dotted names and `other`'s values of the options in which two instances of a dataclass differ."""
    before = {o.name: o.default for o in options_of(base)}
    return {o.name: o.default for o in options_of(other) if before.get(o.name, MISSING) != o.default}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested tables."""
    tables: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, last = name.split(".")
        table = tables
        for part in groups:
            table = table.setdefault(part, {})
        table[last] = value
    return tables


def _convert(kind: Any, value: Any, where: str, name: str) -> Any:
    """The value as `kind`. Raises ValueError where it is of another kind; whole numbers pass as floats."""
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], v, where, f"{name}[{i}]") for i, v in enumerate(value))
        return tuple(_convert(a, v, where, name) for a, v in zip(arguments, value, strict=True))
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError
        return updated(kind(), value, where, f"{name}.")  # type: ignore[operator]
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, bool) == (kind is bool) and kind in (bool, int, str) and isinstance(value, kind):
        return value
    raise ValueError


def _say(kind: Any) -> str:
    if get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis:
        return "a list of tables"
    if get_origin(kind) is tuple:
        return f"a list of {len(get_args(kind))} numbers"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}.get(kind, "understood")


def _check_range(value: Any, how: Mapping[str, Any], where: str, name: str) -> None:
    low, high, choices = how.get("low"), how.get("high"), how.get("choices")
    parts = value if isinstance(value, tuple) else (value,)
    if (low is not None and min(parts) < low) or (high is not None and max(parts) > high):
        limits = f"at least {low}" if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
        raise InputError(f"{where}: {name} = {value}, but it must be {limits}")
    if choices and value not in choices:
        raise InputError(f"{where}: {name} = {value!r}; known: {', '.join(choices)}")
