"""Each ask is one tree of spans, all of which end; with it goes what the ask took, and nothing of what was asked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import StatusCode

from overcoat import Backoff, Cache, Deadline, Meter, Retry, Timeout, Trace, capture
from overcoat.errors import DeadlineExceeded
from overcoat.testing import ScriptedClient, run


def layers(telemetry, *more):
    at_once = Retry(backoff=Backoff(base=0), random=float)
    trace = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    return (trace, *more, at_once, Meter())


@pytest.fixture
def model(library):
    return library.Model()


@pytest.fixture
def asked(od, library, telemetry, model):
    """Makes a traced collection over the model."""

    def make(*views, around=(), handlers=(), **settings):
        llm = library.Asked(model, *layers(telemetry, *around))
        made = library.collection(llm, *views, handlers=handlers)
        return od.trace(made, tracer_provider=telemetry.tracer_provider, **settings)

    return make


def attributes(telemetry, name="overcoat.ask"):
    (span,) = telemetry.named(name)
    return dict(span.attributes)


def tree(spans):
    """Return the names of *spans* by their paths from the root; that there is one root and no loose end is checked."""
    by_id = {span.context.span_id: span for span in spans}
    assert len([span for span in spans if span.parent is None]) == 1

    def path(span):
        return (path(by_id[span.parent.span_id]) if span.parent else ()) + (span.name,)

    return sorted(path(span) for span in spans)


CALL = ("overcoat.call", "chat openai/gpt-4o-mini")


def paths(*steps):
    """Return the paths of an ask whose *steps* are these, each with one call."""
    inside = [(step, *CALL[:depth]) for step in steps for depth in range(len(CALL) + 1)]
    return sorted([("overcoat.ask",), *(("overcoat.ask", *each) for each in inside)])


def test_a_structured_view(asked, library, telemetry):
    result = run(asked().ask(library.POLISH, return_natural_response=True))
    assert result.results == [{"title": "Solaris"}, {"title": "Flights"}]
    steps = ["ask.view_selection", "ask.iql", "ask.iql", "ask.iql", "ask.response"]
    assert tree(telemetry.spans) == sorted([*paths(*steps), ("overcoat.ask", "ask.similarity")])
    assert Counter(span.attributes["overcoat.ask.template"] for span in telemetry.named("ask.iql")) == Counter(
        ["filters_decision", "aggregation_decision", "filters_generation"]
    )
    found = attributes(telemetry)
    assert found.pop("overcoat.ask.id")
    assert found.pop("overcoat.ask.execution_time") >= found.pop("overcoat.ask.execution_time_view") >= 0
    assert found == {
        "overcoat.ask.collection": "library",
        "overcoat.ask.view": "Books",
        "overcoat.ask.outcome": "ok",
        "overcoat.ask.rows": 2,
        "overcoat.ask.iql.attempts": 1,
        "overcoat.ask.iql.refused": 0,
        "overcoat.ask.calls": 5,
        "overcoat.ask.requests": 5,
        "overcoat.ask.retries": 0,
        "overcoat.ask.cache_hits": 0,
        "overcoat.ask.input_tokens": 500,
        "overcoat.ask.output_tokens": 50,
        "overcoat.ask.cost_usd": pytest.approx(5 * (100 * 0.15 + 10 * 0.6) / 1e6),
    }


def test_a_view_that_writes_sql(asked, library, telemetry):
    result = run(asked().ask(library.LOANED))
    assert result.results == [{"title": "Solaris"}]
    assert tree(telemetry.spans) == paths("ask.view_selection", "ask.sql")
    assert attributes(telemetry)["overcoat.ask.view"] == "Loans"


def test_a_single_view_is_not_selected(asked, library, telemetry):
    run(asked(library.Loans).ask(library.LOANED))
    assert tree(telemetry.spans) == paths("ask.sql")


def test_what_is_similar(asked, library, telemetry):
    """Once found, and once not: then the value is used as it is."""
    run(library.languages.update())
    collection = asked(library.Books)
    run(collection.ask(library.POLISH))
    library.languages.store.values.clear()
    assert run(collection.ask(library.POLISH)).results == []
    found = [dict(span.attributes) for span in telemetry.named("ask.similarity")]
    assert [each["overcoat.ask.similarity.found"] for each in found] == [True, False]
    assert {(each["overcoat.ask.similarity.store"], each["overcoat.ask.similarity.fetcher"]) for each in found} == {
        ("Folded", "Languages")
    }


@pytest.fixture(autouse=True)
def _languages(library):
    run(library.languages.update())


def test_what_a_fallback_collection_does_is_a_part_of_it(od, asked, library, telemetry, model):
    """Whether that one is traced as well or not."""
    for traced in (False, True):
        first = asked()
        second = library.collection(library.Asked(model, *layers(telemetry)), library.Loans, name="branch")
        first.set_fallback(od.trace(second) if traced else second)
        model.instead["view_selection"] = ["NoViewFoundError"]
        before = len(telemetry.spans)
        assert run(first.ask(library.LOANED)).results == [{"title": "Solaris"}]
        spans = telemetry.spans[before:]
        fallback = [("overcoat.ask", "ask.fallback", *each[1:]) for each in paths("ask.sql")[1:]]
        assert tree(spans) == sorted([*paths("ask.view_selection"), ("overcoat.ask", "ask.fallback"), *fallback])
        found = dict(spans[-1].attributes)
        assert (found["overcoat.ask.collection"], found["overcoat.ask.fallback"]) == ("library", "branch")
        assert (found["overcoat.ask.view"], found["overcoat.ask.outcome"]) == ("Loans", "ok")


def test_the_span_is_current_while_the_client_is_called(od, library, telemetry):
    seen = []

    async def during(template):
        current = otel.get_current_span()
        seen.append((current.name, current.is_recording()))

    async def ask():
        llm = library.Asked(library.Model(during))  # without a `Trace`, whose spans would lie between
        await od.trace(library.collection(llm), tracer_provider=telemetry.tracer_provider).ask(library.POLISH)
        return otel.get_current_span()

    assert run(ask()) is otel.INVALID_SPAN
    assert seen == [(name, True) for name in ["ask.view_selection", "ask.iql", "ask.iql", "ask.iql"]]


ERRORS = ["connection", "status", "response", "foreign"]


@pytest.fixture
def failure(library):
    from dbally import LLMConnectionError, LLMResponseError, LLMStatusError

    return {
        "connection": (LLMConnectionError(), "connection"),
        "status": (LLMStatusError("", 429), "rate_limited"),
        "response": (LLMResponseError(), "bad_output"),
        "foreign": (KeyError("x"), "KeyError"),
    }


@pytest.mark.parametrize("which", ERRORS)
@pytest.mark.parametrize("template", ["view_selection", "filters_decision", "filters_generation", "nl_response"])
def test_an_error_ends_it_and_is_named(asked, library, telemetry, model, failure, which, template):
    """By what is behind it: db-ally says the same of all that fails in a structured view."""
    error, kind = failure[which]
    model.instead[template] = [error] * 100
    with pytest.raises(Exception) as raised:  # noqa: PT011 - whichever db-ally makes of it
        run(asked().ask(library.POLISH, return_natural_response=True))
    (span,) = telemetry.named("overcoat.ask")
    assert (span.attributes["overcoat.ask.outcome"], span.attributes["error.type"]) == ("error", kind)
    assert span.status.status_code is StatusCode.ERROR
    assert type(raised.value).__name__ in span.status.description or kind == type(raised.value).__name__
    failed = [each for each in telemetry.spans if each.attributes.get("overcoat.ask.template") == template]
    assert {each.attributes["error.type"] for each in failed} == {kind}
    tree(telemetry.spans)


def test_an_error_in_a_view_that_writes_sql_is_named(asked, library, telemetry, model, failure):
    """db-ally puts it into a prompt that takes no such turn, and raises that."""
    model.instead["sql_generation"] = [failure["status"][0]] * 3
    with pytest.raises(library.dbally.prompt.template.PromptTemplateError):
        run(asked().ask(library.LOANED))
    assert attributes(telemetry)["error.type"] == "rate_limited"


def test_a_cancelled_ask_ends(od, library, telemetry):
    """With its steps, in which two prompts run at a time."""

    async def during(template):
        await asyncio.sleep(10)

    async def ask():
        llm = library.Asked(library.Model(during), *layers(telemetry))
        collection = od.trace(library.collection(llm), tracer_provider=telemetry.tracer_provider)
        task = asyncio.create_task(collection.ask(library.POLISH))
        await asyncio.sleep(15)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return otel.get_current_span()

    assert run(ask()) is otel.INVALID_SPAN
    attempts = [("overcoat.ask", "ask.iql", *CALL, "attempt")] * 2
    assert tree(telemetry.spans) == sorted([*paths("ask.view_selection", "ask.iql", "ask.iql"), *attempts])
    found = attributes(telemetry)
    assert (found["overcoat.ask.outcome"], found["error.type"]) == ("cancelled", "cancelled")
    assert {span.attributes["error.type"] for span in telemetry.named("ask.iql")} == {"cancelled"}


def test_an_ask_that_is_thrown_away_ends(asked, library, telemetry):
    async def ask():
        waiting = asyncio.Event()

        class Waiting(library.Told):
            async def event_start(self, event, request_context):
                await waiting.wait()

        coroutine = asked(handlers=[Waiting()]).ask(library.POLISH)
        coroutine.send(None)
        coroutine.close()

    run(ask())
    assert {span.name for span in telemetry.spans} == {"overcoat.ask", "ask.view_selection"}
    tree(telemetry.spans)


def test_the_deadline_of_an_ask(od, library, telemetry):
    async def during(template):
        await asyncio.sleep(4)

    async def ask():
        llm = library.Asked(library.Model(during), *layers(telemetry))
        settings = {"tracer_provider": telemetry.tracer_provider, "deadline": "10s", "max_requests": 50}
        with pytest.raises(DeadlineExceeded):
            await od.trace(library.collection(llm), **settings).ask(library.POLISH)
        return asyncio.get_running_loop().time()

    assert run(ask()) == 10
    found = attributes(telemetry)
    assert (found["overcoat.ask.outcome"], found["error.type"]) == ("error", "deadline_exceeded")
    assert found["overcoat.ask.requests"] == 4
    assert [span.attributes["overcoat.outcome"] for span in telemetry.named("overcoat.call")].count("error") == 1


def test_a_deadline_around_an_ask(od, asked, library, telemetry, model):
    async def during(template):
        await asyncio.sleep(4)

    model.during = during

    async def ask():
        with od.deadline("10s"):
            await asked().ask(library.POLISH)

    with pytest.raises(DeadlineExceeded):
        run(ask())
    assert attributes(telemetry)["error.type"] == "deadline_exceeded"


def test_the_requests_of_an_ask(od, asked, library, telemetry, model, failure):
    """However its parts would repeat each other: db-ally three times, each two retries."""
    model.instead["filters_decision"] = [failure["status"][0]] * 100
    with pytest.raises(library.dbally.views.exceptions.ViewExecutionError):
        run(asked(max_requests=6).ask(library.POLISH))
    assert len(model.seen) == 6
    found = attributes(telemetry)
    assert (found["overcoat.ask.requests"], found["overcoat.ask.outcome"]) == (6, "refused")
    assert found["error.type"] == "requests_exceeded"


def test_no_content_unless_it_is_asked_for(asked, library, telemetry):
    run(asked().ask(library.POLISH, return_natural_response=True))
    texts = " ".join(str(span.attributes) for span in telemetry.spans)
    for text in (library.POLISH, "in_language", "POLISH", "Solaris"):
        assert text not in texts
    before = len(telemetry.spans)
    question = f"{library.POLISH} Write to ada@example.com."
    run(asked(content=True).ask(question, return_natural_response=True))
    found = {name: value for span in telemetry.spans[before:] for name, value in span.attributes.items()}
    assert found["overcoat.ask.question"] == f"{library.POLISH} Write to [email]."
    assert found["overcoat.ask.query"] == "{'filters': 'in_language(\"POLISH\")', 'aggregation': None}"
    assert found["overcoat.ask.answer"] == "Solaris and Flights."
    assert (found["overcoat.ask.similarity.input"], found["overcoat.ask.similarity.output"]) == ("POLISH", "Polish")


def test_only_calls_are_calls_to_a_model(asked, library, telemetry):
    """Jaeger takes any span with a `gen_ai.*` for one."""
    run(asked().ask(library.POLISH, return_natural_response=True))
    assert {span.name.split()[0] for span in telemetry.spans if "gen_ai." in " ".join(span.attributes)} == {"chat"}


def test_it_rolls_up_what_the_records_say(asked, library, telemetry, model, failure):
    collection = asked(around=(Cache(),))
    run(collection.ask(library.LOANED))
    model.instead["filters_decision"] = [failure["status"][0]]
    with capture() as calls:
        run(collection.ask(library.POLISH))
        run(collection.ask(library.LOANED))
    _, polish, loaned = (dict(span.attributes) for span in telemetry.named("overcoat.ask"))
    attempts = [attempt for call in calls for attempt in call.attempts]
    assert polish["overcoat.ask.requests"] + loaned["overcoat.ask.requests"] == len(attempts) == 5
    assert (polish["overcoat.ask.retries"], loaned["overcoat.ask.retries"]) == (1, 0)
    assert (polish["overcoat.ask.cache_hits"], loaned["overcoat.ask.cache_hits"]) == (0, 2)
    assert polish["overcoat.ask.input_tokens"] == calls.usage.input_tokens
    assert "overcoat.ask.input_tokens" not in loaned
    for name, dollars in (("cost_usd", calls.cost.billed), ("cost_saved_usd", calls.cost.saved)):
        both = polish.get(f"overcoat.ask.{name}", 0) + loaned.get(f"overcoat.ask.{name}", 0)
        assert both == pytest.approx(float(dollars))


def test_calls_are_tagged_with_what_they_are_for(asked, library, telemetry):
    with capture() as calls:
        run(asked().ask(library.POLISH))
    (id_,) = {call.tags["ask"] for call in calls}
    assert id_ == attributes(telemetry)["overcoat.ask.id"]
    assert {call.tags["collection"] for call in calls} == {"library"}
    assert {call.tags["template"]: call.tags.get("view") for call in calls} == {
        "view_selection": None,
        "filters_decision": "Books",
        "aggregation_decision": "Books",
        "filters_generation": "Books",
    }


# Beside db-ally's own handlers.


@pytest.mark.parametrize("question", ["POLISH", "LOANED", "UNKNOWN"])
def test_handlers_are_told_the_same(od, library, model, question):
    """Also of a question that no view is for."""
    told = []
    for trace in (od.trace, lambda collection: collection):
        handler = library.Told()
        collection = library.collection(library.Asked(model), handlers=[handler])
        with suppress(library.dbally.NoViewFoundError):
            run(trace(collection).ask(getattr(library, question), return_natural_response=True))
        told.append(handler.told)
    assert told[0] == told[1] != []


@pytest.mark.parametrize("fails", [False, True])
def test_db_ally_s_own_spans_are_in_the_tree_and_end(od, library, telemetry, model, failure, fails):
    """Where a call fails, db-ally would leave its span and that of the request open."""
    handler = library.dbally.audit.OtelEventHandler(telemetry.tracer_provider, record_inputs=False)
    collection = library.collection(library.Asked(model, *layers(telemetry)), handlers=[handler])
    if fails:
        model.instead["filters_generation"] = [failure["status"][0]] * 100
    with suppress(library.dbally.views.exceptions.ViewExecutionError):
        run(od.trace(collection, tracer_provider=telemetry.tracer_provider).ask(library.POLISH))
    tree(telemetry.spans)
    (request,) = telemetry.named("request")
    assert request.status.status_code is (StatusCode.ERROR if fails else StatusCode.OK)
    codes = Counter(span.status.status_code for span in telemetry.named("llm"))
    assert codes == ({StatusCode.OK: 3, StatusCode.ERROR: 4} if fails else {StatusCode.OK: 4})
    assert len(telemetry.named("similarity")) == (not fails)


def test_without_us_they_stay_open(library, telemetry, model, failure):
    """What the test above is measured against: should db-ally learn it, `Closing` may go."""
    handler = library.dbally.audit.OtelEventHandler(telemetry.tracer_provider)
    collection = library.collection(library.Asked(model), handlers=[handler])
    model.instead["view_selection"] = [failure["status"][0]]
    with pytest.raises(library.dbally.LLMStatusError):
        run(collection.ask(library.POLISH))
    assert telemetry.spans == []


def test_a_tracker_of_the_caller_s_own(od, library, telemetry, model, asked):
    """It gets the events; and of the request what its owner tells it."""
    from dbally.audit import EventTracker

    handler = library.Told()
    tracker = EventTracker.initialize_with_handlers([handler])

    async def ask():
        await tracker.request_start(library.dbally.audit.RequestStart(collection_name="c", question="q"))
        return await asked().ask(library.LOANED, event_tracker=tracker)

    assert run(ask()).view_name == "Loans"
    assert [each[0] for each in handler.told] == ["request", "start", "end", "start", "end"]
    assert tree(telemetry.spans) == paths("ask.view_selection", "ask.sql")


def test_events_and_prompts_that_db_ally_does_not_know(od, library, telemetry, model):
    """A view of one's own has spans by its classes' names; db-ally's own handler refuses such an event."""
    from dbally.audit.events import Event
    from dbally.collection.results import ViewExecutionResult
    from dbally.prompt.template import PromptTemplate
    from dbally.views.base import BaseView

    class Looked(Event):
        pass

    class Guess(PromptTemplate):
        pass

    class Guessing(BaseView):
        async def ask(self, query, llm, event_tracker=None, n_retries=3, dry_run=False, llm_options=None):
            event_tracker.subscribe(handler := library.Told())
            await event_tracker.request_start(library.dbally.audit.RequestStart(collection_name="c", question="q"))
            async with event_tracker.track_event(Looked()):
                pass
            assert [each[:2] for each in handler.told[1:]] == [("start", "Looked"), ("end", "NoneType")]
            chat = [{"role": "system", "content": "Guess."}, {"role": "user", "content": query}]
            said = await llm.generate_text(Guess(chat), event_tracker=event_tracker)
            return ViewExecutionResult([{"said": said}], {})

    model.instead["?"] = ["Perhaps."]

    def ask(*handlers):
        collection = library.dbally.create_collection("c", library.Asked(model), event_handlers=list(handlers))
        collection.add(Guessing)
        return run(od.trace(collection, tracer_provider=telemetry.tracer_provider).ask("Well?"))

    assert ask().results == [{"said": "Perhaps."}]
    assert attributes(telemetry, "ask.event")["overcoat.ask.event"].endswith("Looked")
    assert attributes(telemetry, "ask.prompt")["overcoat.ask.template"] == "Guess"
    with pytest.raises(ValueError, match="Unsupported event"):
        ask(library.dbally.audit.OtelEventHandler(telemetry.tracer_provider))
    assert Counter(span.name for span in telemetry.spans) == {
        "overcoat.ask": 2,
        "ask.event": 2,
        "ask.prompt": 1,
        "request": 1,
    }


