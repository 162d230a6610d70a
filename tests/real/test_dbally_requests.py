"""How many requests an `ask` makes, over real litellm and HTTP: as many as `explain` says, and no more."""

from __future__ import annotations

import pytest

from overcoat import Backoff, Meter, Retry, Timeout, Trace, capture, explain
from overcoat.testing import (
    Provider,
    answer,
    content_filter_refused,
    dropped,
    empty_choices,
    error,
    error_body_with_200,
    filtered,
    invalid_json,
    slow,
    truncated,
)

from .litellm_loop import run
from .parts import need

MODEL = "openai/gpt-4o-mini"
DBALLY = {  # by the prompt that fails: how often db-ally asks it again by itself
    "view_selection": 0,
    "filters_decision": 3,
    "filters_generation": 3,
    "nl_response": 0,
}


@pytest.fixture(scope="module")
def od():
    need("dbally")
    need("litellm")
    return need("overcoat.dbally")


@pytest.fixture(scope="module")
def library(od):
    from ..dbally import library

    return library


@pytest.fixture
def template_of(library):
    from dbally.audit.events import LLMEvent

    from overcoat.dbally.templates import origin_of

    return lambda request: origin_of(LLMEvent(request.body["messages"], "?")).template


@pytest.fixture
def provider(library, template_of):
    with Provider(lambda request: answer(library.REPLIES[template_of(request)][library.POLISH])) as running:
        yield running


def failing(provider, template, template_of, step):
    """Have the requests of one template fail, all of them."""
    usual = provider.default
    provider.default = lambda request: step if template_of(request) == template else usual(request)
    return lambda: sum(template_of(request) == template for request in provider.requests)


def llm_of(od, provider, **settings):
    return od.LiteLLM(MODEL, base_url=provider.url, api_key="k", **settings)


def defaults_at_once():
    """The defaults of `LiteLLM`, without their waits."""
    return Trace(), Retry(backoff=Backoff(base=0), random=float), Meter()


def test_those_are_the_defaults(od):
    assert tuple(map(type, od.LiteLLM(MODEL).client.layers)) == tuple(map(type, defaults_at_once()))
    assert od.LiteLLM(MODEL).client.layers[1].max_attempts == defaults_at_once()[1].max_attempts


@pytest.mark.parametrize("template", DBALLY)
@pytest.mark.parametrize("step", [error(500), error(429), dropped()], ids=["500", "429", "dropped"])
def test_a_failing_call_makes_as_many_requests_as_explain_says(od, library, provider, template_of, template, step):
    """And each call no more than the policy's attempts, whatever db-ally repeats around it."""
    count = failing(provider, template, template_of, step)
    llm = llm_of(od, provider, layers=defaults_at_once())
    collection = od.trace(library.collection(llm))
    with capture() as calls, pytest.raises(library.dbally.DbAllyError):
        run(collection.ask(library.POLISH, return_natural_response=True))
    said = explain(llm.client, host_retries=DBALLY[template])
    assert collection.n_retries == max(DBALLY.values())
    assert count() == said.requests == 3 * (1 + DBALLY[template])
    assert max(len(call.attempts) for call in calls) == said.worst.requests.value == 3
    assert len(provider) == sum(len(call.attempts) for call in calls)


def test_without_us_it_makes_twelve(library, provider, template_of):
    """The SDK's two hidden retries, times four: what the tests above are measured against."""
    original = need("dbally.llms.litellm").LiteLLM(MODEL, base_url=provider.url, api_key="k")
    count = failing(provider, "filters_decision", template_of, error(429, headers={"retry-after-ms": "1"}))
    with pytest.raises(library.dbally.views.exceptions.ViewExecutionError):
        run(library.collection(original).ask(library.POLISH))
    assert count() == 12


