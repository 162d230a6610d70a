"""One question to a collection as db-ally's events tell it: its spans, what its calls took, the answers refused."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from dbally.audit.events import Event, FallbackEvent, LLMEvent, SimilarityEvent
from dbally.collection import ExecutionResult, NoViewFoundError
from dbally.iql import IQLError
from dbally.prompt.template import PromptTemplateError
from dbally.views.exceptions import ViewExecutionError
from dbally.views.freeform.text2sql import Text2SQLError
from opentelemetry.trace import Span, Tracer

from overcoat.attribution import Calls, capture, tags
from overcoat.caching.controls import invalidate
from overcoat.dbally import names
from overcoat.dbally.spans import current_span, judge
from overcoat.dbally.templates import (
    AGGREGATION_GENERATION,
    FILTERS_GENERATION,
    SQL_GENERATION,
    VIEW_SELECTION,
    Origin,
    origin_of,
)
from overcoat.record import Call, Outcome
from overcoat.telemetry.redaction import redact

Attributes = dict[str, Any]

_NO_VIEW = "NoViewFoundError"
"""What db-ally's prompt has the model say where no view fits: an answer, and not a wrong one."""
_LONGEST = 4096  # characters of a content
_LONGEST_NAME = 128
_ADDRESS = re.compile(r"<(?:\w+\.)*(\w+) object at 0x[0-9a-f]+>")


@dataclass(slots=True, eq=False)
class _Step:
    """One prompt: how many messages it has, the how manieth of its template it is, its calls and its answer."""

    origin: Origin
    turns: int
    number: int
    calls: Sequence[Call]
    answer: str | None = None


