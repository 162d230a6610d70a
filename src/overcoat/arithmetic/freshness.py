"""How long a stored answer is good, and for what it still serves after that."""

from __future__ import annotations

from typing import Literal, NamedTuple

Freshness = Literal["fresh", "stale", "spare", "expired"]
"""To be given out; to be given out while it is made anew; to be given out where that fails; of no use."""


class Lifetime(NamedTuple):
    """What a cache allows its answers, in seconds.

    Attributes:
        ttl: How long one is fresh, at the most.
        jitter: The part of that which is left to chance, so that what was stored together does not end together.
        while_revalidate: For how long it then serves while it is made anew (RFC 5861, stale-while-revalidate).
        if_error: For how long it serves where it cannot be made anew (RFC 5861, stale-if-error).
    """

    ttl: float
    jitter: float = 0.0
    while_revalidate: float = 0.0
    if_error: float = 0.0

    def fresh_for(self, *, random: float) -> float:
        """Return for how long a new answer is fresh; *random* is from [0, 1)."""
        return self.ttl * (1 - self.jitter * random)

    @property
    def grace(self) -> float:
        """How long a store has to keep an answer that is no longer fresh."""
        return max(self.while_revalidate, self.if_error)

    def judge(self, created: float, fresh_until: float, now: float) -> Freshness:
        """Judge an answer, also one that was stored under other settings: none is fresh for longer than `ttl`."""
        late = now - min(fresh_until, created + self.ttl)
        if late < 0:
            return "fresh"
        if late < self.while_revalidate:
            return "stale"
        return "spare" if late < self.if_error else "expired"
