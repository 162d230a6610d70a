"""The record as a tree of spans: the call, each inference, and what was tried and waited for inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from opentelemetry import context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from overcoat.classification import Failure
from overcoat.layer import Client, Reply, Request
from overcoat.models import parse_model
from overcoat.options import Uncacheable, given_options
from overcoat.record import Attempt, Call, Inference, SpanIds, Wait
from overcoat.telemetry import names
from overcoat.telemetry.metrics import Metrics

Attributes = dict[str, Any]
_SPAN_OF = {"backoff": names.SPAN_BACKOFF, "rate_limit": names.SPAN_RATE_LIMIT}
Labels = tuple[Attributes, Attributes, Attributes]


class Begun(NamedTuple):
    """A span that was made the current one."""

    span: Span
    token: Any


class Target(NamedTuple):
    """What is known of the provider before any call, as the attributes that samplers and metrics see."""

    name: str
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, client: Client) -> Target:
        """Read *client*'s `model_name` and `base_url`."""
        model = getattr(client, "model_name", None)
        provider, _ = parse_model(model) if isinstance(model, str) else (None, None)
        attributes: Attributes = {
            names.OPERATION_NAME: names.OPERATION_CHAT,
            names.PROVIDER_NAME: provider or type(client).__name__,
        }
        if isinstance(model, str):
            attributes[names.REQUEST_MODEL] = model
        if base_url := getattr(client, "base_url", None):
            from urllib.parse import urlsplit  # noqa: PLC0415 - 2 ms, for clients that know their endpoint

            url = urlsplit(str(base_url))
            if url.hostname:
                attributes[names.SERVER_ADDRESS] = url.hostname
                attributes[names.SERVER_PORT] = url.port or (80 if url.scheme == "http" else 443)
        return cls(f"{names.OPERATION_CHAT} {model}" if model else names.OPERATION_CHAT, attributes)


