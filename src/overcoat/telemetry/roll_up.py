"""What the call span carries, and so do log lines: what one would search for, as a function of the record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overcoat.accounting import Cost
from overcoat.record import Call, Reservation
from overcoat.telemetry import names

Tiers = tuple[float, float]
"""Dollars from which a call's cost is "medium" and "high"."""

_BUDGET_RESULTS = ("settled", "released", "estimated", "reserved", "uncounted", "overrun", "refused")
"""What a limit of a budget has to say, by how much one wants to know it."""


def roll_up(call: Call, tiers: Tiers) -> dict[str, Any]:
    """Return the attributes of a finished *call*, flat: a search in Jaeger matches the attributes of one span only.

    Those that were known when it began (model, policy, tags) are not among them.
    """
    inferences, lookup = call.inferences, call.cache
    attempts = call.attempts
    attributes: dict[str, Any] = {names.OUTCOME: call.outcome, names.ATTEMPTS: len(attempts)}
    if len(attempts) > 1 and any(len(inference.attempts) > 1 for inference in inferences):
        attributes[names.RETRIED] = True
    if lookup is not None:
        attributes[names.CACHE_RESULT] = lookup.result
        if lookup.reason is not None:
            attributes[names.CACHE_REASON] = lookup.reason
    _put_cost(attributes, call.cost, tiers, upper_bound=any(attempt.upper_bound for attempt in attempts))
    if lookup is not None and lookup.served and call.cost.saved is not None:
        attributes[names.COST_SAVED] = float(call.cost.saved)
    if call.turns:
        attributes[names.CIRCUIT] = call.turns[-1].circuit
        attributes[names.CIRCUIT_STATE] = call.turns[-1].state
    if call.reservations:
        attributes.update(_of_budget(call.reservations))
    if call.degraded:
        attributes[names.DEGRADED] = ",".join(sorted(set(call.degraded)))
    if call.error_type is not None:
        attributes[names.ERROR_TYPE] = call.error_type
        if inferences and inferences[-1].gave_up is not None:
            attributes[names.GAVE_UP] = inferences[-1].gave_up
    return attributes


def _put_cost(attributes: dict[str, Any], cost: Cost, tiers: Tiers, *, upper_bound: bool) -> None:
    if cost.billed is not None:
        attributes[names.COST] = billed = float(cost.billed)
        medium, high = tiers
        attributes[names.COST_TIER] = "high" if billed >= high else "medium" if billed >= medium else "low"
        if upper_bound:
            attributes[names.COST_UPPER_BOUND] = True
    if cost.saved:
        attributes[names.COST_SAVED] = float(cost.saved)
    if cost.wasted:
        attributes[names.COST_WASTED] = float(cost.wasted)


def _of_budget(reservations: Sequence[Reservation]) -> dict[str, Any]:
    """Say what the limit that has most to say did, and the greatest share of any that became known."""
    foremost = max(reservations, key=lambda each: (_BUDGET_RESULTS.index(each.result), each.reason is not None))
    attributes: dict[str, Any] = {names.BUDGET_NAME: foremost.budget, names.BUDGET_RESULT: foremost.result}
    if foremost.reason is not None:
        attributes[names.BUDGET_REASON] = foremost.reason
    alerts = [share for each in reservations for share in each.alerts]
    if alerts:
        attributes[names.BUDGET_ALERT] = max(alerts)
    return attributes
