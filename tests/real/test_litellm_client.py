"""The litellm client over real litellm and HTTP: how many requests it makes, what it reports, and what it raises."""

import asyncio
import socket
from dataclasses import dataclass, replace

import pytest

from overcoat.errors import LLMConnectionError, LLMError, LLMResponseError, LLMStatusError
from overcoat.llm import NOT_GIVEN, LiteLLM, LiteLLMClient, LiteLLMOptions, LLMEvent, PromptTemplate
from overcoat.testing import (
    Provider,
    answer,
    anthropic_answer,
    anthropic_error,
    dropped,
    empty_choices,
    error,
    error_body_with_200,
    filtered,
    invalid_json,
    raw,
    slow,
)

from .litellm_loop import run
from .parts import need

OPENAI, ANTHROPIC = "openai/gpt-4o", "anthropic/claude-sonnet-4-5"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
SOON = LiteLLMOptions(timeout=0.2)
NO_USAGE = {"id": "1", "model": "m", "choices": [{"message": {"role": "assistant", "content": "a"}}]}


@pytest.fixture(scope="module", autouse=True)
def litellm():
    module = need("litellm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "suppress_debug_info", True)  # else it prints advice
        yield module


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


@pytest.fixture(autouse=True)
def _forgotten(provider):
    provider.reset()


@pytest.fixture
def _told_to_retry(litellm, monkeypatch):
    monkeypatch.setattr(litellm, "num_retries", 2)


@dataclass
class Retrying(LiteLLMOptions):
    """Asks the SDK for the retries that it must not make."""

    max_retries: int = 3
    num_retries: int = 3


def event():
    return LLMEvent(prompt=CHAT, type="PromptTemplate")


def client(provider, model=OPENAI):
    return LiteLLMClient(model, base_url=provider.url, api_key="sk-secret")


def ask(provider, *steps, model=OPENAI, options=None, into=None, **kwargs):
    """Return the answer of one call, for which the provider has *steps*."""
    provider.script(*steps)
    return run(client(provider, model).call(CHAT, options or LiteLLMOptions(), into or event(), **kwargs))


@pytest.mark.usefixtures("_told_to_retry")
@pytest.mark.parametrize("options", [LiteLLMOptions(), Retrying()])
@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("status", [429, 500, 503, "timeout", "dropped"])
def test_a_call_is_one_request(provider, model, options, status):
    """Whatever options and global settings ask for; by default litellm makes 3 for OpenAI."""
    ways = {"timeout": slow(30), "dropped": dropped()}
    refused = error if model == OPENAI or status == 503 else anthropic_error
    step = ways[status] if status in ways else refused(status)
    with pytest.raises(LLMError):
        ask(provider, step, model=model, options=replace(options, timeout=0.2) if status == "timeout" else options)
    assert len(provider) == 1


def test_a_call_to_litellm_itself_is_more_than_one_request(provider, litellm):
    """That is: the counts above can fail."""
    provider.script(*[error(429, headers={"retry-after-ms": "1"})] * 9)
    with pytest.raises(litellm.RateLimitError):
        run(litellm.acompletion(model=OPENAI, messages=CHAT, base_url=provider.url, api_key="k"))
    assert len(provider) > 1


def test_what_openai_says_is_on_the_event(provider):
    reported = event()
    step = answer("Because.", prompt_tokens=20, completion_tokens=9, cached_tokens=5, reasoning_tokens=4, model="m-1")
    assert ask(provider, step, into=reported) == "Because."
    assert reported == LLMEvent(
        prompt=CHAT,
        type="PromptTemplate",
        prompt_tokens=20,
        completion_tokens=9,
        total_tokens=29,
        finish_reason="stop",
        response_id=f"chatcmpl-{1:029x}",
        response_model="m-1",
        cached_tokens=5,
        reasoning_tokens=4,
    )


def test_what_anthropic_says_is_on_the_event(provider):
    """Its input tokens leave the cached ones out; litellm adds them. The id is one that litellm makes up."""
    reported = event()
    step = anthropic_answer(
        "Be", input_tokens=10, cache_read_input_tokens=5, cache_creation_input_tokens=3, stop_reason="max_tokens"
    )
    assert ask(provider, step, model=ANTHROPIC, into=reported) == "Be"
    assert reported.response_id
    assert replace(reported, response_id=None, reasoning_tokens=None) == LLMEvent(
        prompt=CHAT,
        type="PromptTemplate",
        prompt_tokens=18,
        completion_tokens=5,
        total_tokens=23,
        finish_reason="length",
        response_model="claude-sonnet-4-5",
        cached_tokens=5,
        cache_creation_tokens=3,
    )


def test_cache_writes_are_read_by_their_openai_name_as_well(provider):
    reported = event()
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    details = {"prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 6}}
    ask(provider, raw(body={**NO_USAGE, "usage": usage | details}), into=reported)
    assert (reported.cached_tokens, reported.cache_creation_tokens, reported.reasoning_tokens) == (0, 6, None)


def test_db_allys_own_event_gets_all_of_it(provider):
    reported = need("dbally.audit.events").LLMEvent(prompt=CHAT, type="PromptTemplate")
    ask(provider, answer(cached_tokens=5), into=reported)
    assert (reported.total_tokens, reported.cached_tokens, reported.finish_reason) == (17, 5, "stop")


def test_a_filtered_answer_is_none_with_its_reason(provider):
    reported = event()
    assert ask(provider, filtered(prompt_tokens=8), into=reported) is None
    assert (reported.finish_reason, reported.prompt_tokens, reported.completion_tokens) == ("content_filter", 8, 0)


def test_an_answer_without_choices_was_charged_and_is_an_error(provider):
    reported = event()
    with pytest.raises(LLMResponseError, match="gpt-4o has no choices"):
        ask(provider, empty_choices(prompt_tokens=8), into=reported)
    assert (reported.prompt_tokens, reported.total_tokens, reported.finish_reason) == (8, 8, None)


@pytest.mark.parametrize("usage", [{}, {"usage": None}])
def test_where_there_is_no_usage_the_counts_are_unknown(provider, usage):
    """And not the zeros that litellm makes of it."""
    reported = event()
    assert ask(provider, raw(body=NO_USAGE | usage), into=reported) == "a"
    assert (reported.prompt_tokens, reported.completion_tokens, reported.total_tokens) == (None, None, None)


def test_options_and_json_mode_arrive_and_nothing_else(provider):
    options = Retrying(temperature=0.5, stop=["."], top_p=None, seed=NOT_GIVEN)
    ask(provider, answer("{}"), options=options, json_mode=True)
    ask(provider, answer("{}"))
    plain = {"model": "gpt-4o", "messages": CHAT}
    assert [request.body for request in provider.requests] == [
        {**plain, "temperature": 0.5, "stop": ["."], "response_format": {"type": "json_object"}},
        plain,
    ]
    assert provider.requests[0].headers["authorization"] == "Bearer sk-secret"


def test_db_allys_mark_on_examples_stays_at_home(provider):
    """A strict provider refuses a message with a field that it does not know."""
    named = [{**message, "name": "Ann"} for message in CHAT]
    marked = [{**message, "is_example": False} for message in named]
    run(client(provider).call(marked, LiteLLMOptions(), event()))
    assert provider.requests[0].body["messages"] == named
    assert marked[0]["is_example"] is False


@pytest.mark.parametrize("chat", ["Why?", [{"role": "user"}], [{"content": "Why?"}], [None], None])
def test_what_is_no_conversation_reaches_no_provider(provider, chat):
    with pytest.raises(TypeError, match=r"conversation.*expected a .*'role' and .*'content'"):
        run(client(provider).call(chat, LiteLLMOptions(), event()))
    assert len(provider) == 0


STATUSES = [
    *[(OPENAI, error(status), status) for status in (400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 529)],
    *[(ANTHROPIC, anthropic_error(status), status) for status in (400, 401, 402, 403, 404, 413, 429, 500, 529)],
    (OPENAI, error_body_with_200(), 502),
    (OPENAI, raw(body={"error": {"message": "Odd.", "code": "429"}}), 429),
]


@pytest.mark.parametrize(("model", "step", "status"), STATUSES)
def test_an_error_status_is_the_one_that_the_provider_sent(provider, litellm, model, step, status):
    """Also where litellm calls it another, as it does for Anthropic's 413 and 529."""
    with pytest.raises(LLMStatusError, match=r"(OpenAI|Anthropic)(Exception|Error) - .") as raised:
        ask(provider, step, model=model)
    assert raised.value.status_code == status
    assert isinstance(raised.value.__cause__, litellm.openai.APIError)


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("step", [slow(30), dropped(), dropped(midway=True)])
def test_no_answer_is_a_connection_error(provider, litellm, model, step):
    """db-ally's client has dropped connections as a status 500, since litellm says so."""
    with pytest.raises(LLMConnectionError) as raised:
        ask(provider, step, model=model, options=SOON if step.delay else None)
    assert isinstance(raised.value.__cause__, litellm.openai.APIError)


@pytest.mark.parametrize(
    ("model", "step"), [(OPENAI, error(408)), (OPENAI, error(504)), (ANTHROPIC, anthropic_error(504))]
)
def test_a_timeout_that_the_provider_reports_is_a_connection_error(provider, model, step):
    """As db-ally has it."""
    with pytest.raises(LLMConnectionError):
        ask(provider, step, model=model)


@pytest.mark.parametrize("model", [OPENAI, ANTHROPIC])
def test_a_refused_connection_is_a_connection_error(model):
    with socket.socket() as reserved:  # bound, and not listening
        reserved.bind(("127.0.0.1", 0))
        closed = LiteLLMClient(model, base_url=f"http://127.0.0.1:{reserved.getsockname()[1]}/v1", api_key="k")
        with pytest.raises(LLMConnectionError):
            run(closed.call(CHAT, LiteLLMOptions(), event()))


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (OPENAI, invalid_json()),
        (OPENAI, raw(body="")),
        (OPENAI, raw(body={"error": {"message": "Odd.", "code": "odd"}})),
        (ANTHROPIC, invalid_json()),
        (ANTHROPIC, raw(body="null")),
        (ANTHROPIC, raw(body={"type": "message", "model": "m", "content": []})),
        (ANTHROPIC, raw(body={"error": {"message": "Odd."}})),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_response_error(provider, litellm, model, step):
    """For litellm they are a 500 or a lost connection, with a traceback in the message."""
    with pytest.raises(LLMResponseError) as raised:
        ask(provider, step, model=model)
    assert "Traceback" not in raised.value.message
    assert isinstance(raised.value.__cause__, litellm.openai.APIError)


def test_an_answer_that_litellm_finds_invalid_is_a_response_error(provider, litellm, monkeypatch):
    """As it does where it is told to hold answers to a JSON schema."""
    monkeypatch.setattr(litellm, "enable_json_schema_validation", True)
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}

    @dataclass
    class Structured(LiteLLMOptions):
        response_format: object = NOT_GIVEN

    options = Structured(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}})
    with pytest.raises(LLMResponseError) as raised:
        ask(provider, answer("{}"), options=options)
    assert isinstance(raised.value.__cause__, litellm.openai.APIResponseValidationError)


