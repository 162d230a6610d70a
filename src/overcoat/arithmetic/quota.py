"""What may be sent within any stretch of time, and when the next may be: requests, tokens, and how many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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
        self._unsettled = 0  # tokens of those
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
        self._unsettled += tokens
        return Grant(granted.add(now, 1, tokens), tokens)

    def settle(self, grant: Grant, tokens: int) -> None:
        """Note that an attempt is over, and has really used so many *tokens*, counted from when it began."""
        self._running -= 1
        self._unsettled -= grant.tokens
        self._granted.correct(grant.slice, 0, tokens - grant.tokens)

    def give_back(self, grant: Grant) -> None:
        """Note that nothing was sent."""
        self._running -= 1
        self._unsettled -= grant.tokens
        self._granted.correct(grant.slice, -1, -grant.tokens)

    def pause(self, until: float) -> None:
        """Grant nothing before that moment."""
        self._paused_until = max(self._paused_until, until)

    def ready_at(self, now: float, tokens: int) -> float:
        """Return when so many *tokens* can be granted if nothing else happens, except that too many may be at once."""
        return self._ready_at(now, 0, tokens, 0)

    def foreseen_at(self, now: float, ahead: int, tokens: int) -> float:
        """Return before when so many *tokens* cannot be granted, where so many requests are *ahead* of them.

        Those that are under way or ahead may turn out to use far fewer tokens than they take at first, since most
        answers are far shorter than they may be; so only what is settled already is sure to stand in the way.
        """
        return self._ready_at(now, ahead, tokens, self._unsettled)

    def _ready_at(self, now: float, ahead: int, tokens: int, freed: int) -> float:
        granted = self._granted
        granted.expire(now)
        requests = granted.count + ahead + 1 - self._requests
        weight = granted.weight - freed + self.charge(tokens) - self._tokens
        return max(
            now,
            self._paused_until,
            self._left_at(now, requests, self._requests, [(each.last, each.count) for each in granted.slices]),
            self._left_at(now, weight, self._tokens, [(each.last, each.weight) for each in granted.slices]),
        )

    def _left_at(self, now: float, excess: float, limit: float, amounts: Sequence[tuple[float, int]]) -> float:
        """Return when so much as the *excess* will have left the window, of the *amounts* in it and what follows."""
        if excess <= 0:
            return now
        # Where it is more than there is, what waits must itself pass and leave, a full limit in each window.
        rounds = max(0, math.ceil((excess - sum(amount for _, amount in amounts)) / limit))
        excess -= rounds * limit
        if excess <= 0:
            return now + rounds * self._span
        left = accumulate(amount for _, amount in amounts)
        last = next(last for (last, _), so_far in zip(amounts, left, strict=True) if so_far >= excess)
        return last + self._span + rounds * self._span
