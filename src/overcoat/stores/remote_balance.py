"""A retry budget that all processes share."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from overcoat.arithmetic.retry_budget import RetryBalance
from overcoat.arithmetic.window import Slices
from overcoat.errors import StoreUnavailable
from overcoat.stores.cell import Cells, Held


class BalanceRules(NamedTuple):
    """The arguments of a `RetryBalance`."""

    ratio: float
    reserve: float
    window: float


class _Arithmetic:
    shape: ClassVar[Any] = Slices
    amounts: ClassVar[int] = 0

    def __init__(self, rules: BalanceRules) -> None:
        self.rules = rules

    def keeps(self) -> float:
        return 2 * self.rules.window

    def load(self, state: Slices | None, held: Held) -> RetryBalance:  # noqa: ARG002 - nothing is ever under way
        return RetryBalance.load(*self.rules, state or [])

    def dump(self, machine: RetryBalance) -> Slices:
        return machine.dump()

    def held(self, machine: RetryBalance) -> Held:  # noqa: ARG002
        return ()


class RemoteBalance:
    """Deposits and withdrawals in the store; where it cannot be reached, those of this process.

    Args:
        url: Of the Redis server.
        key: In it.
        rules: What there may be.
        local: What stands in for it.

    Attributes:
        alone: Whether the store could not be reached when it was last asked.
    """

    def __init__(self, url: str, key: str, rules: BalanceRules, local: RetryBalance) -> None:
        self.alone = False
        self._arithmetic = _Arithmetic(rules)
        self._cells: Cells[RetryBalance] = Cells(url, key, self._arithmetic)
        self._local = local

    def follow(self, rules: BalanceRules) -> None:
        """Go by other *rules* from now on; each process goes by its own."""
        self._arithmetic.rules = rules

    def deposit(self, now: float) -> None:
        """Note a first attempt, without waiting."""
        self._local.deposit(now)  # so that it has something to go by when it must
        self._cells.here().post(lambda balance, at: balance.deposit(at), ())

    async def withdraw(self, now: float) -> bool:
        """Note a retry, and return True; return False where there is nothing left for it."""
        try:
            granted = await self._cells.here().change(lambda balance, at: balance.withdraw(at))
        except StoreUnavailable:
            self.alone = True
            return self._local.withdraw(now)
        self.alone = False
        return granted
