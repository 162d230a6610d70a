"""When to leave a provider alone, and when to see whether it is well again: the states of a circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass
from threading import RLock
from typing import Literal, NamedTuple

from overcoat.arithmetic.window import Slices, Window

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
    """The leave to send something, given until the next transition; a probe is one of the few that half-open gives.

    `era` is how many transitions there had been.
    """

    __slots__ = ("era", "probe")

    def __init__(self, era: int, *, probe: bool) -> None:
        self.era = era
        self.probe = probe


class CircuitState(NamedTuple):
    """A circuit written down, but for its probes under way."""

    state: State
    era: int
    ended: Slices
    until: float
    passed: int


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
        probing: How many probes are under way.
    """

    def __init__(self, rules: CircuitRules) -> None:
        self.state: State = "closed"
        self._rules = rules
        self._window = Window(rules.window)
        self._era = 0
        self._permit: Permit | None = Permit(0, probe=False)
        self._until = 0.0
        self.probing = 0  # of all half-open times: one that hangs is still a load on the provider
        self._passed = 0
        # Reentrant, since the garbage collector finalizes coroutines in the middle of anything, and theirs may be an
        # attempt that gives its permit back.
        self._lock = RLock()

    def dump(self) -> CircuitState:
        """Return what `load` makes an equal circuit of."""
        return CircuitState(self.state, self._era, self._window.dump(), self._until, self._passed)

    @classmethod
    def load(cls, rules: CircuitRules, state: CircuitState, probing: int) -> Circuit:
        """Return a circuit by *rules* with what was written down, and so many probes under way."""
        circuit = cls(rules)
        circuit.state, circuit._era, ended, circuit._until, circuit._passed = state
        circuit._window = Window.load(rules.window, ended)
        circuit._permit = circuit._permit_now()
        circuit.probing = probing
        return circuit

    def follow(self, rules: CircuitRules) -> None:
        """Go by other *rules* from now on; what was counted counts, and what is open stays so as long as it was to."""
        with self._lock:
            self._rules = rules
            self._window.stretch(rules.window)

    def admit(self) -> Permit | None:
        """Return a permit, to be handed to `record` when the attempt is over; None where nothing may be sent."""
        permit = self._permit
        if permit is None or not permit.probe:
            return permit
        with self._lock:
            if permit is not self._permit or self.probing >= self._rules.half_open_calls:
                return None
            self.probing += 1
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
                self.probing -= 1
            return self.judge(permit, outcome, now)

    def judge(self, permit: Permit, outcome: Outcome, now: float) -> Transition | None:
        """Note what became of an attempt whose *permit* was taken back already; from one thread at a time."""
        if outcome == "quota":
            return self._open(now, self._rules.quota_open_for)
        if outcome == "neither" or permit.era != self._era:
            return None
        if permit.probe:
            return self._probed(outcome, now)
        window, rules = self._window, self._rules
        window.add(now, 1, outcome == "failure")
        # A quotient, since the product of ratio and calls may be rounded up: 0.28 * 25 is more than 7.
        if window.weight and window.count >= rules.min_calls and window.weight / window.count >= rules.failure_ratio:
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
        self._era += 1
        self._permit = self._permit_now()
        self._window = Window(self._rules.window)
        self._passed = 0
        return transition

    def _permit_now(self) -> Permit | None:
        return None if self.state == "open" else Permit(self._era, probe=self.state == "half_open")
