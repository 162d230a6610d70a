"""Costs as rows of FOCUS 1.0, the FinOps Open Cost and Usage Specification (https://focus.finops.org), for finance.

A row is what one model cost on one day (UTC) under one combination of the tags that are asked for, by default `TAGS`:
by tags that differ with every call, such as db-ally's `ask`, each call would be a row. The columns are those that the
specification makes mandatory, and of the others ChargeFrequency, ConsumedQuantity, ConsumedUnit, SkuId and Tags. What
FOCUS has no column for is in columns of our own, whose names begin with "x_" as it asks.

Left out are the columns on regions, resources, subaccounts, commitment discounts and unit prices, of which a client
knows nothing. Some mandatory ones are null: the billing account, which only the provider's invoice names, and the costs
and tokens of a row where none are known. The specification does not allow that, but 0 would be wrong, and it forbids
placeholders. BilledCost, EffectiveCost, ContractedCost and ListCost are the same: the provider's list price, as far as
it was known at the time of the call. x_UnpricedCalls says how many calls are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection

from overcoat.ledger.costs import NOTHING, Costs, beginning, check_dimensions, dimension, of_tag, sums_by

Charge = Mapping[str, str | int | Decimal | datetime | None]
"""A row by the names of `COLUMNS`. Times are in UTC; Tags is JSON."""

TAGS: Final = ("tenant", "feature")
"""The tags that are in the rows where no others are asked for."""

_UNKNOWN: Final = "unknown"  # where the specification allows no null: it is a name, not a number


def charges(
    connection: Connection, tags: Sequence[str] = TAGS, since: datetime | None = None, until: datetime | None = None
) -> list[Charge]:
    """Return the rows of the calls that began from *since* on and before *until*, in the order of days and models.

    Raises:
        ValueError: One of the *tags* has no name or is there twice, or a time has no zone.
    """
    by = ["day", "provider", "model", *map(of_tag, tags)]
    check_dimensions(by)
    rows = [
        _charge(beginning("day", day), provider, model, dict(zip(tags, values, strict=True)), sums)
        for (day, provider, model, *values), sums in sums_by(connection, [dimension(name) for name in by], since, until)
    ]
    return sorted(rows, key=lambda row: [str(row[name] or "") for name in ("ChargePeriodStart", "SkuId", "Tags")])


def _charge(
    day: datetime, provider: str | None, model: str | None, tags: Mapping[str, str | None], sums: Costs
) -> dict[str, Any]:
    unknown = sums.input_tokens is None and sums.output_tokens is None
    tokens = None if unknown else (sums.input_tokens or 0) + (sums.output_tokens or 0)
    month = day.replace(day=1)
    known = {name: value for name, value in tags.items() if value is not None}
    return {
        "BilledCost": sums.billed,
        "BillingAccountId": None,
        "BillingAccountName": None,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": (month + timedelta(days=31)).replace(day=1),
        "BillingPeriodStart": month,
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"Tokens of {model or 'an unknown model'}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": day + timedelta(days=1),
        "ChargePeriodStart": day,
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "ContractedCost": sums.billed,
        "EffectiveCost": sums.billed,
        "InvoiceIssuerName": provider or _UNKNOWN,
        "ListCost": sums.billed,
        "PricingQuantity": tokens,
        "PricingUnit": "Tokens",
        "ProviderName": provider or _UNKNOWN,
        "PublisherName": provider or _UNKNOWN,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": provider or _UNKNOWN,
        "SkuId": model,
        "Tags": json.dumps(known, ensure_ascii=False, sort_keys=True),
        "x_Attempts": sums.attempts,
        "x_Calls": sums.calls,
        "x_InputTokens": sums.input_tokens,
        "x_OutputTokens": sums.output_tokens,
        "x_SavedCost": sums.saved,
        "x_UnpricedCalls": sums.unpriced,
        "x_WastedCost": sums.wasted,
    }


COLUMNS: Sequence[str] = tuple(_charge(beginning("day", 0), None, None, {}, NOTHING))
"""The names of a row's columns, in their order."""
