"""The tree of spans of one call, case by case."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from overcoat import (
    Backoff,
    Cache,
    Deadline,
    LiteLLMOptions,
    LLMEvent,
    LLMStatusError,
    Meter,
    Retry,
    Timeout,
    Trace,
    capture,
    stack,
    tags,
)
from overcoat.pricing.genai import rates
from overcoat.telemetry import names
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

DOWN = LLMStatusError("the prompt was: my secret", 503)


def traced(*steps, telemetry, layers=(), model="openai/gpt-4o-mini", **settings):
    trace_layer = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, **settings)
    return stack(ScriptedClient(*steps, model_name=model), trace_layer, *layers)


async def ask(client, text="hello", options=None, json_mode=False):
    return await client.call([{"role": "user", "content": text}], options, LLMEvent([], "test"), json_mode)


def tree(telemetry):
    """Return the spans as lines, indented below their parents, in order of their beginnings."""
    spans = sorted(telemetry.spans, key=lambda span: (span.start_time, span.end_time))

    def below(parent, depth):
        for span in spans:
            if (span.parent.span_id if span.parent else None) == parent:
                yield "  " * depth + span.name
                yield from below(span.context.span_id, depth + 1)

    return list(below(None, 0))


RETRY = Retry(max_attempts=3, backoff=Backoff(base="1s"), random=lambda: 0.5, errors={})


@pytest.fixture
def telemetry():
    return InMemoryTelemetry()


def test_a_call_that_succeeds_at_once_is_two_spans(telemetry):
    run(ask(traced("hi", telemetry=telemetry, layers=[RETRY])))
    assert tree(telemetry) == ["overcoat.call", "  chat openai/gpt-4o-mini"]


def test_a_call_that_was_retried(telemetry):
    run(ask(traced(DOWN, Answer("hi", delay=1), telemetry=telemetry, layers=[RETRY])))
    assert tree(telemetry) == [
        "overcoat.call",
        "  chat openai/gpt-4o-mini",
        "    attempt",
        "    backoff",
        "    attempt",
    ]
    first, second = sorted(telemetry.named("attempt"), key=lambda span: span.attributes["overcoat.attempt.number"])
    (backoff,) = telemetry.named("backoff")
    assert dict(first.attributes) == {
        "overcoat.attempt.number": 1,
        "error.type": "overloaded",
        "http.response.status_code": 503,
    }
    assert first.status.status_code is StatusCode.ERROR
    assert dict(second.attributes) == {"overcoat.attempt.number": 2, "http.request.resend_count": 1}
    assert second.status.status_code is StatusCode.UNSET
    assert dict(backoff.attributes) == {"overcoat.wait.asked": 0.5, "overcoat.wait.source": "policy"}
    assert first.end_time == backoff.start_time
    assert backoff.end_time - backoff.start_time == pytest.approx(5e8, abs=1000)
    (chat,), (call,) = telemetry.named("chat"), telemetry.named("overcoat.call")
    assert chat.status.status_code is call.status.status_code is StatusCode.UNSET
    assert (call.attributes["overcoat.retried"], call.attributes["overcoat.attempts"]) == (True, 2)


def test_every_attempt_where_that_is_asked_for(telemetry):
    run(ask(traced("hi", telemetry=telemetry, attempts="always")))
    assert tree(telemetry) == ["overcoat.call", "  chat openai/gpt-4o-mini", "    attempt"]


def test_the_kinds_of_spans(telemetry):
    run(ask(traced(DOWN, "hi", telemetry=telemetry, layers=[RETRY])))
    assert {span.name: span.kind for span in telemetry.spans} == {
        "overcoat.call": SpanKind.INTERNAL,
        "chat openai/gpt-4o-mini": SpanKind.CLIENT,
        "attempt": SpanKind.INTERNAL,
        "backoff": SpanKind.INTERNAL,
    }


def test_what_an_inference_says_of_itself(telemetry):
    """By the conventions, and only what is known."""
    options = LiteLLMOptions(temperature=0.0, max_tokens=100, top_p=1.0, seed=7, n=1, stop="END")
    answer = Answer(
        "{}",
        1000,
        50,
        cached_tokens=600,
        reasoning_tokens=20,
        finish_reason="stop",
        response_id="r-1",
        response_model="gpt-4o-mini-2024-07-18",
    )
    client = traced(answer, telemetry=telemetry, layers=[Meter()])
    run(ask(client, options=options, json_mode=True))
    (chat,) = telemetry.named("chat")
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openai/gpt-4o-mini",
        "gen_ai.output.type": "json",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "gen_ai.response.id": "r-1",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.finish_reasons": ("stop",),
        "overcoat.cost.usd": pytest.approx(0.000135),
    }


def test_the_roll_up_of_a_call(telemetry):
    client = traced(Answer("hi", 1000, 50), telemetry=telemetry, layers=[Cache(), Meter(prices=rates)])
    with tags(tenant="acme"), capture() as calls:
        run(ask(client))
    (call,) = telemetry.named("overcoat.call")
    assert calls[0].span == (call.context.trace_id, call.context.span_id)
    assert dict(call.attributes) == {
        "overcoat.model": "openai/gpt-4o-mini",
        "overcoat.tag.tenant": "acme",
        "overcoat.outcome": "ok",
        "overcoat.attempts": 1,
        "overcoat.cache.result": "miss",
        "overcoat.cost.usd": pytest.approx(0.00018),
        "overcoat.cost.tier": "low",
        "overcoat.cost.upper_bound": True,  # the client does not say what was cached
    }


@pytest.mark.parametrize(("tokens", "tier"), [(0, "low"), (6_660, "low"), (6_700, "medium"), (70_000, "high")])
def test_the_tier_of_a_cost(telemetry, tokens, tier):
    run(ask(traced(Answer("hi", tokens, 0), telemetry=telemetry, layers=[Meter()])))
    (call,) = telemetry.named("overcoat.call")
    assert call.attributes["overcoat.cost.tier"] == tier


def test_an_unknown_price_is_left_out(telemetry):
    """Never 0: a search for free calls must not find those that nobody could price."""
    run(ask(traced(Answer("hi", 10, 1), telemetry=telemetry, layers=[Meter()], model="nobody/knows")))
    for span in telemetry.spans:
        assert "overcoat.cost.usd" not in span.attributes
        assert "overcoat.cost.tier" not in span.attributes
    assert telemetry.total("overcoat.cost.unknown") == 1


def test_an_error_is_told_without_its_text(telemetry):
    """Providers repeat parts of the prompt and of the key in their messages."""
    with pytest.raises(LLMStatusError):
        run(ask(traced(DOWN, telemetry=telemetry, layers=[RETRY])))
    (call,), (chat,) = telemetry.named("overcoat.call"), telemetry.named("chat")
    assert call.attributes["error.type"] == chat.attributes["error.type"] == "overloaded"
    assert call.attributes["overcoat.gave_up"] == "attempts"
    for span in telemetry.spans:
        if span.name != "backoff":
            assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "overloaded, HTTP 503")
        assert "secret" not in span.to_json()
        assert not span.events


def test_error_types_are_the_same_on_spans_and_metrics(telemetry):
    with pytest.raises(LLMStatusError):
        run(ask(traced(LLMStatusError("no", 401), telemetry=telemetry, layers=[RETRY])))
    (labels,) = telemetry.points(names.OPERATION_DURATION)
    (chat,) = telemetry.named("chat")
    assert dict(labels)["error.type"] == chat.attributes["error.type"] == "auth"


def test_a_cancelled_call(telemetry):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await ask(traced(Answer("late", delay=9), telemetry=telemetry, layers=[Deadline("1m"), RETRY]))
        assert not trace.get_current_span().get_span_context().is_valid

    run(main())
    assert {span.attributes["error.type"] for span in telemetry.spans} == {"cancelled"}
    assert telemetry.named("overcoat.call")[0].attributes["overcoat.outcome"] == "cancelled"


def test_a_call_that_timed_out(telemetry):
    with pytest.raises(TimeoutError):
        run(ask(traced(Answer("late", delay=9), telemetry=telemetry, layers=[Retry(max_attempts=1), Timeout("2s")])))
    assert tree(telemetry) == ["overcoat.call", "  chat openai/gpt-4o-mini", "    attempt"]
    assert {span.attributes["error.type"] for span in telemetry.spans} == {"timeout"}


def test_a_hit_is_no_inference(telemetry):
    """No `chat` span and none of the conventions' metrics: no model did anything."""
    client = traced(Answer("hi", 10, 2), telemetry=telemetry, layers=[Cache(), Meter()])

    async def main():
        await ask(client)
        await asyncio.sleep(60)
        await ask(client)

    run(main())
    assert [line.strip() for line in tree(telemetry)].count("chat openai/gpt-4o-mini") == 1
    (lookup,) = telemetry.named("cache.get")
    assert lookup.attributes["overcoat.cache.result"] == "hit"
    (point,) = telemetry.points(names.OPERATION_DURATION).values()
    assert point.count == 1
    assert telemetry.total(names.TOKEN_USAGE) == 12


