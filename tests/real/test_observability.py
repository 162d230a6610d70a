"""From calls to screens: a load through a real collector, Jaeger and Prometheus, by the files that ship."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from overcoat import Call
from overcoat.telemetry import names
from overcoat.testing import Provider

from .collector_server import Collector, running_collector
from .jaeger_server import Jaeger, Json, find_binary, running_jaeger
from .load import Load
from .parts import missing, need
from .process import poll
from .prometheus_server import Prometheus, running_prometheus
from .prometheus_server import find_binary as find_prometheus

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
MENU = json.loads((DASHBOARDS / "jaeger" / "ui.json").read_text())["menu"][0]["items"]
SERVICE = "overcoat-demo"
"""As the searches that ship have it."""


class Observed(NamedTuple):
    """The load, and where what it emitted can be asked for.

    `jaeger` has every trace, `sampled` those that the collector keeps where it keeps no share of the rest.
    """

    load: Load
    jaeger: Jaeger
    sampled: Jaeger
    prometheus: Prometheus
    slow: int
    """The trace of a call that took ten seconds, by its spans."""


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Two rounds of the load: rates need two points in time."""
    need("litellm")
    jaeger_binary, prometheus_binary = find_binary(), find_prometheus()
    if jaeger_binary is None:
        missing("there is no Jaeger: build it with `make jaeger`, or name one in JAEGER_BINARY")
    if prometheus_binary is None:
        missing("there is no prometheus (Debian, Ubuntu: apt install prometheus)")
    folder, other = (tmp_path_factory.mktemp(name) for name in ("observed", "sampled"))
    with (
        running_jaeger(jaeger_binary, folder) as jaeger,
        running_jaeger(jaeger_binary, other) as sampled,
        running_collector(jaeger_binary, folder, jaeger, sample=100) as collector,
        running_collector(jaeger_binary, other, sampled, sample=0) as sampling,
        running_prometheus(prometheus_binary, folder, collector.prometheus) as prometheus,
    ):
        load, slow = _loaded([collector, sampling], prometheus)
        jaeger.traces(SERVICE, count=len(load.calls) + 1)
        yield Observed(load, jaeger, sampled, prometheus, slow)


def _loaded(collectors: Sequence[Collector], prometheus: Prometheus) -> tuple[Load, int]:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    resource = Resource.create({"service.name": SERVICE, "service.instance.id": "1"})
    tracer_provider = TracerProvider(resource=resource)
    for collector in collectors:
        tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector.otlp_grpc, insecure=True)))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(collectors[0].otlp_grpc, insecure=True))
    meter_provider = MeterProvider([reader], resource=resource)
    load = Load(tracer_provider, meter_provider)
    with Provider() as provider:  # one for both, since its port is a label
        for _ in range(2):
            load.run(provider)
            meter_provider.force_flush()
            scraped = poll(lambda: prometheus.value("sum(overcoat_calls_total)") == len(load.calls) or None, seconds=20)
            assert scraped, "what was exported was not scraped"
    slow = tracer_provider.get_tracer("slow").start_span(names.SPAN_CALL, start_time=time.time_ns() - 11 * 10**9)
    slow.end()
    tracer_provider.shutdown()
    meter_provider.shutdown()
    return load, slow.get_span_context().trace_id


