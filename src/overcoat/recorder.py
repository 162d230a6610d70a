"""Keeps the record: three layers that every stack has, around the call, each inference and each attempt."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from overcoat.classification import Failure, Kind
from overcoat.layer import Handler, Layer, Observer, Reply, Request
from overcoat.record import Attempt, Call, Inference

logger = logging.getLogger("overcoat")

_TIMER_SLACK = 1e-6
"""Seconds: a loop runs a timer early by up to its clock's resolution."""


def record_calls(observers: Sequence[Observer]) -> Layer:
    """Return the layer that completes the `Call` record and tells *observers*."""

    async def record_call(request: Request, inner: Handler) -> Reply:
        call = request.call
        clock = asyncio.get_running_loop().time
        reply: Reply | None = None
        begun = [_tell(observer.call_started, request) for observer in observers]
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
            for observer, beginning in zip(observers, begun, strict=True):
                _tell(observer.call_ended, request, reply, beginning)

    return record_call


def record_inferences(observers: Sequence[Observer], model: str | None) -> Layer:
    """Return the layer that adds an `Inference` of *model* to the call and tells *observers*."""

    async def record_inference(request: Request, inner: Handler) -> Reply:
        call = request.call
        clock = asyncio.get_running_loop().time
        inference = Inference(model, clock(), request.role)
        call.inferences.append(inference)
        request = request.within(inference, None)
        reply: Reply | None = None
        begun = [_tell(observer.inference_started, request) for observer in observers]
        try:
            reply = await inner(request)
        except BaseException as error:
            _fail(inference, request, error, clock())
            raise
        else:
            return reply
        finally:
            inference.ended = clock()
            for observer, beginning in zip(observers, begun, strict=True):
                _tell(observer.inference_ended, request, reply, beginning)

    return record_inference


def record_attempts(observers: Sequence[Observer]) -> Layer:
    """Return the layer that adds an `Attempt` to the inference and tells *observers*."""

    async def record_attempt(request: Request, inner: Handler) -> Reply:
        inference = cast("Inference", request.inference)  # the recorder of inferences is always outside
        clock = asyncio.get_running_loop().time
        # What is being handled already is not the attempt's doing, though Python will chain its error to it.
        ambient = sys.exception()
        attempt = Attempt(len(inference.attempts) + 1, inference.model, clock())
        if inference.waits:
            attempt.waited = sum(wait.duration for wait in inference.waits if wait.before == attempt.number)
        inference.attempts.append(attempt)
        request = request.within(inference, attempt)
        reply: Reply | None = None
        begun = [_tell(observer.attempt_started, request) for observer in observers]
        try:
            reply = await inner(request)
        except BaseException as error:
            _fail(attempt, request, error, clock(), ambient)
            raise
        else:
            return reply
        finally:
            attempt.ended = clock()
            for observer, beginning in zip(observers, begun, strict=True):
                _tell(observer.attempt_ended, request, reply, beginning)

    return record_attempt


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
