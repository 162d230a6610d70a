"""A quota that all processes share, with a queue in each."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.arithmetic.quota import Grant, Limits, Quota, QuotaState, Ready
from overcoat.errors import StoreUnavailable
from overcoat.limiter import Limiter, Queue
from overcoat.stores.cell import LEASE, Cell, Cells, Held

_LOOK = 0.1
"""Seconds, on average, between two looks of whoever is first in this process's queue: others free places unheard."""


@dataclass(slots=True, eq=False)
class RemoteGrant(Grant):
    """A grant of the quota in the store, to the calls of one event loop."""

    cell: Cell[_Common]


class _Refusal(NamedTuple):
    """In how many seconds to come again, 0 if that depends on others, and whether calls of other processes wait."""

    ready: float
    others_wait: bool


class _Common(NamedTuple):
    """The quota of all, and how many calls of all wait for it."""

    quota: Quota
    waiting: int


class _Arithmetic:
    shape: ClassVar[Any] = QuotaState
    amounts: ClassVar[int] = 3

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def keeps(self) -> float:
        return 2 * self.limits.window + LEASE  # no word of a server's is heeded for longer than a window

    def load(self, state: QuotaState | None, held: Held) -> _Common:
        running, unsettled, waiting = held
        quota = Quota.load(self.limits, state or Quota(self.limits).dump(), running, unsettled)
        return _Common(quota, waiting)

    def dump(self, machine: _Common) -> QuotaState:
        return machine.quota.dump()

    def held(self, machine: _Common) -> Held:
        return machine.quota.running, machine.quota.unsettled, machine.waiting


class RemoteLimiter:
    """Keeps the calls of all processes within limits; where the store cannot be reached, those of this one.

    Within a process first come is first served; processes that have calls waiting look in turn, at random. Whoever goes
    without a word gives back what it had when its lease is over.

    Args:
        url: Of the Redis server.
        key: In it.
        limits: What is kept.
        local: What stands in for it.

    Attributes:
        alone: Whether the store could not be reached when it was last asked.
        counts_tokens: As a `Limiter`'s.
    """

    def __init__(self, url: str, key: str, limits: Limits, local: Limiter) -> None:
        self.alone = False
        self.counts_tokens = limits.tokens is not None
        self._arithmetic = _Arithmetic(limits)
        self._cells: Cells[_Common] = Cells(url, key, self._arithmetic)
        self._queue = Queue()
        self._local = local

    def follow(self, limits: Limits) -> None:
        """Keep other *limits* from now on; each process goes by its own."""
        self.counts_tokens |= limits.tokens is not None
        self._arithmetic.limits = limits
        self._queue.wake()

    def take(self, now: float, tokens: int) -> None:
        """Return None: nothing is granted without asking."""

    async def ask(self, now: float, tokens: int) -> Grant | Ready:
        """Grant at once, where nobody waits; else return before when an attempt that comes now cannot be granted."""
        ahead = len(self._queue)

        def ask(common: _Common, at: float) -> RemoteGrant | Ready:
            granted = None if ahead else common.quota.take(at, tokens)
            if granted is not None:
                return _of(granted, cell)
            ready = common.quota.foreseen_at(at, ahead, tokens)
            return Ready(now + (ready.at - at), ready.told)

        cell = self._cells.here()
        try:
            answer = await cell.change(ask, self._undo)
        except StoreUnavailable:
            self.alone = True
            return self._local.take(now, tokens) or await self._local.ask(now, tokens)
        self.alone = False
        return answer

    async def queue(self, tokens: int, until: float, loop: asyncio.AbstractEventLoop) -> Grant:
        """Wait for a grant, in turn.

        Raises:
            RateLimited: There was none *until* that moment.
        """
        cell = self._cells.here()
        again = 0.0

        def take(common: _Common, at: float) -> RemoteGrant | _Refusal:
            granted = common.quota.take(at, tokens)
            if granted is not None:
                return _of(granted, cell)
            return _Refusal(common.quota.ready_at(at, tokens) - at, common.waiting > len(self._queue))

        async def attempt(now: float) -> Grant | float:
            nonlocal again
            if now < again:
                return again
            try:
                answer = await cell.change(take, self._undo)
            except StoreUnavailable:
                self.alone = True
                return await self._local.queue(tokens, until, loop)
            self.alone = False
            if isinstance(answer, Grant):
                return answer
            look = _LOOK * random.uniform(0.5, 1.5)  # noqa: S311 - so that processes do not look together
            look = now + (min(answer.ready, look) if answer.ready > 0 else look)
            # Else a process that is busy would pass each place on to its own next call, before others can look.
            again = look if answer.others_wait else 0.0
            return look

        cell.hold((0, 0, 1))
        try:
            return await self._queue.turn(attempt, until, loop)
        finally:
            cell.hold((0, 0, -1))

    def settle(self, grant: Grant, tokens: int) -> None:
        """End an attempt that used so many *tokens*."""
        if isinstance(grant, RemoteGrant):
            used = tokens - grant.tokens
            grant.cell.post(lambda common, _: common.quota.correct(grant, 0, used), (-1, -grant.tokens, 0))
            self._queue.wake()
        else:
            self._local.settle(grant, tokens)

    def give_back(self, grant: Grant) -> None:
        """End what sent nothing."""
        if isinstance(grant, RemoteGrant):
            self._undo(grant)
            self._queue.wake()
        else:
            self._local.give_back(grant)

    def learn(self, grant: Grant, now: float, *, asked: float | None, said: ProviderQuota | None) -> None:
        """Note what a server told in its answer to *grant*, as a `Limiter` does, for all processes."""
        self.counts_tokens |= said is not None and said.tokens_remaining is not None
        if isinstance(grant, RemoteGrant):
            grant.cell.post(lambda common, at: common.quota.learn(grant, at, asked, said), (0, 0, 0))
        else:
            self._local.learn(grant, now, asked=asked, said=said)

    def _undo(self, answer: object) -> None:
        if isinstance(answer, RemoteGrant):
            tokens = answer.tokens
            answer.cell.post(lambda common, _: common.quota.correct(answer, -1, -tokens), (-1, -tokens, 0))


def _of(granted: Grant, cell: Cell[_Common]) -> RemoteGrant:
    return RemoteGrant(granted.slice, granted.tokens, granted.number, granted.spent, cell)
