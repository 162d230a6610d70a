"""Holds counts of tokens to being those that are billed, and to having a mark where they make no sense."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import LLMEvent, Usage, capture, stack
from overcoat.event import DETAIL_FIELDS, TOKEN_FIELDS
from overcoat.pricing.usage import ANOMALIES, COUNTS, MOST_TOKENS, read_usage
from overcoat.testing import Answer, ScriptedClient, run

HELLO = [{"role": "user", "content": "hello"}]


def said(prompt=None, completion=None, total=None, **parts):
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **parts}


class Shape(NamedTuple):
    """How a provider counts, and what of that is billed."""

    said: dict
    billed: Usage


SHAPES = {
    "openai: parts are in their wholes": Shape(
        said(100, 50, 150, cached_tokens=80, reasoning_tokens=30), Usage(100, 50, 150, 80, None, 30)
    ),
    "anthropic: what is cached is beside the prompt": Shape(
        said(20, 50, 150, cached_tokens=70, cache_creation_tokens=10, cache_creation_1h_tokens=6),
        Usage(100, 50, 150, 70, 10, None, 6),
    ),
    "x.ai, and google's own: reasoning is beside the answer": Shape(
        said(100, 20, 150, reasoning_tokens=30), Usage(100, 50, 150, None, None, 30)
    ),
    "both are beside": Shape(
        said(40, 20, 150, cached_tokens=60, reasoning_tokens=30), Usage(100, 50, 150, 60, None, 30)
    ),
    "sound": Shape(
        said(100, 50, 150, audio_input_tokens=10, audio_output_tokens=5),
        Usage(100, 50, 150, audio_input_tokens=10, audio_output_tokens=5),
    ),
    "no total": Shape(said(100, 50, cached_tokens=80), Usage(100, 50, None, 80)),
    "only a total": Shape(said(total=150), Usage(total_tokens=150)),
    "zeros": Shape(said(0, 0, 0, cached_tokens=0), Usage(0, 0, 0, 0)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_provider_s_way_of_counting(shape):
    usage, anomaly, _ = read_usage(shape.said)
    assert (usage, anomaly) == (shape.billed, None)


@given(*[st.integers(0, 10**6)] * 5)
def test_one_request_is_billed_alike_however_it_is_counted(plain, cached, created, answer, reasoning):
    """In their wholes, beside them, or both: the total says which, whatever the numbers are."""
    parts = {"cached_tokens": cached, "cache_creation_tokens": created, "reasoning_tokens": reasoning}
    prompt, completion = plain + cached + created, answer + reasoning
    total = prompt + completion
    expected = Usage(prompt, completion, total, cached, created, reasoning)
    assert read_usage(said(prompt, completion, total, **parts)).usage == expected
    apart = read_usage(said(plain, answer, total, **parts))
    assert (apart.usage, apart.anomaly) == (expected, None)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_gemini_s_thoughts_are_billed_as_output_where_only_the_total_has_them(prompt, answer, thoughts):
    reported = read_usage(said(prompt, answer, prompt + answer + thoughts), thoughts_apart=True)
    assert reported.usage == Usage(prompt, answer + thoughts, prompt + answer + thoughts)
    assert reported.anomaly is None


WRONG = {
    "not_a_number": [said(True, 5), said("10", 5), said(10.0, 5), said(math.nan, 5), said([10], 5), said(10, 5, 15.0)],
    "negative": [said(-1, 5), said(10, -5, 15), said(10, 5, 15, cached_tokens=-1)],
    "absurd": [said(MOST_TOKENS + 1, 5), said(10, 10**30)],
    "total_mismatch": [said(10, 5, 99), said(10, 5, 14), said(10, 5, 0), said(10, 5, 17, reasoning_tokens=3)],
    "part_exceeds_whole": [
        said(10, 5, 15, cached_tokens=11),
        said(10, 5, 15, cached_tokens=6, cache_creation_tokens=5),
        said(10, 5, 15, reasoning_tokens=6),
        said(10, 5, 15, audio_input_tokens=11),
        said(10, 5, 15, audio_output_tokens=6),
        said(10, 5, 15, cache_creation_tokens=2, cache_creation_1h_tokens=3),
        said(10, 5, 15, cache_creation_1h_tokens=3),
    ],
}


def test_the_words_are_a_closed_set():
    assert set(WRONG) == set(ANOMALIES)


@pytest.mark.parametrize(("word", "wrong"), [(word, each) for word, some in WRONG.items() for each in some])
def test_what_makes_no_sense_has_a_word(word, wrong):
    assert read_usage(wrong).anomaly == word


def test_only_what_is_wrong_is_not_counted():
    assert read_usage(said(-1, 5, 15)).usage == Usage(None, 5, 15)
    assert read_usage(said(10, 5, 99)).usage == Usage(10, 5)
    assert read_usage(said(10, 5, 15, cached_tokens=11, reasoning_tokens=2)).usage == Usage(10, 5, 15, None, None, 2)
    assert read_usage(said(True, "5")) == (None, "not_a_number", {})


def test_nothing_said_is_nothing_wrong():
    assert read_usage({}) == (None, None, {})
    assert read_usage(said(cached_tokens=5)) == (None, None, {})


_ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.integers(0, 100) | st.floats() | st.text() | st.lists(st.none())
)


@given(st.fixed_dictionaries(dict.fromkeys(COUNTS, _ANYTHING)), st.booleans())
def test_whatever_is_said_the_counts_are_of_use_or_none(anything, thoughts_apart):
    """Nothing raises; parts are within their wholes, and all are within bounds."""
    usage, anomaly, _ = read_usage(anything, thoughts_apart=thoughts_apart)
    assert anomaly is None or anomaly in ANOMALIES
    if usage is None:
        return
    counts = [getattr(usage, name) for name in usage.__slots__]
    assert all(count is None or (type(count) is int and 0 <= count <= 4 * MOST_TOKENS) for count in counts)
    if usage.input_tokens is not None:
        assert (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0) <= usage.input_tokens
        assert (usage.audio_input_tokens or 0) <= usage.input_tokens
        if usage.output_tokens is not None and usage.total_tokens is not None:
            assert usage.input_tokens + usage.output_tokens == usage.total_tokens
    if usage.output_tokens is not None:
        assert max(usage.reasoning_output_tokens or 0, usage.audio_output_tokens or 0) <= usage.output_tokens
    assert (usage.cache_creation_1h_input_tokens or 0) <= (usage.cache_creation_input_tokens or 0)


def test_every_count_is_one_that_a_client_may_say():
    """And none but those: a stack takes what an earlier call left of them off the event."""
    assert set(COUNTS) <= {*TOKEN_FIELDS, *DETAIL_FIELDS}
    assert set(COUNTS) <= set(vars(LLMEvent(prompt="", type="")))


@pytest.mark.parametrize(
    ("model", "output"), [("gemini/gemini-2.5-pro", 50), ("vertex_ai/gemini-3-pro", 50), ("gpt-4o", 20), (None, 20)]
)
def test_through_a_stack(model, output):
    """The caller's event and the record are one account: what is billed is what is seen."""
    client = ScriptedClient(Answer("hi", 100, 20, total_tokens=150))
    client.model_name = model
    own = LLMEvent(prompt=HELLO, type="test")
    with capture() as calls:
        run(stack(client).call(HELLO, None, own))
    (attempt,) = calls[0].attempts
    assert (own.prompt_tokens, own.completion_tokens) == (100, output)
    assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (100, output)
    assert attempt.anomaly == (None if output == 50 else "total_mismatch")


@pytest.mark.parametrize("service", ["flex", None, 5, ["flex"]])
def test_how_it_was_served_is_a_word_or_nothing(service):
    with capture() as calls:
        run(stack(ScriptedClient(Answer("hi", 1, 1, service_tier=service))).call(HELLO, None, LLMEvent(HELLO, "test")))
    assert calls[0].attempts[0].service_tier == (service if isinstance(service, str) else None)