def test_an_option_that_the_model_does_not_take_is_a_status_error_without_a_request(provider):
    @dataclass
    class Biased(LiteLLMOptions):
        logit_bias: object = NOT_GIVEN

    with pytest.raises(LLMStatusError, match="logit_bias") as raised:
        ask(provider, model=ANTHROPIC, options=Biased(logit_bias={"1": 1}))
    assert raised.value.status_code == 400
    assert len(provider) == 0


def test_a_refusal_by_litellm_is_no_unreadable_answer(provider, litellm, monkeypatch):
    """It refuses some requests itself, because of an exception in its own preparations."""

    async def refuse(**kwargs):
        try:
            return {}["image"]
        except KeyError as error:
            raise litellm.BadRequestError("no such image", model="m", llm_provider="p") from error

    monkeypatch.setattr(litellm, "acompletion", refuse)
    with pytest.raises(LLMStatusError) as raised:
        ask(provider)
    assert raised.value.status_code == 400


def test_an_exception_that_is_being_handled_already_is_no_cause(provider):
    """As in a fallback; its KeyError must not be taken for litellm's failure to read the answer."""
    provider.script(raw(body={"error": {"message": "Odd.", "code": 500}}))

    async def fall_back():
        try:
            return {}["primary"]
        except KeyError:
            return await client(provider).call(CHAT, LiteLLMOptions(), event())

    with pytest.raises(LLMStatusError) as raised:
        run(fall_back())
    assert raised.value.status_code == 500


