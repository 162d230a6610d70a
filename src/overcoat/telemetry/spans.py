"""The record as a tree of spans: the call, each inference, and what was tried and waited for inside it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
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

from overcoat import beneath
from overcoat.classification import Failure, Kind
from overcoat.layer import Client, Level, Reply, Request
from overcoat.record import Attempt, Call, Inference, Lookup, SpanIds, Wait
from overcoat.telemetry import log_lines, names
from overcoat.telemetry.attributes import Attributes, Target, of_attempt, of_inference, of_wait
from overcoat.telemetry.content import Contents
from overcoat.telemetry.events import Events
from overcoat.telemetry.metrics import Metrics
from overcoat.telemetry.roll_up import Tiers, roll_up

Labels = tuple[Attributes, Attributes, Attributes]
_MOST_LABELS = 1000
"""That are kept: what answered is named by the provider, and could be anything."""

_SPAN_OF = {"backoff": names.SPAN_BACKOFF, "rate_limit": names.SPAN_RATE_LIMIT, "budget": names.SPAN_BUDGET}


class Begun(NamedTuple):
    """A span, its ids, and the context in which it was made the current one."""

    span: Span
    ids: SpanIds
    context: Context
    token: Any


Start = Callable[[Request], Begun | None]
End = Callable[[Request, Reply | None, Begun | None], None]


class Settings(NamedTuple):
    """What of `Trace` the observer goes by; see there.

    Attributes:
        every_attempt: Whether an inference whose first attempt succeeds has an attempt span, too, and each attempt's
            duration is recorded.
        tiers: Dollars from which a call's cost is "medium" and "high".
        tags: Those that become labels of metrics.
        contents: What makes texts fit for export; None where they are not captured.
        on_spans: Whether they are put on `chat` spans.
        on_events: Whether there is an event for each inference that has them.
    """

    every_attempt: bool
    tiers: Tiers
    tags: Sequence[str]
    contents: Contents | None
    on_spans: bool
    on_events: bool


class SpanObserver:
    """Makes the spans of calls to one client, and all that must be told inside them: exemplars, events, log lines.

    Args:
        tracer: Where spans are made.
        metrics: Where numbers are recorded.
        events: Where log events are emitted.
        client: The innermost client.
        settings: What there is to be.
    """

    def __init__(self, tracer: Tracer, metrics: Metrics, events: Events, client: Client, settings: Settings) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._events = events
        self._settings = settings
        self._every_attempt = settings.every_attempt
        self._target = target = Target.of(client)
        self._model = {names.MODEL: target.model or "unknown"}
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
        metrics.expect(target.model)

    def started(self, level: Level, request: Request) -> Begun | None:
        """Start the span that *level* has, if any, and make it the current one."""
        return self._start[level](request)

    def ended(self, level: Level, request: Request, reply: Reply | None, begun: Begun | None) -> None:
        """Complete and end what `started` began."""
        self._end[level](request, reply, begun)

    def _call_started(self, request: Request) -> Begun | None:
        call = request.call
        attributes = self._model
        if call.policy is not None or call.reloads or call.tags or call.model != self._target.model:
            attributes = _of_call(call, attributes)
        begun = self._begin(names.SPAN_CALL, SpanKind.INTERNAL, attributes, call, call.started, call.origin)
        if begun is not None:
            call.span = begun.ids
        return begun

    def _call_ended(self, request: Request, reply: Reply | None, begun: Begun | None) -> None:  # noqa: ARG002
        call = request.call
        try:
            self._metrics.count(call, self._settings.tags)
            recording = begun is not None and begun.span.is_recording()
            logging_it = log_lines.logger.isEnabledFor(logging.INFO)
            if recording or logging_it:
                rolled_up = roll_up(call, self._settings.tiers)
                if recording:
                    self._complete_call(call, cast("Begun", begun).span, rolled_up)
                if logging_it:
                    log_lines.log_call(call, rolled_up)
        finally:
            _end(begun, call, call.ended)

    def _complete_call(self, call: Call, span: Span, rolled_up: Mapping[str, Any]) -> None:
        if call.cache is not None and call.cache.served:
            self._cache_span(call, call.cache, span)
        if call.waits:
            self._wait_spans(call, call.waits, span)
        span.set_attributes(rolled_up)
        if call.outcome != "ok":
            span.set_status(_status(call.failure, call.error_type))

    def _inference_started(self, request: Request) -> Begun | None:
        inference = cast("Inference", request.inference)
        attributes = self._target.attributes
        if request.json_mode or inference.role != "primary":
            attributes = _of_request(request, inference, attributes)
        target, call = self._target, request.call
        begun = self._begin(target.name, SpanKind.CLIENT, attributes, call, inference.started, quiet=True)
        if begun is not None:
            inference.span = begun.ids
        return begun

    def _inference_ended(self, request: Request, reply: Reply | None, begun: Begun | None) -> None:
        inference = cast("Inference", request.inference)
        try:
            answer = reply.attempt if reply else None
            usage, error_type = inference.usage, inference.error_type
            duration, tokens_in, tokens_out = self._labels_of(answer.response_model if answer else None, error_type)
            # All of this before the span is detached: exemplars and events take it from the context.
            self._metrics.duration.record(cast("float", inference.ended) - inference.started, duration)
            if usage is not None and usage.input_tokens is not None:
                self._metrics.tokens.record(usage.input_tokens, tokens_in)
            if usage is not None and usage.output_tokens is not None:
                self._metrics.tokens.record(usage.output_tokens, tokens_out)
            if error_type is not None:
                self._tell_failure(request, inference)
            recording = begun is not None and begun.span.is_recording()
            if recording or self._settings.on_events:
                attributes = of_inference(request, inference, usage, answer)
                if recording:
                    self._complete_inference(request, inference, cast("Begun", begun).span, attributes)
                if self._settings.contents is not None:
                    self._tell_contents(request, reply, begun, attributes)
        finally:
            _end(begun, request.call, inference.ended)

    def _complete_inference(self, request: Request, inference: Inference, span: Span, attributes: Attributes) -> None:
        if inference.waits or inference.error_type is not None or len(inference.attempts) > 1:
            self._children(request.call, inference, span)
        span.set_attributes(attributes)
        if inference.error_type is not None:
            span.set_status(_status(inference.failure, inference.error_type))

    def _tell_failure(self, request: Request, inference: Inference) -> None:
        # A caller that went away, or a race that another one won, is no failure that someone should be warned of.
        cancelled = inference.failure is not None and inference.failure.kind is Kind.CANCELLED
        if not cancelled and (error := sys.exception()) is not None:
            known = _of_request(request, inference, self._target.attributes)
            self._events.failed(error, {**known, names.ERROR_TYPE: inference.error_type})

    def _tell_contents(self, request: Request, reply: Reply | None, begun: Begun | None, known: Attributes) -> None:
        settings = self._settings
        contents = cast("Contents", settings.contents)
        asked = contents.input_messages(request.conversation)
        answered = None
        if reply is not None:
            answered = contents.output_messages(reply.text, reply.attempt.finish_reason if reply.attempt else None)
        if settings.on_events:
            inference = cast("Inference", request.inference)
            self._events.said(_of_request(request, inference, self._target.attributes) | known, asked, answered)
        if settings.on_spans and begun is not None:
            begun.span.set_attribute(names.INPUT_MESSAGES, json.dumps(asked, ensure_ascii=False))
            if answered is not None:
                begun.span.set_attribute(names.OUTPUT_MESSAGES, json.dumps(answered, ensure_ascii=False))

    def _attempt_started(self, request: Request) -> Begun | None:
        attempt = cast("Attempt", request.attempt)
        if attempt.number == 1 and not self._every_attempt:
            return None  # made afterwards, if it fails; most do not
        attributes = of_attempt(attempt)
        return self._begin(names.SPAN_ATTEMPT, SpanKind.INTERNAL, attributes, request.call, attempt.started, quiet=True)

    def _attempt_ended(self, request: Request, reply: Reply | None, begun: Begun | None) -> None:  # noqa: ARG002
        if begun is None and not self._every_attempt:
            return
        attempt = cast("Attempt", request.attempt)
        try:
            if self._every_attempt:
                error_type = attempt.error_type
                labels = self._model if error_type is None else {**self._model, names.ERROR_TYPE: error_type}
                self._metrics.attempt_duration.record(cast("float", attempt.duration), labels)
            if begun is not None:
                _judge(begun.span, attempt)
        finally:
            _end(begun, request.call, attempt.ended)

    def _begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        call: Call,
        started: float,
        origin: SpanIds | None = None,
        *,
        quiet: bool = False,
    ) -> Begun | None:
        """Start a span and make it the current one; None where there is no SDK to make it.

        What has an *origin* links there and begins a trace of its own: that of its origin may be over before it begins.
        In a *quiet* one, other instrumentations leave what it is to us.
        """
        span = self._tracer.start_span(
            name,
            Context() if origin is not None else None,
            kind=kind,
            attributes=attributes,
            links=(_link(origin),) if origin is not None else None,
            start_time=_nanoseconds(call, started),
        )
        ids = span.get_span_context()
        if not ids.is_valid:
            return None
        current = set_span_in_context(span)
        if quiet:
            current = beneath.quieted(current)
        return Begun(span, (ids.trace_id, ids.span_id), current, context.attach(current))

    def _children(self, call: Call, inference: Inference, span: Span) -> None:
        """Make the spans that nothing could lie inside: the waits, and the first attempt where it failed."""
        first = inference.attempts[0] if inference.attempts else None
        if first is not None and not first.ok and not self._every_attempt:
            child = self._tracer.start_span(
                names.SPAN_ATTEMPT,
                set_span_in_context(span),
                attributes=of_attempt(first),
                start_time=_nanoseconds(call, first.started),
            )
            _judge(child, first)
            child.end(_nanoseconds(call, first.ended))
        self._wait_spans(call, inference.waits, span)

    def _wait_spans(self, call: Call, waits: Sequence[Wait], span: Span) -> None:
        for wait in waits:
            child = self._tracer.start_span(
                _SPAN_OF[wait.kind],
                set_span_in_context(span),
                attributes=of_wait(wait),
                start_time=_nanoseconds(call, wait.started),
            )
            child.end(_nanoseconds(call, wait.ended))

    def _cache_span(self, call: Call, lookup: Lookup, span: Span) -> None:
        attributes: Attributes = {names.CACHE_RESULT: lookup.result}
        if lookup.age is not None:
            attributes[names.CACHE_AGE] = lookup.age
        child = self._tracer.start_span(
            names.SPAN_CACHE,
            set_span_in_context(span),
            attributes=attributes,
            links=(_link(lookup.span),) if lookup.span else None,
            start_time=_nanoseconds(call, lookup.started),
        )
        child.end(_nanoseconds(call, lookup.ended))

    def _labels_of(self, response_model: str | None, error_type: str | None) -> Labels:
        known = self._labels.get((response_model, error_type))
        if known is None:
            labels: Attributes = dict(self._target.attributes)
            if response_model is not None:
                labels[names.RESPONSE_MODEL] = response_model
            failed = {} if error_type is None else {names.ERROR_TYPE: error_type}
            known = (
                {**labels, **failed},
                {**labels, names.TOKEN_TYPE: "input"},
                {**labels, names.TOKEN_TYPE: "output"},
            )
            if len(self._labels) < _MOST_LABELS:
                self._labels[response_model, error_type] = known
        return known


def _end(begun: Begun | None, call: Call, ended: float | None) -> None:
    if begun is None:
        return
    # A coroutine that is thrown away is closed in whatever context is current then; that one is not ours to change.
    if context.get_current() is begun.context:
        context.detach(begun.token)
    begun.span.end(_nanoseconds(call, ended))


def _nanoseconds(call: Call, moment: float | None) -> int | None:
    return None if moment is None else int((moment + call.epoch) * 1e9)


def _of_call(call: Call, known: Mapping[str, Any]) -> Attributes:
    """Return what is known when a call begins: who asks, and by which policy."""
    attributes = {**known, names.MODEL: call.model or "unknown"}
    if call.policy is not None:
        attributes[names.POLICY], attributes[names.POLICY_DIGEST] = call.policy
    if call.reloads:
        attributes[names.POLICY_RELOAD] = call.reloads[-1]
    for name, value in call.tags.items():
        attributes[names.TAG + name] = value
    return attributes


def _of_request(request: Request, inference: Inference, known: Mapping[str, Any]) -> Attributes:
    """Return what is known when an inference begins: of the provider, and of what it is for."""
    attributes = dict(known)
    if request.json_mode:
        attributes[names.OUTPUT_TYPE] = "json"
    if inference.role != "primary":
        attributes[names.ROLE] = inference.role
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
