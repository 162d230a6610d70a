"""Holds stored answers to coming back as they were, and whatever else lies in a store to being no answer."""

from __future__ import annotations

import math
from dataclasses import fields
from decimal import Decimal
from enum import StrEnum

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overcoat.record import Usage
from overcoat.stores.envelope import VERSION, Answer, pack, span_of, unpack

_counts = st.none() | st.integers(0, 2**63)
_usages = st.builds(Usage, *(_counts for _ in fields(Usage)))
_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
_spans = st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
_costs = st.decimals(min_value=0, allow_nan=False, allow_infinity=False)

SAMPLE = pack(
    "h\u00e9llo",
    created=1.5e9,
    fields={"response_id": "r\u00e9", "n": 1, "x": 0.5, "ok": True, "no": None},
    usage=Usage(10, 2, 12),
    cost=Decimal("0.00123"),
    span=(0xABC, 0xDEF),
)


@given(
    text=st.text(),
    created=st.floats(0, 1e12),
    fields=st.dictionaries(st.text(), _scalars),
    usage=st.none() | _usages,
    cost=st.none() | _costs,
    span=st.none() | _spans,
)
@example(text="", created=0.0, fields={}, usage=None, cost=Decimal("1E-28"), span=(2**128 - 1, 2**64 - 1))
def test_round_trip(*, text, created, fields, usage, cost, span):
    """With its types: 1 is not True, 1.0 is not 1, and dollars keep every digit."""
    answer = unpack(pack(text, created=created, fields=fields, usage=usage, cost=cost, span=span))
    assert answer is not None
    assert (answer.text, answer.created, answer.usage) == (text, created, usage)
    assert answer.fields == fields
    assert {name: type(value) for name, value in answer.fields.items()} == {n: type(v) for n, v in fields.items()}
    assert repr(answer.cost) == repr(cost)
    assert span_of(answer) == span


def test_nan_comes_back():
    answer = unpack(pack("", created=0.0, fields={"x": math.nan}, usage=None, cost=None, span=None))
    assert answer is not None
    assert math.isnan(answer.fields["x"])


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, (1,), b"x", Decimal(1), object(), Colour.RED, 2**64, -(2**63) - 1, "\ud800"]
)
def test_a_field_that_would_not_come_back_as_it_was_is_refused(value):
    with pytest.raises(ValueError, match=r"cannot be stored|surrogates"):
        pack("", created=0.0, fields={"notes": value}, usage=None, cost=None, span=None)


def test_the_refusal_names_the_field_and_its_type():
    with pytest.raises(ValueError, match=r"^the event's field 'notes' is of type list, which cannot be stored$"):
        pack("", created=0.0, fields={"notes": ["secret"]}, usage=None, cost=None, span=None)


def test_text_that_cannot_be_encoded_is_refused():
    with pytest.raises(ValueError, match="surrogates"):
        pack("\ud800", created=0.0, fields={}, usage=None, cost=None, span=None)


@pytest.mark.parametrize("cost", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_cost_that_is_no_number_is_refused(cost):
    with pytest.raises(ValueError, match="cannot be stored"):
        pack("", created=0.0, fields={}, usage=None, cost=Decimal(cost), span=None)


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="cannot be stored"):
        pack("", created=0.0, fields={}, usage=Usage(1, output_tokens=-1), cost=None, span=None)


def test_counts_that_cannot_be_encoded_are_refused():
    with pytest.raises(ValueError, match="more than 64 bits"):
        pack("", created=0.0, fields={}, usage=Usage(2**64), cost=None, span=None)


# --- What else may lie in a store ---


def raw(*parts):
    return msgspec.msgpack.encode(parts)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"not one of ours",
        raw(VERSION + 1, "text", 0.0, {}, None, None, None),
        raw(VERSION - 1, "text", 0.0, {}, None, None, None),
        raw(VERSION + 1, "text", "another layout"),
        raw(bool(VERSION), "text", 0.0, {}, None, None, None),
        raw("1", "text", 0.0, {}, None, None, None),
        raw(VERSION, "text", 0.0, {}, None, None),
        raw(VERSION, None, 0.0, {}, None, None, None),
        raw(VERSION, b"text", 0.0, {}, None, None, None),
        raw(VERSION, "text", "0", {}, None, None, None),
        raw(VERSION, "text", 0.0, {1: 2}, None, None, None),
        raw(VERSION, "text", 0.0, {}, {"input_tokens": "1"}, None, None),
        raw(VERSION, "text", 0.0, {}, {"input_tokens": 1.5}, None, None),
        raw(VERSION, "text", 0.0, {}, None, "a lot", None),
        raw(VERSION, "text", 0.0, {}, None, "1E99999999999999999999", None),
        raw(VERSION, "text", 0.0, {}, None, None, ("00",)),
        SAMPLE + b"\0",
        b'{"version": 1, "text": "text"}',
    ],
)
def test_what_is_no_answer_of_this_version_is_none(stored):
    assert unpack(stored) is None


