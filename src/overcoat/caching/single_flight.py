"""One inference for all who ask the same at the same time, in a task that none of them owns."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Coroutine
from typing import Any, NamedTuple, cast

from overcoat.bounds import Allowance, current_allowance
from overcoat.caching.answers import Served
from overcoat.classification import Kind
from overcoat.errors import RateLimited, Refused, RequestsExceeded
from overcoat.layer import Reply
from overcoat.record import Call, Lookup, RefusedReason, SpanIds

_EAGER = sys.version_info >= (3, 12)

Place = tuple[asyncio.AbstractEventLoop, str, str, bool]
"""What is shared: in one loop (a future must not be resolved from another's thread), of one namespace, under one key,
and whether it must be new."""

_FOR_WANT_OF_TIME = frozenset({"deadline", Kind.DEADLINE_EXCEEDED.value, RateLimited.cause})
"""Why an inference fails, or `Retry` gives up, that has less to do with the provider than with the caller's haste."""


class Shortage(NamedTuple):
    """What a leader had too little of to get an answer, and of which others may have more.

    Attributes:
        time: Whether its deadline came, or would have come, before the answer.
        requests: Whether it was allowed no further request (`overcoat.bounds.max_requests`).
        tags: By which tags the budgets are divided that had nothing left for it.
    """

    time: bool
    requests: bool
    tags: frozenset[str]

    @classmethod
    def behind(cls, error: BaseException, call: Call) -> Shortage:
        """Return what was lacking where *call* failed with *error*."""
        causes = {error.cause if isinstance(error, Refused) else call.classify(error).kind.value}
        for inference in call.inferences:
            causes.update(cause for cause in (inference.gave_up, inference.error_type) if cause)
        refused = (reservation.scope for reservation in call.reservations if reservation.result == "refused")
        return cls(
            not _FOR_WANT_OF_TIME.isdisjoint(causes),
            RequestsExceeded.cause in causes,
            frozenset(scope.partition(":")[0] for scope in refused),
        )


class _Waiter(NamedTuple):
    """A call that waits for the answer, and what it could ask for it with by itself."""

    call: Call
    deadline: float | None
    allowance: Allowance | None

    @property
    def patience(self) -> float:
        """Until when it waits, on the loop's clock."""
        return math.inf if self.deadline is None else self.deadline

    @property
    def requests(self) -> float:
        """How many requests it may make."""
        return math.inf if self.allowance is None else self.allowance.available


class Flight:
    """An answer on its way, first out of the store and then from the provider, and the calls that wait for it.

    It is what others find under its place from when it is made until `leave` is called.

    Args:
        flights: What is on its way, by its place.
        place: Its own.
        leader: The call that looks into the store, and whose deadline, allowance and tags the inference has.
        deadline: That deadline, on the loop's clock.
    """

    __slots__ = ("_flights", "_waiters", "call", "deadline", "landed", "leader", "place", "reply", "task")

    def __init__(self, flights: dict[Place, Flight], place: Place, leader: Call, deadline: float | None) -> None:
        self._flights = flights
        self.place = place
        self._waiters: dict[asyncio.Future[Reply | None], _Waiter] = {}
        self.leader = leader
        self.deadline = deadline
        self.call: Call | None = None
        self.task: asyncio.Task[None] | None = None
        self.landed = False
        self.reply: Reply | None = None
        flights[place] = self

    @property
    def refreshes(self) -> bool:
        """Whether its answer must be new."""
        return self.place[3]

    def takes(self, deadline: float | None) -> bool:
        """Whether a call with that *deadline* may share it.

        A call without one may not share an inference that has one: layers below leave their own timers off where a
        deadline comes first, and nothing would end an attempt that hangs once its leader has gone.
        """
        return self.deadline is None or deadline is not None or self.landed

    async def join(self, call: Call, deadline: float | None) -> Reply | None:
        """Wait for the answer as one more; None where the call has to look again by itself."""
        if self.reply is not None:  # which is on its way into the store
            self._share(call, cast("Lookup", call.cache), self.reply)
            return _shared(self.reply)
        return await self._wait(self._enlist(call, deadline))

    def lead(self, work: Coroutine[Any, Any, None]) -> Awaitable[Reply | None]:
        """Run *work*, which makes the inference and lands, for the leader first of all; the answer is to be awaited."""
        self.call = self.leader.fork()  # the leader may be gone, and its record closed, before the inference ends
        landed = self._enlist(self.leader, self.deadline)
        loop = self.place[0]
        # The leader does not run it in its own task, to save a task: there is no way to hand a coroutine on to another
        # task when the leader is cancelled, for its timers and anyio's cancel scopes (in httpx) belong to the one that
        # they were made in.
        if _EAGER and loop.get_task_factory() is None:
            self.task = cast("Any", asyncio.Task)(work, loop=loop, eager_start=True)  # which 3.11 does not know
        else:
            self.task = loop.create_task(work)
        return self._wait(landed)

    def leave(self) -> None:
        """Make calls that come from now on start anew."""
        if self._flights.get(self.place) is self:
            del self._flights[self.place]

    def land(self, reply: Reply, *, served: Served | None = None, refused: RefusedReason | None = None) -> None:
        """Give *reply* to all that wait.

        Args:
            reply: The answer.
            served: Where it came out of a store, what it was there.
            refused: Why it must not be given to anyone who comes later.
        """
        self.landed, self.reply = True, reply
        if not self._waiters:
            return
        payer = self._settle(reply, served, refused)
        for landed in self._waiters:
            if not landed.done():
                landed.set_result(reply if landed is payer else _shared(reply))

    def fail(self, error: BaseException, lacking: Shortage) -> None:
        """Give *error* to all that wait, but to those who have more of what was *lacking*: these ask again."""
        self.landed = True
        self._settle(None, None, None)

        def means(waiter: _Waiter) -> tuple[float, float]:
            return (waiter.requests, waiter.patience) if lacking.requests else (waiter.patience, waiter.requests)

        # Who has the most leads the next flight, so that, as a rule, nobody has to ask a third time.
        for landed, waiter in sorted(self._waiters.items(), key=lambda item: means(item[1]), reverse=True):
            if landed.done():
                continue
            if self._has_more(waiter, lacking):
                landed.set_result(None)
            elif isinstance(error, asyncio.CancelledError):
                landed.cancel()
            else:
                landed.set_exception(error)

    def abandon(self) -> None:
        """Make all that wait look by themselves: the leader goes before it knows what there is."""
        self.leave()
        self.landed = True
        for landed in self._waiters:
            if not landed.done():
                landed.set_result(None)

    def _has_more(self, waiter: _Waiter, lacking: Shortage) -> bool:
        if lacking.time and self.deadline is not None and waiter.patience > self.deadline:
            return True
        if lacking.requests and waiter.requests:
            return True
        return any(waiter.call.tags.get(tag) != self.leader.tags.get(tag) for tag in lacking.tags)

    def _enlist(self, call: Call, deadline: float | None) -> asyncio.Future[Reply | None]:
        landed: asyncio.Future[Reply | None] = self.place[0].create_future()
        self._waiters[landed] = _Waiter(call, deadline, current_allowance())
        return landed

    async def _wait(self, landed: asyncio.Future[Reply | None]) -> Reply | None:
        try:
            return await landed
        except BaseException as error:
            call = self._waiters.pop(landed).call
            if not self.landed and not self._waiters and self.task is not None:
                self.leave()  # who comes now must not share what is being cancelled
                self.task.cancel()
                call.adopt(cast("Call", self.call))  # they are completed while we wait
                if not isinstance(error, GeneratorExit):  # which allows no waiting
                    await asyncio.wait([self.task])  # nothing may outlive the call that nobody else shares
            raise

    def _settle(
        self, reply: Reply | None, served: Served | None, refused: RefusedReason | None
    ) -> asyncio.Future[Reply | None] | None:
        """Write down who got what; return the one whose record has the inference."""
        waiting = [(landed, waiter.call) for landed, waiter in self._waiters.items()]
        if len(waiting) > 1:
            # The leader's has; where it has gone, the next one's. Who is being cancelled at this very moment still has
            # an open record, and pays if nobody else is left to.
            waiting.sort(key=lambda waiter: (waiter[0].done(), waiter[1] is not self.leader))
        payer: asyncio.Future[Reply | None] | None = None
        for landed, call in waiting:
            lookup = cast("Lookup", call.cache)
            if pays := payer is None:
                payer = landed
                if self.call is not None:
                    call.adopt(self.call)
            if served is not None:
                served.note(call, lookup)
            elif not pays:
                self._share(call, lookup, reply)
            elif refused is not None:
                lookup.result, lookup.reason = "refused", refused
            elif call is not self.leader:
                lookup.result, lookup.reason = "miss", "took_over"
        return payer

    def _share(self, call: Call, lookup: Lookup, reply: Reply | None) -> None:
        lookup.result, lookup.reason = "coalesced", None
        lookup.ended = call.clock()
        attempt = reply.attempt if reply is not None else None
        lookup.usage, lookup.cost = (attempt.usage, attempt.cost) if attempt else (None, None)
        lookup.span = self._span

    @property
    def _span(self) -> SpanIds | None:
        """The span of the inference."""
        return self.call.inferences[-1].span if self.call is not None and self.call.inferences else None


def _shared(reply: Reply) -> Reply:
    """Return *reply* for a call whose record has no part in how it was made."""
    return Reply(reply.text, reply.fields)
