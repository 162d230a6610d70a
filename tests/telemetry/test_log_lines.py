"""A line a call in the log: what its span says, by the same names, also where there are no spans."""

import io
import json
import logging

import pytest

from overcoat import Cache, LLMEvent, LLMStatusError, Meter, Retry, Trace, stack, tags
from overcoat.record import PolicyStamp
from overcoat.telemetry import JsonFormatter
from overcoat.telemetry.log_lines import _value
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

DOWN = LLMStatusError("the prompt was: my secret", 503)


@pytest.fixture
def lines(caplog):
    """The records of the logger, which is on."""
    caplog.set_level(logging.INFO, logger="overcoat.calls")
    return caplog


def called(*steps, layers=(), policy=None, **settings):
    client = ScriptedClient(*steps, model_name="openai/gpt-4o-mini")
    traced = stack(client, Trace(**settings), *layers, policy=policy)
    try:
        return run(traced.call([{"role": "user", "content": "hello"}], None, LLMEvent([], "test")))
    except LLMStatusError:
        return None


def test_without_anything_set_up_there_are_none(capfd):
    """Python's own level is WARNING, and there is no handler of ours."""
    called("hi")
    assert capfd.readouterr() == ("", "")


def test_where_it_is_off_nothing_is_made(caplog, monkeypatch):
    monkeypatch.setattr("overcoat.telemetry.log_lines.log_call", None)
    monkeypatch.setattr("overcoat.telemetry.spans.roll_up", None)
    caplog.set_level(logging.WARNING, logger="overcoat.calls")
    assert called("hi") == "hi"
    assert caplog.text == ""


def test_a_call_is_a_line(lines):
    with tags(tenant="acme"):
        called(Answer("hi", 1000, 50, cached_tokens=0), layers=[Cache(), Meter()], policy=PolicyStamp("p", "1234"))
    (record,) = lines.records
    assert (record.name, record.levelname) == ("overcoat.calls", "INFO")
    line, _, duration = record.getMessage().partition(" duration=")
    assert line == "model=openai/gpt-4o-mini outcome=ok attempts=1 cache.result=miss cost.usd=0.00018 cost.tier=low"
    assert duration == (
        "0 gen_ai.usage.input_tokens=1000 gen_ai.usage.output_tokens=50 policy=p policy.digest=1234 tag.tenant=acme"
    )


def test_it_has_what_the_span_has_and_leads_there(lines):
    telemetry = InMemoryTelemetry()
    with tags(tenant="acme"):
        called(
            DOWN,
            Answer("hi", 10, 2),
            layers=[Cache(), Retry(max_attempts=2), Meter()],
            tracer_provider=telemetry.tracer_provider,
        )
    (record,) = lines.records
    (span,) = telemetry.named("overcoat.call")
    assert span.attributes.items() <= record.fields.items()
    assert record.fields["overcoat.retried"] is True
    assert record.fields["trace_id"] == f"{span.context.trace_id:032x}"
    assert record.fields["span_id"] == f"{span.context.span_id:016x}"


def test_a_failure_is_told_without_its_text(lines):
    called(DOWN, layers=[Retry(max_attempts=1)])
    (record,) = lines.records
    assert "outcome=error" in record.getMessage()
    assert "error.type=overloaded gave_up=attempts" in record.getMessage()
    assert "secret" not in lines.text
    assert "secret" not in str(record.fields)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("größer", "größer"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a="b"', '"a=\\"b\\""'),
        ("line\nbreak", '"line\\nbreak"'),
        ("line\u2028break", '"line\\u2028break"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        (True, "true"),
        (0.00018, "0.00018"),
        (3, "3"),
    ],
)
def test_values_are_one_word_or_quoted(value, written):
    """Whatever is in a tag, it is part of its own line only."""
    assert _value(value) == written


def formatted(logger, *arguments, **settings):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    try:
        logger.warning(*arguments, **settings)
    finally:
        logger.removeHandler(handler)
    return json.loads(stream.getvalue())


def test_json_has_the_fields_as_members(lines):
    with tags(tenant="größer"):
        called(Answer("hi", 10, 2), layers=[Meter()])
    (record,) = lines.records
    said = json.loads(JsonFormatter().format(record))
    assert said["timestamp"].endswith("Z")
    assert (said["level"], said["logger"]) == ("INFO", "overcoat.calls")
    assert (said["overcoat.outcome"], said["overcoat.tag.tenant"]) == ("ok", "größer")
    assert said["gen_ai.usage.input_tokens"] == 10
    assert "message" not in said


def test_json_of_what_others_log():
    said = formatted(logging.getLogger("app"), "%s of %s", 1, 2)
    assert (said["logger"], said["level"], said["message"]) == ("app", "WARNING", "1 of 2")


def test_json_of_an_exception():
    said = formatted(logging.getLogger("app"), "it broke", exc_info=ValueError("odd"))
    assert said["message"] == "it broke"
    assert said["exception"].endswith("ValueError: odd")


def test_the_fields_of_others_are_left_alone():
    said = formatted(logging.getLogger("app"), "hello", extra={"fields": {"level": "fake"}})
    assert (said["level"], said["message"]) == ("WARNING", "hello")