def test_a_missing_key_is_a_status_error_without_a_request(provider):
    """With a status that litellm makes up."""
    keyless = LiteLLMClient(OPENAI, base_url=provider.url)
    with pytest.raises(LLMStatusError, match="api_key"):
        run(keyless.call(CHAT, LiteLLMOptions(), event()))
    assert len(provider) == 0


@pytest.mark.parametrize(
    ("model", "step"),
    [
        *[
            (model, step)
            for model, step, status in STATUSES
            if status not in (402, 403, 409, 413, 529) and step.status != 200
        ],
        (OPENAI, slow(30)),
        (ANTHROPIC, slow(30)),
    ],
)
def test_errors_are_of_the_class_that_db_allys_client_raises(provider, model, step):
    """Where it raises one of its own at all, and litellm did not mislead it."""
    original = need("dbally.llms.clients.litellm")
    theirs = original.LiteLLMClient(model, base_url=provider.url, api_key="k")
    dbally = need("dbally.llms.clients.exceptions")

    @dataclass
    class Once(original.LiteLLMOptions):
        max_retries: int = 0
        num_retries: int = 0
        timeout: float = 0.2 if step.delay else 30

    provider.script(step)
    with pytest.raises(dbally.LLMError) as expected:
        run(theirs.call(CHAT, Once(), event()))
    with pytest.raises(LLMError) as raised:
        ask(provider, step, model=model, options=SOON if step.delay else None)
    assert type(raised.value).__name__ == type(expected.value).__name__