@pytest.mark.parametrize(
    "first",
    [{"content": None, "tool_calls": []}, {"content": [{"type": "text", "text": "?"}]}, {"content": "?"}],
    ids=["nothing", "parts", "text"],
)
def test_whatever_a_prompt_begins_with(od, library, telemetry, first):
    """What is for the client to refuse is not refused by who watches."""
    from dbally.collection.results import ViewExecutionResult
    from dbally.prompt.template import PromptTemplate
    from dbally.views.base import BaseView

    class Guessing(BaseView):
        async def ask(self, query, llm, event_tracker=None, **settings):
            prompt = PromptTemplate([{"role": "system", "content": "Guess."}, {"role": "user", "content": query}])
            prompt.chat = [{"role": "assistant", **first}, *prompt.chat[1:]]
            return ViewExecutionResult([{"said": await llm.generate_text(prompt, event_tracker=event_tracker)}], {})

    llm = library.Asked(ScriptedClient("Perhaps."))
    collection = library.dbally.create_collection("c", llm)
    collection.add(Guessing)
    traced = od.trace(collection, tracer_provider=telemetry.tracer_provider)
    assert run(traced.ask("Well?")).results == [{"said": "Perhaps."}]
    assert attributes(telemetry, "ask.prompt")["overcoat.ask.template"] == "PromptTemplate"


