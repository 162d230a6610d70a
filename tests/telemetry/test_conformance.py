"""Everything that is emitted, in every case that there is, against the semantic conventions 1.41 as data."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import Histogram
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from overcoat import (
    Breaker,
    Budget,
    Cache,
    Deadline,
    Fallback,
    Hedge,
    LiteLLMOptions,
    LLMEvent,
    LLMStatusError,
    Meter,
    OvercoatError,
    Policy,
    RateLimit,
    Retry,
    Timeout,
    Trace,
    Validate,
    stack,
    tags,
    wrap,
)
from overcoat.budgets.memory import MemoryBudgets
from overcoat.telemetry import names
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

from .conventions import FOLDER, attributes, fits, group, present, types

TOLD = "the quick brown fox"
MODEL = "openai/gpt-4o-mini"
DOWN = LLMStatusError(f"could not say: {TOLD}", 503)
ANSWER = Answer("42", prompt_tokens=10, completion_tokens=3)
PRICED = Answer("42", prompt_tokens=1000, completion_tokens=100, cached_tokens=0)

pytestmark = present


class _Books(SpanProcessor):
    """Counts what begins and ends, and keeps what samplers saw of each span: its attributes as it began."""

    def __init__(self):
        self.begun, self.ended = Counter(), Counter()
        self.seen = {}

    def on_start(self, span, parent_context=None):
        self.begun[span.name] += 1
        self.seen[span.context.span_id] = set(span.attributes)

    def on_end(self, span):
        self.ended[span.name] += 1


class Emitted:
    """All that the cases below emitted."""

    def __init__(self, **settings):
        self.telemetry = InMemoryTelemetry()
        self.books = _Books()
        self.telemetry.tracer_provider.add_span_processor(self.books)
        self._settings = settings
        run(self._perform())

    @property
    def metrics(self):
        data = self.telemetry._metrics.get_metrics_data()
        return [
            metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        ]

    def stack(self, *steps, layers=(), model=MODEL, client=None):
        return stack(client or ScriptedClient(*steps, model_name=model), self.trace, *layers)

    @property
    def trace(self):
        return Trace(
            tracer_provider=self.telemetry.tracer_provider,
            meter_provider=self.telemetry.meter_provider,
            logger_provider=self.telemetry.logger_provider,
            **self._settings,
        )

    @property
    def events(self):
        return self.telemetry._logs.get_finished_logs()

    async def ask(self, client, text=TOLD, options=None, *, json_mode=False):
        conversation = [{"role": "user", "content": text}]
        try:
            await client.call(conversation, options or LiteLLMOptions(), LLMEvent([], "test"), json_mode)
        except (LLMStatusError, OvercoatError, ValueError):
            assert trace.get_current_span() is trace.INVALID_SPAN

    async def _perform(self):
        """Make every kind of call that there is."""
        retry = Retry(max_attempts=3)
        options = LiteLLMOptions(temperature=0, top_p=1, max_tokens=9, seed=7, stop=["."], n=2, frequency_penalty=1)
        with tags(tenant="acme"):
            await self.ask(self.stack(ANSWER, layers=[Meter()]), options=options)
        cached = self.stack(ANSWER, ANSWER, layers=[Cache(), Meter()])
        await self.ask(cached)
        await self.ask(cached)
        await self.ask(self.stack("", layers=[Cache()]))
        shared = self.stack(Answer("42", delay=1), layers=[Cache(), Meter()])
        await asyncio.gather(*(self.ask(shared) for _ in range(3)))
        await self.ask(self.stack(DOWN, ANSWER, layers=[retry, Meter()]))
        await self.ask(self.stack(DOWN, DOWN, DOWN, layers=[retry, Meter()]))
        await self.ask(self.stack(LLMStatusError("no", 401), layers=[retry]))
        await self.ask(self.stack(ValueError(TOLD)))
        await self.ask(
            self.stack(Answer("{", prompt_tokens=1, completion_tokens=1), Answer("{}"), layers=[Validate()]),
            json_mode=True,
        )
        await self.ask(
            self.stack(DOWN, layers=[Fallback(to=[ScriptedClient(ANSWER, model_name="anthropic/claude-3")])])
        )
        await self.ask(self.stack(Answer("1", delay=9), ANSWER, layers=[Hedge(after="1s"), Meter()]))
        await self.ask(self.stack(Answer("1", delay=9), layers=[Deadline("1s")]))
        await self.ask(self.stack(Answer("1", delay=9), ANSWER, layers=[retry, Timeout("1s")]))
        guarded = self.stack(DOWN, DOWN, layers=[Breaker(min_calls=2)], model="openai/guarded")
        for _ in range(3):
            await self.ask(guarded)
        queued = self.stack(Answer("1", delay=1), ANSWER, layers=[RateLimit(concurrency=1)], model="openai/queued")
        await asyncio.gather(self.ask(queued), self.ask(queued))
        await self.ask(self.stack(ANSWER, model=None))
        aging = self.stack(ANSWER, ANSWER, layers=[Cache(ttl="1s", jitter=0, stale_while_revalidate="1m"), Meter()])
        fading = self.stack(ANSWER, DOWN, layers=[Cache(ttl="1s", jitter=0, stale_if_error="1m"), Meter()])
        for client in (aging, fading):
            await self.ask(client)
            await asyncio.sleep(2)
            await self.ask(client)
        store = MemoryBudgets(lambda: asyncio.get_running_loop().time())
        poor = self.stack(PRICED, layers=[Budget(usd=0.00025, name="poor", store=store), Meter()])
        patient = Budget(usd=0.00025, window="1m", name="patient", on_limit="wait", max_wait="1h", store=store)
        for client in (poor, self.stack(PRICED, PRICED, layers=[patient, Meter()])):
            await self.ask(client, options=LiteLLMOptions(max_tokens=200))
            await self.ask(client, options=LiteLLMOptions(max_tokens=200))
        await self._change_the_policy()
        await self._cancel()
        await self._throw_away()

    async def _change_the_policy(self):
        """To another one, and then to nonsense; the call after that which finds out says so."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "overcoat.yaml"
            client = None
            for version, text in enumerate(("deadline: 9s", "deadline: 8s", "deadlin: 8s"), 10**9):
                file.write_text(f"version: 1\npolicies: {{default: {{{text}}}}}\n")
                os.utime(file, (version, version))
                if client is None:
                    client = wrap(ScriptedClient(*[ANSWER] * 6, model_name=MODEL), Policy.watch(file), trace=self.trace)
                await asyncio.sleep(1)
                await self.ask(client)
                await asyncio.sleep(0.001)  # which is not over before the thread that looks is done
                await self.ask(client)

    async def _cancel(self):
        task = asyncio.ensure_future(self.ask(self.stack(Answer("1", delay=9), layers=[Cache()])))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])

    async def _throw_away(self):
        """A coroutine that is begun and never awaited again."""
        calling = self.ask(self.stack(Answer("1", delay=9)))
        calling.send(None)
        calling.close()