@pytest.mark.parametrize("most", [1, 4, 7])
def test_all_of_an_ask_can_be_bounded(od, library, provider, template_of, most):
    failing(provider, "filters_decision", template_of, error(500))
    llm = llm_of(od, provider, layers=defaults_at_once())
    with pytest.raises((library.dbally.DbAllyError, od.RequestsExceeded)):
        run(od.trace(library.collection(llm), max_requests=most).ask(library.POLISH))
    assert len(provider) == most


def test_the_deadline_of_an_ask_ends_a_slow_provider(od, library, provider, template_of):
    failing(provider, "filters_generation", template_of, slow(60))
    llm = llm_of(od, provider, layers=(Trace(), Retry(), Timeout("50s"), Meter()))

    async def ask():
        with od.deadline("1s"):
            await od.trace(library.collection(llm)).ask(library.POLISH)

    with capture() as calls, pytest.raises(TimeoutError):
        run(ask())
    assert [call.error_type for call in calls if call.error_type] == ["deadline_exceeded"]


# What the client says that db-ally's own drops.


@pytest.fixture
def one_call(od, provider):
    """Makes one call to a provider that answers with that step."""
    events, template = need("dbally.audit.events"), need("dbally.prompt.template")

    def call(step, *, wrapped=True, **options):
        provider.script(step)
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
        event = events.LLMEvent(prompt=chat, type="PromptTemplate")
        client = llm_of(od, provider, layers=()).client
        client = client if wrapped else client.client
        given = need("dbally.llms.clients.litellm").LiteLLMOptions(**options)
        assert template.PromptTemplate(chat)
        return run(client.call(conversation=chat, options=given, event=event)), event

    return call


@pytest.mark.parametrize("wrapped", [False, True])
def test_all_that_the_provider_said_is_on_the_event(one_call, wrapped):
    step = answer("Because.", prompt_tokens=20, completion_tokens=9, cached_tokens=8, reasoning_tokens=4)
    text, event = one_call(step, wrapped=wrapped, temperature=0.5)
    assert text == "Because."
    assert (event.prompt_tokens, event.completion_tokens, event.total_tokens) == (20, 9, 29)
    assert (event.cached_tokens, event.reasoning_tokens, event.finish_reason) == (8, 4, "stop")
    assert event.response_id.startswith("chatcmpl-")
    assert one_call(truncated())[1].finish_reason == "length"
    text, event = one_call(filtered())
    assert (text, event.finish_reason) == (None, "content_filter")


def test_it_sends_what_was_given_and_nothing_of_db_ally_s_marks(one_call, provider):
    one_call(answer("Because."), temperature=0.5, max_tokens=7)
    body = provider.requests[0].body
    assert body.keys() == {"messages", "model", "temperature", "max_tokens"}
    assert (body["temperature"], body["max_tokens"]) == (0.5, 7)


ERRORS = {  # what db-ally's own client lets through as litellm's is marked
    "500": (error(500), "LLMStatusError", 500),
    "429": (error(429), "LLMStatusError", 429),
    "403, litellm's": (error(403), "LLMStatusError", 403),
    "409, litellm's": (error(409), "LLMStatusError", 409),
    "filtered": (content_filter_refused(), "LLMStatusError", 400),
    "dropped": (dropped(), "LLMConnectionError", None),
    "408": (error(408), "LLMConnectionError", None),
    "no JSON": (invalid_json(), "LLMResponseError", None),
    "no choices": (empty_choices(), "LLMResponseError", None),
    "an error with 200": (error_body_with_200(), None, None),
}


@pytest.mark.parametrize("name", ERRORS)
def test_its_errors_are_db_ally_s(library, one_call, provider, name):
    """Every one, in one request; `raise ... from` keeps what litellm said."""
    step, kind, status = ERRORS[name]
    with pytest.raises(library.dbally.LLMError) as raised:
        one_call(step)
    assert kind in (None, type(raised.value).__name__)
    assert getattr(raised.value, "status_code", None) == status or kind is None
    assert len(provider) == 1
    assert raised.value.message
