"""What one process knows of a store of budgets: whether it answers, and which alerts were given."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

from overcoat.arithmetic.calendar import Slot
from overcoat.errors import amount_text

logger = logging.getLogger("overcoat")

SHARES = (50, 80, 100)
"""Of a limit, in percent: when it is made known how much is spent."""

_REMEMBERED = 10_000
"""Alerts, at most: beyond, the oldest may be given once more in its window."""


@dataclass(frozen=True, slots=True)
class BudgetAlert:
    """So much of a limit is spent.

    Attributes:
        budget: The limit's name.
        scope: Whose it is, such as "tenant:acme".
        percent: 50, 80 or 100; 100 also where what is left does not do for a call.
        limit: US dollars (`Decimal`) or tokens (`int`) in a window.
        spent: As much of it.
        resets_at: When nothing of what was spent until now counts any more; None is never.
    """

    budget: str
    scope: str
    percent: int
    limit: Decimal | int
    spent: Decimal | int
    resets_at: datetime | None

    def __str__(self) -> str:
        whose = f"the budget {self.budget!r} of {self.scope!r}"
        state = f"{amount_text(self.spent)} of {amount_text(self.limit)} are spent"
        if self.percent == SHARES[-1] and self.spent < self.limit:
            return f"what is left of {whose} does not do for a call: {state}"
        return f"{whose} has reached {self.percent} %: {state}"


class Watch:
    """What one process knows of one store; for all layers that use it."""

    def __init__(self) -> None:
        self._failing = False
        self._given: OrderedDict[tuple[Any, int], int] = OrderedDict()  # by account and share: in which slice

    def failed(self, store: object, error: Exception) -> None:
        """Note that the store did not answer, but raised; there is one line for an outage."""
        if not self._failing:
            self._failing = True
            logger.warning("the store of budgets %r does not answer", store, exc_info=error)

    def answered(self, store: object) -> None:
        """Note that it did."""
        if self._failing:
            self._failing = False
            logger.info("the store of budgets %r answers again", store)

    def crossed(self, account: Any, reached: Sequence[int], slot: Slot) -> tuple[int, ...]:
        """Return which of the shares *reached* are news: each once, until the slice in which it was counts no more."""
        due: list[int] = []
        for percent in reached:
            given = self._given.get((account, percent))
            if given is None or given < slot.oldest:
                self._given[account, percent] = slot.id
                self._given.move_to_end((account, percent))
                due.append(percent)
        while len(self._given) > _REMEMBERED:
            self._given.popitem(last=False)
        return tuple(due)


_watches: WeakKeyDictionary[Any, Watch] = WeakKeyDictionary()


def watch_of(store: object) -> Watch:
    """Return what this process knows of *store*."""
    return _watches.setdefault(store, Watch())
