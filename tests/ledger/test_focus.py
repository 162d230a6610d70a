"""Holds the rows for tools of finance to FOCUS 1.0: its columns, their types, and which of them may be null."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overcoat.ledger import Ledger, total
from overcoat.ledger.focus import COLUMNS, TAGS

from .calls import NOON, TEXTS, attempt, call, calls

# Name, type and whether it may be null, from the "Content Constraints" of the specification's columns, version 1.0.
MANDATORY = {
    "BilledCost": (Decimal, False),
    "BillingAccountId": (str, False),
    "BillingAccountName": (str, True),
    "BillingCurrency": (str, False),
    "BillingPeriodEnd": (datetime, False),
    "BillingPeriodStart": (datetime, False),
    "ChargeCategory": (str, False),
    "ChargeClass": (str, True),
    "ChargeDescription": (str, True),
    "ChargePeriodEnd": (datetime, False),
    "ChargePeriodStart": (datetime, False),
    "ContractedCost": (Decimal, False),
    "EffectiveCost": (Decimal, False),
    "InvoiceIssuerName": (str, False),
    "ListCost": (Decimal, False),
    "PricingQuantity": (Decimal, True),
    "PricingUnit": (str, True),
    "ProviderName": (str, False),
    "PublisherName": (str, False),
    "ServiceCategory": (str, False),
    "ServiceName": (str, False),
}
OTHERS = {
    "ChargeFrequency": (str, False),
    "ConsumedQuantity": (Decimal, True),
    "ConsumedUnit": (str, True),
    "SkuId": (str, True),
    "Tags": (str, True),
}
TYPES = {**MANDATORY, **OTHERS}
COSTS = ("BilledCost", "EffectiveCost", "ContractedCost", "ListCost")
NOT_KNOWN = {*COSTS, "BillingAccountId"}
"""What may be null here although the specification does not allow it: the module says why."""


def charges_of(*made, tags=TAGS):
    with Ledger() as ledger:
        for each in made:
            ledger.add(*each)
        return ledger.charges(tags)


def test_the_columns():
    """All that are mandatory, some others of the specification, and our own by the prefix that it asks for."""
    assert set(MANDATORY) <= set(COLUMNS)
    assert {name for name in COLUMNS if not name.startswith("x_")} == set(TYPES)
    assert all(re.fullmatch(r"(x_)?([A-Z][a-z]+)+", name) for name in COLUMNS)


@settings(max_examples=40)
@given(st.lists(calls(), min_size=1, max_size=6), st.lists(TEXTS.filter(bool), max_size=3, unique=True))
def test_types_nulls_and_totals(made, names):
    rows = charges_of(*made, tags=names)
    for row in rows:
        assert tuple(row) == COLUMNS
        for name, (kind, nullable) in TYPES.items():
            value = row[name]
            if value is None:
                assert nullable or name in NOT_KNOWN, name
            else:
                assert isinstance(value, (kind, int) if kind is Decimal else kind), name
        assert len({row[name] for name in COSTS}) == 1
        assert (row["BilledCost"] is None) <= (row["x_UnpricedCalls"] > 0)
        tags = json.loads(row["Tags"])
        assert all(isinstance(value, str) for value in tags.values())
        assert set(tags) <= set(names)
    with Ledger() as ledger:
        for each in made:
            ledger.add(*each)
        whole = total(ledger.costs())
    for name, expected in (("BilledCost", whole.billed), ("x_SavedCost", whole.saved), ("x_WastedCost", whole.wasted)):
        assert sum(row[name] or 0 for row in rows) == (expected or 0)
    assert sum(row["x_Calls"] for row in rows) == whole.calls
    assert sum(row["x_UnpricedCalls"] for row in rows) == whole.unpriced


def test_a_row_is_a_day_a_model_and_tags():
    made = [
        call(attempt(), at=NOON + day * 86_400, tenant=tenant)
        for day, tenant in [(0, "a"), (0, "a"), (0, "b"), (1, "a"), (10, "a")]
    ]
    rows = charges_of(*made)
    assert [(row["ChargePeriodStart"].day, row["Tags"], row["x_Calls"]) for row in rows] == [
        (23, '{"tenant": "a"}', 2),
        (23, '{"tenant": "b"}', 1),
        (24, '{"tenant": "a"}', 1),
        (3, '{"tenant": "a"}', 1),
    ]


def test_only_the_tags_that_are_asked_for_tell_rows_apart():
    """By default those that are few: of calls that each have a tag of their own, none becomes a row."""
    made = [call(attempt(), tenant="a", ask=str(number), team="red") for number in range(3)]
    for names, tags in [
        (TAGS, {"tenant": "a"}),
        (["team"], {"team": "red"}),
        (["team", "tenant", "other"], {"team": "red", "tenant": "a"}),
        ([], {}),
    ]:
        (row,) = charges_of(*made, tags=names)
        assert (json.loads(row["Tags"]), row["x_Calls"]) == (tags, 3)
    assert len(charges_of(*made, tags=["ask"])) == 3


@pytest.mark.parametrize("names", [[""], ["a", "a"]])
def test_tags_that_make_no_sense(names):
    with pytest.raises(ValueError, match=r"costs (cannot be|are) grouped by"):
        charges_of(tags=names)


@pytest.mark.parametrize(
    ("at", "start", "end"), [(NOON, (2026, 11), (2026, 12)), (NOON + 86_400 * 20, (2026, 12), (2027, 1))]
)
def test_a_charge_is_in_its_day_and_month(at, start, end):
    (row,) = charges_of(call(attempt(), at=at))
    assert row["ChargePeriodStart"] <= datetime.fromtimestamp(at, UTC) < row["ChargePeriodEnd"]
    assert row["ChargePeriodEnd"] - row["ChargePeriodStart"] == timedelta(days=1)
    assert row["BillingPeriodStart"] == datetime(*start, 1, tzinfo=UTC)
    assert row["BillingPeriodEnd"] == datetime(*end, 1, tzinfo=UTC)


def test_an_ordinary_row():
    (row,) = charges_of(call(attempt(), **{'a"b': "é"}), tags=['a"b'])
    assert row["BilledCost"] == Decimal("0.0035")
    assert (row["ConsumedQuantity"], row["ConsumedUnit"]) == (1100, "Tokens")
    assert (row["ProviderName"], row["SkuId"]) == ("openai", "openai/gpt-4o")
    assert row["Tags"] == '{"a\\"b": "é"}'


def test_unknown_is_null():
    (row,) = charges_of(call(attempt(cost=None, usage=None, model=None), model=None))
    assert (row["BilledCost"], row["ConsumedQuantity"], row["ProviderName"], row["SkuId"]) == (
        None,
        None,
        "unknown",
        None,
    )
    assert row["x_UnpricedCalls"] == 1
