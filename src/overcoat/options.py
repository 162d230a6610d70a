"""Reads the options of any client: db-ally's dataclasses, or a mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
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
    if dataclasses.is_dataclass(options) and not isinstance(options, type):
        items = [(name, getattr(options, name)) for name in _fields(type(options))]
    elif isinstance(options, Mapping):
        items = list(cast("Mapping[str, Any]", options).items())
    else:
        raise Uncacheable(f"options of type {type(options).__qualname__} are neither a dataclass nor a mapping")
    given: dict[str, Any] = {}
    for name, value in items:
        kind = cast("Any", type(value))
        if value is None or kind in _not_given or name in TRANSPORT:
            continue
        if kind.__name__ == "NotGiven":  # db-ally's, or ours: asked by name once, since its import takes seconds
            _not_given.add(kind)
        else:
            given[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return given


_not_given: set[type[Any]] = set()


@lru_cache(maxsize=64)  # and not without a bound: a class that is made for each call would be kept for ever
def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
