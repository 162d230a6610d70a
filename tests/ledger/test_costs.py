"""Holds sums over the ledger to the sums of the records that are in it, however they are grouped."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overcoat.arithmetic.dollars import EXACT
from overcoat.ledger import Ledger, total
from overcoat.ledger.costs import Costs
from overcoat.ledger.entries import dollars, entries_of

from .calls import NOON, TEXTS, attempt, call, calls

DIMENSIONS = ["model", "provider", "policy", "outcome", "cache", "day", "hour", "tag.tenant", "tag.a.b", "tag.q\"'\\"]


def ledger_of(*made) -> Ledger:
    """Return a ledger in memory with these calls."""
    ledger = Ledger()
    for each in made:
        ledger.add(*each)
    ledger.flush()
    return ledger


def summed(values):
    """Return the exact sum of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    result = Decimal(0)
    for value in known:
        result = EXACT.add(result, Decimal(value))
    return result if known else None


def at(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


class TestSums:
    @settings(max_examples=60)
    @given(
        st.lists(calls(), max_size=6),
        st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=3),
        TEXTS.filter(bool),
    )
    def test_the_total_is_the_sum_of_the_rows(self, made, by, name):
        """Whatever the groups are: no dollar, token or call is lost, or counted twice."""
        rows = [row for each in made for row in entries_of(*each)]
        with ledger_of(*made) as ledger:
            found = total(ledger.costs([*by, f"tag.{name}"] if f"tag.{name}" not in by else by))
        assert found.by == {}
        assert found.calls == len(made)
        assert found.attempts == sum(len(record.attempts) for record, _ in made)
        for column in ("saved", "wasted"):
            assert getattr(found, column) == summed(dollars(row[column]) for row in rows)
        billed = summed(dollars(row["billed"]) for row in rows)
        assert found.billed == (None if found.unpriced and not billed else billed), "no unknown price is 0"
        for column in (name for name in Costs._fields if name.endswith("_tokens")):
            assert getattr(found, column) == summed(row[column] for row in rows)
        assert found.unpriced == sum(None in (row["billed"], row["saved"], row["wasted"]) for row in rows)
        assert found.upper_bound == sum(row["upper_bound"] for row in rows)

    @settings(max_examples=40)
    @given(st.lists(calls(), max_size=5), TEXTS.filter(bool))
    def test_each_tag_s_values_are_told_apart(self, made, name):
        """Names and values with quotes, dots, percent signs, backslashes and other scripts included."""
        for record, _ in made[::2]:
            record.tags = {**record.tags, name: "a'\"\\.%é日"}
        with ledger_of(*made) as ledger:
            found = {row.by[f"tag.{name}"]: row.calls for row in ledger.costs([f"tag.{name}"])}
        expected = Counter(record.tags.get(name) for record, _ in made)
        clean = {
            value if value is None else value.encode(errors="replace").decode().replace("\0", "\ufffd")
            for value in expected
        }
        assert set(found) == clean
        assert sum(found.values()) == len(made)

    def test_sums_have_no_end(self):
        """SQLite's own end at 2^63 picodollars, which is nine million dollars."""
        made = [call(attempt(cost="9000000.000000000001")) for _ in range(3)]
        with ledger_of(*made) as ledger:
            (row,) = ledger.costs()
        assert row.billed == Decimal("27000000.000000000003")

    def test_a_fallback_s_dollars_are_its_model_s(self):
        made = call(attempt(cost="0.5", error_type="timeout"), attempt("mine", "2"))
        with ledger_of(made) as ledger:
            rows = ledger.costs(["model"])
        assert [(row.by["model"], row.calls, row.attempts, row.billed, row.wasted) for row in rows] == [
            ("mine", 0, 1, 2, 0),
            ("openai/gpt-4o", 1, 1, Decimal("0.5"), Decimal("0.5")),
        ]

    def test_unknown_prices_are_counted_and_none(self):
        with ledger_of(call(attempt()), call(attempt(cost=None)), call(attempt("mine", None), model="mine")) as ledger:
            rows = ledger.costs(["model"])
        assert [(row.by["model"], row.billed, row.unpriced) for row in rows] == [
            ("openai/gpt-4o", Decimal("0.0035"), 1),
            ("mine", None, 1),
        ]
        assert total(rows)[-5:] == (Decimal("0.0035"), 0, 0, 2, 0)

    def test_nothing_at_all(self):
        with Ledger() as ledger:
            assert ledger.costs() == []
            assert ledger.costs(["model"]) == []
        assert total([]) == Costs({}, 0, 0, *[None] * 8, 0, 0)


MADE = [call(attempt(), at=NOON + offset) for offset in (-86_400, -1, 0, 1, 3_600, 86_400)]


class TestTime:
    def test_since_is_included_and_until_is_not(self):
        with ledger_of(*MADE) as ledger:
            noon = datetime.fromtimestamp(NOON, UTC)
            (row,) = ledger.costs(since=noon, until=noon + timedelta(hours=1))
            assert row.calls == 2
            assert ledger.costs(since=noon + timedelta(days=2)) == []

    def test_a_zone_is_asked_for(self):
        with ledger_of() as ledger, pytest.raises(ValueError, match="2026-11-23T12:00:00 has no time zone"):
            ledger.costs(since=at("2026-11-23T12:00"))

    def test_days_and_hours_are_in_utc_and_in_order(self):
        with ledger_of(*reversed(MADE)) as ledger:
            days = [(row.by["day"], row.calls) for row in ledger.costs(["day"])]
            hours = [row.by["hour"] for row in ledger.costs(["model", "hour"])]
        assert days == [("2026-11-22", 1), ("2026-11-23", 4), ("2026-11-24", 1)]
        assert hours == [f"2026-11-{each}:00Z" for each in ("22T12", "23T11", "23T12", "23T13", "24T12")]

    def test_a_clock_that_goes_back_loses_nothing(self):
        with ledger_of(*(call(attempt(), at=NOON - offset) for offset in range(5))) as ledger:
            assert total(ledger.costs(["day"])).calls == 5


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (["modle"], r"cannot be grouped by 'modle'; expected some of model, .*, tag\.NAME"),
        (["tag."], r"cannot be grouped by 'tag\.'"),
        (["tags"], "cannot be grouped by 'tags'"),
        (["model", "model"], "grouped by 'model' twice"),
    ],
)
def test_groups_that_there_are_not(by, message):
    with Ledger() as ledger, pytest.raises(ValueError, match=message):
        ledger.costs(by)


def test_the_dearest_come_first():
    made = [
        call(attempt(cost=cost), tenant=tenant) for tenant, cost in [("a", "1"), ("b", "3"), ("c", None), ("d", "1")]
    ]
    with ledger_of(*made) as ledger:
        assert [row.by["tag.tenant"] for row in ledger.costs(["tag.tenant"])] == ["b", "a", "d", "c"]
