"""When to leave a provider alone, and when to see whether it is well again: the states of a circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock
from typing import Literal, NamedTuple

from overcoat.arithmetic.window import Window

State = Literal["closed", "open", "half_open"]
"""Closed lets all calls through, open none, half-open a few."""

Outcome = Literal["success", "failure", "quota", "neither"]
"""What an attempt says about the provider. "quota" is that the money or the day's allowance is spent, for which no
further evidence is needed; "neither" is that it was cancelled, or that the request itself was at fault."""


class Transition(NamedTuple):
    """A change of state; `at` is in seconds on the clock of who reported it."""

    before: State
    after: State
    at: float


class Permit:
    """The leave to send something, given until the next transition; a probe is one of the few that half-open gives."""

    __slots__ = ("probe",)

    def __init__(self, *, probe: bool) -> None:
        self.probe = probe


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """When a circuit opens and closes; times are in seconds.

    Attributes:
        failure_ratio: It opens when so much of what ended within `window` failed, more than 0 and at most 1,
        min_calls: where that was at least so many,
        window: seconds.
        open_for: How long it stays open.
        half_open_calls: Then so many are let through at once, and when so many have succeeded it closes. One that
            fails opens it again.
        quota_open_for: How long it stays open after an exhausted quota.
    """

    failure_ratio: float
    min_calls: int
    window: float
    open_for: float
    half_open_calls: int
    quota_open_for: float


class Circuit:
    """A circuit breaker without a clock. Its methods may be called from any thread.

    An attempt counts in the state in which it began: what was under way when the circuit opened neither closes it nor
    uses up a probe when it ends. Only an exhausted quota counts whenever it is heard of.

    Args:
        rules: When it opens and closes.

    Attributes:
        state: The present one. An open circuit becomes half-open when the next call asks, not by itself.
    """

    def __init__(self, rules: CircuitRules) -> None:
        self.state: State = "closed"
        self._rules = rules
        self._window = Window(rules.window)
        self._permit: Permit | None = Permit(probe=False)
        self._until = 0.0
        self._probing = 0  # of all half-open times: one that hangs is still a load on the provider
        self._passed = 0
        # Reentrant, since the garbage collector finalizes coroutines in the middle of anything, and theirs may be an
        # attempt that gives its permit back.
        self._lock = RLock()

    def admit(self) -> Permit | None:
        """Return a permit, to be handed to `record` when the attempt is over; None where nothing may be sent."""
        permit = self._permit
        if permit is None or not permit.probe:
            return permit
        with self._lock:
            if permit is not self._permit or self._probing >= self._rules.half_open_calls:
                return None
            self._probing += 1
            return permit

    def advance(self, now: float) -> Transition | None:
        """Become half-open where it was open for long enough."""
        with self._lock:
            due = self.state == "open" and now >= self._until
            return self._become("half_open", now) if due else None

    def record(self, permit: Permit, outcome: Outcome, now: float) -> Transition | None:
        """Take *permit* back, and note what became of the attempt that had it."""
        with self._lock:
            if permit.probe:
                self._probing -= 1
            if outcome == "quota":
                return self._open(now, self._rules.quota_open_for)
            if outcome == "neither" or permit is not self._permit:
                return None
            if permit.probe:
                return self._probed(outcome, now)
            window, rules = self._window, self._rules
            window.add(now, 1, outcome == "failure")
            # A quotient, since the product of ratio and calls may be rounded up: 0.28 * 25 is more than 7.
            if (
                window.weight
                and window.count >= rules.min_calls
                and window.weight / window.count >= rules.failure_ratio
            ):
                return self._open(now, rules.open_for)
            return None

    def retry_after(self, now: float) -> float:
        """Return the seconds until it lets a probe through; 0 where that depends on those that are under way."""
        return max(0.0, self._until - now) if self.state == "open" else 0.0

    def _probed(self, outcome: Outcome, now: float) -> Transition | None:
        if outcome == "failure":
            return self._open(now, self._rules.open_for)
        self._passed += 1
        return self._become("closed", now) if self._passed >= self._rules.half_open_calls else None

    def _open(self, now: float, seconds: float) -> Transition | None:
        if self.state == "open":
            self._until = max(self._until, now + seconds)
            return None
        self._until = now + seconds
        return self._become("open", now)

    def _become(self, state: State, now: float) -> Transition:
        transition = Transition(self.state, state, now)
        self.state = state
        self._permit = None if state == "open" else Permit(probe=state == "half_open")
        self._window = Window(self._rules.window)
        self._passed = 0
        return transition
