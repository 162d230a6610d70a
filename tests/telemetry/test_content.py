import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.telemetry.content import Contents, capture_by_environment

CONVENTIONS = Path(__file__).parents[3] / "shared" / "semconv-1.41"


def text_of(messages):
    return [part.get("content") for message in messages for part in message["parts"]]


def test_a_conversation_keeps_its_roles_and_texts():
    made = Contents().input_messages([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert made == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
    ]


def test_each_text_is_redacted_and_then_cut():
    """In the other order, half of a key at the end would not be known for one."""
    made = Contents(limit=20).input_messages([{"role": "user", "content": "x" * 15 + " sk-proj-abcdefghijklmnop1234"}])
    assert text_of(made) == ["x" * 15 + " [key… (1 characters more)"]


def test_what_the_redactor_fails_at_is_left_out(caplog):
    def broken(_):
        raise RuntimeError("secret")

    made = Contents(broken).input_messages([{"role": "user", "content": "Hi"}])
    assert text_of(made) == ["[redaction failed]"]
    assert "the redactor" in caplog.text


def test_a_redactor_of_one_s_own_is_all_that_is_asked():
    made = Contents(str.upper).output_messages("mail bob@example.com", "stop")
    assert text_of(made) == ["MAIL BOB@EXAMPLE.COM"]


def test_images_are_named_but_their_bytes_are_not_kept():
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
        "no part at all",
    ]
    (message,) = Contents().input_messages([{"role": "user", "content": content}])
    assert message["parts"] == [
        {"type": "text", "content": "What is it?"},
        {"type": "uri", "modality": "image", "uri": "https://example.com/cat.png"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": ""},
        {"type": "input_audio"},
        {"type": "unknown"},
    ]


def test_tool_calls_and_their_responses():
    made = Contents().input_messages(
        [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "function": {"name": "mail", "arguments": '{"to": "bob@example.com"}'}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "sent to bob@example.com"},
        ]
    )
    assert made == [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "name": "mail", "id": "1", "arguments": '{"to": "[email]"}'}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "sent to [email]", "id": "1"}]},
    ]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "stop"),
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_call"),
        ("function_call", "tool_call"),
    ],
)
def test_an_answer_has_its_finish_reason_in_the_conventions_word(said, reason):
    assert Contents().output_messages("Hi", said) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hi"}], "finish_reason": reason}
    ]


def test_an_answer_that_was_filtered_has_no_parts():
    assert Contents().output_messages(None, "content_filter")[0]["parts"] == []


messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
        "content": st.none()
        | st.text()
        | st.lists(
            st.fixed_dictionaries({"type": st.text()}, optional={"text": st.text(), "image_url": st.text() | st.none()})
        ),
    },
    optional={
        "name": st.text(),
        "tool_call_id": st.text(),
        "tool_calls": st.none()
        | st.lists(
            st.fixed_dictionaries({}, optional={"id": st.text(), "function": st.dictionaries(st.text(), st.text())})
        ),
    },
)


@pytest.mark.skipif(not CONVENTIONS.exists(), reason="the conventions as data are not beside this checkout")
@given(st.lists(messages), st.none() | st.text(), st.none() | st.text())
def test_whatever_a_client_is_given_the_shapes_are_those_of_the_conventions(conversation, text, reason):
    for name, made in (
        ("input", Contents().input_messages(conversation)),
        ("output", Contents().output_messages(text, reason)),
    ):
        schema = json.loads((CONVENTIONS / f"gen-ai-{name}-messages.json").read_text())
        jsonschema.validate(made, schema)
        json.dumps(made)


@pytest.mark.parametrize(
    ("value", "capture"),
    [
        (None, "none"),
        ("NO_CONTENT", "none"),
        ("false", "none"),
        ("true", "spans"),
        ("SPAN_ONLY", "spans"),
        ("event_only", "events"),
        ("SPAN_AND_EVENT", "spans and events"),
    ],
)
def test_the_standard_variable_switches_capture(monkeypatch, value, capture):
    if value is None:
        monkeypatch.delenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", raising=False)
    else:
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", value)
    assert capture_by_environment() == capture


def test_a_value_that_nobody_knows_switches_nothing_on_and_says_so(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "yes please")
    assert capture_by_environment() == "none"
    assert "expected one of FALSE, NO_CONTENT, TRUE, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT" in caplog.text
