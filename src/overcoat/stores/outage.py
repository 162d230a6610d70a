"""When to leave a store alone that has failed, and who sees whether it is well again."""

from __future__ import annotations

from threading import RLock

from overcoat.errors import StoreUnavailable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 30.0
"""Seconds between a failure and the next probe: doubled by each probe that fails."""


class Outage:
    """Whether a server is left alone: since a failure, until one caller has found it well. From any thread."""

    __slots__ = ("_lock", "_name", "_pause", "_probing", "_until")

    def __init__(self, name: str) -> None:
        self._name = name
        self._until: float | None = None
        self._pause = _FIRST_PAUSE
        self._probing = False
        self._lock = RLock()

    def check(self, now: float) -> None:
        """Raise where nobody may ask now."""
        until = self._until
        if until is not None and (now < until or self._probing):
            raise StoreUnavailable(f"{self._name} has just failed; it is left alone for a while")

    def enter(self, now: float) -> bool:
        """Say whether the caller is the one who probes; raise where it may not ask."""
        with self._lock:
            self.check(now)
            self._probing = self._until is not None
            return self._probing

    def leave(self, now: float, well: bool | None, *, probe: bool) -> None:
        """Note what the caller has found; None where it went before it knew."""
        if well and not probe:
            return
        with self._lock:
            if probe:
                self._probing = False
                if well:
                    self._until, self._pause = None, _FIRST_PAUSE
                elif well is False:
                    self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                    self._until = now + self._pause
            elif well is False and self._until is None:  # of many that fail together, the first counts
                self._until = now + self._pause
