"""What the same telemetry costs when it is written by hand: the yardstick, and the floor under overcoat's stack."""

from __future__ import annotations

import hashlib
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
from opentelemetry import context
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, set_span_in_context

from overcoat import NOT_GIVEN, LLMEvent, Usage
from overcoat.pricing.rates import Rates, Tier
from overcoat.telemetry import names

MODEL = "gpt-4o-mini"
RESPONSE_MODEL = "gpt-4o-mini-2024-07-18"
_MODEL = (names.MODEL, MODEL)
INPUT_RATE, OUTPUT_RATE = Decimal("0.00000015"), Decimal("0.0000006")


def prices(model: str, now: float) -> Rates | None:  # noqa: ARG001 - the same for every model, at all times
    """Give rates that no price list can change between two runs."""
    return Rates((Tier(0, INPUT_RATE, OUTPUT_RATE),), "benchmark")


class Provider:
    """A client that answers at once, and says on its event what overcoat's own client for litellm says."""

    model_name = MODEL

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:  # noqa: ARG002
        """Answer."""
        event.prompt_tokens = 250
        event.completion_tokens = 40
        event.total_tokens = 290
        event.finish_reason = "stop"
        event.response_id = "chatcmpl-BdPPq6lZ3V5Xw8a1"
        event.response_model = RESPONSE_MODEL
        return "SELECT name FROM customers ORDER BY revenue DESC LIMIT 1"


class Discard(SpanExporter):
    """An exporter that costs nothing, behind the SDK's usual processor, and counts."""

    spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take *spans* and forget them."""
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


def providers(exporter: Discard | None = None) -> tuple[SdkTracerProvider, SdkMeterProvider]:
    """Return the SDK as an application has it: spans in batches, histograms aggregated; one set for each variant."""
    tracer_provider = SdkTracerProvider(shutdown_on_exit=False)
    # Where the queue ran full, spans would be dropped, and the variant that makes the most would look cheap.
    tracer_provider.add_span_processor(BatchSpanProcessor(exporter or Discard(), max_queue_size=2**16))
    return tracer_provider, SdkMeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)


class Yardstick:
    """One span of 10 attributes and three histogram records: the unit of all ratios (research: "YARD")."""

    def __init__(self, client: Provider, tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
        self._client = client
        self._tracer = tracer_provider.get_tracer("yardstick")
        meter = meter_provider.get_meter("yardstick")
        self._duration, self._tokens = _histograms(meter)
        labels = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": MODEL,
            "gen_ai.response.model": RESPONSE_MODEL,
            "server.address": "api.openai.com",
        }
        self._labels = labels
        self._labels_in = {**labels, "gen_ai.token.type": "input"}
        self._labels_out = {**labels, "gen_ai.token.type": "output"}

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer, traced."""
        started = time.perf_counter()
        span = self._tracer.start_span(
            "chat gpt-4o-mini",
            kind=SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": MODEL,
                "gen_ai.request.temperature": 0.0,
                "gen_ai.request.max_tokens": 512,
                "server.address": "api.openai.com",
            },
        )
        token = context.attach(set_span_in_context(span))
        try:
            text = await self._client.call(conversation, options, event, json_mode)
        finally:
            context.detach(token)
        span.set_attributes(
            {
                "gen_ai.response.model": event.response_model or "",
                "gen_ai.response.id": event.response_id or "",
                "gen_ai.usage.input_tokens": event.prompt_tokens or 0,
                "gen_ai.usage.output_tokens": event.completion_tokens or 0,
            }
        )
        span.end()
        self._duration.record(time.perf_counter() - started, self._labels)
        self._tokens.record(event.prompt_tokens or 0, self._labels_in)
        self._tokens.record(event.completion_tokens or 0, self._labels_out)
        return text


@dataclass(slots=True)
class Record:
    """The least that deserves the name: what a caller would want to know of one call."""

    id: str
    started: float
    ended: float = 0.0
    outcome: str = ""
    usage: Usage | None = None
    cost: Decimal | None = None


