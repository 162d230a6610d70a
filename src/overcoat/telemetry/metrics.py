"""The record as metrics: the conventions' two histograms, and counters of our own that cost a dict update each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider

from overcoat._version import __version__
from overcoat.record import Call
from overcoat.telemetry import names

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """The instruments of one meter provider.

    The counters are observable instruments over sums of our own: `Counter.add` costs 8 microseconds, a dict update 0.2.
    """

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("overcoat", __version__, names.SCHEMA_URL)
        self.duration = meter.create_histogram(
            names.OPERATION_DURATION,
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=names.DURATION_BOUNDS,
        )
        self.tokens = meter.create_histogram(
            names.TOKEN_USAGE,
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=names.TOKEN_BOUNDS,
        )
        self._calls: dict[Labels, int] = defaultdict(int)
        self._attempts: dict[Labels, int] = defaultdict(int)
        self._waited: dict[Labels, float] = defaultdict(float)
        self._cache: dict[Labels, int] = defaultdict(int)
        self._billed: dict[Labels, Decimal] = defaultdict(Decimal)
        self._saved: dict[Labels, Decimal] = defaultdict(Decimal)
        self._wasted: dict[Labels, Decimal] = defaultdict(Decimal)
        self._unpriced: dict[Labels, int] = defaultdict(int)
        for name, unit, sums, description in (
            (names.METRIC_CALLS, "{call}", self._calls, "Calls, by how they ended."),
            (names.METRIC_ATTEMPTS, "{attempt}", self._attempts, "Requests sent to providers, by how they ended."),
            (names.METRIC_WAITED, "s", self._waited, "Time waited before attempts, by whose idea it was."),
            (names.METRIC_CACHE, "{request}", self._cache, "What the cache did."),
            (names.METRIC_COST_BILLED, "USD", self._billed, "What providers charge."),
            (names.METRIC_COST_SAVED, "USD", self._saved, "What answers from the cache would have cost."),
            (names.METRIC_COST_WASTED, "USD", self._wasted, "The part of what is billed that bought no answer."),
            (names.METRIC_UNPRICED, "{call}", self._unpriced, "Calls whose cost is unknown."),
        ):
            meter.create_observable_counter(name, [_observe(sums)], unit=unit, description=description)

    def count(self, call: Call) -> None:
        """Add a finished *call* to the counters."""
        model = (names.MODEL, call.model or "unknown")
        self._calls[model, (names.OUTCOME, call.outcome or "unknown")] += 1
        for inference in call.inferences:
            for attempt in inference.attempts:
                error = () if attempt.error_type is None else ((names.ERROR_TYPE, attempt.error_type),)
                self._attempts[model, *error] += 1
            for wait in inference.waits:
                self._waited[model, (names.WAIT_SOURCE, wait.source)] += wait.duration
        if call.cache is not None:
            self._cache[(names.CACHE_RESULT, call.cache.result),] += 1
        cost = call.cost
        if cost.billed is None or cost.saved is None or cost.wasted is None:
            self._unpriced[model,] += 1
        for sums, amount in ((self._billed, cost.billed), (self._saved, cost.saved), (self._wasted, cost.wasted)):
            if amount:
                sums[model,] += amount


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


def _observe(sums: Mapping[Labels, Any]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        # A copy, since another thread's call may add a series meanwhile.
        for labels, value in list(sums.items()):
            yield Observation(float(value) if isinstance(value, Decimal) else value, dict(labels))

    return observe
