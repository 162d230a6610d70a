"""Holds stored answers to coming back as they were, and whatever else lies in a store to being no answer."""

from __future__ import annotations

import math
import zlib
from dataclasses import fields
from decimal import Decimal
from enum import StrEnum
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overcoat.accounting import Usage
from overcoat.stores.envelope import VERSION, Answer, Unreadable, pack, span_of, unpack

KEY = "ab" * 32
REASONS = get_args(Unreadable)

_counts = st.none() | st.integers(0, 2**63)
_usages = st.builds(Usage, *(_counts for _ in fields(Usage)))
_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
_fields = _scalars | st.lists(_scalars) | st.dictionaries(st.text(), _scalars)
_spans = st.tuples(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
_costs = st.decimals(min_value=0, allow_nan=False, allow_infinity=False)
_times = st.floats(0, 1e12)

PLAIN = {
    "key": KEY,
    "created": 0.0,
    "fresh_until": 60.0,
    "fields": {},
    "usage": None,
    "cost": None,
    "span": None,
}
SAMPLE = pack(
    "h\u00e9llo",
    key=KEY,
    created=1.5e9,
    fresh_until=1.5e9 + 60,
    model="m",
    fields={"response_id": "r\u00e9", "n": 1, "x": 0.5, "ok": True, "no": None, "list": [1, "a"], "dict": {"b": 2}},
    usage=Usage(10, 2, 12),
    cost=Decimal("0.00123"),
    span=(0xABC, 0xDEF),
)


def types(value):
    """The types of a field, all the way down: 1 == True == 1.0."""
    if isinstance(value, list):
        return [types(item) for item in value]
    if isinstance(value, dict):
        return {name: types(item) for name, item in value.items()}
    return type(value)


@given(
    text=st.text(),
    created=_times,
    fresh_until=_times,
    model=st.none() | st.text(),
    fields=st.dictionaries(st.text(), _fields),
    usage=st.none() | _usages,
    cost=st.none() | _costs,
    span=st.none() | _spans,
    times=st.sampled_from([1, 1000]),  # of which the second is compressed
)
@example(
    text="", created=0.0, fresh_until=0.0, model=None, fields={}, usage=None,
    cost=Decimal("1E-28"), span=(2**128 - 1, 2**64 - 1), times=1,
)  # fmt: skip
def test_round_trip(*, text, created, fresh_until, model, fields, usage, cost, span, times):
    """With its types: 1 is not True, 1.0 is not 1, and dollars keep every digit."""
    text *= times
    value = pack(
        text,
        key=KEY,
        created=created,
        fresh_until=fresh_until,
        model=model,
        fields=fields,
        usage=usage,
        cost=cost,
        span=span,
    )
    answer = unpack(value, KEY)
    assert isinstance(answer, Answer)
    assert (answer.text, answer.created, answer.fresh_until) == (text, created, fresh_until)
    assert (answer.key, answer.model, answer.usage) == (KEY, model, usage)
    assert answer.fields == fields
    assert types(answer.fields) == types(fields)
    assert repr(answer.cost) == repr(cost)
    assert span_of(answer) == span


def test_nan_comes_back():
    answer = unpack(pack("", **(PLAIN | {"fields": {"x": math.nan}})), KEY)
    assert isinstance(answer, Answer)
    assert math.isnan(answer.fields["x"])


def test_each_reading_has_lists_of_its_own():
    """One caller's event must not change with what another does to its own."""
    first, second = unpack(SAMPLE, KEY), unpack(SAMPLE, KEY)
    assert isinstance(first, Answer)
    assert isinstance(second, Answer)
    first.fields["list"].append(3)
    assert second.fields["list"] == [1, "a"]


def test_long_answers_are_compressed():
    text = "An answer with the usual repetition. " * 1000
    assert len(pack(text, **PLAIN)) < len(text) / 10


def test_short_answers_are_not():
    text = "x" * 3900
    assert text.encode() in pack(text, **PLAIN)


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1,), "tuple"),
        (b"x", "bytes"),
        (Decimal(1), "Decimal"),
        (object(), "object"),
        (Colour.RED, "Colour"),
        ([[1]], "list"),
        ([{}], "dict"),
        ([Colour.RED], "Colour"),
        ({"a": b"x"}, "bytes"),
        ({"a": {}}, "dict"),
        ({1: 1}, "dict with keys that are no text"),
        ({Colour.RED: 1}, "dict with keys that are no text"),
    ],
)
def test_a_field_that_would_not_come_back_as_it_was_is_refused(value, said):
    with pytest.raises(ValueError, match=rf"^the event's field 'notes' is of type {said}, which cannot be stored$"):
        pack("", **(PLAIN | {"fields": {"notes": value}}))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, [2**64], "\ud800", ["\ud800"], {"\ud800": 1}])
def test_a_field_that_cannot_be_encoded_is_refused(value):
    with pytest.raises(ValueError, match=r"64 bits|surrogates"):
        pack("", **(PLAIN | {"fields": {"notes": value}}))


