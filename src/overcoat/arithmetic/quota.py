"""What may be sent within any stretch of time, and when the next may be: requests, tokens, and how many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.arithmetic.window import Slice, Slices, Window


@dataclass(frozen=True, slots=True)
class Limits:
    """At most so many `requests` and `tokens` within any `window` seconds, `concurrency` at once; None is no limit."""

    requests: int | None
    tokens: int | None
    window: float
    concurrency: int | None


@dataclass(slots=True, eq=False)
class Grant:
    """What one attempt has taken: a place among those under way, a request, and so many `tokens`.

    `number` and `spent` are how many requests, and how many tokens, had been granted in all when it was, itself
    included: a server's word on what is left then is about those that came after.
    """

    slice: Slice
    tokens: int
    number: int
    spent: int


class Ceiling(NamedTuple):
    """How far all that was ever granted may go, *until* then, by a server's answer to the request of number *by*."""

    most: float = math.inf
    until: float = -math.inf
    by: int = 0


class Ready(NamedTuple):
    """The moment before which something cannot be granted, and whether it is a server's word that it waits for."""

    at: float
    told: bool


class QuotaState(NamedTuple):
    """A quota written down, but for what is under way."""

    granted: Slices
    number: int
    spent: int
    paused_until: float
    requests: Ceiling
    tokens: Ceiling