SETTINGS = {
    "as it is": {},
    "every attempt": {"attempts": "always"},
    "contents": {"content": "spans and events"},
    "tags": {"metric_tags": ("tenant",)},
}


@pytest.fixture(scope="module", params=SETTINGS)
def emitted(request):
    clock = SimpleNamespace(time=lambda: 1.8e9 + asyncio.get_running_loop().time())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overcoat.client.time", clock)  # stored answers age by the calendar's clock
        return Emitted(**SETTINGS[request.param])


@pytest.fixture(scope="module")
def chats(emitted):
    found = emitted.telemetry.named("chat")
    assert len(found) > 15
    return found


KINDS = {
    names.SPAN_CALL: SpanKind.INTERNAL,
    names.SPAN_CACHE: SpanKind.INTERNAL,
    names.SPAN_ATTEMPT: SpanKind.INTERNAL,
    names.SPAN_BACKOFF: SpanKind.INTERNAL,
    names.SPAN_RATE_LIMIT: SpanKind.INTERNAL,
    names.SPAN_BUDGET: SpanKind.INTERNAL,
}


def test_the_cases_are_what_they_should_be(emitted):
    """Else all that follows would say nothing of them."""
    calls = emitted.telemetry.named(names.SPAN_CALL)
    for name, wanted in {
        names.OUTCOME: {"ok", "error", "refused", "cancelled"},
        names.CACHE_RESULT: {"hit", "stale", "miss", "coalesced", "refused"},
        names.POLICY_RELOAD: {"applied", "rejected"},
        names.BUDGET_RESULT: {"refused", "overrun"},
        names.CIRCUIT_STATE: {"open"},
    }.items():
        assert {span.attributes.get(name) for span in calls} - {None} >= wanted, name
    assert any(span.links for span in calls), "a call in the background"


