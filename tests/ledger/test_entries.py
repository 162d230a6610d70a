"""Holds the entries of a call to saying what its record says, in what every database takes."""

from __future__ import annotations

import json
import uuid
from decimal import ROUND_CEILING, Decimal
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import Cost, Lookup, Usage
from overcoat.classification import Failure, Kind
from overcoat.ledger.entries import dollars, entries_of, tag_key
from overcoat.ledger.tables import entries
from overcoat.record import PolicyStamp

from .calls import NOON, TEXTS, attempt, call, calls

MOST = 2**63 - 1


def summed(rows, column):
    """Return the sum of a column; None where one of the rows has none, as in a record."""
    values = [row[column] for row in rows]
    return None if None in values else dollars(sum(values))


def test_an_ordinary_call():
    made, answer = call(attempt(), tenant="acme", policy=PolicyStamp("fast", "abc"))
    made.span = (1, 2)
    (row,) = entries_of(made, answer, "shop")
    assert uuid.UUID(row.pop("id")).version == 7
    assert row == {
        "entry": 0,
        "started": int(NOON * 1000),
        "service": "shop",
        "client": "Client",
        "model": "openai/gpt-4o",
        "provider": "openai",
        "policy": "fast",
        "digest": "abc",
        "outcome": "ok",
        "error_type": None,
        "cache": None,
        "tags": {"tenant": "acme"},
        "attempts": 1,
        "input_tokens": 1000,
        "output_tokens": 100,
        "cache_read_input_tokens": None,
        "cache_creation_input_tokens": None,
        "reasoning_output_tokens": None,
        "billed": 3_500_000_000,
        "saved": 0,
        "wasted": 0,
        "price_source": "test 1",
        "upper_bound": False,
        "anomaly": None,
        "trace_id": "0" * 31 + "1",
        "span_id": "0" * 15 + "2",
        "detail": [
            {
                "role": "primary",
                "number": 1,
                "answered": True,
                "seconds": 1.0,
                "input_tokens": 1000,
                "output_tokens": 100,
                "cost": "0.0035",
            }
        ],
    }


def test_a_fallback_is_an_entry_for_each_model():
    """What failed at the first model and was charged is on its entry, with what is the call's as a whole."""
    failed = attempt(cost="0.5", error_type="overloaded")
    failed.failure = Failure(Kind.OVERLOADED, status=529)
    rows = entries_of(*call(failed, attempt("claude-sonnet-4-5", "2")))
    assert [(row["entry"], row["model"], row["provider"]) for row in rows] == [
        (0, "openai/gpt-4o", "openai"),
        (1, "claude-sonnet-4-5", "anthropic"),
    ]
    assert len({row["id"] for row in rows}) == 1
    assert [(dollars(row["billed"]), dollars(row["wasted"])) for row in rows] == [(Decimal("0.5"),) * 2, (2, 0)]
    assert rows[0]["detail"][0]["error_type"] == "overloaded"
    assert rows[0]["detail"][0]["status"] == 529


def test_a_hit_has_no_attempts_and_saves():
    cache = Lookup("hit", 0.0, 0.0, cost=Decimal("0.25"), usage=Usage(10, 1))
    (row,) = entries_of(*call(cache=cache))
    assert (row["cache"], row["attempts"], row["detail"]) == ("hit", 0, [])
    assert (row["billed"], dollars(row["saved"]), row["wasted"], row["input_tokens"]) == (0, Decimal("0.25"), 0, 0)


def test_unknown_is_not_nothing():
    (priceless,) = entries_of(*call(attempt(cost=None)))
    assert (priceless["billed"], priceless["wasted"], priceless["saved"]) == (None, 0, 0)
    (silent,) = entries_of(*call(attempt(usage=None)))
    assert silent["input_tokens"] is None
    (free,) = entries_of(*call(attempt(usage=None, cost=None, error_type="timeout"), answered=False))
    assert (free["input_tokens"], free["billed"], free["wasted"]) == (0, 0, 0)


def test_amounts_smaller_than_a_picodollar_are_rounded_up():
    (row,) = entries_of(*call(attempt(cost="0.0000000000001")))
    assert row["billed"] == 1
    assert row["detail"][0]["cost"] == "0.0000000000001"


@pytest.mark.parametrize("cost", ["1e30", "9300000"])
def test_what_no_integer_holds_is_unknown(cost):
    """A provider that reports 10^30 tokens must not keep other calls out of the ledger."""
    (row,) = entries_of(*call(attempt(cost=cost, usage=Usage(10**30, 1))))
    assert row["billed"] is None
    assert row["input_tokens"] is None


@given(calls())
def test_the_entries_of_a_call_say_what_its_record_says(made):
    record, answer = made
    rows = entries_of(record, answer)
    sums = Cost(*(summed(rows, column) for column in ("billed", "saved", "wasted")))
    up = Decimal(1).scaleb(-12)
    assert sums == Cost(
        *(
            None if each is None else each.quantize(up, ROUND_CEILING)
            for each in (record.cost.billed, record.cost.saved, record.cost.wasted)
        )
    )
    assert sum(row["attempts"] for row in rows) == len(record.attempts)
    assert [row["entry"] for row in rows] == list(range(len(rows)))
    assert len({row["model"] for row in rows}) == len(rows)


@given(calls())
def test_a_database_takes_every_value(made):
    """UTF-8 without NUL, and integers of 64 bits; and each column has one."""
    for row in entries_of(*made):
        assert set(row) == set(entries.c.keys())
        assert "\\u0000" not in json.dumps(row)
        json.dumps(row, ensure_ascii=False).encode()
        assert all(abs(value) <= MOST for value in row.values() if isinstance(value, int))


@given(TEXTS)
def test_the_key_of_a_tag_is_plain_and_that_of_no_other(name):
    key = tag_key(name)
    assert key.isascii()
    assert not set(key) & set("\"'\\\0")
    assert unquote(key, errors="surrogatepass") == name


@given(st.integers(0, 2**47), st.integers(1, 10**6))
def test_ids_ascend_with_time(moment, later):
    """So that the index on them grows at its end; within a millisecond, chance tells them apart."""
    first, second, third = (entries_of(*call(at=at / 1000))[0]["id"] for at in (moment, moment, moment + 1000 * later))
    assert first != second
    assert first < third
