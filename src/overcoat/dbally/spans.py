"""Spans that end in every case, are the current ones while they last, and say what went wrong without its text."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from dbally.prompt.template import PromptTemplateError
from dbally.views.exceptions import ViewExecutionError
from dbally.views.freeform.text2sql import Text2SQLError
from opentelemetry import context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from overcoat.bounds import current_deadline
from overcoat.classification import Kind, classify
from overcoat.record import Outcome
from overcoat.telemetry.names import ERROR_TYPE

_TIMER_SLACK = 1e-6  # seconds: a loop runs a timer early by up to its clock's resolution


@contextmanager
def current_span(tracer: Tracer, name: str, attributes: Mapping[str, Any]) -> Generator[Span]:
    """Start a span and make it the current one; it ends with the block, also where that is cancelled or thrown away."""
    span = tracer.start_span(name, attributes=attributes)
    current = set_span_in_context(span)
    token = context.attach(current)
    try:
        yield span
    except BaseException as error:
        fail(span, error)
        raise
    finally:
        # A coroutine that is thrown away is closed in whatever context is current then; that one is not ours to change.
        if context.get_current() is current:
            context.detach(token)
        span.end()


def fail(span: Span, error: BaseException) -> None:
    """Say on *span* that it ended with *error*: by the class of the failure, since a text repeats what was asked."""
    _, error_type = judge(error)
    span.set_attribute(ERROR_TYPE, error_type)
    raised = type(error).__qualname__
    span.set_status(Status(StatusCode.ERROR, error_type if raised == error_type else f"{raised}: {error_type}"))


def judge(error: BaseException) -> tuple[Outcome, str]:
    """Return how *error* ended what it ended, and the class of the failure that is behind it."""
    if isinstance(error, asyncio.CancelledError):
        until = current_deadline()
        if until is not None and asyncio.get_running_loop().time() >= until.when - _TIMER_SLACK:
            return "error", Kind.DEADLINE_EXCEEDED.value
    cause = _behind(error)
    failure = classify(cause)
    if failure.kind is Kind.CANCELLED:
        return "cancelled", Kind.CANCELLED.value
    if failure.kind is Kind.REFUSED:
        return "refused", getattr(cause, "cause", Kind.REFUSED.value)
    return "error", failure.kind.value if failure.kind is not Kind.UNKNOWN else type(cause).__qualname__


def _behind(error: BaseException) -> BaseException:
    """Return what made db-ally raise *error*, in which it keeps that without chaining it."""
    if isinstance(error, ViewExecutionError):
        failed = (error.iql.filters, error.iql.aggregation)
        return next((each for each in failed if isinstance(each, Exception)), error)
    if isinstance(error, Text2SQLError) and error.exceptions:
        return error.exceptions[-1]
    if isinstance(error, PromptTemplateError) and error.__context__ is not None:
        return error.__context__  # of a text-to-SQL view, which puts any failure into a prompt that takes no such turn
    return error
