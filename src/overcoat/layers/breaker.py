"""`Breaker`: leaves a provider alone that has failed too often, and lets a few calls see whether it is well again."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast, get_args

from overcoat.arithmetic.circuit import Circuit, CircuitRules, Outcome, Permit, Transition
from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.classification import Kind
from overcoat.errors import CircuitOpen, StoreUnavailable
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.record import Call, Turn
from overcoat.shared import Per, check_store, circuits, remote_key, renew, scope_of, shared

if TYPE_CHECKING:
    from overcoat.stores.remote_circuit import RemoteCircuit, RemotePermit

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

    With a *store*, all processes share it. A store that cannot be reached costs a call a quarter of a second at most,
    and most calls nothing: each process then has a circuit of its own, until it is back.

    Attributes:
        failure_ratio: The circuit opens when so much of what ended within `window` failed; more than 0, at most 1.
        min_calls: But not before so many have ended within it.
        window: Seconds, or text such as "60s".
        open_for: How long it then stays open.
        half_open_calls: After that so many calls at once are let through as probes. It closes when so many have
            succeeded, and opens again when one fails.
        quota_open_for: How long it stays open after an exhausted quota, which no retry and no minute mends.
        per: Whether each "model" has a circuit, or all models of a "provider" have one.
        name: All stacks of a process with the same name share a circuit, which goes by the settings that were stacked
            last; None shares it by equal settings.
        store: A Redis server, such as "redis://host:6379/0", where all processes with the same name, or the same
            settings, share the circuit; None keeps it in this process.
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
    name: str | None = None
    store: str | None = field(default=None, repr=False)  # it may have a password in it

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        ratio = cast("object", self.failure_ratio)  # callers are not all typed
        if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 < ratio <= 1:
            raise ValueError(f"Breaker(failure_ratio={ratio!r}): expected a number above 0, and at most 1")
        check_count(self.min_calls, "Breaker.min_calls")
        check_count(self.half_open_calls, "Breaker.half_open_calls")
        if self.per not in get_args(Per):
            raise ValueError(f'Breaker(per={self.per!r}): expected "model" or "provider"')
        check_store(self.store, "Breaker")
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
        circuit = shared(rules, scope, lambda: Circuit(rules), self.name)
        renew(circuit.follow, rules)
        label = "/".join((provider, *model))
        circuits.add(label)
        if (url := self.store) is None:
            return _Breaking(circuit, label)
        from overcoat.stores.remote_circuit import RemoteCircuit  # noqa: PLC0415 - redis, where it is asked for

        key = remote_key("breaker", self.name or rules, scope)
        remote = shared(rules, (scope, url), lambda: RemoteCircuit(url, key, rules), self.name)
        renew(remote.follow, rules)
        return _BreakingTogether(circuit, label, remote)


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
                self._note(call, transition, now, circuit.retry_after(now))
        return reply

    def _knock(self, call: Call, now: float) -> Permit:
        if (transition := self.circuit.advance(now)) is not None:
            self._note(call, transition, now, 0.0)
        permit = self.circuit.admit()
        if permit is None:
            raise CircuitOpen(self._key, self.circuit.retry_after(now))
        return permit

    def _note(self, call: Call, transition: Transition, now: float, retry_after: float) -> None:
        """Make a transition known; there is one note of each, by the call that caused it."""
        call.turns.append(Turn(self._key, transition.after, now))
        opened = transition.after == "open"
        level = logging.WARNING if opened else logging.INFO
        details = f", for {retry_after:g} s" if opened else ""
        logger.log(level, "the circuit of %r is now %s%s", self._key, transition.after, details)


class _BreakingTogether(_Breaking):
    """The same by a circuit that processes share, and by this one's own where that one cannot be reached."""

    def __init__(self, circuit: Circuit, key: str, remote: RemoteCircuit) -> None:
        super().__init__(circuit, key)
        self._remote = remote

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        call = request.call
        try:
            given, transition, retry_after = await self._remote.admit()
        except StoreUnavailable:
            call.degraded += ("breaker",)
            given = None
        else:
            if transition is not None:
                self._note(call, transition, call.clock(), retry_after)
            if given is None:
                raise CircuitOpen(self._key, retry_after)
        if given is None:
            return await super().__call__(
                request, inner
            )  # not in the except block, for which its errors would be blamed
        try:
            reply = await inner(request)
        except Exception as error:
            await self._record(call, given, OUTCOMES.get(call.classify(error).kind, "neither"))
            raise
        except BaseException:
            self._remote.take_back(given)
            raise
        await self._record(call, given, "success")
        return reply

    async def _record(self, call: Call, given: RemotePermit, outcome: Outcome) -> None:
        if outcome == "neither":
            self._remote.take_back(given)
            return
        try:
            transition, retry_after = await self._remote.record(given, outcome)
        except StoreUnavailable:
            return  # the call that asks next will say so
        if transition is not None:
            self._note(call, transition, call.clock(), retry_after)