class SpanObserver:
    """Makes the spans of calls to one client, and the metrics that must be recorded inside them for their exemplars.

    Args:
        tracer: Where spans are made.
        metrics: Where numbers are recorded.
        client: The innermost client.
        every_attempt: Whether an inference whose first attempt succeeds has an attempt span, too.
        tiers: Dollars from which a call's cost is "medium" and "high".
    """

    def __init__(
        self, tracer: Tracer, metrics: Metrics, client: Client, *, every_attempt: bool, tiers: tuple[float, float]
    ) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._every_attempt = every_attempt
        self._tiers = tiers
        self._target = Target.of(client)
        self._labels: dict[tuple[str | None, str | None], Labels] = {}

    def call_started(self, request: Request) -> Begun:
        """Start the span that covers all that happens to a call."""
        call = request.call
        attributes: Attributes = {names.CALL_ID: call.id, names.MODEL: call.model or "unknown"}
        for name, value in call.tags.items():
            attributes[names.TAG + name] = value
        return self._begin(names.SPAN_CALL, SpanKind.INTERNAL, attributes, call, call.started)

    def call_ended(self, request: Request, reply: Reply | None, begun: Begun) -> None:  # noqa: ARG002
        """Put the roll-up onto the span: a search in Jaeger matches the attributes of one span only."""
        call = request.call
        self._metrics.count(call)
        span = begun.span
        if span.is_recording():
            lookup = call.cache
            if lookup is not None and lookup.served:
                self._cache_span(call, span)
            span.set_attributes(self._roll_up(call))
            if call.outcome != "ok":
                span.set_status(_status(call.failure, call.error_type))
        _end(begun, call, call.ended)

    def inference_started(self, request: Request) -> Begun:
        """Start the `chat` span."""
        attributes: Attributes = dict(self._target.attributes)
        if request.json_mode:
            attributes[names.OUTPUT_TYPE] = "json"
        begun = self._begin(
            self._target.name, SpanKind.CLIENT, attributes, request.call, cast("Inference", request.inference).started
        )
        ids = begun.span.get_span_context()
        if ids.is_valid:
            cast("Inference", request.inference).span = (ids.trace_id, ids.span_id)
        return begun

    def inference_ended(self, request: Request, reply: Reply | None, begun: Begun) -> None:
        """Record the conventions' metrics and end the `chat` span, with what was waited for and tried inside it."""
        call, inference = request.call, cast("Inference", request.inference)
        answer = reply.attempt if reply else None
        usage = inference.usage
        response_model = answer.response_model if answer else None
        duration, tokens_in, tokens_out = self._labels_of(response_model, inference.error_type)
        self._metrics.duration.record(cast("float", inference.ended) - inference.started, duration)
        if usage is not None and usage.input_tokens is not None:
            self._metrics.tokens.record(usage.input_tokens, tokens_in)
        if usage is not None and usage.output_tokens is not None:
            self._metrics.tokens.record(usage.output_tokens, tokens_out)
        span = begun.span
        if span.is_recording():
            self._children(call, inference, span)
            attributes = _given(request)
            if usage is not None:
                _put(attributes, names.INPUT_TOKENS, usage.input_tokens)
                _put(attributes, names.OUTPUT_TOKENS, usage.output_tokens)
                _put(attributes, names.CACHE_READ_INPUT_TOKENS, usage.cache_read_input_tokens)
                _put(attributes, names.CACHE_CREATION_INPUT_TOKENS, usage.cache_creation_input_tokens)
                _put(attributes, names.REASONING_OUTPUT_TOKENS, usage.reasoning_output_tokens)
            if (cost := inference.cost) is not None:
                attributes[names.COST] = float(cost)
            if answer is not None:
                _put(attributes, names.RESPONSE_MODEL, answer.response_model)
                _put(attributes, names.RESPONSE_ID, answer.response_id)
                if answer.finish_reason is not None:
                    attributes[names.FINISH_REASONS] = (answer.finish_reason,)
            if inference.error_type is not None:
                attributes[names.ERROR_TYPE] = inference.error_type
                span.set_status(_status(inference.failure, inference.error_type))
            span.set_attributes(attributes)
        _end(begun, call, inference.ended)

    def attempt_started(self, request: Request) -> Begun | None:
        """Start the span of an attempt, so that what the client's own instrumentation makes lies inside it."""
        attempt = cast("Attempt", request.attempt)
        if attempt.number == 1 and not self._every_attempt:
            return None  # made afterwards, if it comes to a second one; most never do
        return self._begin(names.SPAN_ATTEMPT, SpanKind.INTERNAL, _numbered(attempt), request.call, attempt.started)

    def attempt_ended(self, request: Request, reply: Reply | None, begun: Begun | None) -> None:  # noqa: ARG002
        """End the span of an attempt."""
        if begun is not None:
            attempt = cast("Attempt", request.attempt)
            _judge(begun.span, attempt)
            _end(begun, request.call, attempt.ended)

    def _begin(self, name: str, kind: SpanKind, attributes: Attributes, call: Call, started: float) -> Begun:
        span = self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=_nanoseconds(call, started))
        return Begun(span, context.attach(set_span_in_context(span)))

    def _children(self, call: Call, inference: Inference, span: Span) -> None:
        """Make the spans that nothing could lie inside: the waits, and the first attempt where it failed."""
        parent = set_span_in_context(span)
        first = inference.attempts[0] if inference.attempts else None
        if first is not None and not first.ok and not self._every_attempt:
            child = self._tracer.start_span(
                names.SPAN_ATTEMPT, parent, attributes=_numbered(first), start_time=_nanoseconds(call, first.started)
            )
            _judge(child, first)
            child.end(_nanoseconds(call, first.ended))
        for wait in inference.waits:
            child = self._tracer.start_span(
                _SPAN_OF[wait.kind], parent, attributes=_waited(wait), start_time=_nanoseconds(call, wait.started)
            )
            child.end(_nanoseconds(call, wait.ended))

    def _cache_span(self, call: Call, span: Span) -> None:
        lookup = call.cache
        if lookup is None:
            return
        attributes: Attributes = {names.CACHE_RESULT: lookup.result}
        _put(attributes, names.CACHE_AGE, lookup.age)
        child = self._tracer.start_span(
            names.SPAN_CACHE,
            set_span_in_context(span),
            attributes=attributes,
            links=(_link(lookup.span),) if lookup.span else None,
            start_time=_nanoseconds(call, lookup.started),
        )
        child.end(_nanoseconds(call, lookup.ended))

    def _roll_up(self, call: Call) -> Attributes:
        attempts = sum(len(inference.attempts) for inference in call.inferences)
        attributes: Attributes = {names.OUTCOME: call.outcome, names.ATTEMPTS: attempts}
        if any(len(inference.attempts) > 1 for inference in call.inferences):
            attributes[names.RETRIED] = True
        if call.cache is not None:
            attributes[names.CACHE_RESULT] = call.cache.result
            _put(attributes, names.CACHE_REASON, call.cache.reason)
        cost = call.cost
        if cost.billed is not None:
            attributes[names.COST] = billed = float(cost.billed)
            medium, high = self._tiers
            attributes[names.COST_TIER] = "high" if billed >= high else "medium" if billed >= medium else "low"
        if cost.saved:
            attributes[names.COST_SAVED] = float(cost.saved)
        if cost.wasted:
            attributes[names.COST_WASTED] = float(cost.wasted)
        if call.inferences:
            _put(attributes, names.GAVE_UP, call.inferences[-1].gave_up)
        _put(attributes, names.ERROR_TYPE, call.error_type)
        return attributes

    def _labels_of(self, response_model: str | None, error_type: str | None) -> Labels:
        known = self._labels.get((response_model, error_type))
        if known is None:
            labels: Attributes = dict(self._target.attributes)
            _put(labels, names.RESPONSE_MODEL, response_model)
            tokens = dict(labels)
            _put(labels, names.ERROR_TYPE, error_type)
            known = (labels, {**tokens, names.TOKEN_TYPE: "input"}, {**tokens, names.TOKEN_TYPE: "output"})
            self._labels[response_model, error_type] = known
        return known


