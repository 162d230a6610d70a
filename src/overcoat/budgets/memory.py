"""Budgets in this process's memory: gone when it ends, and shared with no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from threading import RLock

from overcoat.arithmetic.reservation import Denied, Ledger, Want
from overcoat.budgets import Held, Settled


class MemoryBudgets:
    """Sums in memory, for all threads and event loops of the process.

    Nothing expires here: who could lose what is reserved loses what is spent with it.

    Args:
        clock: Unix time in seconds.
    """

    lease = None

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ledger = Ledger()
        self._ids = count()
        self._open: set[str | int] = set()
        # Reentrant, since the garbage collector finalizes coroutines in the middle of anything, and theirs may settle.
        self._lock = RLock()

    async def reserve(self, wants: Sequence[Want]) -> Held | Denied:
        """Set aside all that is wanted, or nothing. There is no await between the check and the sum."""
        with self._lock:
            slices = self._ledger.reserve(wants, int(self._clock() * 1000))
            if isinstance(slices, Denied):
                return slices
            held = Held(next(self._ids), wants, slices)
            self._open.add(held.id)
            return held

    async def settle(self, held: Held, amounts: Sequence[int]) -> Settled:
        """Put the *amounts* that were spent in place of what was set aside, once. It never waits."""
        with self._lock:
            now = int(self._clock() * 1000)
            if held.id not in self._open:
                return Settled(now, self._ledger.standings(held.wants, now))
            self._open.remove(held.id)
            return Settled(now, self._ledger.settle(held.wants, held.slices, amounts, now))

    async def renew(self, held: Held) -> None:
        """Do nothing: it does not expire."""

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
