"""A store in this process's memory: the least recently used entries go first when its bytes run out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

_OVERHEAD = 300
"""Bytes that an entry costs beside its value: key, tuple, bytes object and its place in the table, on CPython 3.11."""


class MemoryStore:
    """Entries with a time to live, under a ceiling in bytes.

    Args:
        max_bytes: What keys and values may take together, bookkeeping included.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self.size = 0

    async def get(self, key: str) -> bytes | None:
        """Return what was set under *key*, or None where there is nothing or its time is up."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, value = entry
        if asyncio.get_running_loop().time() >= expires:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    async def set(self, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* for *ttl* seconds, unless it alone is larger than the store."""
        self._drop(key)
        size = len(value) + _OVERHEAD
        if size > self._max_bytes:
            return
        self._entries[key] = (asyncio.get_running_loop().time() + ttl, value)
        self.size += size
        while self.size > self._max_bytes:
            self._drop(next(iter(self._entries)))

    async def delete(self, key: str) -> None:
        """Forget what is under *key*, if anything."""
        self._drop(key)

    def __len__(self) -> int:
        """Return how many entries there are, those whose time is up included."""
        return len(self._entries)

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= len(entry[1]) + _OVERHEAD
