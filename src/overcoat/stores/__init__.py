"""Where layers keep what outlives a call: bytes in, bytes out."""

from __future__ import annotations

from typing import Protocol


class Store(Protocol):
    """What a cache asks of a store.

    A store that cannot answer raises; the cache then goes on without it, and counts that it did.
    """

    async def get(self, key: str) -> bytes | None:
        """Return what was set under *key*, or None where there is nothing or its time is up."""
        ...

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* under *key* for *ttl* seconds from now, in place of what was there."""
        ...

    async def delete(self, key: str) -> None:
        """Forget what is under *key*, if anything."""
        ...
