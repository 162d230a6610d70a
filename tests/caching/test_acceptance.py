"""Which answers may be given to others, by what clients of all kinds say about them."""

from __future__ import annotations

import pytest

from overcoat import Attempt, Call, LiteLLMOptions, LLMEvent, Reply, Request, Usage
from overcoat.caching.acceptance import reason_to_refuse


def judged(text, ended=None, options=None, output_tokens=None, json_mode=False, accept=None):
    attempt = Attempt(1, "gpt-test", 0.0, finish_reason=ended, usage=Usage(10, output_tokens))
    call = Call("Client", "gpt-test", json_mode, {}, 0.0, 0.0)
    request = Request([], options, LLMEvent([], "test"), json_mode, call)
    return reason_to_refuse(Reply(text, {}, attempt), request, accept)


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ("stop", None),
        ("end_turn", None),
        ("STOP", None),
        ("tool_calls", None),
        (None, None),
        (7, None),
        ("length", "truncated"),
        ("max_tokens", "truncated"),
        ("MAX_TOKENS", "truncated"),
        ("max_output_tokens", "truncated"),
        ("model_context_window_exceeded", "truncated"),
        ("content_filter", "filtered"),
        ("refusal", "filtered"),
        ("SAFETY", "filtered"),
        ("RECITATION", "filtered"),
        ("PROHIBITED_CONTENT", "filtered"),
        ("guardrail_intervened", "filtered"),
    ],
)
def test_why_the_model_stopped(ended, reason):
    """In the words of OpenAI, Anthropic, Bedrock and Gemini, which writes them in capitals."""
    assert judged("hi", ended) == reason


@pytest.mark.parametrize("text", ["", None])
def test_nothing_is_no_answer(text):
    assert judged(text, "stop") == "empty"
    assert judged(text, "content_filter") == "filtered"


@pytest.mark.parametrize(
    ("options", "output_tokens", "reason"),
    [
        (LiteLLMOptions(max_tokens=16), 16, "truncated"),
        (LiteLLMOptions(max_tokens=16), 17, "truncated"),
        (LiteLLMOptions(max_tokens=16), 15, None),
        (LiteLLMOptions(max_tokens=16), None, None),
        (LiteLLMOptions(), 16, None),
        (None, 16, None),
        ({"max_completion_tokens": 16}, 16, "truncated"),
        ({"max_output_tokens": 16}, 16, "truncated"),
        ({"max_tokens": True}, 16, None),
        ({"max_tokens": "16"}, 16, None),
    ],
)
def test_an_answer_as_long_as_it_might_be(options, output_tokens, reason):
    """For clients that do not say why the model stopped."""
    assert judged("hi", None, options, output_tokens) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [('{"a": 1}', None), ("null", None), ("{", "no_json"), ("```json\n{}\n```", "no_json"), ("[" * 10**5, "no_json")],
)
def test_json_must_parse_where_it_was_asked_for(text, reason):
    assert judged(text, "stop", json_mode=True) == reason
    assert judged(text, "stop") is None


def test_the_caller_s_judge_has_the_last_word():
    assert judged("hi", accept=lambda text: text == "hi") is None
    assert judged("hi", accept=lambda text: text != "hi") == "rejected"
    assert judged("hi", "length", accept=lambda text: 1 / 0) == "truncated"


def test_a_judge_that_fails_rejects(caplog):
    assert judged("secret", accept=int) == "rejected"
    assert "raised ValueError; the answer is not kept" in caplog.text
    assert "secret" not in caplog.text


def test_an_answer_without_an_attempt_is_judged_by_its_text():
    request = Request([], None, LLMEvent([], "test"), False, Call("Client", None, False, {}, 0.0, 0.0))
    assert reason_to_refuse(Reply("hi"), request, None) is None
    assert reason_to_refuse(Reply(""), request, None) == "empty"