def _end(begun: Begun, call: Call, ended: float | None) -> None:
    # A coroutine that is thrown away is closed in whatever context is current then; that one is not ours to change.
    if get_current_span() is begun.span:
        context.detach(begun.token)
    begun.span.end(_nanoseconds(call, ended))


def _nanoseconds(call: Call, moment: float | None) -> int | None:
    return None if moment is None else int(call.at(moment) * 1e9)


def _put(attributes: Attributes, name: str, value: Any) -> None:
    if value is not None:
        attributes[name] = value


def _given(request: Request) -> Attributes:
    """Return the options of a request that the conventions have attributes for, where they are of the right type."""
    try:
        options = given_options(request.options)
    except Uncacheable:
        return {}
    attributes: Attributes = {}
    for name, (attribute, kind) in names.REQUEST_OPTIONS.items():
        value = options.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not (name == "n" and value == 1):
            attributes[attribute] = kind(value)
    stop = options.get("stop")
    if stop:
        attributes[names.STOP_SEQUENCES] = (stop,) if isinstance(stop, str) else tuple(stop)
    return attributes


def _numbered(attempt: Attempt) -> Attributes:
    attributes: Attributes = {names.ATTEMPT_NUMBER: attempt.number}
    if attempt.number > 1:
        attributes[names.HTTP_RESEND_COUNT] = attempt.number - 1
    return attributes


def _waited(wait: Wait) -> Attributes:
    attributes: Attributes = {names.WAIT_SOURCE: wait.source}
    _put(attributes, names.WAIT_ASKED, wait.asked)
    return attributes


def _judge(span: Span, attempt: Attempt) -> None:
    if attempt.error_type is None or not span.is_recording():
        return
    span.set_attribute(names.ERROR_TYPE, attempt.error_type)
    if attempt.failure is not None and attempt.failure.status is not None:
        span.set_attribute(names.HTTP_STATUS, attempt.failure.status)
    span.set_status(_status(attempt.failure, attempt.error_type))


def _status(failure: Failure | None, error_type: str | None) -> Status:
    # The exception's own text is not used: providers repeat parts of prompts and keys in it.
    details = [error_type or "error"]
    if failure is not None and failure.status is not None:
        details.append(f"HTTP {failure.status}")
    if failure is not None and failure.code is not None:
        details.append(failure.code)
    return Status(StatusCode.ERROR, ", ".join(details))


def _link(span: SpanIds) -> Link:
    trace_id, span_id = span
    return Link(SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
