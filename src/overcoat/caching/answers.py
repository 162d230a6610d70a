"""A store as a cache sees it: answers go in and come out, and what fails is a miss with a reason, never an error."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from overcoat.caching.failures import StoreOperation, store_failures
from overcoat.record import CacheResult, Call, Lookup, MissReason, StaleReason
from overcoat.stores import Leases, Store
from overcoat.stores.envelope import Answer, span_of, unpack

logger = logging.getLogger("overcoat")


class Served(NamedTuple):
    """A stored answer that is given to a caller, and what the record says about it."""

    answer: Answer
    result: CacheResult
    reason: StaleReason | None = None

    def note(self, call: Call, lookup: Lookup) -> None:
        """Enter it into the record of *call*."""
        answer = self.answer
        lookup.ended = now = call.clock()
        lookup.result, lookup.reason = self.result, self.reason
        lookup.age = max(0.0, call.at(now) - answer.created)
        lookup.usage, lookup.cost, lookup.span = answer.usage, answer.cost, span_of(answer)


class Answers:
    """The answers in *store*, on which calls must never depend: what it cannot do is counted, and logged once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.leases = store if isinstance(store, Leases) else None
        self._failing: set[StoreOperation] = set()

    async def find(self, namespace: str, key: str) -> tuple[Answer | None, MissReason | None]:
        """Return what is stored under *key*; where there is nothing of use, why."""
        try:
            value = await self._store.get(namespace, key)
            answer = unpack(value, key) if value is not None else None
        except Exception as error:  # noqa: BLE001 - a user's store may raise and return anything, and the call goes on
            self._note("read", error)
            return None, "store_failed"
        if self._failing:
            self._note("read")
        return (None, answer) if isinstance(answer, str) else (answer, None)

    async def keep(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        """Store *value* for *ttl* seconds."""
        try:
            await self._set(namespace, key, value, ttl)
        except asyncio.CancelledError:
            # Nobody waits for this any more but a loop that ends, and that lets what it cancels come to its end.
            await self._set(namespace, key, value, ttl)
            raise

    async def evict(self, namespace: str, key: str) -> bool:
        """Say whether there is nothing under *key* any more."""
        try:
            await self._store.delete(namespace, key)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("delete", error)
            return False
        self._note("delete")
        return True

    async def acquire(self, namespace: str, key: str, ttl: float) -> str | None:
        """Return a lease on making the answer; "" where there are none to be had, None where someone else has it."""
        if self.leases is None:
            return ""
        try:
            token = await self.leases.acquire(namespace, key, ttl)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("lease", error)
            return ""
        self._note("lease")
        return token

    async def release(self, namespace: str, key: str, token: str) -> None:
        """Give a lease back."""
        if self.leases is None or not token:
            return
        try:
            await self.leases.release(namespace, key, token)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("release", error)
        else:
            self._note("release")

    async def _set(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        try:
            await self._store.set(namespace, key, value, ttl)
        except Exception as error:  # noqa: BLE001 - as above
            self._note("write", error)
        else:
            if self._failing:
                self._note("write")

    def _note(self, operation: StoreOperation, error: Exception | None = None) -> None:
        if error is None:
            if operation in self._failing:
                self._failing.discard(operation)
                logger.info("the cache's store can %s again", operation)
            return
        store_failures[operation,] += 1
        # The first one of an outage says what is wrong; a warning for each call would only say how many there are.
        level = logging.DEBUG if operation in self._failing else logging.WARNING
        self._failing.add(operation)
        logger.log(level, "the cache's store failed to %s; calls go on without it", operation, exc_info=error)