@pytest.mark.parametrize("name", ["text", "key", "model"])
def test_text_that_cannot_be_encoded_is_refused(name):
    with pytest.raises(ValueError, match="surrogates"):
        pack(**({"text": ""} | PLAIN | {name: "\ud800"}))


@pytest.mark.parametrize("cost", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_cost_that_is_no_number_is_refused(cost):
    with pytest.raises(ValueError, match="cannot be stored"):
        pack("", **(PLAIN | {"cost": Decimal(cost)}))


@pytest.mark.parametrize("name", ["created", "fresh_until"])
@pytest.mark.parametrize("time", [math.nan, math.inf])
def test_a_time_without_end_is_refused(name, time):
    with pytest.raises(ValueError, match="cannot be stored"):
        pack("", **(PLAIN | {name: time}))


def test_a_negative_count_is_refused():
    with pytest.raises(ValueError, match="cannot be stored"):
        pack("", **(PLAIN | {"usage": Usage(1, output_tokens=-1)}))


def test_counts_that_cannot_be_encoded_are_refused():
    with pytest.raises(ValueError, match="more than 64 bits"):
        pack("", **(PLAIN | {"usage": Usage(2**64)}))


def test_an_answer_too_large_to_be_read_is_refused():
    with pytest.raises(ValueError, match=r"the answer takes 16777[0-9]+ bytes, which cannot be stored"):
        pack("x" * 2**24, **PLAIN)


def test_a_text_of_a_subclass_is_refused_as_its_contract_says():
    """Some SDKs return texts with attributes. Any other error than ValueError reaches the caller, after a paid call."""

    class Text(str):
        __slots__ = ()

    with pytest.raises(ValueError, match=r"^the answer is of type .*Text, which cannot be stored$"):
        pack(Text("hi"), **PLAIN)


@pytest.mark.parametrize("text", [5, b"hi", ["hi"], None])
def test_a_text_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="cannot be stored"):
        pack(text, **PLAIN)


# --- What else may lie in a store ---


def sealed(body, codec=0, version=VERSION):
    """A value whose checksum is right, whatever is in it."""
    return b"oc" + bytes([version, codec]) + zlib.crc32(bytes([version, codec]) + body).to_bytes(4) + body


def raw(*, text="text", created=0.0, fresh_until=0.0, fields=None, usage=None, cost=None, trace=None, more=()):
    """An answer's parts, of any types, in their order."""
    return msgspec.msgpack.encode((KEY, text, created, fresh_until, None, fields or {}, usage, cost, trace, *more))


def test_the_layout_is_the_one_that_the_tests_forge():
    assert isinstance(unpack(sealed(raw()), KEY), Answer)
    assert isinstance(unpack(sealed(zlib.compress(raw()), codec=1), KEY), Answer)


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", "foreign"),
        (b"o", "foreign"),
        (b"not one of ours", "foreign"),
        (msgspec.msgpack.encode((1, "text", 0.0, {}, None, None, None)), "foreign"),  # version 1 had no header
        (b"oc", "altered"),
        (SAMPLE[:7], "altered"),
        (sealed(raw(), version=VERSION + 1), "version"),
        (sealed(b"another layout", version=255), "version"),
        (sealed(raw(), version=VERSION - 1), "version"),
        (sealed(raw(), codec=2), "version"),
        (SAMPLE + b"\0", "altered"),
        (sealed(raw() + b"\0"), "altered"),
        (sealed(zlib.compress(raw())), "altered"),
        (sealed(raw(), codec=1), "altered"),
        (sealed(zlib.compress(raw())[:-5], codec=1), "altered"),
        (sealed(zlib.compress(raw()) + b"\0", codec=1), "altered"),
        (sealed(msgspec.msgpack.encode(("key", "text"))), "altered"),
        (sealed(raw(text=None)), "altered"),
        (sealed(raw(text=b"text")), "altered"),
        (sealed(raw(created="0")), "altered"),
        (sealed(raw(created=math.nan)), "altered"),
        (sealed(raw(fresh_until=math.inf)), "altered"),
        (sealed(raw(fields={1: 2})), "altered"),
        (sealed(raw(fields={"notes": [[1]]})), "altered"),
        (sealed(raw(fields={"notes": {"a": {}}})), "altered"),
        (sealed(raw(fields={"notes": {1: 1}})), "altered"),
        (sealed(raw(fields={"notes": b"x"})), "altered"),
        (sealed(raw(fields={"notes": msgspec.msgpack.Ext(1, b"x")})), "altered"),
        (sealed(raw(usage={"input_tokens": "1"})), "altered"),
        (sealed(raw(usage={"input_tokens": 1.5})), "altered"),
        (sealed(raw(usage={"input_tokens": -1})), "altered"),
        (sealed(raw(cost="a lot")), "altered"),
        (sealed(raw(cost="1E99999999999999999999")), "altered"),
        (sealed(raw(cost="NaN")), "altered"),
        (sealed(raw(cost="-Infinity")), "altered"),
        (sealed(raw(trace=("00",))), "altered"),
    ],
)
def test_what_is_no_answer_says_why(stored, reason):
    assert unpack(stored, KEY) == reason