def test_every_span_that_began_has_ended(emitted):
    assert emitted.books.begun == emitted.books.ended
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_spans_have_the_names_and_kinds_that_they_should(emitted):
    for span in emitted.telemetry.spans:
        if span.name in KINDS:
            assert span.kind is KINDS[span.name]
        else:
            model = span.attributes.get(names.REQUEST_MODEL)
            assert span.name == ("chat" if model is None else f"chat {model}")
            assert span.kind is SpanKind.CLIENT
    assert {span.name for span in emitted.telemetry.spans} >= KINDS.keys()


def test_a_chat_has_what_the_conventions_require(chats):
    wanted = attributes("span.gen_ai.inference.client")
    required = {name for name, want in wanted.items() if want.level == "required"}
    assert required == {"gen_ai.operation.name", "gen_ai.provider.name"}
    for span in chats:
        assert required <= span.attributes.keys()


def test_what_is_not_of_the_conventions_is_ours(emitted):
    """And no attribute of the conventions is where they do not have it, but for what HTTP's say of an attempt."""
    allowed = {
        **{kind: {"error.type"} for kind in KINDS},
        names.SPAN_ATTEMPT: {"error.type", "http.response.status_code", "http.request.resend_count"},
    }
    for span in emitted.telemetry.spans:
        known = allowed.get(span.name, attributes("span.gen_ai.inference.client").keys())
        others = {name for name in span.attributes if not name.startswith("overcoat.")}
        assert others <= known, span.name


def test_attributes_have_the_types_of_the_registries(emitted):
    for span in emitted.telemetry.spans:
        for name, value in span.attributes.items():
            if name in types():
                assert fits(name, value), (span.name, name, value)


def test_samplers_see_what_the_conventions_say_they_should(emitted, chats):
    relevant = {n for n, want in attributes("span.gen_ai.inference.client").items() if want.for_sampling}
    for span in chats:
        assert relevant & span.attributes.keys() <= emitted.books.seen[span.context.span_id]


def test_an_error_has_a_status_a_type_and_no_words(emitted):
    failed = [span for span in emitted.telemetry.spans if span.status.status_code is StatusCode.ERROR]
    assert failed
    for span in emitted.telemetry.spans:
        assert span.status.status_code is not StatusCode.OK, "which is for applications to say"
        assert (span in failed) == ("error.type" in span.attributes), span.name
        assert TOLD not in (span.status.description or "")


def test_the_duration_has_the_error_types_of_the_spans(emitted, chats):
    points = emitted.telemetry.points(names.OPERATION_DURATION)
    counted = Counter()
    for labels, point in points.items():
        counted[dict(labels).get("error.type")] += point.count
    assert counted == Counter(span.attributes.get("error.type") for span in chats)


@pytest.mark.parametrize("name", ["gen_ai.client.operation.duration", "gen_ai.client.token.usage"])
def test_the_conventions_metrics_are_as_they_say(emitted, name):
    (metric,) = (each for each in emitted.metrics if each.name == name)
    said, wanted = group(f"metric.{name}"), attributes(f"metric.{name}")
    assert metric.unit == said["unit"]
    assert metric.description == said["brief"]
    assert isinstance(metric.data, Histogram)
    required = {each for each, want in wanted.items() if want.level == "required"}
    for point in metric.data.data_points:
        assert required <= point.attributes.keys() <= wanted.keys()
        assert all(fits(each, value) for each, value in point.attributes.items())


def test_buckets_are_those_that_the_conventions_name(emitted):
    bounds = {m.name: m.data.data_points[0].explicit_bounds for m in emitted.metrics if isinstance(m.data, Histogram)}
    assert bounds[names.OPERATION_DURATION] == tuple(0.01 * 2**power for power in range(14))
    assert bounds[names.TOKEN_USAGE] == tuple(4**power for power in range(14))
    assert (
        bounds.get(names.METRIC_ATTEMPT_DURATION, bounds[names.OPERATION_DURATION]) == bounds[names.OPERATION_DURATION]
    )


