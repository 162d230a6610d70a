"""Where layers keep what outlives a call: bytes in, bytes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, NamedTuple, Protocol, runtime_checkable
from urllib.parse import parse_qsl, unquote

from overcoat.arithmetic.sizes import byte_count
from overcoat.errors import PolicyError
from overcoat.shared import shared

DEFAULT_MEMORY = 64 * 2**20
"""Bytes that a store in memory may take, where nobody says otherwise."""


class Store(Protocol):
    """What a cache asks of a store.

    A namespace keeps apart what must not be mixed, and what is thrown away together. A store that cannot answer raises
    `StoreUnavailable`; the cache then goes on without it, and counts that it did.
    """

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return what was set under *key*, or None where there is nothing, its time is up or it was invalidated."""
        ...

    async def set(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* under *key* for *ttl* seconds from now, in place of what was there."""
        ...

    async def delete(self, namespace: str, key: str) -> None:
        """Forget what is under *key*, if anything."""
        ...

    async def invalidate(self, namespace: str) -> None:
        """Forget all of *namespace* at once, by a new generation of it, also what other processes are about to set.

        About to set is who has missed the key before, and has not set it yet.
        """
        ...

    async def close(self) -> None:
        """Give up connections and files; a store that is used again opens them again."""
        ...


@runtime_checkable
class Leases(Protocol):
    """What a store may offer besides: that one process does the work which several want, as far as can be."""

    async def acquire(self, namespace: str, key: str, ttl: float) -> str | None:
        """Return a token for *key*, good for *ttl* seconds unless it is released; None where someone else has it."""
        ...

    async def release(self, namespace: str, key: str, token: str) -> None:
        """Give *key* up, unless it is someone else's by now."""
        ...


State = Literal["live", "expired", "invalidated"]
"""What `get` makes of an entry; those that are not live are still to be removed."""


class Stored(NamedTuple):
    """An entry, as it lies in a store; `expires` is Unix time."""

    namespace: str
    key: str
    value: bytes
    expires: float
    state: State


@runtime_checkable
class Inspectable(Protocol):
    """What a store may offer besides: to be looked into, and tidied up."""

    def scan(self) -> AsyncIterator[Stored]:
        """Return all entries, those that `get` no longer returns included."""
        ...

    async def compact(self) -> None:
        """Give back the space of what was deleted."""
        ...


def open_store(store: str | Store) -> Store:
    """Return the store that a URL names; a store is returned as it is.

    "memory://" is a new one at each call. Of those in files and on servers a process has one for each URL, so that all
    who use it know together that it is down. Nothing is opened before it is used.

    Args:
        store: "memory://?max_bytes=64MiB", "sqlite:///relative.db?max_bytes=1GiB", "sqlite:////absolute.db",
            "redis://host:6379/0", "rediss://..." or "unix:///path"; parameters may be left out.

    Raises:
        PolicyError: The URL names no store. What it holds is not repeated, since that may be a password.
        ImportError: redis is needed and not installed.
    """
    if not isinstance(store, str):
        return store
    scheme, separator, rest = store.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        from overcoat.stores.redis import RedisStore  # noqa: PLC0415 - an optional extra

        return shared("overcoat.stores", store, lambda: RedisStore(store))
    path, _, query = rest.partition("?")
    if scheme == "sqlite" and separator:
        if not path.startswith("/") or path in ("/", "/:memory:"):
            raise PolicyError("sqlite:// needs a file: sqlite:///relative.db or sqlite:////absolute.db")
        from overcoat.stores.sqlite import DEFAULT_BYTES, SQLiteStore  # noqa: PLC0415 - not for who has no files

        max_bytes = _max_bytes(scheme, query, DEFAULT_BYTES)
        return shared("overcoat.stores", store, lambda: SQLiteStore(unquote(path[1:]), max_bytes=max_bytes))
    if scheme == "memory" and separator and not path:
        from overcoat.stores.memory import MemoryStore  # noqa: PLC0415 - it takes its names from here

        return MemoryStore(_max_bytes(scheme, query, DEFAULT_MEMORY))
    known = "memory://, sqlite:///FILE, redis://HOST:PORT/DB, rediss://... or unix:///SOCKET"
    named = f'"{scheme}://..."' if separator and scheme.isalnum() else "a text without a scheme"
    raise PolicyError(f"no store is called {named}; expected {known}")


def _max_bytes(scheme: str, query: str, default: int) -> int:
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    size = parameters.pop("max_bytes", None)
    if parameters:
        raise PolicyError(f"{scheme}:// takes max_bytes, and not {', '.join(map(repr, parameters))}")
    try:
        return default if size is None else byte_count(size, f"{scheme}://?max_bytes=")
    except ValueError as error:
        raise PolicyError(str(error)) from None