def test_an_answer_to_something_else_is_none():
    """A store that mixes up its entries must not give one caller what another asked."""
    assert unpack(SAMPLE, "ab" * 31 + "ac") == "wrong_key"


@pytest.mark.parametrize("size", [2**24 + 1, 2**28])
def test_a_bomb_is_not_inflated(size):
    """A quarter of a megabyte that is a quarter of a gigabyte takes 16 MiB for a moment."""
    deflater = zlib.compressobj(9)
    zeros = bytes(2**20)
    parts = [deflater.compress(zeros[: min(len(zeros), size - at)]) for at in range(0, size, len(zeros))]
    assert unpack(sealed(b"".join(parts) + deflater.flush(), codec=1), KEY) == "too_large"


def with_field(value):
    """An answer whose one field is *value*, as encoded."""
    whole = raw(fields={"a": 0})
    start = whole.index(b"\xa1a\0") + 2
    return sealed(whole[:start] + value + whole[start + 1 :])


@pytest.mark.parametrize("kind", [b"\xdd", b"\xdf", b"\xdb", b"\xc6"], ids=["array", "map", "str", "bin"])
def test_a_length_beyond_the_bytes_is_not_believed(kind):
    """A header may claim four billion elements: nothing is reserved for them."""
    assert unpack(with_field(kind + b"\xff\xff\xff\xff"), KEY) == "altered"
    assert unpack(sealed(kind + b"\xff\xff\xff\xff" + raw()[1:]), KEY) == "altered"


def test_nesting_without_end_is_no_answer():
    """Ten thousand lists in each other take ten thousand bytes; they are also met where a decoder only skips them."""
    endless = b"\x91" * 10_000 + b"\0"
    assert unpack(with_field(endless), KEY) == "altered"
    whole = raw(usage={"unknown": 0})
    name = whole.index(b"unknown") + len(b"unknown")
    assert isinstance(unpack(sealed(whole), KEY), Answer)
    assert unpack(sealed(whole[:name] + endless + whole[name + 1 :]), KEY) == "altered"


def test_a_truncated_answer_is_none():
    assert all(unpack(SAMPLE[:length], KEY) in REASONS for length in range(len(SAMPLE)))


def test_no_changed_byte_is_an_answer():
    """A store that lost a bit costs a miss: every change of every byte, 60,000 or so."""
    for index, original in enumerate(SAMPLE):
        for byte in range(256):
            if byte != original:
                assert unpack(SAMPLE[:index] + bytes([byte]) + SAMPLE[index + 1 :], KEY) in REASONS


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
    assert unpack(sealed(raw(trace=span)), KEY) == "altered"


@given(st.binary())
def test_random_bytes_are_no_answer(stored):
    assert unpack(stored, KEY) in REASONS


@given(st.binary(), st.sampled_from([0, 1]))
@example(b"\x99" + b"\xc0" * 9, 0)
def test_random_bytes_under_a_right_checksum_are_no_answer(body, codec):
    """What decodes them is not protected by the checksum: a forger, or a bug of ours, can be right about that."""
    assert unpack(sealed(body, codec), KEY) in REASONS


def is_well_typed(answer: Answer) -> bool:
    """Whether *answer* is of the types that it declares, all the way down, and its numbers make sense."""
    scalars = (str, int, float, bool, type(None))
    counts = [getattr(answer.usage, field.name) for field in fields(Usage)] if answer.usage else []

    def is_field(value):
        if type(value) is list:
            return all(type(item) in scalars for item in value)
        if type(value) is dict:
            return all(type(name) is str and type(item) in scalars for name, item in value.items())
        return type(value) in scalars

    return (
        type(answer.text) is str
        and type(answer.created) is type(answer.fresh_until) is float
        and all(type(name) is str and is_field(value) for name, value in answer.fields.items())
        and all(count is None or (type(count) is int and count >= 0) for count in counts)
        and (answer.cost is None or (type(answer.cost) is Decimal and answer.cost.is_finite()))
        and (answer.trace is None or [type(part) for part in answer.trace] == [str, str])
    )


@given(st.data())
def test_a_forged_answer_is_well_typed_or_none(data):
    """Whose checksum is right, and one byte of it is not what was packed."""
    body = SAMPLE[8:]
    index = data.draw(st.integers(0, len(body) - 1))
    changed = body[:index] + data.draw(st.binary(min_size=1, max_size=1)) + body[index + 1 :]
    answer = unpack(sealed(changed), KEY)
    if isinstance(answer, Answer):
        assert is_well_typed(answer)
        span_of(answer)
    else:
        assert answer in REASONS
