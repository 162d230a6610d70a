"""What happened: one `Call` record per call, of which spans, metrics and the caller's event are projections."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeVar

from overcoat.accounting import NOTHING, ZERO, Cost, Usage
from overcoat.arithmetic.dollars import EXACT
from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.classification import Failure, classify

Outcome = Literal["ok", "error", "refused", "cancelled"]
CacheResult = Literal["hit", "stale", "miss", "coalesced", "bypass", "refused"]
BypassReason = Literal["asked", "no_namespace", "sampled", "uncacheable"]
MissReason = Literal["refresh", "took_over", "store_failed", "foreign", "version", "altered", "too_large", "wrong_key"]
RefusedReason = Literal["empty", "truncated", "filtered", "no_json", "rejected", "unstorable"]
StaleReason = Literal["while_revalidate", "if_error"]
CacheReason = BypassReason | MissReason | RefusedReason | StaleReason
Role = Literal["primary", "reask", "fallback", "hedge"]
CircuitState = Literal["closed", "open", "half_open"]
ReloadResult = Literal["applied", "rejected"]
WaitKind = Literal["backoff", "rate_limit", "budget"]
WaitSource = Literal["policy", "server", "limiter", "budget"]
BudgetResult = Literal["reserved", "settled", "estimated", "overrun", "released", "refused", "uncounted"]
BudgetReason = Literal["limit", "unknown_price", "no_bound", "no_tag", "store_failed"]
SpanIds = tuple[int, int]  # trace id and span id, as OpenTelemetry's SpanContext has them

T = TypeVar("T")


def _empty(_: type[T]) -> list[T]:
    # As a default factory, `list[T]` takes four times as long.
    return []


@dataclass(slots=True, eq=False)
class Wait:
    """Time spent on purpose before an attempt: how long was `asked` for, by whom (`source`), `before` which attempt.

    `asked` is in seconds; None in a queue, where nobody can say beforehand.
    """

    kind: WaitKind
    source: WaitSource
    asked: float | None
    before: int
    started: float
    ended: float | None = None

    @property
    def duration(self) -> float:
        """Seconds; 0 while it lasts."""
        return 0.0 if self.ended is None else self.ended - self.started


@dataclass(slots=True, eq=False)
class Attempt:
    """One request to the provider. Times are seconds on the event loop's clock; `Call.at` turns them into Unix time.

    `upper_bound` says that `cost` may be too high: the client did not say how many of the tokens were cached. `anomaly`
    is what was wrong with the counts that the provider reported, such as "negative"; the wrong ones are None in
    `usage`. `service_tier` is the provider's name for how it was served, such as "flex", where that has a price of its
    own. `quota` is what the answer's headers said is left of the provider's limits; those of an error are in `failure`.
    """

    number: int
    model: str | None
    started: float
    waited: float = 0.0
    ended: float | None = None
    failure: Failure | None = None
    error_type: str | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    price_source: str | None = None
    upper_bound: bool = False
    anomaly: str | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    service_tier: str | None = None
    quota: ProviderQuota | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended with an answer."""
        return self.ended is not None and self.error_type is None

    @property
    def charged(self) -> bool:
        """Whether the provider is taken to charge for it: it answered, or it failed but reported tokens."""
        return self.usage is not None or self.ok

    @property
    def duration(self) -> float | None:
        """Seconds, without queueing and backoff; None while it runs."""
        return None if self.ended is None else self.ended - self.started


@dataclass(slots=True, eq=False)
class Inference:
    """One answer asked of a model, with its retries: what OpenTelemetry's conventions call a `chat` operation.

    `role` is why there is it: the first is "primary", others are a "reask", a "fallback" or a "hedge". `gave_up` is why
    `Retry` made no further attempt, where it made none.
    """

    model: str | None
    started: float
    role: Role = "primary"
    attempts: list[Attempt] = field(default_factory=lambda: _empty(Attempt))
    waits: list[Wait] = field(default_factory=lambda: _empty(Wait))
    ended: float | None = None
    failure: Failure | None = None
    error_type: str | None = None
    gave_up: str | None = None
    span: SpanIds | None = None

    @property
    def usage(self) -> Usage | None:
        """Tokens of all charged attempts together; None where no attempt reported any."""
        return total_usage(self.attempts)

    @property
    def cost(self) -> Decimal | None:
        """Dollars of all charged attempts together."""
        return total_cost(self.attempts)


