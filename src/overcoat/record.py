"""What happened: one `Call` record per call, of which spans, metrics and the caller's event are projections."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal, NamedTuple, TypeVar

from overcoat.arithmetic.dollars import EXACT
from overcoat.classification import Failure, classify

Outcome = Literal["ok", "error", "refused", "cancelled"]
CacheResult = Literal["hit", "miss", "coalesced", "bypass", "refused"]
Role = Literal["primary", "reask", "fallback", "hedge"]
CircuitState = Literal["closed", "open", "half_open"]
WaitKind = Literal["backoff", "rate_limit"]
WaitSource = Literal["policy", "server", "limiter"]
SpanIds = tuple[int, int]  # trace id and span id, as OpenTelemetry's SpanContext has them

ZERO = Decimal(0)


T = TypeVar("T")


def _empty(_: type[T]) -> list[T]:
    # As a default factory, `list[T]` takes four times as long.
    return []


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more attempts, in OpenTelemetry's terms; None is "the client did not say", never 0.

    `input_tokens` includes the cached ones and `output_tokens` the reasoning ones (semantic conventions 1.41,
    `gen_ai.usage.*`), so the last three are parts of the first two and must not be added to them.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None

    def __add__(self, other: Usage) -> Usage:
        """Sum field by field; a field that neither side knows stays None."""
        return Usage(
            _plus(self.input_tokens, other.input_tokens),
            _plus(self.output_tokens, other.output_tokens),
            _plus(self.total_tokens, other.total_tokens),
            _plus(self.cache_read_input_tokens, other.cache_read_input_tokens),
            _plus(self.cache_creation_input_tokens, other.cache_creation_input_tokens),
            _plus(self.reasoning_output_tokens, other.reasoning_output_tokens),
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars of one call; None is "the price is unknown", never 0.

    `billed` is all that the provider charges for the call, and `wasted` the part of it that bought no answer (failed,
    refused or abandoned attempts). `saved` is what a stored or shared answer would have cost.
    """

    billed: Decimal | None
    saved: Decimal | None
    wasted: Decimal | None


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
    """One request to the provider. Times are seconds on the event loop's clock; `Call.at` turns them into Unix time."""

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
    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None

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


@dataclass(slots=True, eq=False)
class Lookup:
    """What the cache did. `usage` and `cost` are those of the stored or shared answer, `span` is where it was made."""

    result: CacheResult
    started: float
    ended: float
    reason: str | None = None
    age: float | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    span: SpanIds | None = None

    @property
    def served(self) -> bool:
        """Whether the answer came from here instead of from an inference of this call."""
        return self.result in ("hit", "coalesced")


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
class Call:
    """One call through a stack, complete once `outcome` is set.

    `started` and `ended` are seconds on the event loop's `clock`, as all times below it are; `at` gives Unix time.
    `delivered` is the usage of the answer that the caller got, which is also what its event says. `usage` is what was
    charged for this call: more where attempts were wasted, nothing where the cache answered. `span` is the call's span,
    where it has one.
    """

    client: str
    model: str | None
    json_mode: bool
    tags: Mapping[str, str]
    started: float
    epoch: float
    policy: PolicyStamp | None = None
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    inferences: list[Inference] = field(default_factory=lambda: _empty(Inference))
    turns: list[Turn] = field(default_factory=lambda: _empty(Turn))
    cache: Lookup | None = None
    delivered: Usage | None = None
    outcome: Outcome | None = None
    failure: Failure | None = None
    error_type: str | None = None
    ended: float | None = None
    cost: Cost = Cost(ZERO, ZERO, ZERO)
    span: SpanIds | None = None
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

    def adopt(self, other: Call) -> None:
        """Take over what was done for this call under the record *other*, a fork of it."""
        self.inferences.extend(other.inferences)
        self.turns.extend(other.turns)

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


_NO_TAGS: Mapping[str, str] = {}
_tags: ContextVar[Mapping[str, str]] = ContextVar("overcoat.tags", default=_NO_TAGS)
_captures: ContextVar[tuple[list[Call], ...]] = ContextVar("overcoat.captures", default=())

current_tags = _tags.get
current_captures = _captures.get


@contextmanager
def tags(**values: str) -> Generator[None]:
    """Attribute every call made inside to *values*, such as `tenant="acme"`; inner tags add to and replace outer ones.

    They follow the context into tasks started inside. They are never put into OpenTelemetry's baggage, which
    propagators send to the provider.

    Raises:
        TypeError: A value is not a string.
    """
    for name, value in values.items():
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
            raise TypeError(f"tags({name}={value!r}): a tag's value must be a str, not {type(value).__name__}")
    token = _tags.set({**_tags.get(), **values})
    try:
        yield
    finally:
        _tags.reset(token)


@contextmanager
def capture() -> Generator[list[Call]]:
    """Collect the record of every call that ends inside, those of tasks started inside included, as they end."""
    calls: list[Call] = []
    token = _captures.set((*_captures.get(), calls))
    try:
        yield calls
    finally:
        _captures.reset(token)


def _plus(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right
