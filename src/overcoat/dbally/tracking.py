"""db-ally's event tracker, which also makes the spans of an `ask` and ends those that db-ally would leave open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from dbally.audit import OtelEventHandler
from dbally.audit.event_handlers.base import EventHandler
from dbally.audit.event_handlers.otel_event_handler import SpanHandler
from dbally.audit.event_tracker import EventTracker
from dbally.audit.events import Event, RequestEnd, RequestStart
from dbally.audit.spans import EventSpan

from overcoat.dbally.ask import Ask
from overcoat.dbally.spans import fail


class AskTracker(EventTracker):
    """Tells an `Ask` and another tracker of all events.

    Args:
        ask: Makes the spans.
        inner: Has the handlers, which are told as ever.
        closing: Those of its handlers that make spans.
    """

    def __init__(self, ask: Ask, inner: EventTracker, closing: Sequence[Closing] = ()) -> None:
        super().__init__()
        self._ask = ask
        self._inner = inner
        self._closing = closing

    @classmethod
    def over(cls, ask: Ask, handlers: Sequence[EventHandler[Any, Any]]) -> AskTracker:
        """Return one that tells *handlers*."""
        told = [Closing(handler) if isinstance(handler, OtelEventHandler) else handler for handler in handlers]
        inner = cast("Any", EventTracker).initialize_with_handlers(told)
        return cls(ask, inner, [handler for handler in told if isinstance(handler, Closing)])

    async def request_start(self, request_start: RequestStart) -> None:
        """Tell that the ask begins."""
        await self._inner.request_start(request_start)

    async def request_end(self, request_end: RequestEnd) -> None:
        """Tell that the ask is answered."""
        await self._inner.request_end(request_end)

    def subscribe(self, event_handler: EventHandler[Any, Any]) -> None:
        """Tell one handler more."""
        cast("Any", self._inner).subscribe(event_handler)

    def abandon(self, error: BaseException) -> None:
        """End what is still open, since the ask ended with *error*."""
        for handler in self._closing:
            handler.abandon(None, error)

    @asynccontextmanager
    async def track_event(self, event: Event) -> AsyncGenerator[EventSpan]:
        """Be inside the span of *event*, which ends in every case."""
        with self._ask.step(event):
            await self._ask.evict()
            try:
                async with self._inner.track_event(event) as span:
                    yield span
            except BaseException as error:
                for handler in self._closing:
                    handler.abandon(event, error)
                raise


class Closing(EventHandler[SpanHandler, SpanHandler]):
    """db-ally's own handler for OpenTelemetry during one ask: where its event fails, its span is ended as an error.

    db-ally tells handlers nothing of an event that fails, so that the spans which they began are never exported.
    """

    def __init__(self, handler: OtelEventHandler) -> None:
        self._handler = handler
        self._open: dict[int | None, SpanHandler] = {}  # by event; under None that of the ask

    async def request_start(self, user_request: RequestStart) -> SpanHandler:
        """Begin the span of the ask."""
        self._open[None] = begun = await self._handler.request_start(user_request)
        return begun

    async def event_start(self, event: Event, request_context: SpanHandler) -> SpanHandler:
        """Begin the span of *event*."""
        self._open[id(event)] = begun = await self._handler.event_start(event, request_context)
        return begun

    async def event_end(self, event: Event | None, request_context: SpanHandler, event_context: SpanHandler) -> None:
        """End the span of *event*."""
        self._open.pop(id(event), None)
        await self._handler.event_end(event, request_context, event_context)

    async def request_end(self, output: RequestEnd, request_context: SpanHandler) -> None:
        """End the span of the ask."""
        self._open.pop(None, None)
        await self._handler.request_end(output, request_context)

    def abandon(self, event: Event | None, error: BaseException) -> None:
        """End the span of *event*, or of the ask, as one that failed."""
        begun = self._open.pop(None if event is None else id(event), None)
        if begun is not None:
            fail(begun.span, error)
            begun.span.end()
