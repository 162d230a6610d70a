"""State that stacks share, by what it protects: breakers, limits, retry budgets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from hashlib import sha256
from threading import RLock
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from overcoat.layer import Client
from overcoat.models import parse_model

T = TypeVar("T")
Per = Literal["model", "provider"]
"""What state is kept for: each model, or all models of a provider, at one endpoint."""

_states: dict[Hashable, Any] = {}
_lock = RLock()  # reentrant, since state may be made of other state

circuits: set[str] = set()
"""The breakers' circuits that there are, by their labels, so that their metrics begin at 0."""


def shared(settings: Hashable, key: Hashable, make: Callable[[], T], name: str | None = None) -> T:
    """Return the state for *settings* and *key*, made by *make* where there is none.

    Two stacks with equal settings for the same model or provider get the same state, however often a client is made
    anew: a breaker that each `LLM` opened for itself would protect nobody. What has a *name* is found by that, and by
    the kind of its settings, so that it survives when they change.
    """
    identity = (settings if name is None else (type(settings), name), key)
    with _lock:
        known: T | None = _states.get(identity)
        if known is None:
            known = _states[identity] = make()
    return known


def renew(follow: Callable[..., None], *rules: Any) -> None:
    """Have state that is there already *follow* other *rules*: now or, within `renewing`, when that is over."""
    changes = _changes.get()
    if changes is None:
        follow(*rules)
    else:
        changes.append(partial(follow, *rules))


@contextmanager
def renewing() -> Generator[list[Callable[[], None]]]:
    """Collect what `renew` is to do, so that stacks which never come into use change nothing for the others."""
    changes: list[Callable[[], None]] = []
    token = _changes.set(changes)
    try:
        yield changes
    finally:
        _changes.reset(token)


_changes: ContextVar[list[Callable[[], None]] | None] = ContextVar("overcoat.shared.changes", default=None)


def check_store(url: object, layer: str) -> None:
    """Check the `store` of a *layer*; its message does not repeat the URL, which may have a password in it.

    Raises:
        ValueError: It is neither None nor the URL of a Redis server.
    """
    if url is not None and not is_url(url, ("redis://", "rediss://", "unix://")):
        raise ValueError(f'{layer}(store=...): expected the URL of a Redis server, such as "redis://host:6379/0"')


def is_url(text: object, schemes: tuple[str, ...]) -> bool:
    """Say whether *text* is a URL that begins with one of *schemes*, and whose host and port can be read."""
    try:
        return isinstance(text, str) and text.startswith(schemes) and urlsplit(text).port != 0
    except ValueError:
        return False


def remote_key(kind: str, identity: object, scope: Sequence[str]) -> str:
    """Return the key of state that processes share: by its *kind*, its name or settings, and what it is kept for."""
    provider, _endpoint, *model = scope  # the endpoint may have a password in it, and is in the digest only
    digest = sha256(repr((identity, tuple(scope))).encode()).hexdigest()
    return f"overcoat:{kind}:1:{'/'.join((provider, *model))}:{digest[:16]}"


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
        circuits.clear()