def panels() -> Iterator[tuple[str, str, str]]:
    """Every query of every dashboard: the board, the panel's title and the expression."""
    for path in sorted((DASHBOARDS / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield path.stem, panel["title"], target["expr"]


def filled(expression: str) -> str:
    """Put values in the place of Grafana's variables."""
    for variable, value in (
        ("$__range", "10m"),
        ("$__rate_interval", "1m"),
        ("$service", SERVICE),
        ("$model", ".*"),
    ):
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize(
    ("board", "title", "expression"), [pytest.param(*each, id="-".join(each[:2])) for each in panels()]
)
def test_every_panel_is_alive(observed, board, title, expression):
    found = observed.prometheus.query(filled(expression))
    assert found, "no data"
    assert not any(math.isnan(value) for _, value in found)


def test_dashboards_are_as_their_generator_makes_them():
    need("grafana_foundation_sdk")
    command = [sys.executable, str(DASHBOARDS / "generate.py"), "--check"]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def ids(traces: Iterable[Json]) -> set[int]:
    return {int(trace["traceID"], 16) for trace in traces}


def of(calls: Iterable[Call], chosen: Callable[[Call], bool]) -> set[int]:
    return {call.span[0] for call in calls if call.span is not None and chosen(call)}


def has_role(role: str) -> Callable[[Call], bool]:
    return lambda call: any(inference.role == role for inference in call.inferences)


SHOULD_FIND: dict[str, Callable[[Call], bool]] = {
    "Failed": lambda call: call.outcome == "error",
    "Refused by us": lambda call: call.outcome == "refused",
    "Cancelled": lambda call: call.outcome == "cancelled",
    "Retried": lambda call: any(len(inference.attempts) > 1 for inference in call.inferences),
    "Expensive": lambda call: (call.cost.billed or 0) >= Decimal("0.01"),
    "Answered by the cache": lambda call: call.cache is not None and call.cache.result == "hit",
    "Answered with a stale answer": lambda call: call.cache is not None and call.cache.result == "stale",
    "Shared one inference": lambda call: call.cache is not None and call.cache.result == "coalesced",
    "Fell back to another model": has_role("fallback"),
    "Asked again after a rejected answer": has_role("reask"),
    "Hedged": has_role("hedge"),
    "Opened a circuit": lambda call: any(turn.state == "open" for turn in call.turns),
    "Over budget": lambda call: call.error_type == "budget_exceeded",
    "Over the deadline": lambda call: call.error_type == "deadline_exceeded",
}


@pytest.mark.parametrize("item", MENU, ids=lambda item: item["label"])
def test_every_search_of_the_menu_finds_what_it_should_and_nothing_else(observed, item):
    found = ids(observed.jaeger._get(f"/api/traces?{item['url'].partition('?')[2]}"))
    if item["label"].startswith("Slow"):
        assert found == {observed.slow}
    else:
        assert found == of(observed.load.calls, SHOULD_FIND[item["label"]])
        assert found, "the load has none"


def test_sampling_keeps_what_someone_will_look_for(observed):
    def kept(call: Call) -> bool:
        return (
            call.outcome != "ok" or any(SHOULD_FIND[label](call) for label in ("Retried", "Expensive")) or _failed(call)
        )

    wanted = of(observed.load.calls, kept) | {observed.slow}
    found = ids(observed.sampled.traces(SERVICE, count=len(wanted)))
    assert found == wanted
    assert len(found) < len(observed.load.calls) / 2, "ordinary traces are most of them, and are not kept"


def _failed(call: Call) -> bool:
    """Whether any span of it has the status ERROR: an attempt's, or an inference's that another one stood in for."""
    return any(attempt.error_type for attempt in call.attempts) or any(each.error_type for each in call.inferences)


def test_counts_and_dollars_are_those_of_the_records(observed):
    calls, value = observed.load.calls, observed.prometheus.value
    assert value("sum(overcoat_calls_total)") == len(calls)
    assert value("sum(overcoat_attempts_total)") == sum(len(call.attempts) for call in calls)
    for column in ("billed", "saved", "wasted"):
        dollars = sum(getattr(call.cost, column) or 0 for call in calls)
        assert value(f"sum(overcoat_cost_{column}_USD_total)") == pytest.approx(float(dollars), rel=1e-12)
    for kind in ("input", "output"):
        tokens = sum(getattr(i.usage, f"{kind}_tokens") or 0 for call in calls for i in call.inferences if i.usage)
        assert value(f'sum(gen_ai_client_token_usage_sum{{gen_ai_token_type="{kind}"}})') == tokens
        assert value(f'sum(overcoat_tokens_total{{overcoat_token_type="{kind}"}})') == tokens
    seconds = sum(attempt.duration for call in calls for attempt in call.attempts)
    assert value("sum(overcoat_attempt_time_seconds_total)") == pytest.approx(seconds)


def test_what_has_not_happened_yet_is_at_zero(observed):
    """So that the first time is an increase."""
    circuit = 'overcoat_breaker_circuit="openai/gpt-4.1-nano"'
    assert observed.prometheus.value(f'overcoat_breaker_turns_total{{{circuit},overcoat_breaker_state="closed"}}') == 0
    assert observed.prometheus.value('sum(overcoat_cache_requests_total{overcoat_cache_reason="altered"})') == 0


def test_a_call_in_the_background_is_linked_to_the_one_before_it(observed):
    refreshes = [call for call in observed.load.calls if call.origin is not None]
    assert refreshes
    traces = {int(trace["traceID"], 16): trace for trace in observed.jaeger.search(SERVICE)}
    for refresh in refreshes:
        (root,) = (s for s in traces[refresh.span[0]]["spans"] if s["operationName"] == names.SPAN_CALL)
        (link,) = (each for each in root["references"] if each["refType"] == "FOLLOWS_FROM")
        assert (int(link["traceID"], 16), int(link["spanID"], 16)) == refresh.origin


def test_a_wait_for_a_budget_is_seen(observed):
    (call, *_) = (c for c in observed.load.calls if any(wait.kind == "budget" for wait in c.waits))
    (trace,) = (t for t in observed.jaeger.search(SERVICE) if int(t["traceID"], 16) == call.span[0])
    assert names.SPAN_BUDGET in {span["operationName"] for span in trace["spans"]}


def test_a_point_of_the_durations_leads_to_its_trace(observed):
    (found, *_) = observed.prometheus.exemplars("gen_ai_client_operation_duration_seconds_bucket")
    known = of(observed.load.calls, lambda _: True)
    assert {int(exemplar["labels"]["trace_id"], 16) for exemplar in found["exemplars"]} <= known


def test_span_metrics_count_what_sampling_drops(observed):
    expression = f'sum(traces_span_metrics_calls_total{{span_name="{names.SPAN_CALL}"}})'
    wanted = len(observed.load.calls) + 1
    assert poll(lambda: observed.prometheus.value(expression) == wanted or None, seconds=20), "it flushes every 10 s"


def test_no_contents_pass_the_collector(observed):
    text = json.dumps(observed.jaeger.search(SERVICE))
    assert "plain #0" not in text
