"""What lies in a store: how much, how old, in what state; and how some of it is removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, Protocol

from overcoat.arithmetic.dollars import EXACT
from overcoat.stores import Inspectable, Store, Stored
from overcoat.stores.envelope import Answer, Unreadable, unpack

Condition = Literal["fresh", "stale", "expired", "invalidated", "unreadable"]
"""What a cache makes of an entry. A stale one answers until there is a new one, or where none can be had; expired and
invalidated ones are still to be removed; an unreadable one is no answer."""


class InspectableStore(Store, Inspectable, Protocol):
    """A store that can be looked into."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An entry, and what it says; times are Unix time, in seconds."""

    namespace: str
    key: str
    size: int
    expires: float
    condition: Condition
    content: Answer | Unreadable

    @property
    def answer(self) -> Answer | None:
        """The answer, where it can be read."""
        return self.content if isinstance(self.content, Answer) else None

    @property
    def created(self) -> float | None:
        """When it was made; None where it does not say."""
        return self.answer.created if self.answer else None


@dataclass(slots=True)
class Statistics:
    """What lies in a namespace, or in all of them.

    Attributes:
        entries: How many there are.
        size: Bytes of all values.
        conditions: How many are in each condition.
        unreadable: How many cannot be read, by reason.
        oldest: When the oldest was made, in Unix time; None where none says.
        newest: When the newest was made.
        cost: Dollars that the readable answers have cost, those without a known price left out.
    """

    entries: int = 0
    size: int = 0
    conditions: Counter[Condition] = field(default_factory=Counter[Condition])
    unreadable: Counter[Unreadable] = field(default_factory=Counter[Unreadable])
    oldest: float | None = None
    newest: float | None = None
    cost: Decimal = Decimal(0)

    def add(self, found: Finding) -> None:
        """Count an entry."""
        self.entries += 1
        self.size += found.size
        self.conditions[found.condition] += 1
        if not isinstance(found.content, Answer):
            self.unreadable[found.content] += 1
            return
        created = found.content.created
        self.oldest = created if self.oldest is None else min(self.oldest, created)
        self.newest = created if self.newest is None else max(self.newest, created)
        self.cost = EXACT.add(self.cost, found.content.cost or Decimal(0))


async def findings(store: Inspectable, now: float, namespace: str | None = None) -> AsyncIterator[Finding]:
    """Yield what lies in a store, of all namespaces or of one; *now* is Unix time.

    Raises:
        StoreUnavailable: The store cannot answer.
    """
    async for stored in store.scan():
        if namespace is None or stored.namespace == namespace:
            yield _finding(stored, now)


async def statistics(store: Inspectable, now: float, namespace: str | None = None) -> dict[str, Statistics]:
    """Sum up what lies in each namespace.

    Raises:
        StoreUnavailable: The store cannot answer.
    """
    found: dict[str, Statistics] = {}
    async for finding in findings(store, now, namespace):
        found.setdefault(finding.namespace, Statistics()).add(finding)
    return dict(sorted(found.items()))


async def purge(store: InspectableStore, unwanted: Callable[[Finding], bool], now: float) -> int:
    """Remove what is *unwanted*, and give its space back; return how many entries that were.

    Raises:
        StoreUnavailable: The store cannot answer; some entries may be gone.
    """
    removed = 0
    async for finding in findings(store, now):
        if unwanted(finding):
            await store.delete(finding.namespace, finding.key)
            removed += 1
    await store.compact()
    return removed


def _finding(stored: Stored, now: float) -> Finding:
    content = unpack(stored.value, stored.key)
    condition: Condition
    if stored.state != "live":
        condition = stored.state
    elif not isinstance(content, Answer):
        condition = "unreadable"
    else:
        condition = "fresh" if now < content.fresh_until else "stale"
    return Finding(stored.namespace, stored.key, len(stored.value), stored.expires, condition, content)
