"""Reads the options of any client: db-ally's dataclasses, or a mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import repeat
from typing import Any, cast

TRANSPORT = frozenset({"timeout"})
"""Options that change how a request travels, but not what is asked."""


class Uncacheable(ValueError):
    """A part of a request has no unambiguous encoding; the message names the part, never its value."""


def given_options(options: Any) -> dict[str, Any]:
    """Return the options that were given, by name: all fields of a dataclass, or a mapping's items.

    None and db-ally's NOT_GIVEN both mean "not given" to a client, and are left out, as is how a request travels.
    Integral floats become integers, so that 0 and 0.0 are the same temperature.

    Raises:
        Uncacheable: *options* is of a kind whose fields cannot be listed.
    """
    if options is None:
        return {}
    items: Iterable[tuple[str, Any]]
    if (names := _fields(cast("Any", type(options)))) is not None:
        items = zip(names, map(getattr, repeat(options), names), strict=True)
    elif isinstance(options, Mapping):
        items = cast("Mapping[str, Any]", options).items()
    else:
        raise Uncacheable(f"options of type {type(options).__qualname__} are neither a dataclass nor a mapping")
    given: dict[str, Any] = {}
    for name, value in items:
        kind = type(value)  # pyright: ignore[reportUnknownVariableType] - a cast would take a third of the time
        if kind in _absent or name in TRANSPORT:
            continue
        if kind.__name__ == "NotGiven":  # db-ally's, or ours: asked by name once, since its import takes seconds
            _absent.add(kind)
        else:
            given[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return given


def option(options: Any, name: str) -> Any:
    """Return one of the options, or None; to list all of them takes several times as long."""
    if isinstance(options, Mapping):
        return cast("Mapping[str, Any]", options).get(name)
    return getattr(options, name, None)


_absent: set[Any] = {type(None)}


@lru_cache(maxsize=64)  # and not without a bound: a class that is made for each call would be kept for ever
def _fields(kind: Any) -> tuple[str, ...] | None:
    """Return the names of a dataclass's fields; None where *kind* is none."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None
