"""Keeps the record: three layers that every stack has, around the call, each inference and each attempt."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from overcoat.bounds import current_allowance
from overcoat.classification import Failure, Kind
from overcoat.errors import Refused
from overcoat.layer import Handler, Layer, Level, Observer, Reply, Request
from overcoat.record import Attempt, Call, Inference

logger = logging.getLogger("overcoat")

_TIMER_SLACK = 1e-6
"""Seconds: a loop runs a timer early by up to its clock's resolution."""


def record_calls(observer: Observer | None) -> Layer:
    """Return the layer that completes the `Call` record and tells the *observer*."""

    async def record_call(request: Request, inner: Handler) -> Reply:
        call = request.call
        clock = call.clock
        reply: Reply | None = None
        begun = _tell(observer.started, "call", request) if observer else None
        try:
            reply = await inner(request)
            call.outcome = "ok"
        except BaseException as error:
            kind = _fail(call, request, error, clock()).kind
            call.outcome = "cancelled" if kind is Kind.CANCELLED else "refused" if kind is Kind.REFUSED else "error"
            raise
        else:
            return reply
        finally:
            call.ended = clock()
            call.settle(reply.attempt if reply else None)
            if observer:
                _tell(observer.ended, "call", request, reply, begun)

    return record_call


def record_inferences(observer: Observer | None, model: str | None) -> Layer:
    """Return the layer that adds an `Inference` of *model* to the call and tells the *observer*."""

    async def record_inference(request: Request, inner: Handler) -> Reply:
        call = request.call
        clock = call.clock
        inference = Inference(model, clock(), request.role)
        call.inferences.append(inference)
        request = request.within(call, inference)
        reply: Reply | None = None
        begun = _tell(observer.started, "inference", request) if observer else None
        try:
            reply = await inner(request)
        except BaseException as error:
            _fail(inference, request, error, clock())
            raise
        else:
            return reply
        finally:
            inference.ended = clock()
            if observer:
                _tell(observer.ended, "inference", request, reply, begun)

    return record_inference


def record_attempts(observer: Observer | None) -> Layer:
    """Return the layer that adds an `Attempt` to the inference and tells the *observer*."""

    async def record_attempt(request: Request, inner: Handler) -> Reply:
        if (allowance := current_allowance()) is not None:
            allowance.spend()  # here, and not in a layer: every stack has this place, and what is refused is no attempt
        inference = cast("Inference", request.inference)  # the recorder of inferences is always outside
        clock = request.call.clock
        # What is being handled already is not the attempt's doing, though Python will chain its error to it.
        ambient = sys.exception()
        attempt = Attempt(len(inference.attempts) + 1, inference.model, clock())
        if inference.waits:
            attempt.waited = sum(wait.duration for wait in inference.waits if wait.before == attempt.number)
        inference.attempts.append(attempt)
        request = request.within(request.call, inference, attempt)
        reply: Reply | None = None
        begun = _tell(observer.started, "attempt", request) if observer else None
        try:
            reply = await inner(request)
        except BaseException as error:
            _fail(attempt, request, error, clock(), ambient)
            raise
        else:
            return reply
        finally:
            attempt.ended = clock()
            if observer:
                _tell(observer.ended, "attempt", request, reply, begun)

    return record_attempt


class Observers:
    """Several observers as one: they are told in their order, and what each returned is given back to it."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def started(self, level: Level, request: Request) -> list[Any]:
        """Tell all that it begins."""
        return [_tell(observer.started, level, request) for observer in self._observers]

    def ended(self, level: Level, request: Request, reply: Reply | None, begun: Sequence[Any]) -> None:
        """Tell all that it is over."""
        for observer, own in zip(self._observers, begun, strict=True):
            _tell(observer.ended, level, request, reply, own)


def _fail(
    record: Call | Inference | Attempt,
    request: Request,
    error: BaseException,
    now: float,
    ambient: BaseException | None = None,
) -> Failure:
    failure = request.call.classify(error, ambient)
    if failure.kind is Kind.CANCELLED and request.deadline is not None and now >= request.deadline - _TIMER_SLACK:
        failure = Failure(Kind.DEADLINE_EXCEEDED)  # it was the deadline's timer that cancelled, not the caller
    record.failure = failure
    if failure.kind is Kind.REFUSED and isinstance(error, Refused):
        record.error_type = error.cause
    else:
        # The kinds are a closed set; of an exception that nobody knows, its class is the best that can be said.
        record.error_type = failure.kind.value if failure.kind is not Kind.UNKNOWN else type(error).__qualname__
    return failure


def _tell(observe: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return observe(*arguments)
    except Exception:
        # Who watches must not harm what is watched; it is reported with its traceback.
        logger.exception("an observer failed in %s; the call goes on", observe)
        return None
