"""Runs the demo against a real Jaeger: what it shows in the terminal is there, and one search finds each story."""

import os
import re
import subprocess
import sys

import pytest

from .jaeger_server import Jaeger, Json, tags
from .parts import need

SERVICE = "demo-under-test"


@pytest.fixture(scope="module")
def shown(jaeger: Jaeger) -> str:
    """What the demo printed, all of it having been exported by then."""
    need("litellm")
    own = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc,
        "OTEL_SERVICE_NAME": SERVICE,
        "PYTHONIOENCODING": "utf-8",
    }
    command = [sys.executable, "-m", "overcoat", "demo", "--jaeger", f"{jaeger.query}/"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | own
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert (ended.returncode, ended.stderr) == (0, ""), "Jaeger takes no metrics, and that is nothing to complain about"
    return ended.stdout


def names(trace: Json) -> list[str]:
    return sorted(span["operationName"] for span in trace["spans"])


def call(trace: Json) -> Json:
    """The attributes of the call span, on which everything is found."""
    (found,) = (span for span in trace["spans"] if span["operationName"] == "overcoat.call")
    return tags(found)


@pytest.fixture
def traces(jaeger: Jaeger, shown: str) -> list[Json]:
    return jaeger.traces(SERVICE, count=60)


def test_every_call_is_one_trace_and_every_trace_one_tree(traces):
    assert len(traces) == 60
    for trace in traces:
        known = {span["spanID"] for span in trace["spans"]}
        parents = [
            reference["spanID"]
            for span in trace["spans"]
            for reference in span["references"]
            if reference["refType"] == "CHILD_OF"
        ]
        assert len(parents) == len(known) - 1, "all but the call have a parent"
        assert set(parents) <= known


def test_the_printed_links_lead_to_the_traces(jaeger, traces, shown):
    """One for each tree: the calls that stand in one line share the first one's."""
    links = re.findall(rf"^{re.escape(jaeger.query)}/trace/([0-9a-f]{{32}})$", shown, re.MULTILINE)
    assert len(links) == len(set(links)) == 11
    assert set(links) <= {trace["traceID"].rjust(32, "0") for trace in traces}


@pytest.mark.parametrize(
    ("search", "count"),
    [
        ({"overcoat.retried": True}, 3),
        ({"overcoat.cache.result": "hit"}, 1),
        ({"overcoat.cache.result": "coalesced"}, 49),
        ({"overcoat.cache.result": "refused", "overcoat.cache.reason": "truncated"}, 1),
        ({"overcoat.gave_up": "non_retryable", "error.type": "quota_exhausted"}, 1),
        ({"overcoat.gave_up": "deadline", "error.type": "rate_limited"}, 1),
        ({"overcoat.outcome": "error"}, 2),
        ({"overcoat.model": "openai/our-finetune"}, 1),
    ],
)
def test_one_search_by_tags_finds_it(jaeger, traces, search, count):
    found = jaeger.search(SERVICE, **search)
    assert len(found) == count
    for trace in found:
        assert search.items() <= call(trace).items(), "a roll-up on the call, not a coincidence of several spans"


def test_a_retried_call_has_its_attempts_and_the_wait_between_them(jaeger, traces):
    for trace in jaeger.search(SERVICE, **{"overcoat.retried": True}):
        assert names(trace) == ["attempt", "attempt", "backoff", "chat openai/gpt-4o-mini", "overcoat.call"]


def test_a_hit_leads_to_the_trace_that_paid_for_it(jaeger, traces):
    (hit,) = jaeger.search(SERVICE, **{"overcoat.cache.result": "hit"})
    (lookup,) = (span for span in hit["spans"] if span["operationName"] == "cache.get")
    (link,) = (each for each in lookup["references"] if each["traceID"] != hit["traceID"])
    (paid,) = (trace for trace in traces if trace["traceID"] == link["traceID"])
    assert link["spanID"] in {span["spanID"] for span in paid["spans"]}
    assert call(paid)["overcoat.cost.usd"] == pytest.approx(call(hit)["overcoat.cost.saved_usd"])


def test_an_unknown_price_is_on_no_span(jaeger, traces):
    (unpriced,) = jaeger.search(SERVICE, **{"overcoat.model": "openai/our-finetune"})
    assert "overcoat.cost.usd" not in call(unpriced)