def test_spans_inside_the_client_lie_inside_ours(telemetry):
    """Those of an instrumented HTTP library, for example; from the second attempt on, inside the attempt."""
    tracer = telemetry.tracer_provider.get_tracer("httpx")

    async def request(conversation, options):
        with tracer.start_as_current_span("POST"):
            return DOWN if len(telemetry.named("POST")) == 0 else "hi"

    run(ask(traced(request, telemetry=telemetry, layers=[RETRY])))
    parents = [telemetry_span.parent.span_id for telemetry_span in telemetry.named("POST")]
    (chat,) = telemetry.named("chat")
    second = next(span for span in telemetry.named("attempt") if span.attributes["overcoat.attempt.number"] == 2)
    assert parents == [chat.context.span_id, second.context.span_id]


def test_a_call_lies_inside_the_application_s_span(telemetry):
    tracer = telemetry.tracer_provider.get_tracer("app")

    async def main():
        with tracer.start_as_current_span("request") as own:
            await ask(traced("hi", telemetry=telemetry))
            assert trace.get_current_span() is own

    run(main())
    assert tree(telemetry) == ["request", "  overcoat.call", "    chat openai/gpt-4o-mini"]


def test_samplers_see_what_the_conventions_say_they_must():
    """`sampling_relevant` in the conventions: given to `start_span`, not set afterwards."""
    seen = {}

    class Recording(Sampler):
        def should_sample(self, parent_context, trace_id, name, kind=None, attributes=None, *rest, **more):
            seen[name] = dict(attributes or {})
            return ALWAYS_OFF.should_sample(parent_context, trace_id, name)

        def get_description(self):
            return "recording"

    client = ScriptedClient("hi", model_name="openai/gpt-4o")
    client.base_url = "https://example.test:8443/v1"
    run(ask(stack(client, Trace(tracer_provider=TracerProvider(Recording(), shutdown_on_exit=False)))))
    assert seen["chat openai/gpt-4o"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "openai/gpt-4o",
        "server.address": "example.test",
        "server.port": 8443,
    }


