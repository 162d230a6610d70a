"""What an instrumentation beneath hands over, played by one of our own."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.context import Context, attach, detach, get_current, get_value, set_value

from overcoat import LLMConnectionError, LLMEvent, Retry, Trace, capture, stack
from overcoat.beneath import quieted
from overcoat.testing import InMemoryTelemetry, ScriptedClient, run

KEY = "opentelemetry.genai.client.inference.context"


@dataclass
class InferenceData:
    """As util-genai has it, as far as it concerns us."""

    response_id: str | None = None
    response_model: str | None = None
    response_finish_reasons: list[str] | None = None
    usage_input_tokens: int | None = None
    usage_output_tokens: int | None = None
    usage_cache_read_input_tokens: int | None = None
    usage_reasoning_output_tokens: int | None = None


@pytest.fixture
def util_genai(monkeypatch):
    """As if an instrumentation that has it were loaded."""
    module = SimpleNamespace(InferenceData=InferenceData)
    monkeypatch.setitem(sys.modules, "opentelemetry.util.genai.invocation", module)


@pytest.fixture
def none_of_them(monkeypatch):
    for name in ("opentelemetry.util.genai.invocation", "opentelemetry.semconv_ai"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def handing_over(then: Any = "hi", **known: Any) -> Any:
    """Return a step in which something beneath knows this, and then happens that."""

    async def step(conversation, options):
        data = get_value(KEY)
        for name, value in known.items():
            setattr(data, name, value)
        return then

    return step


def ask(*steps: Any, layers: Any = (), traced: bool = True, said: dict[str, int] | None = None, **settings: Any) -> Any:
    """Return the record of a call to a client that does those steps and says that."""
    telemetry = InMemoryTelemetry()
    trace = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, **settings)

    class Client(ScriptedClient):
        async def call(self, conversation, options, event, json_mode=False):
            for name, value in (said or {}).items():
                setattr(event, name, value)
            return await super().call(conversation, options, event, json_mode)

    client = stack(Client(*steps), *([trace] if traced else []), *layers)
    event = LLMEvent([], "test")
    with capture() as calls:
        run(client.call([{"role": "user", "content": "hi"}], None, event))
    told = calls[0].delivered
    assert (event.prompt_tokens, event.completion_tokens) == (
        (told.input_tokens, told.output_tokens) if told else (None, None)
    ), "the event says what the record does"
    return calls[0]


def test_where_there_is_none_the_context_is_as_it_was(none_of_them):
    context = Context()
    assert quieted(context) is context


def test_an_older_util_genai_has_no_handover(monkeypatch, none_of_them):
    monkeypatch.setitem(sys.modules, "opentelemetry.util.genai.invocation", SimpleNamespace())
    context = Context()
    assert quieted(context) is context


def test_openllmetry_is_told_to_leave_it(monkeypatch, none_of_them):
    monkeypatch.setitem(sys.modules, "opentelemetry.semconv_ai", SimpleNamespace())
    assert quieted(Context()) == {"suppress_language_model_instrumentation": True}


def test_what_the_client_does_not_say_is_taken(util_genai):
    step = handing_over(
        response_id="r-1",
        response_model="m-1",
        response_finish_reasons=["length"],
        usage_input_tokens=100,
        usage_output_tokens=20,
        usage_cache_read_input_tokens=60,
        usage_reasoning_output_tokens=5,
    )
    (attempt,) = ask(step).attempts
    assert (attempt.response_id, attempt.response_model, attempt.finish_reason) == ("r-1", "m-1", "length")
    usage = attempt.usage
    assert (usage.input_tokens, usage.output_tokens) == (100, 20)
    assert (usage.cache_read_input_tokens, usage.reasoning_output_tokens) == (60, 5)


def test_what_the_client_says_holds(util_genai):
    step = handing_over(usage_input_tokens=100, usage_cache_read_input_tokens=60, response_id="beneath")
    (attempt,) = ask(step, said={"prompt_tokens": 100, "completion_tokens": 7, "response_id": "ours"}).attempts
    assert (attempt.response_id, attempt.usage.output_tokens) == ("ours", 7)
    assert attempt.usage.cache_read_input_tokens == 60


def test_parts_of_another_whole_are_not(util_genai):
    """A client may count as Anthropic does, the cached tokens beside the prompt's."""
    step = handing_over(usage_input_tokens=100, usage_output_tokens=20, usage_cache_read_input_tokens=60)
    (attempt,) = ask(step, said={"prompt_tokens": 40, "completion_tokens": 20}).attempts
    assert (attempt.usage.input_tokens, attempt.usage.cache_read_input_tokens) == (40, None)
    assert attempt.anomaly is None


@pytest.mark.parametrize("attempts", ["failed", "always"])
def test_a_retry_inherits_nothing(util_genai, attempts):
    """Of an attempt that was answered, and whose connection broke then."""
    broken = handing_over(LLMConnectionError(), response_id="first", usage_input_tokens=100, usage_output_tokens=1)
    call = ask(broken, "hi", layers=[Retry(max_attempts=2, random=lambda: 0.0)], attempts=attempts)
    assert [attempt.response_id for attempt in call.attempts] == ["first", None]
    assert [attempt.usage is None for attempt in call.attempts] == [False, True]


def test_without_trace_they_go_on_as_if_we_were_not_there(util_genai):
    """And what stands around us is told what it would be told without us."""
    outer = InferenceData()
    token = attach(set_value(KEY, outer, get_current()))
    try:
        (attempt,) = ask(handing_over(response_id="r-1", usage_input_tokens=5), traced=False).attempts
    finally:
        detach(token)
    assert (attempt.response_id, attempt.usage) == (None, None)
    assert outer.response_id == "r-1"