# What is returned is such a collection, too.


def test_it_is_of_the_collection_s_class_and_shares_its_state(od, library, model):
    class Own(library.dbally.collection.Collection):
        """Of somebody's own."""

        async def ask(self, question, *args, **kwargs):
            return await super().ask(question.strip(), *args, **kwargs)

    plain = library.collection(library.Asked(model), library.Loans)
    own = Own("own", plain._view_selector, plain._llm, plain._nl_responder, [library.Told()], n_retries=0)
    traced = od.trace(od.trace(own, content=True), max_requests=5)
    assert isinstance(traced, Own)
    assert type(traced).__name__ == "Own"
    data = library.engine()
    traced.add(library.Loans, lambda: library.Loans(data))
    own.add(library.Books, lambda: library.Books(data))
    assert traced.list().keys() == own.list().keys() == {"Loans", "Books"}
    assert (traced.name, traced.n_retries) == ("own", 0)
    assert run(traced.ask(f"  {library.LOANED} ")).results == [{"title": "Solaris"}]
    fallback = traced >> plain
    assert fallback is own._fallback_collection is plain


def test_what_is_asked_of_the_original_is_not_traced(od, library, telemetry, model):
    original = library.collection(library.Asked(model))
    od.trace(original, tracer_provider=telemetry.tracer_provider)
    run(original.ask(library.LOANED))
    assert telemetry.spans == []


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"deadline": "soon"}, ValueError), ({"deadline": 0}, ValueError), ({"max_requests": 0}, ValueError)],
)
def test_settings_are_checked_where_they_are_written(od, library, model, settings, error):
    with pytest.raises(error, match=r"trace\("):
        od.trace(library.collection(library.Asked(model)), **settings)