def test_a_trace_that_is_not_sampled_stays_so_below():
    """An unsampled span is still the parent of what lies inside it."""
    seen = []

    async def look(conversation, options):
        seen.append(trace.get_current_span().get_span_context())
        return "hi"

    provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    run(ask(stack(ScriptedClient(look), Trace(tracer_provider=provider))))
    assert [(context.is_valid, bool(context.trace_flags.sampled)) for context in seen] == [(True, False)]


def test_without_an_sdk_nothing_is_made_and_nothing_breaks():
    assert run(ask(stack(ScriptedClient(DOWN, "hi"), Trace(), RETRY))) == "hi"


def test_an_observer_that_fails_does_not_harm_the_call(caplog):
    class Exploding(TracerProvider):
        def get_tracer(self, *args, **kwargs):
            class Tracer:
                def start_span(self, *args, **kwargs):
                    raise RuntimeError("exporter is broken")

            return Tracer()

    with caplog.at_level(logging.ERROR):
        assert run(ask(stack(ScriptedClient("hi"), Trace(tracer_provider=Exploding(shutdown_on_exit=False))))) == "hi"
    assert "an observer failed" in caplog.text


@pytest.mark.parametrize("setting", [{"attempts": "never"}, {"cost_tiers": (1, 0.5)}, {"cost_tiers": (-1, 0)}])
def test_bad_input(setting):
    with pytest.raises(ValueError, match=rf"Trace\({next(iter(setting))}="):
        Trace(**setting)