@dataclass(slots=True, eq=False)
class Ask:
    """What is known of one question, and of the collections that it fell back to.

    Attributes:
        tracer: Makes the spans.
        collection: The name of the one that was asked.
        views: The names of its views.
        content: Whether texts are recorded, redacted.
        id: On the span, and as a tag of the calls.
        view: The view that was chosen, once that is known.
        fallback: The collection that was asked last, where it is another.
        refused: The calls whose answers db-ally could not use, until they are evicted.
    """

    tracer: Tracer
    collection: str
    views: Sequence[str]
    content: bool
    id: str = field(default_factory=lambda: uuid4().hex)
    view: str | None = None
    fallback: str | None = None
    refused: list[Call] = field(default_factory=list[Call])
    _generated: int = 0
    _unusable: int = 0
    _last: dict[str, _Step] = field(default_factory=dict[str, _Step])
    """By template, in the collection that is asked now."""

    @contextmanager
    def span(self, question: str) -> Generator[Span]:
        """Be the current span while it lasts, which has all that is known in the end."""
        if len(self.views) == 1:
            self.view = self.views[0]  # db-ally asks nobody
        attributes: Attributes = {names.ASK: self.id, names.COLLECTION: self.collection}
        self._content(attributes, names.QUESTION, question)
        own = {names.TAG_ASK: self.id, names.TAG_COLLECTION: self.collection}
        with current_span(self.tracer, names.SPAN_ASK, attributes) as span, tags(**own), capture() as calls:
            outcome: Outcome = "ok"
            try:
                yield span
            except BaseException as error:
                outcome, _ = judge(error)
                self._failed(error)
                raise
            finally:
                span.set_attributes({names.OUTCOME: outcome, **self._found(), **_roll_up(calls)})

    def answered(self, span: Span, result: ExecutionResult) -> None:
        """Put what the *result* says on the *span*."""
        self.view = result.view_name
        attributes: Attributes = {
            names.EXECUTION_TIME: result.execution_time,
            names.EXECUTION_TIME_VIEW: result.execution_time_view,
            names.ROWS: len(result.results),
        }
        query = next((result.context[key] for key in ("iql", "sql") if result.context.get(key)), None)
        self._content(attributes, names.QUERY, query)
        self._content(attributes, names.ANSWER, result.textual_response or None)
        span.set_attributes(attributes)

    async def evict(self) -> None:
        """Take the answers that db-ally could not use out of the cache: who asks again is to get others."""
        while self.refused:
            await invalidate(self.refused.pop())

    @contextmanager
    def step(self, event: Event) -> Generator[None]:
        """Be the span of *event*, current while it lasts."""
        if isinstance(event, LLMEvent):
            with self._prompt(event):
                yield
        elif isinstance(event, SimilarityEvent):
            with self._similarity(event):
                yield
        elif isinstance(event, FallbackEvent):
            self._fall_back(event)
            with current_span(self.tracer, names.SPAN_FALLBACK, {names.FALLBACK: event.fallback_collection_name}):
                yield
        else:
            with current_span(self.tracer, names.SPAN_EVENT, {names.EVENT: type(event).__qualname__}):
                yield

    @contextmanager
    def _prompt(self, event: LLMEvent) -> Generator[None]:
        origin, turns = origin_of(event), len(event.prompt)
        before = self._last.get(origin.template)
        if before is not None and before.answer is not None and _goes_on(event.prompt, before):
            self._refuse(before)  # the model is shown its answer, and told what was wrong with it
        number = 1 if before is None else before.number + 1
        self._generated += origin.generates
        known = {names.TAG_TEMPLATE: origin.template}
        if self.view is not None:
            known[names.TAG_VIEW] = self.view
        attributes: Attributes = {names.TEMPLATE: origin.template, names.ATTEMPT: number}
        with current_span(self.tracer, origin.span, attributes), tags(**known), capture() as calls:
            step = self._last[origin.template] = _Step(origin, turns, number, calls)
            yield
        step.answer = event.response
        if origin is VIEW_SELECTION and event.response in self.views:
            self.view = event.response

    @contextmanager
    def _similarity(self, event: SimilarityEvent) -> Generator[None]:
        attributes: Attributes = {names.STORE: _kind(event.store), names.FETCHER: _kind(event.fetcher)}
        self._content(attributes, names.SIMILARITY_INPUT, event.input_value)
        with current_span(self.tracer, names.SPAN_SIMILARITY, attributes) as span:
            yield
            said: Attributes = {names.FOUND: event.output_value is not None}
            self._content(said, names.SIMILARITY_OUTPUT, event.output_value)
            span.set_attributes(said)

    def _fall_back(self, event: FallbackEvent) -> None:
        if event.error_description.startswith(_NO_VIEW):
            self._no_view(event.triggering_view_name)
        # The other collection has views of its own, and its prompts go on from none of these.
        self._last.clear()
        self.views, self.view, self.fallback = (), None, event.fallback_collection_name

    def _failed(self, error: BaseException) -> None:
        """Find the answers that *error* is about."""
        if isinstance(error, NoViewFoundError):
            self._no_view(error.view_name)
        elif isinstance(error, ViewExecutionError):
            if isinstance(error.iql.filters, IQLError):
                self._refuse(self._last.get(FILTERS_GENERATION.template))
            if isinstance(error.iql.aggregation, IQLError):
                self._refuse(self._last.get(AGGREGATION_GENERATION.template))
        elif isinstance(error, (Text2SQLError, PromptTemplateError)):
            self._refuse(self._last.get(SQL_GENERATION.template))

    def _no_view(self, name: str) -> None:
        selected = self._last.get(VIEW_SELECTION.template)
        if selected is not None and selected.answer == name != _NO_VIEW:
            self._refuse(selected)  # the model made a view up

    def _refuse(self, step: _Step | None) -> None:
        if step is not None and step.answer is not None:
            step.answer = None  # once is enough
            self._unusable += step.origin.generates
            self.refused += step.calls

    def _found(self) -> Attributes:
        found: Attributes = {names.QUERY_ATTEMPTS: self._generated, names.QUERIES_REFUSED: self._unusable}
        _put(found, names.VIEW, self.view)
        _put(found, names.FALLBACK, self.fallback)
        return found

    def _content(self, attributes: Attributes, name: str, value: object) -> None:
        if self.content and value is not None:
            attributes[name] = redact(str(value))[:_LONGEST]


def _goes_on(prompt: str | Sequence[Mapping[str, Any]], before: _Step) -> bool:
    """Say whether *prompt* is the one *before*, then its answer, and more; else it asks something else."""
    if isinstance(prompt, str) or len(prompt) <= before.turns:
        return False
    return prompt[before.turns].get("content") == before.answer


def _roll_up(calls: Calls) -> Attributes:
    requests = [len(inference.attempts) for call in calls for inference in call.inferences]
    usage, cost = calls.usage, calls.cost
    attributes: Attributes = {
        names.CALLS: len(calls),
        names.REQUESTS: sum(requests),
        names.RETRIES: sum(max(0, attempts - 1) for attempts in requests),
        names.CACHE_HITS: sum(call.cache is not None and call.cache.served for call in calls),
    }
    if usage is not None:
        _put(attributes, names.INPUT_TOKENS, usage.input_tokens)
        _put(attributes, names.OUTPUT_TOKENS, usage.output_tokens)
    _put(attributes, names.COST, None if cost.billed is None else float(cost.billed))
    _put(attributes, names.COST_SAVED, float(cost.saved) if cost.saved else None)
    _put(attributes, names.COST_WASTED, float(cost.wasted) if cost.wasted else None)
    return attributes


def _put(attributes: Attributes, name: str, value: Any) -> None:
    if value is not None:
        attributes[name] = value


def _kind(description: str) -> str:
    """Return *description*, a `repr`, without an address: one value for all objects of a class."""
    return _ADDRESS.sub(r"\1", description)[:_LONGEST_NAME]
