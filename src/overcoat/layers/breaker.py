"""`Breaker`: leaves a provider alone that has failed too often, and lets a few calls see whether it is well again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, cast, get_args

from overcoat.arithmetic.circuit import Circuit, CircuitRules, Outcome, Permit, Transition
from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.classification import Kind
from overcoat.errors import CircuitOpen
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.record import Call, Turn
from overcoat.shared import Per, scope_of, shared

logger = logging.getLogger("overcoat")

# All others say nothing about the provider's health: a rate limit is for RateLimit, a bad request is the caller's.
OUTCOMES: dict[Kind, Outcome] = {
    Kind.OVERLOADED: "failure",
    Kind.SERVER_ERROR: "failure",
    Kind.TIMEOUT: "failure",
    Kind.CONNECTION: "failure",
    Kind.QUOTA_EXHAUSTED: "quota",
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Breaker(PlacedLayer):
    """Refuse calls, with `CircuitOpen`, to a provider that has failed too often of late.

    Failures are attempts that end as "overloaded", "server_error", "timeout" or "connection". Those that the provider
    answered for another reason ("rate_limited", "bad_request", ...) and those that were cancelled are neither failures
    nor successes. An exhausted quota opens the circuit at once. All stacks of a process with the same settings share
    it. A `Timeout` inside bounds how long a probe can keep others from being let through.

    Attributes:
        failure_ratio: The circuit opens when so much of what ended within `window` failed; more than 0, at most 1.
        min_calls: But not before so many have ended within it.
        window: Seconds, or text such as "60s".
        open_for: How long it then stays open.
        half_open_calls: After that so many calls at once are let through as probes. It closes when so many have
            succeeded, and opens again when one fails.
        quota_open_for: How long it stays open after an exhausted quota, which no retry and no minute mends.
        per: Whether each "model" has a circuit, or all models of a "provider" have one.
    """

    place: ClassVar[Place] = Place.BREAKER
    because: ClassVar[str] = "every attempt must count, and a call that it refuses must not wait for a slot first"
    twice: ClassVar[str] = "the one would refuse the other's probes"

    failure_ratio: float = 0.5
    min_calls: int = 10
    window: Duration = 60.0
    open_for: Duration = 15.0
    half_open_calls: int = 1
    quota_open_for: Duration = 600.0
    per: Per = "model"

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        ratio = cast("object", self.failure_ratio)  # callers are not all typed
        if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 < ratio <= 1:
            raise ValueError(f"Breaker(failure_ratio={ratio!r}): expected a number above 0, and at most 1")
        check_count(self.min_calls, "Breaker.min_calls")
        check_count(self.half_open_calls, "Breaker.half_open_calls")
        if self.per not in get_args(Per):
            raise ValueError(f'Breaker(per={self.per!r}): expected "model" or "provider"')
        self.rules()

    def rules(self) -> CircuitRules:
        """Return the settings in seconds, by which circuits are shared: "60s" and 60 are the same."""
        return CircuitRules(
            failure_ratio=self.failure_ratio,
            min_calls=self.min_calls,
            window=seconds(self.window, "Breaker(window=...)"),
            open_for=seconds(self.open_for, "Breaker(open_for=...)"),
            half_open_calls=self.half_open_calls,
            quota_open_for=seconds(self.quota_open_for, "Breaker(quota_open_for=...)"),
        )

    def bind(self, client: Client) -> _Breaking:
        """Return the function that refuses calls while the circuit of *client* is open."""
        rules = self.rules()
        scope = scope_of(client, self.per)
        provider, _endpoint, *model = scope  # the endpoint may have a password in it
        return _Breaking(shared(rules, scope, lambda: Circuit(rules)), "/".join((provider, *model)))


class _Breaking:
    def __init__(self, circuit: Circuit, key: str) -> None:
        self.circuit = circuit
        self._key = key

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        call, circuit, clock = request.call, self.circuit, request.call.clock
        permit = circuit.admit() or self._knock(call, clock())
        outcome: Outcome = "neither"
        try:
            reply = await inner(request)
            outcome = "success"
        except Exception as error:
            outcome = OUTCOMES.get(call.classify(error).kind, "neither")
            raise
        finally:
            if (transition := circuit.record(permit, outcome, now := clock())) is not None:
                self._note(call, transition, now)
        return reply

    def _knock(self, call: Call, now: float) -> Permit:
        if (transition := self.circuit.advance(now)) is not None:
            self._note(call, transition, now)
        permit = self.circuit.admit()
        if permit is None:
            raise CircuitOpen(self._key, self.circuit.retry_after(now))
        return permit

    def _note(self, call: Call, transition: Transition, now: float) -> None:
        """Make a transition known; there is one note of each, by the call that caused it."""
        call.turns.append(Turn(self._key, transition.after, now))
        opened = transition.after == "open"
        level = logging.WARNING if opened else logging.INFO
        details = f", for {self.circuit.retry_after(now):g} s" if opened else ""
        logger.log(level, "the circuit of %r is now %s%s", self._key, transition.after, details)
