"""Log events of inferences: that one failed, and what was said, where that is captured; the same on spans."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import jsonschema
import pytest
from opentelemetry import _logs, trace
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.util._once import Once

from overcoat import (
    Cache,
    Deadline,
    DeadlineExceeded,
    LiteLLMOptions,
    LLMEvent,
    LLMStatusError,
    Meter,
    Retry,
    Trace,
    Validate,
    stack,
)
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

FAILED, SAID = "gen_ai.client.operation.exception", "gen_ai.client.inference.operation.details"
ASKED, ANSWERED = "gen_ai.input.messages", "gen_ai.output.messages"
VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CONVENTIONS = Path(__file__).parents[3] / "shared" / "semconv-1.41"
KEY = "sk-proj-abcdefghijklmnop1234"
REFUSED = LLMStatusError(f"invalid key {KEY} for: what is love?", 401)


@pytest.fixture
def telemetry():
    return InMemoryTelemetry()


def traced(telemetry, *steps, layers=(), **settings):
    settings = {
        "tracer_provider": telemetry.tracer_provider,
        "meter_provider": telemetry.meter_provider,
        "logger_provider": telemetry.logger_provider,
        **settings,
    }
    return stack(ScriptedClient(*steps, model_name="openai/gpt-4o"), Trace(**settings), *layers)


def ask(client, text="what is love?", *, json_mode=False):
    conversation = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    return run(client.call(conversation, LiteLLMOptions(temperature=0), LLMEvent([], "test"), json_mode))


def fail(client):
    with pytest.raises(LLMStatusError):
        ask(client)


def everything(telemetry):
    """All that was emitted, as text."""
    logs = telemetry._logs.get_finished_logs()
    return "".join(each.to_json() for each in (*telemetry.spans, *logs))


class TestExceptions:
    def test_a_failed_inference_is_a_warning_in_the_context_of_its_span(self, telemetry):
        fail(traced(telemetry, REFUSED))
        (event,) = telemetry.events(FAILED)
        (chat,) = telemetry.named("chat")
        record = event.log_record
        assert (record.severity_number.value, record.trace_id, record.span_id) == (
            13,
            chat.context.trace_id,
            chat.context.span_id,
        )
        assert dict(record.attributes) == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "openai/gpt-4o",
            "error.type": "auth",
            "exception.type": f"{LLMStatusError.__module__}.LLMStatusError",
        }
        assert (event.instrumentation_scope.name, event.instrumentation_scope.schema_url) == (
            "overcoat",
            "https://opentelemetry.io/schemas/1.41.0",
        )

    def test_its_text_is_nowhere(self, telemetry):
        """Providers repeat parts of prompts and keys in their messages."""
        fail(traced(telemetry, REFUSED))
        assert "love" not in everything(telemetry)
        assert KEY not in everything(telemetry)

    @pytest.mark.parametrize("content", ["spans", "events"])
    def test_where_contents_are_captured_it_is_redacted(self, telemetry, content):
        fail(traced(telemetry, REFUSED, content=content))
        (event,) = telemetry.events(FAILED)
        assert event.log_record.attributes["exception.message"] == "invalid key [key] for: what is love?"
        assert KEY not in everything(telemetry)

    def test_once_for_an_inference_however_often_it_was_tried(self, telemetry):
        down = LLMStatusError("down", 503)
        fail(traced(telemetry, down, down, layers=[Retry(max_attempts=2)]))
        assert len(telemetry.events(FAILED)) == 1

    def test_none_where_it_succeeds_at_last(self, telemetry):
        ask(traced(telemetry, LLMStatusError("down", 503), "love", layers=[Retry(max_attempts=2)]))
        assert telemetry.events(FAILED) == []

    def test_what_is_being_handled_around_a_call_is_not_its_own(self, telemetry):
        try:
            {}["nothing"]
        except KeyError:
            ask(traced(telemetry, "love"))
        assert telemetry.events(FAILED) == []

    def test_a_deadline_of_ours_is_a_failure_and_a_caller_who_leaves_is_none(self, telemetry):
        async def main():
            client = traced(telemetry, Answer("late", delay=9), Answer("late", delay=9), layers=[Deadline("2s")])
            for patience in (1, 3):
                with pytest.raises((TimeoutError, DeadlineExceeded)):
                    async with asyncio.timeout(patience):
                        await client.call([{"role": "user", "content": "?"}], None, LLMEvent([], "test"))

        run(main())
        (event,) = telemetry.events(FAILED)
        assert event.log_record.attributes["error.type"] == "deadline_exceeded"

    def test_a_builtin_has_no_module(self, telemetry):
        with pytest.raises(ValueError, match="odd"):
            ask(traced(telemetry, ValueError("odd")))
        (event,) = telemetry.events(FAILED)
        assert event.log_record.attributes["exception.type"] == "ValueError"

    def test_the_global_provider_is_taken_also_where_it_is_set_later(self, telemetry, monkeypatch):
        monkeypatch.setattr(_logs._internal, "_LOGGER_PROVIDER", None)
        monkeypatch.setattr(_logs._internal, "_LOGGER_PROVIDER_SET_ONCE", Once())
        client = traced(telemetry, REFUSED, REFUSED, logger_provider=None)
        fail(client)
        _logs.set_logger_provider(telemetry.logger_provider)
        fail(client)
        assert len(telemetry.events(FAILED)) == 1


class TestContents:
    def test_by_default_there_are_none(self, telemetry):
        ask(traced(telemetry, "love is love"))
        assert telemetry.events(SAID) == []
        assert "love" not in everything(telemetry)

    def test_on_spans_they_are_json_texts(self, telemetry):
        ask(traced(telemetry, Answer("lové", finish_reason="stop"), content="spans"))
        (chat,) = telemetry.named("chat")
        assert json.loads(chat.attributes[ASKED]) == [
            {"role": "system", "parts": [{"type": "text", "content": "Be kind."}]},
            {"role": "user", "parts": [{"type": "text", "content": "what is love?"}]},
        ]
        assert json.loads(chat.attributes[ANSWERED]) == [
            {"role": "assistant", "parts": [{"type": "text", "content": "lové"}], "finish_reason": "stop"}
        ]
        assert "lové" in chat.attributes[ANSWERED], "for those who read it as it is"
        assert telemetry.events(SAID) == []
        assert "love?" not in telemetry.named("overcoat.call")[0].to_json()

    def test_in_events_they_are_structured_beside_what_the_span_says(self, telemetry):
        ask(traced(telemetry, Answer("love", 10, 2, response_id="r-1"), layers=[Meter()], content="events"))
        (event,) = telemetry.events(SAID)
        (chat,) = telemetry.named("chat")
        said = dict(event.log_record.attributes)
        assert said.pop(ASKED)[1] == {"role": "user", "parts": ({"type": "text", "content": "what is love?"},)}
        assert said.pop(ANSWERED)[0]["parts"] == ({"type": "text", "content": "love"},)
        assert said == dict(chat.attributes)
        assert event.log_record.span_id == chat.context.span_id

    def test_on_both(self, telemetry):
        ask(traced(telemetry, "love", content="spans and events"))
        assert ASKED in telemetry.named("chat")[0].attributes
        assert len(telemetry.events(SAID)) == 1

    def test_a_failed_inference_says_what_was_asked(self, telemetry):
        fail(traced(telemetry, REFUSED, content="spans and events"))
        (chat,), (event,) = telemetry.named("chat"), telemetry.events(SAID)
        for attributes in (chat.attributes, event.log_record.attributes):
            assert ASKED in attributes
            assert ANSWERED not in attributes

    def test_each_inference_has_its_own(self, telemetry):
        """That which is asked again after a rejected answer is asked something else."""
        ask(traced(telemetry, "Sure!", "{}", layers=[Validate()], content="spans"), json_mode=True)
        first, second = (json.loads(chat.attributes[ASKED]) for chat in telemetry.named("chat"))
        assert len(first) == 2 < len(second)

    def test_a_hit_has_none_since_no_inference_was_made(self, telemetry):
        client = traced(telemetry, "love", layers=[Cache()], content="events")
        ask(client)
        ask(client)
        assert len(telemetry.events(SAID)) == 1

    def test_events_do_not_depend_on_sampling(self, telemetry):
        """As the conventions say: independently from traces."""
        unsampled = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
        ask(traced(telemetry, "love", content="spans and events", tracer_provider=unsampled))
        assert len(telemetry.events(SAID)) == 1

    def test_one_s_own_redactor_and_limit(self, telemetry):
        ask(traced(telemetry, "love", content="spans", redact=str.upper, content_limit=6))
        (chat,) = telemetry.named("chat")
        texts = [message["parts"][0]["content"] for message in json.loads(chat.attributes[ASKED])]
        assert texts == ["BE KIN… (2 characters more)", "WHAT I… (7 characters more)"]

    def test_keys_and_addresses_do_not_leave_the_process(self, telemetry):
        client = traced(telemetry, "write to bob@example.com", content="spans and events")
        ask(client, f"my key is {KEY}")
        assert KEY not in everything(telemetry)
        assert "bob@example.com" not in everything(telemetry)

    def test_half_a_character_does_not_cost_the_batch(self, telemetry):
        """A model can answer with a lone surrogate, which no exporter can encode."""
        ask(traced(telemetry, "love \ud83d", content="spans and events"))
        assert encode_spans(telemetry.spans).ByteSize()
        assert encode_logs(telemetry._logs.get_finished_logs()).ByteSize()

    def test_what_cannot_be_captured_leaks_no_span(self, telemetry, caplog):
        class Odd:
            def __str__(self):
                raise RuntimeError

        client = traced(telemetry, "love", content="spans")
        with caplog.at_level(logging.ERROR):
            assert run(client.call([{"role": Odd(), "content": "?"}], None, LLMEvent([], "test"))) == "love"
        assert len(telemetry.spans) == 2
        assert "an observer failed" in caplog.text
        assert trace.get_current_span() is trace.INVALID_SPAN

    @pytest.mark.parametrize("content", ["spans", "events"])
    def test_they_are_of_the_conventions_shape(self, telemetry, content):
        if not CONVENTIONS.exists():
            pytest.skip("the conventions as data are not beside this checkout")
        ask(traced(telemetry, "love", content=content))
        for name in (ASKED, ANSWERED):
            schema = json.loads((CONVENTIONS / f"{name.replace('_', '-').replace('.', '-')}.json").read_text())
            if content == "spans":
                value = json.loads(telemetry.named("chat")[0].attributes[name])
            else:
                value = json.loads(json.dumps(telemetry.events(SAID)[0].log_record.attributes[name], default=dict))
            jsonschema.validate(value, schema)


class TestTheVariable:
    @pytest.mark.parametrize(
        ("value", "on_spans", "in_events"),
        [
            ("", False, False),
            ("NO_CONTENT", False, False),
            ("SPAN_ONLY", True, False),
            ("event_only", False, True),
            ("SPAN_AND_EVENT", True, True),
            ("true", True, False),
        ],
    )
    def test_it_decides_where_nothing_else_is_said(self, telemetry, monkeypatch, value, on_spans, in_events):
        monkeypatch.setenv(VARIABLE, value)
        ask(traced(telemetry, "love"))
        assert (ASKED in telemetry.named("chat")[0].attributes) == on_spans
        assert (telemetry.events(SAID) != []) == in_events

    def test_it_cannot_switch_on_what_is_switched_off(self, telemetry, monkeypatch):
        monkeypatch.setenv(VARIABLE, "SPAN_AND_EVENT")
        ask(traced(telemetry, "love", content="none"))
        assert "love" not in everything(telemetry)

    def test_it_is_read_when_the_layer_is_stacked(self, telemetry, monkeypatch):
        client = traced(telemetry, "love")
        monkeypatch.setenv(VARIABLE, "SPAN_AND_EVENT")
        ask(client)
        assert "love" not in everything(telemetry)


def test_without_an_sdk_failures_and_contents_go_nowhere_and_break_nothing():
    fail(stack(ScriptedClient(REFUSED), Trace(content="spans and events")))


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"content": "all"}, ValueError),
        ({"content": None}, ValueError),
        ({"redact": "yes"}, TypeError),
        ({"content_limit": 0}, ValueError),
        ({"metric_tags": "feature"}, TypeError),
        ({"metric_tags": ["feature"]}, TypeError),
        ({"metric_tags": ("",)}, TypeError),
    ],
)
def test_bad_input(setting, error):
    with pytest.raises(error, match=rf"Trace[(.]{next(iter(setting))}"):
        Trace(**setting)
