"""State that all stacks of a process share, by what it protects: breakers, limits, retry budgets."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Literal, TypeVar

from overcoat.layer import Client
from overcoat.models import parse_model

T = TypeVar("T")
Per = Literal["model", "provider"]
"""What state is kept for: each model, or all models of a provider, at one endpoint."""

_states: dict[Hashable, Any] = {}
_lock = Lock()


def shared(settings: Hashable, key: Hashable, make: Callable[[], T]) -> T:
    """Return the state for *settings* and *key*, made by *make* where there is none.

    Two stacks with equal settings for the same model or provider get the same state, however often a client is made
    anew: a breaker that each `LLM` opened for itself would protect nobody.
    """
    with _lock:
        known: T | None = _states.get((settings, key))
        if known is None:
            known = _states[settings, key] = make()
    return known


def scope_of(client: Client, per: Per) -> tuple[str, ...]:
    """Return what state of *client* is kept for: its provider, or its class, and endpoint; and its model, per model."""
    model = str(getattr(client, "model_name", None) or "")
    provider, name = parse_model(model)
    endpoint = str(getattr(client, "base_url", None) or "")
    scope = (provider or type(client).__qualname__, endpoint)
    return scope if per == "provider" else (*scope, name)


def forget() -> None:
    """Forget all shared state, as a new process would: for tests."""
    with _lock:
        _states.clear()
