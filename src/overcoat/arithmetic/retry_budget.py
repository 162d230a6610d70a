"""How many retries the traffic can bear: so many for each first attempt, and a few more."""

from __future__ import annotations

from threading import RLock

from overcoat.arithmetic.window import Slices, Window


class RetryBalance:
    """Deposits of first attempts, withdrawals of retries; both are forgotten after *window* (Finagle's `RetryBudget`).

    Within a window there are at most `ratio * first attempts + reserve` retries. What is not used expires, so that
    a quiet hour does not save up for a storm. Methods may be called from any thread.

    Args:
        ratio: What a first attempt deposits; a retry withdraws 1.
        reserve: Retries within a window that need no deposit.
        window: Seconds.
    """

    def __init__(self, ratio: float, reserve: float, window: float) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._window = Window(window)
        self._lock = RLock()  # reentrant, as a circuit's

    def dump(self) -> Slices:
        """Return what `load` makes an equal balance of."""
        return self._window.dump()

    @classmethod
    def load(cls, ratio: float, reserve: float, window: float, slices: Slices) -> RetryBalance:
        """Return a balance by these rules with what was written down."""
        balance = cls(ratio, reserve, window)
        balance._window = Window.load(window, slices)
        return balance

    def follow(self, ratio: float, reserve: float, window: float) -> None:
        """Go by other rules from now on; what was deposited and withdrawn still counts."""
        with self._lock:
            self._ratio, self._reserve = ratio, reserve
            self._window.stretch(window)

    def deposit(self, now: float) -> None:
        """Note a first attempt."""
        with self._lock:
            self._window.add(now, 1, 0)

    def withdraw(self, now: float) -> bool:
        """Note a retry, and return True; return False where there is nothing left for it."""
        with self._lock:
            window = self._window
            window.expire(now)
            if window.weight + 1 > self._ratio * window.count + self._reserve:
                return False
            window.add(now, 0, 1)
            return True
