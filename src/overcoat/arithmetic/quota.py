"""What may be sent within any stretch of time, and when the next may be: requests, tokens, and how many at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from overcoat.arithmetic.window import Slice, Window


@dataclass(frozen=True, slots=True)
class Limits:
    """At most so many `requests` and `tokens` within any `window` seconds, `concurrency` at once; None is no limit."""

    requests: int | None
    tokens: int | None
    window: float
    concurrency: int | None


@dataclass(slots=True, eq=False)
class Grant:
    """What one attempt has taken: a place among those under way, a request, and so many `tokens`."""

    slice: Slice
    tokens: int


class Quota:
    """A sliding window over what was granted, without a clock.

    It is exact to the hundredth of a window: within any window of time the limit is never exceeded, all of it may be
    used at once, and over many windows all of it can be used. A bucket that refills while it is drained was rejected,
    since twice its size fits into one window; so were evenly spaced requests, which make the second of "three a
    minute" wait for 20 s.

    Args:
        limits: How much.
    """

    def __init__(self, limits: Limits) -> None:
        self._requests = math.inf if limits.requests is None else limits.requests
        self._tokens = math.inf if limits.tokens is None else limits.tokens
        self._concurrency = math.inf if limits.concurrency is None else limits.concurrency
        self._span = limits.window
        self._granted = Window(limits.window)  # counts requests, which weigh tokens
        self._running = 0
        self._paused_until = -math.inf

    def charge(self, tokens: int) -> int:
        """Return what is taken for so many *tokens*: no more than there ever are, or it could never be granted."""
        return int(min(tokens, self._tokens))

    def take(self, now: float, tokens: int) -> Grant | None:
        """Grant one request of so many *tokens*, to be settled or returned when it is over; None where it must wait."""
        if self._running >= self._concurrency or now < self._paused_until:
            return None
        tokens = self.charge(tokens)
        granted = self._granted
        granted.expire(now)
        if granted.count >= self._requests or granted.weight + tokens > self._tokens:
            return None
        self._running += 1
        return Grant(granted.add(now, 1, tokens), tokens)

    def settle(self, grant: Grant, tokens: int) -> None:
        """Note that an attempt is over, and has really used so many *tokens*, counted from when it began."""
        self._running -= 1
        self._granted.correct(grant.slice, 0, tokens - grant.tokens)

    def give_back(self, grant: Grant) -> None:
        """Note that nothing was sent."""
        self._running -= 1
        self._granted.correct(grant.slice, -1, -grant.tokens)

    def pause(self, until: float) -> None:
        """Grant nothing before that moment."""
        self._paused_until = max(self._paused_until, until)

    def ready_at(self, now: float, requests: int, tokens: int) -> float:
        """Return when the last of so many *requests*, with so many *tokens* together, can be granted at the earliest.

        It may be later: those that are under way may use more than was thought, or too many may be at once.
        """
        granted = self._granted
        granted.expire(now)
        counts = ((each.last, each.count) for each in granted.slices)
        weights = ((each.last, each.weight) for each in granted.slices)
        return max(
            self._paused_until,
            self._room_at(now, granted.count, requests, self._requests, counts),
            self._room_at(now, granted.weight, tokens, self._tokens, weights),
        )

    def _room_at(self, now: float, used: int, needed: int, limit: float, amounts: Iterable[tuple[float, int]]) -> float:
        excess = used + needed - limit  # so much must have left the window first
        if excess <= 0:
            return now
        # Where that is more than there is in it, what waits must itself pass and leave, a full limit in each window.
        rounds = max(0, math.ceil((excess - used) / limit))
        excess -= rounds * limit
        if excess <= 0:
            return now + rounds * self._span
        left = 0
        for last, amount in amounts:
            left += amount
            if left >= excess:
                return last + self._span + rounds * self._span
        raise AssertionError("unreachable: the slices add up to what is used")
