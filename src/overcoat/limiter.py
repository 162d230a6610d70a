"""A quota and the queue in front of it, for calls of any loop and thread of this process."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from threading import RLock

from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.arithmetic.quota import Grant, Limits, Quota, Ready
from overcoat.errors import RateLimited


class Queue:
    """Who waits, in the order of arrival.

    It is one, whatever loops its callers run on. Nothing is handed over between them: whoever is first tries by itself,
    and whoever leaves the queue, by whichever way, wakes the next. So a cancellation can lose neither a slot nor a
    wakeup. A loop that is closed under its callers holds up nobody; one that is stopped while it has the first one of
    the queue holds up those behind it, for as long as they may wait at most.
    """

    def __init__(self) -> None:
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()  # a deque removes who gives up in linear time
        # Reentrant, since the garbage collector finalizes coroutines in the middle of anything, and theirs may be a
        # call that leaves the queue.
        self._lock = RLock()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiters)

    async def turn(
        self,
        attempt: Callable[[float], Awaitable[Grant | float]],
        until: float,
        loop: asyncio.AbstractEventLoop,
    ) -> Grant:
        """Wait for a grant, in turn.

        Args:
            attempt: What whoever is first does at a moment: it returns a grant, or when to try again if nobody wakes
                it before.
            until: How long to wait.
            loop: Of the caller.

        Raises:
            RateLimited: There was none *until* that moment.
        """
        waiter = _Waiter(loop)
        with self._lock:
            self._waiters[waiter] = None
        try:
            while True:
                waiter.woken.clear()
                now = loop.time()
                ready = math.inf
                if self._first() is waiter:
                    granted = await attempt(now)
                    if isinstance(granted, Grant):
                        return granted
                    ready = granted
                if now >= until:
                    raise RateLimited
                await waiter.sleep(min(ready if ready > now else math.inf, until))
        finally:
            with self._lock:
                self._waiters.pop(waiter, None)
                self.wake()

    def wake(self) -> None:
        """Let the first one try again."""
        if not self._waiters:
            return
        with self._lock:
            while self._waiters:
                first = next(iter(self._waiters))
                try:
                    first.loop.call_soon_threadsafe(first.woken.set)
                except RuntimeError:  # the loop was closed, and nobody waits there any more
                    del self._waiters[first]
                else:
                    return

    def _first(self) -> _Waiter:
        with self._lock:
            return next(iter(self._waiters))


class _Waiter:
    __slots__ = ("loop", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.woken = asyncio.Event()

    async def sleep(self, until: float) -> None:
        timer = self.loop.call_at(until, self.woken.set)
        try:
            await self.woken.wait()
        finally:
            timer.cancel()


class Limiter:
    """Keeps the calls of this process within limits.

    Args:
        limits: What is kept.

    Attributes:
        counts_tokens: Whether it makes a difference how many tokens are asked for: there is a limit on them, or a
            server has spoken of one.
    """

    alone = False
    """Whether it stands in for one that several processes share: never, where there is none."""

    def __init__(self, limits: Limits) -> None:
        self.counts_tokens = limits.tokens is not None
        self._quota = Quota(limits)
        self._queue = Queue()
        self._lock = RLock()  # reentrant, as the queue's

    def follow(self, limits: Limits) -> None:
        """Keep other *limits* from now on, also for those that wait already."""
        with self._lock:
            self.counts_tokens |= limits.tokens is not None
            self._quota.follow(limits)
        self._queue.wake()

    def take(self, now: float, tokens: int) -> Grant | None:
        """Grant at once, where nobody waits; None where the quota does not allow it."""
        if self._queue:
            return None
        with self._lock:
            return self._quota.take(now, tokens)

    async def ask(self, now: float, tokens: int) -> Grant | Ready:
        """Return before when an attempt that comes now, and was not granted at once, cannot be granted."""
        with self._lock:
            return self._quota.foreseen_at(now, len(self._queue), tokens)

    def queue(self, tokens: int, until: float, loop: asyncio.AbstractEventLoop) -> Awaitable[Grant]:
        """Wait for a grant, in turn.

        Raises:
            RateLimited: There was none *until* that moment.
        """

        async def attempt(now: float) -> Grant | float:
            with self._lock:
                return self._quota.take(now, tokens) or self._quota.ready_at(now, tokens)

        return self._queue.turn(attempt, until, loop)

    def settle(self, grant: Grant, tokens: int) -> None:
        """End an attempt that used so many *tokens*."""
        with self._lock:
            self._quota.settle(grant, tokens)
        self._queue.wake()

    def give_back(self, grant: Grant) -> None:
        """End what sent nothing."""
        with self._lock:
            self._quota.give_back(grant)
        self._queue.wake()

    def learn(self, grant: Grant, now: float, *, asked: float | None, said: ProviderQuota | None) -> None:
        """Note what a server told in its answer to *grant*: the seconds it *asked* for, and what it *said* is left.

        Who waits for an earlier moment will see.
        """
        with self._lock:
            self._quota.learn(grant, now, asked, said)
            self.counts_tokens |= said is not None and said.tokens_remaining is not None
