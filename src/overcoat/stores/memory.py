"""A store in this process's memory: the least recently used entries go first when its bytes run out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from threading import RLock

from overcoat.stores.generations import Generations

_OVERHEAD = 410
"""Bytes that an entry costs beside its value: key, tuples, bytes object and its place in the table, on CPython 3.11."""


class MemoryStore:
    """Entries with a time to live, under a ceiling in bytes, for loops in any thread.

    Args:
        max_bytes: What keys and values may take together, bookkeeping included.

    Attributes:
        size: What they take, in bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._generations: dict[str, int] = {}
        self._writers = Generations[int]()
        # Reentrant, since the garbage collector finalizes coroutines in the middle of anything.
        self._lock = RLock()
        self.size = 0

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return what was set under *key*, or None where there is nothing, its time is up or it was invalidated."""
        place = namespace, key
        entry = self._entries.get(place)
        if entry is not None and asyncio.get_running_loop().time() < entry[0]:
            try:  # noqa: SIM105 - suppress() takes as long as all the rest
                self._entries.move_to_end(place)
            except KeyError:  # another thread has dropped it: without a lock here, a hit takes two thirds of the time
                pass
            return entry[1]
        with self._lock:
            if entry is not None and self._entries.get(place) is entry:
                self._drop(place)
            self._writers.missed(namespace, key, self._generations.get(namespace, 0))
        return None

    async def set(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* for *ttl* seconds, unless it alone is larger than the store or was invalidated on its way."""
        place = namespace, key
        size = len(value) + _OVERHEAD
        begun = self._writers.begun(namespace, key)
        with self._lock:
            if begun is not None and begun != self._generations.get(namespace, 0):
                return
            self._drop(place)
            if size > self._max_bytes:
                return
            self._entries[place] = (asyncio.get_running_loop().time() + ttl, value)
            self.size += size
            while self.size > self._max_bytes:
                self._drop(next(iter(self._entries)))

    async def delete(self, namespace: str, key: str) -> None:
        """Forget what is under *key*, if anything."""
        with self._lock:
            self._drop((namespace, key))

    async def invalidate(self, namespace: str) -> None:
        """Forget all of *namespace*, and what those are about to set who have missed it."""
        with self._lock:
            self._generations[namespace] = self._generations.get(namespace, 0) + 1
            for place in [place for place in self._entries if place[0] == namespace]:
                self._drop(place)

    async def close(self) -> None:
        """Forget everything: a new process would find nothing here either."""
        with self._lock:
            self._entries.clear()
            self.size = 0

    def __len__(self) -> int:
        """Return how many entries there are, those whose time is up included."""
        return len(self._entries)

    def _drop(self, place: tuple[str, str]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self.size -= len(entry[1]) + _OVERHEAD