def test_no_other_metric_has_a_name_of_the_conventions(emitted):
    for metric in emitted.metrics:
        assert metric.name.startswith("overcoat.") or metric.name in (names.OPERATION_DURATION, names.TOKEN_USAGE)
        for point in metric.data.data_points:
            if not metric.name.startswith("gen_ai."):
                assert all(n.startswith("overcoat.") or n == "error.type" for n in point.attributes)


def test_units_are_ucum_s_or_annotations(emitted):
    for metric in emitted.metrics:
        assert metric.unit in ("s", "USD") or (metric.unit[0] == "{" and metric.unit[-1] == "}")


def test_scopes_say_whose_they_are_and_which_conventions_hold(emitted):
    for span in emitted.telemetry.spans:
        scope = span.instrumentation_scope
        assert (scope.name, scope.schema_url) == ("overcoat", "https://opentelemetry.io/schemas/1.41.0")


def test_contents_are_where_they_are_asked_for_and_nowhere_else(emitted):
    captured = "content" in emitted._settings
    assert not any(TOLD in metric.to_json() for metric in emitted.metrics)
    for span in emitted.telemetry.spans:
        assert (TOLD in span.to_json()) == (captured and span.kind is SpanKind.CLIENT)
    for event in emitted.events:
        allowed = captured and event.log_record.event_name == names.EVENT_DETAILS
        assert (TOLD in event.to_json()) == allowed or event.log_record.event_name == names.EVENT_EXCEPTION
        assert captured or TOLD not in event.to_json()


def test_tags_are_on_spans_and_on_metrics_only_where_they_are_listed(emitted):
    listed = "metric_tags" in emitted._settings
    assert any("acme" in metric.to_json() for metric in emitted.metrics) == listed
    assert any("acme" in json.dumps(dict(span.attributes)) for span in emitted.telemetry.spans)


@pytest.mark.parametrize("name", [names.EVENT_EXCEPTION, names.EVENT_DETAILS])
def test_events_are_as_the_conventions_say(emitted, chats, name):
    """What they have beyond is the span's, which an event may have as well."""
    events = emitted.telemetry.events(name)
    of_span = attributes("span.gen_ai.inference.client").keys()
    own = attributes(f"event.{name}").keys()
    spans = {span.context.span_id: span for span in chats}
    for event in events:
        record = event.log_record
        assert (event.instrumentation_scope.name, event.instrumentation_scope.schema_url) == (
            "overcoat",
            names.SCHEMA_URL,
        )
        assert {each for each in record.attributes if not each.startswith("overcoat.")} <= of_span | own
        span = spans[record.span_id]
        common = record.attributes.keys() & span.attributes.keys() - {names.INPUT_MESSAGES, names.OUTPUT_MESSAGES}
        assert all(record.attributes[each] == span.attributes[each] for each in common)
    if name == names.EVENT_DETAILS:
        assert len(events) == (len(chats) if "content" in emitted._settings else 0)
    else:
        failed = [span for span in chats if span.attributes.get("error.type") not in (None, "cancelled")]
        assert sorted(event.log_record.span_id for event in events) == sorted(s.context.span_id for s in failed)
        assert {event.log_record.severity_number.value for event in events} == {13}
        assert all("exception.type" in event.log_record.attributes for event in events)


@pytest.mark.parametrize("name", ["input", "output"])
def test_messages_are_of_the_conventions_shape(emitted, chats, name):
    schema = json.loads((FOLDER / f"gen-ai-{name}-messages.json").read_text())
    found = [span.attributes.get(f"gen_ai.{name}.messages") for span in chats]
    for each in found:
        if each is not None:
            jsonschema.validate(json.loads(each), schema)
    assert any(found) == ("content" in emitted._settings)


def test_nothing_of_an_attempt_could_be_taken_for_an_inference(emitted):
    for span in emitted.telemetry.named(names.SPAN_ATTEMPT):
        assert not any(name.startswith("gen_ai.") for name in span.attributes)