def test_cancellation_passes(provider):
    provider.script(slow(30))

    async def give_up():
        async with asyncio.timeout(0.2):
            await client(provider).call(CHAT, LiteLLMOptions(), event())

    with pytest.raises(TimeoutError):
        run(give_up())


def test_an_llm_by_litellm_answers_and_counts(provider):
    provider.script(answer("Because."))
    llm = LiteLLM(OPENAI, LiteLLMOptions(temperature=0), base_url=provider.url, api_key="k")
    prompt = PromptTemplate(CHAT)
    assert run(llm.generate_text(prompt, options=LiteLLMOptions(seed=1))) == "Because."
    assert provider.requests[0].body == {"model": "gpt-4o", "messages": CHAT, "temperature": 0, "seed": 1}
    assert llm.count_tokens(prompt) == 5


def test_db_allys_options_do_as_well(provider):
    options = need("dbally.llms.clients.litellm").LiteLLMOptions(seed=1)
    ask(provider, answer(), options=options)
    assert provider.requests[0].body == {"model": "gpt-4o", "messages": CHAT, "seed": 1}


def test_count_tokens_takes_the_model_s_own_tokenizer():
    """Litellm knows OpenAI's by the bare name only, and counts "openai/gpt-4o" with an older one."""
    prompt = PromptTemplate(
        [{"role": "system", "content": "\N{OWL}\N{BOOKS}" * 10}, {"role": "user", "content": "Why?"}]
    )
    bare, prefixed = (LiteLLM(name).count_tokens(prompt) for name in ("gpt-4o", "openai/gpt-4o"))
    assert prefixed == bare