def with_field(value):
    """An answer whose one field is *value*, as encoded."""
    whole = raw(VERSION, "text", 0.0, {"a": 0}, None, None, None)
    start = whole.index(b"\xa1a\0") + 2
    return whole[:start] + value + whole[start + 1 :]


@pytest.mark.parametrize("kind", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"], ids=["array", "map", "str", "bin"])
def test_a_length_beyond_the_bytes_is_not_believed(kind):
    """A header may claim four billion elements: nothing is reserved for them."""
    assert unpack(with_field(kind + b"\xff\xff\xff\xff")) is None
    assert unpack(kind + b"\xff\xff\xff\xff" + SAMPLE[1:]) is None


def test_a_truncated_answer_is_none():
    assert [unpack(SAMPLE[:length]) for length in range(len(SAMPLE))] == [None] * len(SAMPLE)


def readings():
    """Yield what is read from the sample with one byte changed, for every byte and every change: 60,000 or so."""
    for index, original in enumerate(SAMPLE):
        for byte in range(256):
            if byte != original:
                yield unpack(SAMPLE[:index] + bytes([byte]) + SAMPLE[index + 1 :])


def is_well_typed(answer: Answer) -> bool:
    """Whether *answer* is of the types that it declares, all the way down, and its numbers make sense."""
    scalars = (str, int, float, bool, type(None))
    counts = [getattr(answer.usage, field.name) for field in fields(Usage)] if answer.usage else []
    return (
        type(answer.text) is str
        and type(answer.created) is float
        and all(type(name) is str and type(value) in scalars for name, value in answer.fields.items())
        and all(count is None or (type(count) is int and count >= 0) for count in counts)
        and (answer.cost is None or (type(answer.cost) is Decimal and answer.cost.is_finite()))
        and (answer.trace is None or [type(part) for part in answer.trace] == [str, str])
    )


def test_no_changed_byte_raises_or_makes_something_else_of_an_answer():
    """A store that lost a bit costs a miss; what is raised here ends the caller's call."""
    for answer in readings():
        if answer is not None:
            assert is_well_typed(answer)
            span_of(answer)


@pytest.mark.parametrize(
    "span",
    [
        ("g" * 32, "0" * 16),
        ("", ""),
        ("0" * 31, "0" * 16),
        ("0" * 32, "0" * 16 + "\n"),
        ("0" * 32, "0_0" * 5 + "0"),
        ("A" * 32, "0" * 16),
        ("\u0660" * 32, "0" * 16),
    ],
)
def test_ids_that_are_none_are_no_answer(span):
    """int() reads more than was written: underscores, blanks and every script's digits."""
    assert unpack(raw(VERSION, "text", 0.0, {}, None, None, span)) is None


@pytest.mark.parametrize(
    "parts",
    [
        ({"notes": [1]}, None, None),
        ({"notes": {"a": 1}}, None, None),
        ({"notes": b"x"}, None, None),
        ({"notes": msgspec.msgpack.Ext(1, b"x")}, None, None),
        ({}, {"input_tokens": -1}, None),
        ({}, None, "NaN"),
        ({}, None, "-Infinity"),
    ],
)
def test_an_answer_is_of_the_types_that_it_declares(parts):
    """Fields are set on the caller's event, and counts and dollars go into sums: none may be of a kind never stored."""
    assert unpack(raw(VERSION, "text", 0.0, *parts, None)) is None


def test_nesting_without_end_is_no_answer():
    """Ten thousand lists in each other take ten thousand bytes; they are also met where a decoder only skips them."""
    endless = b"\x91" * 10_000 + b"\0"
    assert unpack(with_field(endless)) is None
    whole = raw(VERSION, "text", 0.0, {}, {"unknown": 0}, None, None)
    name = whole.index(b"unknown") + len(b"unknown")
    assert unpack(whole) is not None
    assert unpack(whole[:name] + endless + whole[name + 1 :]) is None


def test_a_text_of_a_subclass_is_refused_as_its_contract_says():
    """Some SDKs return texts with attributes. Any other error than ValueError reaches the caller, after a paid call."""

    class Text(str):
        __slots__ = ()

    with pytest.raises(ValueError, match=r"^the answer is of type .*Text, which cannot be stored$"):
        pack(Text("hi"), created=0.0, fields={}, usage=None, cost=None, span=None)


@pytest.mark.parametrize("text", [5, b"hi", ["hi"], None])
def test_a_text_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="cannot be stored"):
        pack(text, created=0.0, fields={}, usage=None, cost=None, span=None)


@given(st.binary())
@example(b"\x97" + b"\xc0" * 7)
def test_random_bytes_are_no_answer(stored):
    assert unpack(stored) is None
