"""Numbers that we keep ourselves and that instruments only read: counters at the price of a dict update, and gauges."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

Tag = tuple[str, str]
"""A label by its name and its value, beyond those that an instrument always has."""

_MOST_ACCOUNTS = 1000
"""Of each limit: tenants come and go, and only the fullest account is shown."""


class Sums:
    """A counter whose sums we keep: `Counter.add` costs 6 microseconds, and a dict update 0.2.

    Args:
        *labels: The names of the attributes, in the order of a key's parts; None leaves one out. What a key has beyond
            them are tags.
    """

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self.of: dict[tuple[str | Tag | None, ...], Any] = defaultdict(int)

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        """Return what an observable instrument asks for."""
        # A copy, since another thread's call may add a series meanwhile.
        for key, value in list(self.of.items()):
            attributes: dict[str, str] = {}
            for index, part in enumerate(key):
                if isinstance(part, tuple):
                    attributes[part[0]] = part[1]
                elif part is not None:
                    attributes[self._labels[index]] = part
            yield Observation(float(value) if isinstance(value, Decimal) else value, attributes)


class Levels:
    """A gauge over the accounts of each limit, of which the fullest is shown: whose they are is no label."""

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._of: dict[tuple[str, ...], dict[str, tuple[float, float | None]]] = {}

    def set(self, key: tuple[str, ...], account: str, level: float, until: float | None) -> None:
        """Note the level of an account, which is 0 from *until* on, in Unix time."""
        levels = self._of.setdefault(key, {})
        if account not in levels and len(levels) >= _MOST_ACCOUNTS:
            del levels[min(levels, key=lambda each: levels[each][0])]
        levels[account] = level, until

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        """Return what an observable instrument asks for."""
        now = time.time()
        for key, levels in list(self._of.items()):
            current = [level for level, until in list(levels.values()) if until is None or now < until]
            yield Observation(max(current, default=0), dict(zip(self._labels, key, strict=True)))


def create_counters(meter: Meter, counters: Sequence[tuple[str, str, Sums, str]]) -> None:
    """Make the instruments that read sums: each a name, a unit, the sums, and a description."""
    for name, unit, sums, description in counters:
        meter.create_observable_counter(name, [sums.observe], unit=unit, description=description)
