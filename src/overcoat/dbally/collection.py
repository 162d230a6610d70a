"""`trace`: a collection each of whose asks is one trace, from the question to the last attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dbally.audit.event_tracker import EventTracker
from dbally.audit.events import RequestEnd, RequestStart
from dbally.collection import Collection, ExecutionResult
from dbally.llms.clients.base import LLMOptions
from opentelemetry import trace as otel

from overcoat._version import __version__
from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.bounds import deadline as bounded_in_time
from overcoat.bounds import max_requests as bounded_in_requests
from overcoat.dbally.ask import Ask
from overcoat.dbally.tracking import AskTracker
from overcoat.telemetry.names import SCHEMA_URL

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

C = TypeVar("C", bound=Collection)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Settings:
    content: bool
    deadline: Duration | None
    max_requests: int | None
    tracer_provider: TracerProvider | None


class _Traced(Collection):
    """A collection whose asks are traced: in front of the class of the collection that it was made from."""

    __slots__ = ("_overcoat",)  # beside what it shares, so that one collection may be traced in several ways

    def __init__(self, collection: Collection, settings: _Settings) -> None:
        self.__dict__ = collection.__dict__  # one state, whichever of the two is changed
        self._overcoat = settings

    async def ask(
        self,
        question: str,
        dry_run: bool = False,
        return_natural_response: bool = False,
        llm_options: LLMOptions | None = None,
        event_tracker: EventTracker | None = None,
    ) -> ExecutionResult:
        """Ask as ever; all that this takes is inside one span."""

        async def answer(tracker: EventTracker) -> ExecutionResult:
            return await super(_Traced, self).ask(
                question=question,
                dry_run=dry_run,
                return_natural_response=return_natural_response,
                llm_options=llm_options,
                event_tracker=tracker,
            )

        if isinstance(event_tracker, AskTracker):  # as the fallback of one that is traced: a part of that ask
            return await answer(event_tracker)
        settings = self._overcoat
        tracer = otel.get_tracer("overcoat", __version__, settings.tracer_provider, SCHEMA_URL)
        ask = Ask(tracer, self.name, tuple(self.list()), settings.content)
        try:
            with ask.span(question) as span, ExitStack() as bounds:
                if settings.deadline is not None:
                    bounds.enter_context(bounded_in_time(settings.deadline))
                if settings.max_requests is not None:
                    bounds.enter_context(bounded_in_requests(settings.max_requests))
                if event_tracker is not None:  # the caller tells it of the request, as with db-ally's own
                    result = await answer(AskTracker(ask, event_tracker))
                else:
                    result = await self._tell(question, ask, answer)
                ask.answered(span, result)
        finally:
            await ask.evict()
        return result

    async def _tell(
        self, question: str, ask: Ask, answer: Callable[[EventTracker], Awaitable[ExecutionResult]]
    ) -> ExecutionResult:
        """Tell the handlers of the request, as db-ally does where it makes the tracker itself."""
        tracker = AskTracker.over(ask, cast("Any", self).get_all_event_handlers())
        try:
            await tracker.request_start(RequestStart(collection_name=self.name, question=question))
            result = await answer(tracker)
            await tracker.request_end(RequestEnd(result=result))
        except BaseException as error:
            tracker.abandon(error)
            raise
        return result


def trace(
    collection: C,
    *,
    content: bool = False,
    deadline: Duration | None = None,
    max_requests: int | None = None,
    tracer_provider: TracerProvider | None = None,
) -> C:
    """Return *collection* with a span around each `ask`, in which everything that it does is one trace.

    The span `overcoat.ask` ends in every case. It has the collection, the view, how often a query was generated, the
    time that it took, and the sums over its calls to the model: calls, requests, retries, hits, tokens and dollars.
    Inside are spans for view selection, for IQL and SQL, for look-ups of similar values, for the response in natural
    language and for a fallback collection, and inside those the calls, where the LLM's client is a stack with `Trace`.
    The calls are tagged with the ask, the collection, the view and the prompt's template. db-ally's own handlers are
    told what they are always told; the spans of its `OtelEventHandler` are ended where db-ally leaves them open.

    An answer that db-ally could not use is taken out of the cache, so that who asks again gets another one.

    What is returned is of the collection's class and shares its state: a view that is added to either is in both. Only
    what is asked through it is traced; as the fallback of a traced collection any is, as a part of that ask and by its
    settings.

    Args:
        collection: Any of db-ally's.
        content: Whether question, query, answer and looked-up values are on the spans; keys and personal data are taken
            out of them, see `overcoat.telemetry.redaction`.
        deadline: How long an ask may take; see `deadline`.
        max_requests: How many requests an ask may send; see `max_requests`.
        tracer_provider: Where spans go; None is the global one, also where that is set later.

    Raises:
        TypeError: *collection* is no collection, or *deadline* no duration.
        ValueError: *deadline* or *max_requests* makes no sense.
    """
    if not isinstance(collection, Collection):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise TypeError(f"trace({collection!r:.80}): expected a dbally.Collection")
    if deadline is not None:
        seconds(deadline, "trace(deadline=...)")
    if max_requests is not None:
        check_count(max_requests, "trace.max_requests")
    settings = _Settings(content=content, deadline=deadline, max_requests=max_requests, tracer_provider=tracer_provider)
    kind: Any = type(collection)
    if not issubclass(kind, _Traced):
        kind = type(kind.__name__, (_Traced, kind), {"__slots__": ()})
    return cast("C", kind(collection, settings))
