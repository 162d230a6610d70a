"""Forces the hidden retries of the SDK below a client to 0, where they would multiply with ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from overcoat.layer import Client

_NONE = {"max_retries": 0, "num_retries": 0}
"""As litellm takes them, for a single call; what it takes globally does not reach the SDKs that it calls."""


def quieting(client: Client) -> Callable[[Any], Any] | None:
    """Return what makes of a call's options those without retries; None for a client that needs no such thing.

    db-ally's `LiteLLMClient` passes no setting for retries, so that one call is up to three requests. It passes on,
    however, whatever its options' `dict()` says.
    """
    for kind in type(client).__mro__:
        if kind.__module__ == "dbally.llms.clients.litellm" and kind.__name__ == "LiteLLMClient":
            return _quiet
    return None


def _quiet(options: Any) -> Any:
    quiet: Any = object.__new__(_quiet_kind(cast("Any", type(options))))
    for name, value in cast("dict[str, Any]", vars(options)).items():
        object.__setattr__(quiet, name, value)  # options may be frozen
    return quiet


@lru_cache(maxsize=64)
def _quiet_kind(kind: Any) -> Any:
    def options_dict(self: Any) -> dict[str, Any]:
        return {**kind.dict(self), **_NONE}

    return type(kind.__name__, (kind,), {"dict": options_dict, "__module__": kind.__module__})
