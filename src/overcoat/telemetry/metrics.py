"""The record as metrics: histograms of what takes time and tokens, and counters that cost a dict update each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import get_args
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from overcoat._version import __version__
from overcoat.accounting import ZERO
from overcoat.arithmetic.dollars import EXACT
from overcoat.caching.failures import StoreOperation, store_failures
from overcoat.classification import Kind
from overcoat.pricing.usage import ANOMALIES
from overcoat.record import (
    BypassReason,
    CacheResult,
    Call,
    CircuitState,
    Inference,
    MissReason,
    Outcome,
    RefusedReason,
    ReloadResult,
    Role,
    StaleReason,
    Wait,
    WaitSource,
)
from overcoat.shared import circuits
from overcoat.telemetry import names
from overcoat.telemetry.budget_metrics import BudgetMetrics
from overcoat.telemetry.series import Sums, Tag, create_counters

MOST_VALUES = 100
"""Of each tag that is a label; the calls of all other values are counted together, as "other"."""

_CACHE_REASONS: dict[CacheResult, tuple[str | None, ...]] = {
    "bypass": get_args(BypassReason),
    "miss": (None, *get_args(MissReason)),
    "refused": get_args(RefusedReason),
    "stale": get_args(StaleReason),
}
"""Of results that have any."""
_ATTEMPTS_END = tuple(kind.value for kind in Kind if kind not in (Kind.REFUSED, Kind.UNKNOWN))
"""Besides these, by the class of an exception that nobody knows; what is refused is no attempt."""


class Metrics:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("overcoat", __version__, names.SCHEMA_URL)
        self.duration = meter.create_histogram(
            names.OPERATION_DURATION,
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=names.DURATION_BOUNDS,
        )
        self.attempt_duration = meter.create_histogram(
            names.METRIC_ATTEMPT_DURATION,
            unit="s",
            description="Duration of requests to providers, without waits and retries.",
            explicit_bucket_boundaries_advisory=names.DURATION_BOUNDS,
        )
        self.tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=names.TOKEN_BOUNDS,
        )
        self._lock = Lock()  # sums are read and written back, and an application may have several loops in threads
        self._values: dict[str, set[str]] = defaultdict(set)
        self._calls = Sums(names.MODEL, names.OUTCOME)
        self._attempts = Sums(names.MODEL, names.ERROR_TYPE)
        self._attempt_time = Sums(names.MODEL, names.ERROR_TYPE)
        self._inferences = Sums(names.MODEL, names.ROLE)
        self._tokens = Sums(names.MODEL, names.TOKEN_KIND)
        self._give_ups = Sums(names.MODEL, names.GAVE_UP)
        self._reloads = Sums(names.POLICY_RELOAD)
        self._turns = Sums(names.CIRCUIT, names.CIRCUIT_STATE)
        self._waited = Sums(names.MODEL, names.WAIT_SOURCE)
        self._cache = Sums(names.CACHE_RESULT, names.CACHE_REASON)
        failures = Sums(names.STORE_OPERATION)
        failures.of = store_failures
        self._billed, self._saved, self._wasted = Sums(names.MODEL), Sums(names.MODEL), Sums(names.MODEL)
        self._unpriced = Sums(names.MODEL)
        self._anomalies = Sums(names.MODEL, names.USAGE_ANOMALY)
        self._degraded = Sums(names.LAYER)
        create_counters(
            meter,
            (
                (names.METRIC_CALLS, "{call}", self._calls, "Calls, by how they ended."),
                (names.METRIC_ATTEMPTS, "{attempt}", self._attempts, "Requests sent to providers, by how they ended."),
                (names.METRIC_ATTEMPT_TIME, "s", self._attempt_time, "What they took, without waits and retries."),
                (names.METRIC_INFERENCES, "{inference}", self._inferences, "Inferences, by their role."),
                (names.METRIC_TOKENS, "{token}", self._tokens, "Tokens that providers charge for."),
                (names.METRIC_GIVE_UPS, "{inference}", self._give_ups, "Inferences not retried, by the reason."),
                (names.METRIC_RELOADS, "{reload}", self._reloads, "Changes of policy files, by whether they hold."),
                (names.METRIC_WAITED, "s", self._waited, "Time waited before attempts, by whose idea it was."),
                (names.METRIC_CACHE, "{request}", self._cache, "What the cache did, and why."),
                (names.METRIC_STORE_FAILURES, "{failure}", failures, "What caches' stores could not do."),
                (
                    names.METRIC_DEGRADED,
                    "{call}",
                    self._degraded,
                    "Calls whose shared store was out of reach, by layer.",
                ),
                (names.METRIC_COST_BILLED, "USD", self._billed, "What providers charge."),
                (names.METRIC_COST_SAVED, "USD", self._saved, "What answers from the cache would have cost."),
                (names.METRIC_COST_WASTED, "USD", self._wasted, "The part of what is billed that bought no answer."),
                (names.METRIC_UNPRICED, "{call}", self._unpriced, "Calls whose cost is unknown."),
                (names.METRIC_ANOMALIES, "{attempt}", self._anomalies, "Attempts whose token counts made no sense."),
            ),
        )
        meter.create_observable_counter(
            names.METRIC_TURNS,
            [self._observe_turns],
            unit="{turn}",
            description="Turns of breakers' circuits, by the new state.",
        )
        self._budgets = BudgetMetrics(meter)

    def expect(self, model: str | None) -> None:
        """Begin at 0 what can be counted of *model*: the first event of a series that was not there is no increase."""
        name = model or "unknown"
        with self._lock:
            if (name, "ok") in self._calls.of:
                return
            for outcome in get_args(Outcome):
                self._calls.of[name, outcome] += 0
            for error_type in (None, *_ATTEMPTS_END):
                self._attempts.of[name, error_type] += 0
                self._attempt_time.of[name, error_type] += 0.0
            for role in get_args(Role):
                self._inferences.of[name, role] += 0
            for kind in ("input", "output"):
                self._tokens.of[name, kind] += 0
            for source in get_args(WaitSource):
                self._waited.of[name, source] += 0
            for anomaly in ANOMALIES:
                self._anomalies.of[name, anomaly] += 0
            for dollars in (self._billed, self._saved, self._wasted):
                dollars.of[name,] += ZERO
            self._unpriced.of[name,] += 0
            for result in get_args(CacheResult):
                for reason in _CACHE_REASONS.get(result, (None,)):
                    self._cache.of[result, reason] += 0
            for result in get_args(ReloadResult):
                self._reloads.of[result,] += 0
            for operation in get_args(StoreOperation):
                store_failures[operation,] += 0

    def count(self, call: Call, tags: Sequence[str] = ()) -> None:
        """Add a finished *call* to the counters; the *tags* that are named become labels of calls, tokens and costs."""
        with self._lock:
            self._count(call, self._tagged(call, tags) if tags else ())

    def _count(self, call: Call, tags: tuple[Tag, ...]) -> None:
        model = call.model or "unknown"
        self._calls.of[model, call.outcome, *tags] += 1
        for inference in call.inferences:
            self._count_inference(inference, inference.model or "unknown", tags)
        for result in call.reloads:
            self._reloads.of[result,] += 1
        for layer in call.degraded:
            self._degraded.of[layer,] += 1
        if call.waits:
            self._count_waits(model, call.waits)
        if call.reservations:
            self._budgets.count(call.reservations)
        for turn in call.turns:
            self._turns.of[turn.circuit, turn.state] += 1
        if call.cache is not None:
            self._cache.of[call.cache.result, call.cache.reason] += 1
        billed, saved, wasted = call.cost.billed, call.cost.saved, call.cost.wasted
        if billed is None or saved is None or wasted is None:
            self._unpriced.of[model, *tags] += 1
        if billed:
            self._billed.of[model, *tags] = EXACT.add(self._billed.of[model, *tags], billed)
        if saved:
            self._saved.of[model, *tags] = EXACT.add(self._saved.of[model, *tags], saved)
        if wasted:
            self._wasted.of[model, *tags] = EXACT.add(self._wasted.of[model, *tags], wasted)

    def _count_inference(self, inference: Inference, model: str, tags: tuple[Tag, ...]) -> None:
        self._inferences.of[model, inference.role] += 1
        for attempt in inference.attempts:
            ended = model, attempt.error_type
            self._attempts.of[ended] += 1
            self._attempt_time.of[ended] += attempt.duration or 0.0
            if (usage := attempt.usage) is not None:
                self._tokens.of[model, "input", *tags] += usage.input_tokens or 0
                self._tokens.of[model, "output", *tags] += usage.output_tokens or 0
            if attempt.anomaly is not None:
                self._anomalies.of[model, attempt.anomaly] += 1
        if inference.waits:
            self._count_waits(model, inference.waits)
        if inference.gave_up is not None:
            self._give_ups.of[model, inference.gave_up] += 1

    def _count_waits(self, model: str, waits: Sequence[Wait]) -> None:
        for wait in waits:
            self._waited.of[model, wait.source] += wait.duration

    def _tagged(self, call: Call, listed: Sequence[str]) -> tuple[Tag, ...]:
        pairs: list[Tag] = []
        for name in listed:
            value = call.tags.get(name)
            if value is None:
                continue
            known = self._values[name]
            if len(known) < MOST_VALUES:
                known.add(value)
            pairs.append((names.TAG + name, value if value in known else "other"))
        return tuple(pairs)

    def _observe_turns(self, options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            for circuit in list(circuits):
                for state in get_args(CircuitState):
                    self._turns.of[circuit, state] += 0
        return self._turns.observe(options)


_of: WeakKeyDictionary[MeterProvider, Metrics] = WeakKeyDictionary()
_global: list[Metrics] = []


def metrics_of(provider: MeterProvider | None) -> Metrics:
    """Return the instruments of *provider*, or of the global one, which may be set later; one set for each.

    Two sets of the same observable counters would be exported as two streams of one name.
    """
    if provider is None:
        if not _global:
            _global.append(Metrics(get_meter_provider()))
        return _global[0]
    known = _of.get(provider)
    if known is None:
        known = _of[provider] = Metrics(provider)
    return known
