"""The record as a tree of spans: the call, each inference, and what was tried and waited for inside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from opentelemetry import context
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from overcoat.classification import Failure
from overcoat.layer import Client, Level, Reply, Request
from overcoat.models import parse_model
from overcoat.options import Uncacheable, given_options
from overcoat.record import Attempt, Call, Inference, Lookup, SpanIds, Usage, Wait
from overcoat.telemetry import names
from overcoat.telemetry.metrics import Metrics

Attributes = dict[str, Any]
Labels = tuple[Attributes, Attributes, Attributes]
_SPAN_OF = {"backoff": names.SPAN_BACKOFF, "rate_limit": names.SPAN_RATE_LIMIT}


class Begun(NamedTuple):
    """A span, and the context in which it was made the current one."""

    span: Span
    context: Context
    token: Any


Start = Callable[[Request], Begun | None]
End = Callable[[Request, Reply | None, Begun | None], None]


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
        self._start: dict[Level, Start] = {
            "call": self._call_started,
            "inference": self._inference_started,
            "attempt": self._attempt_started,
        }
        self._end: dict[Level, End] = {
            "call": self._call_ended,
            "inference": self._inference_ended,
            "attempt": self._attempt_ended,
        }

    def started(self, level: Level, request: Request) -> Begun | None:
        """Start the span that *level* has, if any, and make it the current one."""
        return self._start[level](request)

    def ended(self, level: Level, request: Request, reply: Reply | None, begun: Begun | None) -> None:
        """Complete and end what `started` began."""
        self._end[level](request, reply, begun)

    def _call_started(self, request: Request) -> Begun | None:
        call = request.call
        attributes: Attributes = {names.MODEL: call.model or "unknown"}
        if call.policy is not None:
            attributes[names.POLICY], attributes[names.POLICY_DIGEST] = call.policy
        for name, value in call.tags.items():
            attributes[names.TAG + name] = value
        begun = self._begin(names.SPAN_CALL, SpanKind.INTERNAL, attributes, call, call.started)
        call.span = _ids(begun)
        return begun

    def _call_ended(self, request: Request, reply: Reply | None, begun: Begun | None) -> None:  # noqa: ARG002
        call = request.call
        self._metrics.count(call)
        if begun is None:
            return
        span = begun.span
        if span.is_recording():
            if call.cache is not None and call.cache.served:
                self._cache_span(call, call.cache, span)
            span.set_attributes(self._roll_up(call))
            if call.outcome != "ok":
                span.set_status(_status(call.failure, call.error_type))
        _end(begun, call, call.ended)

    def _inference_started(self, request: Request) -> Begun | None:
        inference = cast("Inference", request.inference)
        attributes: Attributes = dict(self._target.attributes)
        if request.json_mode:
            attributes[names.OUTPUT_TYPE] = "json"
        if inference.role != "primary":
            attributes[names.ROLE] = inference.role
        begun = self._begin(self._target.name, SpanKind.CLIENT, attributes, request.call, inference.started)
        inference.span = _ids(begun)
        return begun

    def _inference_ended(self, request: Request, reply: Reply | None, begun: Begun | None) -> None:
        inference = cast("Inference", request.inference)
        answer = reply.attempt if reply else None
        usage = inference.usage
        response_model = answer.response_model if answer else None
        duration, tokens_in, tokens_out = self._labels_of(response_model, inference.error_type)
        # Before the span is detached, since exemplars take it from the context.
        self._metrics.duration.record(cast("float", inference.ended) - inference.started, duration)
        if usage is not None and usage.input_tokens is not None:
            self._metrics.tokens.record(usage.input_tokens, tokens_in)
        if usage is not None and usage.output_tokens is not None:
            self._metrics.tokens.record(usage.output_tokens, tokens_out)
        if begun is None:
            return
        span = begun.span
        if span.is_recording():
            if inference.waits or inference.error_type is not None or len(inference.attempts) > 1:
                self._children(request.call, inference, span)
            span.set_attributes(_of_inference(request, inference, usage, answer))
            if inference.error_type is not None:
                span.set_status(_status(inference.failure, inference.error_type))
        _end(begun, request.call, inference.ended)

    def _attempt_started(self, request: Request) -> Begun | None:
        attempt = cast("Attempt", request.attempt)
        if attempt.number == 1 and not self._every_attempt:
            return None  # made afterwards, if it fails; most do not
        return self._begin(names.SPAN_ATTEMPT, SpanKind.INTERNAL, _numbered(attempt), request.call, attempt.started)

    def _attempt_ended(self, request: Request, reply: Reply | None, begun: Begun | None) -> None:  # noqa: ARG002
        if begun is not None:
            attempt = cast("Attempt", request.attempt)
            _judge(begun.span, attempt)
            _end(begun, request.call, attempt.ended)

    def _begin(self, name: str, kind: SpanKind, attributes: Attributes, call: Call, started: float) -> Begun | None:
        """Start a span and make it the current one; None where there is no SDK to make it."""
        span = self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=_nanoseconds(call, started))
        if not span.get_span_context().is_valid:
            return None
        current = set_span_in_context(span)
        return Begun(span, current, context.attach(current))

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

    def _cache_span(self, call: Call, lookup: Lookup, span: Span) -> None:
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
        """Return what one would search for: a search in Jaeger matches the attributes of one span only."""
        inferences, lookup, cost = call.inferences, call.cache, call.cost
        attributes: Attributes = {names.OUTCOME: call.outcome, names.ATTEMPTS: len(call.attempts)}
        if any(len(inference.attempts) > 1 for inference in inferences):
            attributes[names.RETRIED] = True
        if lookup is not None:
            attributes[names.CACHE_RESULT] = lookup.result
            _put(attributes, names.CACHE_REASON, lookup.reason)
        if cost.billed is not None:
            attributes[names.COST] = billed = float(cost.billed)
            medium, high = self._tiers
            attributes[names.COST_TIER] = "high" if billed >= high else "medium" if billed >= medium else "low"
        if cost.saved or (cost.saved is not None and lookup is not None and lookup.served):
            attributes[names.COST_SAVED] = float(cost.saved)
        if cost.wasted:
            attributes[names.COST_WASTED] = float(cost.wasted)
        if call.turns:
            attributes[names.CIRCUIT] = call.turns[-1].circuit
            attributes[names.CIRCUIT_STATE] = call.turns[-1].state
        if call.error_type is not None:
            attributes[names.ERROR_TYPE] = call.error_type
            _put(attributes, names.GAVE_UP, inferences[-1].gave_up if inferences else None)
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
    if context.get_current() is begun.context:
        context.detach(begun.token)
    begun.span.end(_nanoseconds(call, ended))


def _ids(begun: Begun | None) -> SpanIds | None:
    if begun is None:
        return None
    ids = begun.span.get_span_context()
    return ids.trace_id, ids.span_id


def _nanoseconds(call: Call, moment: float | None) -> int | None:
    return None if moment is None else int((moment + call.epoch) * 1e9)


def _put(attributes: Attributes, name: str, value: Any) -> None:
    if value is not None:
        attributes[name] = value


def _of_inference(request: Request, inference: Inference, usage: Usage | None, answer: Attempt | None) -> Attributes:
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
    _put(attributes, names.ERROR_TYPE, inference.error_type)
    return attributes


def _given(request: Request) -> Attributes:
    """Return the options of a request that the conventions have attributes for, where they are of the right type."""
    try:
        options = given_options(request.options)
    except Uncacheable:
        return {}
    attributes: Attributes = {}
    for name, value in options.items():
        known = names.REQUEST_OPTIONS.get(name)
        if known is not None and type(value) in (int, float) and not (name == "n" and value == 1):
            attribute, kind = known
            attributes[attribute] = kind(value)
        elif name == "stop" and isinstance(value, (str, list, tuple)):
            attributes[names.STOP_SEQUENCES] = (value,) if isinstance(value, str) else tuple(cast("list[str]", value))
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
