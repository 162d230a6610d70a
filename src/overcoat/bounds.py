"""What bounds all calls made in a block together: the time that they have, and the requests that they may make."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from overcoat.alarm import Alarm
from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.errors import DeadlineExceeded, RequestsExceeded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Until:
    """When a block ends: `when` in seconds on the event loop's clock, and the task whose cancellation ends it."""

    when: float
    after: float
    task: asyncio.Task[Any] | None

    async def hold(self, answer: Awaitable[T]) -> T:
        """Return *answer*, or raise `DeadlineExceeded` where it is not there in time.

        The block's own timer ends what its task waits for. A call in another task, which may outlive the block, needs
        one of its own: the layers below leave their own timers out where there is an earlier deadline.
        """
        if asyncio.current_task() is self.task:
            return await answer
        loop = asyncio.get_running_loop()
        alarm = Alarm(loop, self.when)
        try:
            return await answer
        except asyncio.CancelledError as error:
            if not alarm.rang_alone():
                raise
            raise self.exceeded(loop.time()) from error
        finally:
            alarm.off()

    def exceeded(self, now: float) -> DeadlineExceeded:
        """Return the error, at *now* on the loop's clock."""
        return DeadlineExceeded(self.after, now - self.when + self.after)


@dataclass(slots=True)
class Allowance:
    """The requests that are left to a block, and to the blocks around it."""

    most: int
    left: int
    outer: Allowance | None

    @property
    def available(self) -> int:
        """How many requests may still be made, by the blocks around it as well."""
        return self.left if self.outer is None else min(self.left, self.outer.available)

    def spend(self) -> None:
        """Take one request out of each.

        Raises:
            RequestsExceeded: One of them has none left; then none is taken.
        """
        if self.left < 1:
            raise RequestsExceeded(self.most)
        if self.outer is not None:
            self.outer.spend()
        self.left -= 1


_until: ContextVar[Until | None] = ContextVar("overcoat.deadline", default=None)
_allowance: ContextVar[Allowance | None] = ContextVar("overcoat.max_requests", default=None)

current_deadline = _until.get
current_allowance = _allowance.get


@contextmanager
def deadline(after: Duration) -> Generator[None]:
    """End the block *after* so long; it is the deadline of every call inside, those of tasks begun inside included.

    Calls clip their waits and attempts to what is left, as inside a `Deadline` layer, whether they have one or not. Of
    nested blocks, and of a block and a `Deadline` layer, the earlier one holds.

    Args:
        after: Seconds, or text such as "30s".

    Raises:
        DeadlineExceeded: The time is over; what was still running in the block's task has been cancelled.
        RuntimeError: It is not entered in a task.
        ValueError: *after* is no duration.
    """
    span = seconds(after, "deadline(after=...)")
    loop = asyncio.get_running_loop()
    until = Until(loop.time() + span, span, asyncio.current_task())
    outer = _until.get()
    if outer is not None and outer.when <= until.when:
        yield
        return
    alarm = Alarm(loop, until.when)
    token = _until.set(until)
    try:
        yield
    except asyncio.CancelledError as error:
        if not alarm.rang_alone():
            raise
        raise until.exceeded(loop.time()) from error
    finally:
        alarm.off()
        _until.reset(token)


@contextmanager
def max_requests(most: int) -> Generator[None]:
    """Let the calls of the block send at most so many requests together, retries and repeated calls included.

    What is answered from a cache is no request. Of nested blocks each counts for itself and for those around it.

    Args:
        most: At least 1.

    Raises:
        RequestsExceeded: From a call that would send one more.
        ValueError: *most* is no such number.
    """
    check_count(most, "max_requests.most")
    token = _allowance.set(Allowance(most, most, _allowance.get()))
    try:
        yield
    finally:
        _allowance.reset(token)