def test_only_collections_are_traced(od):
    with pytest.raises(TypeError, match=r"expected a dbally\.Collection"):
        od.trace("library")


# A thousand of them.


class Balance(SpanProcessor):
    """Counts the spans that are open."""

    def __init__(self):
        self.open = set()

    def on_start(self, span, parent_context=None):
        self.open.add(span.context.span_id)

    def on_end(self, span):
        self.open.remove(span.context.span_id)


def faults(chance):
    """Return what goes wrong with requests now and then."""
    from dbally import LLMConnectionError, LLMStatusError

    async def during(template):
        match chance.randrange(20):
            case 0:
                raise LLMStatusError("", chance.choice([400, 429, 500, 503]))
            case 1:
                raise LLMConnectionError
            case 2:
                raise KeyError(template)
            case 3:
                await asyncio.sleep(100)
            case 4:
                asyncio.current_task().cancel()
        await asyncio.sleep(chance.random())

    return during


def test_a_thousand_asks_with_faults_leave_nothing_open(od, library, telemetry):
    """Errors of all kinds, cancellations, timeouts; with db-ally's own spans and without: each is one whole tree."""
    balance = Balance()
    telemetry.tracer_provider.add_span_processor(balance)
    chance = random.Random(7)  # noqa: S311 - faults, not secrets
    model = library.Model(faults(chance))
    own = library.dbally.audit.OtelEventHandler(telemetry.tracer_provider)
    trace, deadline, cache, retry, meter = layers(telemetry, Deadline("25s"), Cache(ttl="5s"))
    llm = library.Asked(model, trace, deadline, cache, retry, Timeout("15s"), meter)
    collections = []
    for handlers in ([], [own]):
        first = library.collection(llm, handlers=handlers)
        first.set_fallback(library.collection(llm, library.Loans, name="branch", handlers=handlers))
        collections.append(od.trace(first, tracer_provider=telemetry.tracer_provider, deadline="20s"))
    outcomes = Counter()

    async def one(number):
        question = chance.choice([library.POLISH, library.LOANED, library.UNKNOWN])
        for template in ("filters_generation", "sql_generation", "view_selection"):
            if chance.random() < 0.1:
                model.instead[template].append("nonsense(")
        task = asyncio.create_task(collections[number % 2].ask(question, return_natural_response=True))
        if chance.random() < 0.1:
            asyncio.get_running_loop().call_later(chance.random() * 5, task.cancel)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        outcomes[type(result).__name__] += 1

    async def main():
        for number in range(0, 1000, 4):
            await asyncio.gather(*(one(number + each) for each in range(4)))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert balance.open == set()
    assert sum(outcomes.values()) == 1000
    expected = ["ExecutionResult", "ViewExecutionError", "PromptTemplateError", "LLMStatusError"]
    assert all(outcomes[name] for name in [*expected, "CancelledError", "DeadlineExceeded"]), outcomes
    by_trace = {}
    for span in telemetry.spans:
        by_trace.setdefault(span.context.trace_id, []).append(span)
    assert len(by_trace) == 1000
    for spans in by_trace.values():
        assert {path[0] for path in tree(spans)} == {"overcoat.ask"}
