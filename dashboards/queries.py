"""PromQL over overcoat's metrics: the names that Prometheus gives them, and the few shapes that all panels are made of.

Names follow the OpenTelemetry-to-Prometheus rules: dots become `_`, the unit is appended, and counters end in `_total`
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/).
"""

from __future__ import annotations

from overcoat.telemetry import names

_SUFFIXES = {"s": "_seconds", "USD": "_USD"}  # annotations in braces, such as {call}, leave none

MODEL = "overcoat_model"
REQUEST_MODEL = "gen_ai_request_model"

RANGE = "$__range"
RATE = "$__rate_interval"


def _flat(name: str) -> str:
    return name.replace(".", "_")


def counter(name: str, unit: str = "") -> str:
    """Return the name of a counter."""
    return f"{_flat(name)}{_SUFFIXES.get(unit, '')}_total"


def gauge(name: str, unit: str = "") -> str:
    """Return the name of a gauge."""
    return f"{_flat(name)}{_SUFFIXES.get(unit, '')}"


def histogram(name: str, unit: str = "") -> str:
    """Return the name of a histogram, to which `_bucket`, `_sum` and `_count` are appended."""
    return f"{_flat(name)}{_SUFFIXES.get(unit, '')}"


CALLS = counter(names.METRIC_CALLS)
ATTEMPTS = counter(names.METRIC_ATTEMPTS)
INFERENCES = counter(names.METRIC_INFERENCES)
GIVE_UPS = counter(names.METRIC_GIVE_UPS)
TURNS = counter(names.METRIC_TURNS)
WAITED = counter(names.METRIC_WAITED, "s")
ATTEMPT_TIME = counter(names.METRIC_ATTEMPT_TIME, "s")
CACHE = counter(names.METRIC_CACHE)
BILLED = counter(names.METRIC_COST_BILLED, "USD")
SAVED = counter(names.METRIC_COST_SAVED, "USD")
WASTED = counter(names.METRIC_COST_WASTED, "USD")
UNPRICED = counter(names.METRIC_UNPRICED)
STORE_FAILURES = counter(names.METRIC_STORE_FAILURES)
ANOMALIES = counter(names.METRIC_ANOMALIES)
RELOADS = counter(names.METRIC_RELOADS)
BUDGET_LIMIT = gauge(names.METRIC_BUDGET_LIMIT, "USD")
BUDGET_USED = gauge(names.METRIC_BUDGET_USED, "USD")
BUDGET_OVERRUN = counter(names.METRIC_BUDGET_OVERRUN, "USD")
BUDGET_REFUSALS = counter(names.METRIC_BUDGET_REFUSALS)
BUDGET_UNCHECKED = counter(names.METRIC_BUDGET_UNCHECKED)
DURATION = histogram(names.OPERATION_DURATION, "s")
TOKENS = histogram(names.TOKEN_USAGE)


def chosen(metric: str, more: str = "") -> str:
    """Return *metric* of the services and models that the dashboard's variables choose, with *more* matchers."""
    model = REQUEST_MODEL if metric.startswith("gen_ai_") else MODEL
    return of_service(metric, f'{model}=~"$model"', more)


def of_service(metric: str, *matchers: str) -> str:
    """Return *metric* of the services chosen, for what has no model."""
    given = ",".join(['job=~"$service"', *filter(None, matchers)])
    return f"{metric}{{{given}}}"


def total(series: str, by: str = "") -> str:
    """Return how much the counter *series* grew over the dashboard's range, that of scripts that ended included.

    `increase` sees only what happens between two scrapes: a process that made its calls before the first one would
    count for nothing. What a series that is new in this range began with is therefore added.
    """
    grouping = f" by ({by})" if by else ""
    grown = f"sum{grouping} (increase({series}[{RANGE}]))"
    began = f"sum{grouping} (min_over_time({series}[{RANGE}]) unless {series} offset {RANGE})"
    if by:
        return f"({grown} + {began}) or {grown} or {began}"
    return f"({grown} or vector(0)) + ({began} or vector(0))"


def rate(series: str, by: str = "") -> str:
    """Return the growth of the counter *series* a second, summed *by* labels."""
    return f"sum{f' by ({by})' if by else ''} (rate({series}[{RATE}]))"


def quantile(q: float, name: str, by: str = "", window: str = RATE, more: str = "") -> str:
    """Return the *q* quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({chosen(name + '_bucket', more)}[{window}])))"


def share(part: str, whole: str) -> str:
    """Return what share *part* is of *whole*; nothing where there is no whole, rather than a NaN."""
    return f"({part}) / (({whole}) > 0)"
