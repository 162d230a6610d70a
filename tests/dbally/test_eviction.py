"""An answer that db-ally could not use is not given again, and one that it could use is."""

from __future__ import annotations

from contextlib import suppress

import pytest

from overcoat import Cache, Trace
from overcoat.testing import run

REFUSED = {  # an answer that is no good, once or always: to which prompt, of which question, and with which retries
    "no IQL": ("filters_generation", "nonsense(", "POLISH"),
    "an unknown filter": ("filters_generation", "by_author('Lem')", "POLISH"),
    "two statements": ("filters_generation", "in_language('Polish')\nin_language('Polish')", "POLISH"),
    "no such view": ("view_selection", "Films", "POLISH"),
    "no JSON": ("sql_generation", "SELECT 1", "LOANED"),
    "no SQL": ("sql_generation", '{"sql": "SELEKT 1"}', "LOANED"),
    "no such column": ("sql_generation", '{"sql": "SELECT author FROM loans"}', "LOANED"),
}


@pytest.fixture
def model(library):
    run(library.languages.update())
    return library.Model()


@pytest.fixture
def ask(od, library, telemetry, model):
    """Asks, by way of a cache, and gives the result; None where there is none."""
    layers = (Trace(tracer_provider=telemetry.tracer_provider), Cache(ttl="1h"))
    collection = od.trace(library.collection(library.Asked(model, *layers)), tracer_provider=telemetry.tracer_provider)

    def asking(question, *, n_retries=3):
        model.seen.clear()
        collection._llm.client  # noqa: B018 - one stack for all asks
        collection.n_retries = n_retries
        with suppress(Exception):
            return run(collection.ask(getattr(library, question))).results
        return None

    return asking


def asked_of(telemetry):
    return [dict(span.attributes) for span in telemetry.named("overcoat.ask")]


@pytest.mark.parametrize("which", REFUSED)
@pytest.mark.parametrize("n_retries", [0, 3])
def test_a_refused_answer_is_asked_for_again(ask, model, telemetry, which, n_retries):
    """Whether db-ally asked again in the same ask, or gave up; the answers before it are still good."""
    template, answer, question = REFUSED[which]
    model.instead[template] = [answer]
    first = ask(question, n_retries=n_retries)
    assert ask(question, n_retries=n_retries) is not None
    assert model.seen == [template] if first is not None else template in model.seen
    assert model.seen.count("view_selection") == (template == "view_selection")
    assert ask(question) is not None
    assert model.seen == []


def test_without_us_the_same_mistake_is_served_again(library, model):
    """What the tests above are measured against."""
    collection = library.collection(library.Asked(model, Cache(ttl="1h")))
    collection.n_retries = 0
    model.instead["filters_generation"] = ["nonsense("]
    for _ in range(2):
        with pytest.raises(library.dbally.views.exceptions.ViewExecutionError):
            run(collection.ask(library.POLISH))
    assert model.seen.count("filters_generation") == 1


def test_it_counts_what_was_refused(ask, model, telemetry):
    model.instead["filters_generation"] = ["nonsense(", "in_language(1, 2)"]
    assert ask("POLISH")
    (found,) = asked_of(telemetry)
    assert (found["overcoat.ask.iql.attempts"], found["overcoat.ask.iql.refused"]) == (3, 2)
    attempts = [span.attributes["overcoat.ask.attempt"] for span in telemetry.named("ask.iql")]
    assert sorted(attempts) == [1, 1, 1, 2, 3]


@pytest.mark.parametrize(
    ("template", "answer", "question"),
    [("filters_generation", "UNSUPPORTED QUERY", "POLISH"), ("view_selection", "NoViewFoundError", "UNKNOWN")],
)
def test_an_answer_that_says_no_is_one(ask, model, telemetry, template, answer, question):
    """db-ally's prompts ask for it: the same question gets the same answer, without a request."""
    model.instead[template] = [answer]
    assert ask(question) is None
    assert ask(question) is None
    assert model.seen == []
    assert {found["overcoat.ask.iql.refused"] for found in asked_of(telemetry)} == {0}


def test_a_failure_of_one_branch_leaves_the_other_s_answer(ask, model):
    """Filters and aggregation are generated at a time, and fail together."""
    model.instead["aggregation_decision"] = ["Decision: True"]
    model.instead["aggregation_generation"] = ["nonsense("]
    assert ask("POLISH", n_retries=0) is None
    assert ask("POLISH") == [{"count": 2}]
    assert model.seen == ["aggregation_generation"]


def test_a_view_that_was_made_up_is_forgotten_by_a_fallback_as_well(od, library, model):
    first = library.collection(library.Asked(model, Cache(ttl="1h")))
    first >> library.collection(library.Asked(model), library.Loans, name="branch")
    model.instead["view_selection"] = ["Films"]
    traced = od.trace(first)
    assert run(traced.ask(library.LOANED)).results == [{"title": "Solaris"}]
    model.seen.clear()
    assert run(traced.ask(library.LOANED)).results == [{"title": "Solaris"}]
    assert model.seen == ["view_selection", "sql_generation"]


def test_a_view_that_cannot_answer_has_refused_nothing(od, library, telemetry, model):
    """What was asked before it is still good, also where another collection answers in its place."""
    from dbally.iql_generator.prompt import UnsupportedQueryError

    class Closed(library.Loans):
        async def ask(self, *args, **kwargs):
            raise UnsupportedQueryError

    first = library.collection(library.Asked(model, Cache(ttl="1h")), library.Books, Closed)
    first >> library.collection(library.Asked(model), library.Loans, name="branch")
    model.instead["view_selection"] = ["Closed"]
    traced = od.trace(first, tracer_provider=telemetry.tracer_provider)
    for _ in range(2):
        assert run(traced.ask(library.LOANED)).results == [{"title": "Solaris"}]
    assert model.seen == ["view_selection", "sql_generation", "sql_generation"]
    assert {found["overcoat.ask.fallback"] for found in asked_of(telemetry)} == {"branch"}


def test_a_longer_prompt_of_the_same_template_refuses_nothing(od, library, telemetry, model):
    """A view may ask several questions by one template; only one that goes on from an answer says it was no good."""
    from dbally.collection.results import ViewExecutionResult
    from dbally.prompt.elements import FewShotExample
    from dbally.views.freeform.text2sql.prompt import SQL_GENERATION_TEMPLATE, SQLGenerationPromptFormat

    class Both(library.Loans):
        async def ask(self, query, llm, event_tracker=None, **settings):
            for examples in ([], [FewShotExample("Who reads?", "SELECT reader FROM loans")]):
                filled = SQLGenerationPromptFormat(question=query, dialect="sqlite", tables=[], examples=examples)
                prompt = SQL_GENERATION_TEMPLATE.format_prompt(filled)
                await llm.generate_text(prompt, event_tracker=event_tracker)
            return ViewExecutionResult([], {})

    collection = library.collection(library.Asked(model, Cache(ttl="1h")), Both)
    for _ in range(2):
        run(od.trace(collection, tracer_provider=telemetry.tracer_provider).ask(library.LOANED))
    assert model.seen == ["sql_generation"] * 2
    assert {found["overcoat.ask.iql.refused"] for found in asked_of(telemetry)} == {0}