class Quota:
    """A sliding window over what was granted, without a clock.

    It is exact to the hundredth of a window: within any window of time the limit is never exceeded, all of it may be
    used at once, and over many windows all of it can be used. A bucket that refills while it is drained was rejected,
    since twice its size fits into one window; so were evenly spaced requests, which make the second of "three a
    minute" wait for 20 s.

    What a server says of its own limits comes on top, and can only tighten these.

    Args:
        limits: How much.

    Attributes:
        running: How many attempts are under way.
        unsettled: The tokens that those have taken.
    """

    def __init__(self, limits: Limits) -> None:
        self._granted = Window(limits.window)  # counts requests, which weigh tokens
        self.running = 0
        self.unsettled = 0
        self._number = 0
        self._spent = 0
        self._paused_until = -math.inf
        self._told_requests = self._told_tokens = Ceiling()
        self._told_until = -math.inf  # the latest of the three
        self.follow(limits)

    def follow(self, limits: Limits) -> None:
        """Keep other *limits* from now on; what was granted counts towards them."""
        self._requests = math.inf if limits.requests is None else limits.requests
        self._tokens = math.inf if limits.tokens is None else limits.tokens
        self._concurrency = math.inf if limits.concurrency is None else limits.concurrency
        self._span = limits.window
        self._granted.stretch(limits.window)

    def dump(self) -> QuotaState:
        """Return what `load` makes an equal quota of."""
        slices = self._granted.dump()
        return QuotaState(slices, self._number, self._spent, self._paused_until, self._told_requests, self._told_tokens)

    @classmethod
    def load(cls, limits: Limits, state: QuotaState, running: int, unsettled: int) -> Quota:
        """Return a quota with *limits*, what was written down, and so many attempts and tokens under way."""
        quota = cls(limits)
        slices, quota._number, quota._spent, quota._paused_until, quota._told_requests, quota._told_tokens = state
        quota._granted = Window.load(limits.window, slices)
        quota._told_until = max(quota._paused_until, quota._told_requests.until, quota._told_tokens.until)
        quota.running, quota.unsettled = running, unsettled
        return quota

    def charge(self, tokens: int) -> int:
        """Return what is taken for so many *tokens*: no more than there ever are, or it could never be granted."""
        return int(min(tokens, self._tokens))

    def take(self, now: float, tokens: int) -> Grant | None:
        """Grant one request of so many *tokens*, to be settled or returned when it is over; None where it must wait."""
        if self.running >= self._concurrency:
            return None
        tokens = self.charge(tokens)
        if now < self._told_until and now < self._told_at(0, tokens):
            return None
        granted = self._granted
        granted.expire(now)
        if granted.count >= self._requests or granted.weight + tokens > self._tokens:
            return None
        self.running += 1
        self.unsettled += tokens
        self._number += 1
        self._spent += tokens
        return Grant(granted.add(now, 1, tokens), tokens, self._number, self._spent)

    def settle(self, grant: Grant, tokens: int) -> None:
        """Note that an attempt is over, and has really used so many *tokens*, counted from when it began."""
        self.running -= 1
        self.unsettled -= grant.tokens
        self._granted.correct(grant.slice, 0, tokens - grant.tokens)

    def give_back(self, grant: Grant) -> None:
        """Note that nothing was sent."""
        self.running -= 1
        self.unsettled -= grant.tokens
        self._granted.correct(grant.slice, -1, -grant.tokens)

    def correct(self, grant: Grant, count: int, tokens: int) -> None:
        """Add to what *grant* counts for, which is under way no more, and was given before this was written down."""
        slice_ = self._granted.begun_at(grant.slice.begun)
        if slice_ is not None:
            self._granted.correct(slice_, count, tokens)

    def learn(self, grant: Grant, now: float, asked: float | None, said: ProviderQuota | None) -> None:
        """Heed the server's answer to *grant*: the seconds that it *asked* us to stay away, and what it *said* is left.

        Until the limit in question is whole again, no more than that is granted. The server is taken to have counted
        what was sent before that request, and nothing after. So of two answers the one to the later request holds,
        whichever came first; and what is given back unsent goes on counting. No word holds for longer than a window:
        the limit of a day, or a bogus header, must not stop a process for hours.
        """
        if asked is not None:
            self._paused_until = max(self._paused_until, now + min(asked, self._span))
        if said is not None:
            requests = (said.requests_remaining, said.requests_reset)
            self._told_requests = self._heard(self._told_requests, grant, now, grant.number, requests)
            tokens = (said.tokens_remaining, said.tokens_reset)
            self._told_tokens = self._heard(self._told_tokens, grant, now, grant.spent, tokens)
        self._told_until = max(self._paused_until, self._told_requests.until, self._told_tokens.until)

    def ready_at(self, now: float, tokens: int) -> float:
        """Return when so many *tokens* can be granted if nothing else happens, except that too many may be at once."""
        return self._ready_at(now, 0, tokens, 0).at

    def foreseen_at(self, now: float, ahead: int, tokens: int) -> Ready:
        """Return before when so many *tokens* cannot be granted, where so many requests are *ahead* of them.

        Those that are under way or ahead may turn out to use far fewer tokens than they take at first, since most
        answers are far shorter than they may be; so only what is settled already is sure to stand in the way.
        """
        return self._ready_at(now, ahead, tokens, self.unsettled)

    def _ready_at(self, now: float, ahead: int, tokens: int, freed: int) -> Ready:
        granted = self._granted
        granted.expire(now)
        requests = granted.count + ahead + 1 - self._requests
        weight = granted.weight - freed + self.charge(tokens) - self._tokens
        own = max(
            now,
            self._left_at(now, requests, self._requests, [(each.last, each.count) for each in granted.slices]),
            self._left_at(now, weight, self._tokens, [(each.last, each.weight) for each in granted.slices]),
        )
        told = self._told_at(ahead, self.charge(tokens))
        return Ready(told, told=True) if told > own else Ready(own, told=False)

    def _told_at(self, ahead: int, tokens: int) -> float:
        """Return before when, by the server's word, so many *tokens* cannot be granted."""
        at = self._paused_until
        if self._number + ahead + 1 > self._told_requests.most:
            at = max(at, self._told_requests.until)
        if self._spent + max(1, tokens) > self._told_tokens.most:  # also where we do not count them, none left is none
            at = max(at, self._told_tokens.until)
        return at

    def _heard(
        self, known: Ceiling, grant: Grant, now: float, granted: int, said: tuple[int | None, float | None]
    ) -> Ceiling:
        remaining, reset = said
        if remaining is None or reset is None or (grant.number < known.by and now < known.until):
            return known
        return Ceiling(float(granted + remaining), now + min(reset, self._span), grant.number)

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
