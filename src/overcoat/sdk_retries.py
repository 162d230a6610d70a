"""Holds the SDK below a client to what the stack says: no retries of its own, and no waiting when we have given up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import Any, cast

from overcoat.layer import Client

_NO_RETRIES = {"max_retries": 0, "num_retries": 0}
"""As litellm takes them, for a single call; what it takes globally does not reach the SDKs that it calls."""

_CLIENTS = {
    ("dbally.llms.clients.litellm", "LiteLLMClient"): _NO_RETRIES,
    ("overcoat.llm.litellm", "LiteLLMClient"): dict[str, int](),  # it forces its retries to 0 itself
}
"""Clients that pass on to litellm whatever their options' `dict()` says, and what it is to say besides."""

_STEPS = 4
"""Into how many equal ones the timeouts between a power of two and the next are rounded."""


def holding(client: Client) -> Callable[[Any, float | None], Any] | None:
    """Return what makes of a call's options, and of the seconds that are left for it, the options for the SDK.

    None for a client that takes no such thing. db-ally's `LiteLLMClient` passes no setting for retries, so that one
    call is up to three requests. And the SDKs wait for ten minutes, some of them in a thread that no cancellation
    reaches, unless they get a `timeout`; a shorter one of the caller's own stays.
    """
    for kind in type(client).__mro__:
        if (more := _CLIENTS.get((kind.__module__, kind.__name__))) is not None:
            return lambda options, left: _held(options, more, left)
    return None


def sdk_timeout(left: float) -> float:
    """Return the timeout for an SDK whose call has so many seconds *left*: at most a quarter more.

    litellm makes a client with connections of its own for each timeout that it is given, and what is left is never the
    same twice; so there are few of them. Rounded down, the SDK would give up on answers that we still wait for.
    """
    step = 2.0 ** (math.frexp(max(left, 0.001))[1] - 1) / _STEPS
    return math.ceil(max(left, 0.001) / step) * step


def _held(options: Any, more: dict[str, int], left: float | None) -> Any:
    if left is None and not more:
        return options
    held: Any = object.__new__(_held_kind(cast("Any", type(options))))
    values = getattr(options, "__dict__", None) or {each.name: getattr(options, each.name) for each in fields(options)}
    for name, value in cast("dict[str, Any]", values).items():
        object.__setattr__(held, name, value)  # options may be frozen
    object.__setattr__(held, "overcoat_more", more)
    object.__setattr__(held, "overcoat_left", left)
    return held


@lru_cache(maxsize=64)
def _held_kind(kind: Any) -> Any:
    def options_dict(self: Any) -> dict[str, Any]:
        given = {**kind.dict(self), **self.overcoat_more}
        own = given.get("timeout")
        if self.overcoat_left is not None and (own is None or isinstance(own, int | float)):
            most = sdk_timeout(self.overcoat_left)
            given["timeout"] = most if own is None else min(own, most)
        return given

    return type(kind.__name__, (kind,), {"dict": options_dict, "__module__": kind.__module__})