class Entry(NamedTuple):
    """Where the answer to a request lies, and who can take it away from there; for `overcoat.invalidate`."""

    evict: Callable[[str, str], Awaitable[bool]]
    namespace: str
    key: str


@dataclass(slots=True, eq=False)
class Lookup:
    """What the cache did. `usage` and `cost` are those of the stored or shared answer, `span` is where it was made.

    `result` is "hit", "stale" (a stored answer that is older than it should be) or "coalesced" (another call's answer,
    made at the same time) where the answer came from here. Else it was made for this call: "miss", or "refused" where
    it was not kept afterwards, or "bypass" where nothing was looked up. `reason` says why, where there are several.
    """

    result: CacheResult
    started: float
    ended: float
    reason: CacheReason | None = None
    age: float | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    span: SpanIds | None = None
    entry: Entry | None = field(default=None, repr=False)

    @property
    def served(self) -> bool:
        """Whether the answer came from here instead of from an inference of this call."""
        return self.result in ("hit", "stale", "coalesced")


class PolicyStamp(NamedTuple):
    """Which policy a call was made by: its name, and the digest of all that it says."""

    name: str
    digest: str


@dataclass(slots=True, eq=False)
class Turn:
    """A breaker's circuit that this call turned to another `state`, at a moment on the event loop's clock."""

    circuit: str
    state: CircuitState
    at: float


@dataclass(slots=True, eq=False)
class Reservation:
    """What an inference took from one limit of a budget: what it might use was `reserved`, what it did is `settled`.

    Amounts are dollars (`Decimal`) where `unit` is "usd", and whole tokens where it is "tokens".

    Attributes:
        budget: The limit's name.
        window: As it is configured, such as "calendar day".
        unit: What is limited.
        scope: Whose limit it is, such as "global" or "tenant:acme".
        limit: How much there is in a window.
        reserved: The upper bound; None where there is none.
        result: "reserved" while it is under way, and for good where the store could not settle it. "settled" is at what
            was used; "estimated" at the upper bound, at least in part, since nobody said what was used; "overrun" at
            more than that; "released" where nothing was sent. "refused" was not sent, "uncounted" was all the same.
        reason: Why it was refused, uncounted or not settled, or passed without a bound; "limit" also where a budget
            that only warns would have refused it.
        settled: What was used.
        used: What all have used of the limit by then, in the window of then.
        until: When `used` says nothing any more at the latest, in Unix time; None is never.
        alerts: Which shares of the limit it made known, in percent.
    """

    budget: str
    window: str
    unit: Literal["usd", "tokens"]
    scope: str
    limit: Decimal | int
    reserved: Decimal | int | None = None
    result: BudgetResult = "reserved"
    reason: BudgetReason | None = None
    settled: Decimal | int | None = None
    used: Decimal | int | None = None
    until: float | None = None
    alerts: tuple[int, ...] = ()

    @property
    def overrun(self) -> Decimal | int:
        """By how much the upper bound was too low."""
        if self.result != "overrun" or self.settled is None or self.reserved is None:
            return 0
        return self.settled - self.reserved