class Floor:
    """Everything that `Trace, Cache, Retry, Meter` make of a call that succeeds, in one function, by hand.

    The same two spans with the same attributes, the same three histogram records inside the span's context, the same
    counters, the same cache key, a stored answer, the exact price and a record. It is what a careful colleague would
    write for one application: without any of overcoat's guarantees (single flight, retries, a private copy of the
    event, expiry, a bound on memory, nested tags), and without functions that could be shared.
    """

    def __init__(self, client: Provider, tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
        self._client = client
        self._tracer = tracer_provider.get_tracer("overcoat")
        meter = meter_provider.get_meter("overcoat")
        self._duration, self._tokens = _histograms(meter)
        self._labels = {
            names.OPERATION_NAME: "chat",
            names.PROVIDER_NAME: "openai",
            names.REQUEST_MODEL: MODEL,
            names.RESPONSE_MODEL: RESPONSE_MODEL,
        }
        self._labels_in = {**self._labels, names.TOKEN_TYPE: "input"}
        self._labels_out = {**self._labels, names.TOKEN_TYPE: "output"}
        self._encode = msgspec.msgpack.Encoder(order="deterministic").encode
        self._scope = hashlib.sha256(self._encode([1, None, "Provider", MODEL, None, None, None]))
        self._cache: dict[str, str] = {}
        self._calls: dict[Any, int] = defaultdict(int)
        self._inferences: dict[Any, int] = defaultdict(int)
        self._attempts: dict[Any, int] = defaultdict(int)
        self._attempt_time: dict[Any, float] = defaultdict(float)
        self._token_sums: dict[Any, int] = defaultdict(int)
        self._lookups: dict[Any, int] = defaultdict(int)
        self._cost: dict[Any, Decimal] = defaultdict(Decimal)
        for name, sums in (
            (names.METRIC_CALLS, self._calls),
            (names.METRIC_INFERENCES, self._inferences),
            (names.METRIC_ATTEMPTS, self._attempts),
            (names.METRIC_ATTEMPT_TIME, self._attempt_time),
            (names.METRIC_TOKENS, self._token_sums),
            (names.METRIC_CACHE, self._lookups),
            (names.METRIC_COST_BILLED, self._cost),
        ):
            meter.create_observable_counter(name, [_observe(sums)])

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer, traced, measured, priced and kept."""
        record = Record(f"{random.getrandbits(64):016x}", time.time())
        span = self._tracer.start_span(names.SPAN_CALL, attributes={names.MODEL: MODEL})
        token = context.attach(set_span_in_context(span))
        lookup = "miss"
        try:
            given = {
                name: value for name, value in vars(options).items() if value is not None and value is not NOT_GIVEN
            }
            digest = self._scope.copy()
            digest.update(self._encode([json_mode, given, conversation]))
            key = digest.hexdigest()
            text = self._cache.get(key)
            if text is None:
                text = self._cache[key] = await self._infer(conversation, options, event, record, json_mode=json_mode)
            else:
                lookup = "hit"
            record.outcome = "ok"
        except BaseException as error:
            record.outcome = "error"
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            record.ended = time.time()
            cost = record.cost or Decimal(0)
            self._calls[_MODEL, (names.OUTCOME, record.outcome)] += 1
            self._lookups[(names.CACHE_RESULT, lookup),] += 1
            self._cost[_MODEL,] += cost
            span.set_attributes(
                {
                    names.OUTCOME: record.outcome,
                    names.ATTEMPTS: 1 if record.usage else 0,
                    names.CACHE_RESULT: lookup,
                    names.COST: float(cost),
                    names.COST_TIER: "high" if cost >= 0.01 else "medium" if cost >= 0.001 else "low",
                }
            )
            context.detach(token)
            span.end()
        return text

    async def _infer(self, conversation: Any, options: Any, event: LLMEvent, record: Record, *, json_mode: bool) -> str:
        started = time.perf_counter()
        span = self._tracer.start_span(
            "chat gpt-4o-mini",
            kind=SpanKind.CLIENT,
            attributes={names.OPERATION_NAME: "chat", names.PROVIDER_NAME: "openai", names.REQUEST_MODEL: MODEL},
        )
        token = context.attach(set_span_in_context(span))
        failed: tuple[tuple[str, str], ...] = ()
        try:
            text = await self._client.call(conversation, options, event, json_mode)
        except BaseException as error:
            failed = ((names.ERROR_TYPE, type(error).__name__),)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        else:
            tokens_in, tokens_out = event.prompt_tokens or 0, event.completion_tokens or 0
            record.usage = Usage(tokens_in, tokens_out, event.total_tokens)
            record.cost = tokens_in * INPUT_RATE + tokens_out * OUTPUT_RATE
            took = time.perf_counter() - started
            self._attempt_time[_MODEL,] += took
            self._duration.record(took, self._labels)
            self._tokens.record(tokens_in, self._labels_in)
            self._tokens.record(tokens_out, self._labels_out)
            self._token_sums[_MODEL, (names.TOKEN_KIND, "input")] += tokens_in
            self._token_sums[_MODEL, (names.TOKEN_KIND, "output")] += tokens_out
            span.set_attributes(
                {
                    "gen_ai.request.temperature": options.temperature,
                    "gen_ai.request.max_tokens": options.max_tokens,
                    names.INPUT_TOKENS: tokens_in,
                    names.OUTPUT_TOKENS: tokens_out,
                    names.COST: float(record.cost),
                    names.RESPONSE_MODEL: event.response_model or "",
                    names.RESPONSE_ID: event.response_id or "",
                    names.FINISH_REASONS: (event.finish_reason or "",),
                }
            )
            return text
        finally:
            self._inferences[_MODEL, (names.ROLE, "primary")] += 1
            self._attempts[_MODEL, *failed] += 1
            context.detach(token)
            span.end()


def _histograms(meter: Meter) -> tuple[Any, Any]:
    return (
        meter.create_histogram(
            names.OPERATION_DURATION, unit="s", explicit_bucket_boundaries_advisory=names.DURATION_BOUNDS
        ),
        meter.create_histogram(
            names.TOKEN_USAGE, unit="{token}", explicit_bucket_boundaries_advisory=names.TOKEN_BOUNDS
        ),
    )


def _observe(sums: Mapping[Any, Any]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(float(value), dict(labels)) for labels, value in sums.items()]

    return observe
