"""The instruments of budgets: gauges of dollars and of tokens, which are not added up, and counters."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.metrics import Meter

from overcoat.arithmetic.dollars import EXACT
from overcoat.record import Reservation
from overcoat.telemetry import names
from overcoat.telemetry.series import Levels, Sums, create_counters


class BudgetMetrics:
    """The instruments of one meter for all budgets."""

    def __init__(self, meter: Meter) -> None:
        self._limits = {unit: Levels(names.BUDGET_NAME, names.BUDGET_WINDOW) for unit in ("usd", "tokens")}
        self._used = {unit: Levels(names.BUDGET_NAME, names.BUDGET_WINDOW) for unit in ("usd", "tokens")}
        self._overrun = {unit: Sums(names.BUDGET_NAME) for unit in ("usd", "tokens")}
        self._refusals = Sums(names.BUDGET_NAME, names.BUDGET_REASON)
        self._unchecked = Sums(names.BUDGET_NAME, names.BUDGET_REASON)
        self._alerts = Sums(names.BUDGET_NAME, names.BUDGET_ALERT)
        usd, tokens = "USD", "{token}"
        for name, unit, levels, description in (
            (names.METRIC_BUDGET_LIMIT, usd, self._limits["usd"], "Dollars that may be spent in a window."),
            (names.METRIC_BUDGET_USED, usd, self._used["usd"], "Dollars spent of it, where most are."),
            (names.METRIC_BUDGET_TOKEN_LIMIT, tokens, self._limits["tokens"], "Tokens that may be used in a window."),
            (names.METRIC_BUDGET_TOKENS_USED, tokens, self._used["tokens"], "Tokens used of it, where most are."),
        ):
            meter.create_observable_gauge(name, [levels.observe], unit=unit, description=description)
        create_counters(
            meter,
            (
                (names.METRIC_BUDGET_OVERRUN, usd, self._overrun["usd"], "Dollars spent beyond what was reserved."),
                (names.METRIC_BUDGET_TOKEN_OVERRUN, tokens, self._overrun["tokens"], "Tokens used beyond that."),
                (names.METRIC_BUDGET_REFUSALS, "{inference}", self._refusals, "Inferences refused, by the reason."),
                (names.METRIC_BUDGET_UNCHECKED, "{inference}", self._unchecked, "Inferences that passed all the same."),
                (names.METRIC_BUDGET_ALERTS, "{alert}", self._alerts, "Alerts, by the share of the limit in percent."),
            ),
        )

    def count(self, reservations: Sequence[Reservation]) -> None:
        """Add the *reservations* of a finished call."""
        for each in reservations:
            name, key = each.budget, (each.budget, each.window)
            self._limits[each.unit].set(key, "", float(each.limit), None)
            if each.used is not None:
                self._used[each.unit].set(key, each.scope, float(each.used), each.until)
            # Also at 0, so that the first that there is is an increase.
            overrun = self._overrun[each.unit].of
            overrun[name,] = EXACT.add(overrun[name,], each.overrun)
            self._refusals.of[name, "limit"] += 0
            if each.result == "refused":
                self._refusals.of[name, each.reason] += 1
            elif each.reason is not None:
                self._unchecked.of[name, each.reason] += 1
            for share in each.alerts:
                self._alerts.of[name, str(share)] += 1