@dataclass(slots=True, eq=False)
class Call:
    """One call through a stack, complete once `outcome` is set.

    `started` and `ended` are seconds on the event loop's `clock`, as all times below it are; `at` gives Unix time.
    `delivered` is the usage of the answer that the caller got, which is also what its event says. `usage` is what was
    charged for this call: more where attempts were wasted, nothing where the cache answered. `span` is the call's span,
    where it has one. `reloads` is what became of changes to its policy's file since the call before it. `degraded` are
    the layers ("rate_limit", "breaker", "retry") that went by this process's own state, since the store where it is
    shared could not be reached. `waits` are those before inferences; those before attempts are the inferences'.

    `repeat` sends a request through the whole stack again, as a call of its own; None where there is no stack. `origin`
    is the span of the call in whose wake this one was made, in the background; None where an application made it.
    """

    client: str
    model: str | None
    json_mode: bool
    tags: Mapping[str, str]
    started: float
    epoch: float
    policy: PolicyStamp | None = None
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    reloads: tuple[ReloadResult, ...] = ()
    inferences: list[Inference] = field(default_factory=lambda: _empty(Inference))
    turns: list[Turn] = field(default_factory=lambda: _empty(Turn))
    reservations: list[Reservation] = field(default_factory=lambda: _empty(Reservation))
    waits: list[Wait] = field(default_factory=lambda: _empty(Wait))
    cache: Lookup | None = None
    degraded: tuple[str, ...] = ()
    delivered: Usage | None = None
    outcome: Outcome | None = None
    failure: Failure | None = None
    error_type: str | None = None
    ended: float | None = None
    cost: Cost = NOTHING
    span: SpanIds | None = None
    origin: SpanIds | None = None
    repeat: Callable[[Any], Awaitable[Any]] | None = field(default=None, repr=False)
    _failures: dict[int, tuple[BaseException, Failure]] | None = field(default=None, repr=False)

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Every request that was sent to a provider, in the order in which they began."""
        if len(self.inferences) == 1:
            return self.inferences[0].attempts
        return sorted((a for i in self.inferences for a in i.attempts), key=lambda attempt: attempt.started)

    @property
    def usage(self) -> Usage | None:
        """Tokens that providers charged for this call, over all its attempts; None where none were reported."""
        return total_usage(self.attempts)

    @property
    def duration(self) -> float | None:
        """Seconds from the caller's point of view; None while it runs."""
        return None if self.ended is None else self.ended - self.started

    def at(self, moment: float) -> float:
        """Unix time, in seconds, of a moment on the event loop's clock."""
        return moment + self.epoch

    def classify(self, error: BaseException, ambient: BaseException | None = None) -> Failure:
        """Classify *error* once, however many layers it passes; see `overcoat.errors.classify` for *ambient*."""
        if self._failures is None:
            self._failures = {}
        known = self._failures.get(id(error))
        if known is None:
            known = self._failures[id(error)] = (error, classify(error, ambient=ambient))
        return known[1]

    def fork(self) -> Call:
        """Return an empty record with the same caller, for work that may outlive this call or be shared with others."""
        return Call(
            self.client, self.model, self.json_mode, self.tags, self.started, self.epoch, self.policy, self.clock
        )

    def successor(self) -> Call:
        """Return the empty record of another call for the same caller, which begins now, in the wake of this one."""
        call = self.fork()
        call.started, call.origin, call.repeat = self.clock(), self.span, self.repeat
        return call

    def adopt(self, other: Call) -> None:
        """Take over what was done for this call under the record *other*, a fork of it."""
        self.inferences.extend(other.inferences)
        if len(self.inferences) > len(other.inferences):
            self.inferences.sort(key=lambda inference: inference.started)  # those that raced did not end in this order
        self.turns.extend(other.turns)
        self.degraded += other.degraded
        self.reservations.extend(other.reservations)
        self.waits.extend(other.waits)

    def settle(self, answered_by: Attempt | None) -> None:
        """Set `cost` and `delivered` when nothing can be added any more; the answer is that of *answered_by*."""
        self._failures = None  # an error refers to frames that refer to this record
        attempts = self.attempts
        if answered_by is not None and len(attempts) == 1 and attempts[0] is answered_by:  # as it almost always is
            self.cost = Cost(answered_by.cost, ZERO, ZERO)
            self.delivered = answered_by.usage
            return
        saved = self.cache.cost if self.outcome == "ok" and self.cache is not None and self.cache.served else ZERO
        wasted = total_cost([attempt for attempt in attempts if attempt is not answered_by])
        self.cost = Cost(total_cost(attempts), saved, wasted)
        if self.outcome == "ok":
            self.delivered = answered_by.usage if answered_by is not None else self.cache.usage if self.cache else None


def total_usage(attempts: Sequence[Attempt]) -> Usage | None:
    """Sum the usage that *attempts* reported; None where none did."""
    total: Usage | None = None
    for attempt in attempts:
        if attempt.usage is not None:
            total = attempt.usage if total is None else total + attempt.usage
    return total


def total_cost(attempts: Sequence[Attempt]) -> Decimal | None:
    """Sum the dollars of the charged ones among *attempts*; None where the price of any is unknown."""
    total = ZERO
    for attempt in attempts:
        if attempt.charged:
            if attempt.cost is None:
                return None
            total = EXACT.add(total, attempt.cost)
    return total
