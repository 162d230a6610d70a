"""How many retries the traffic can bear: so many for each first attempt, and a few more."""

from __future__ import annotations

from threading import RLock

from overcoat.arithmetic.window import Window


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
