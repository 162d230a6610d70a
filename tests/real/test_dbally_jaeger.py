"""One `ask` in a real Jaeger: one trace, from the question to the last attempt, found by what it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from overcoat import Backoff, Meter, Retry, Trace
from overcoat.testing import Provider, answer, error

from .jaeger_server import Jaeger, tags
from .litellm_loop import run
from .parts import need

SERVICE = "dbally-under-test"


@pytest.fixture(scope="module")
def traces(jaeger: Jaeger):
    """An ask whose first request fails, with db-ally's own spans beside; and one that fails for good."""
    need("dbally")
    need("litellm")
    od = need("overcoat.dbally")
    from dbally.audit.events import LLMEvent

    from overcoat.dbally.templates import origin_of

    from ..dbally import library

    def reply(request):
        return answer(library.REPLIES[origin_of(LLMEvent(request.body["messages"], "?")).template][library.POLISH])

    spans = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    spans.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=jaeger.otlp_grpc, insecure=True)))
    with Provider(reply) as provider:
        layers = (Trace(tracer_provider=spans), Retry(backoff=Backoff(base=0)), Meter())
        llm = od.LiteLLM("openai/gpt-4o-mini", base_url=provider.url, api_key="k", layers=layers)
        handler = library.dbally.audit.OtelEventHandler(spans, record_inputs=False, record_outputs=False)
        collection = od.trace(library.collection(llm, handlers=[handler]), tracer_provider=spans)
        provider.script(error(503))
        run(collection.ask(library.POLISH, return_natural_response=True))
        provider.default = error(400)
        with pytest.raises(library.dbally.LLMStatusError):
            run(collection.ask(library.POLISH))
    spans.shutdown()
    return jaeger.traces(SERVICE, count=2)


def by_path(trace):
    spans = {span["spanID"]: span for span in trace["spans"]}

    def path(span):
        above = [spans[each["spanID"]] for each in span["references"] if each["refType"] == "CHILD_OF"]
        return (path(above[0]) if above else "") + "/" + span["operationName"]

    return sorted(map(path, trace["spans"]))


def ask_of(trace):
    (span,) = (span for span in trace["spans"] if span["operationName"] == "overcoat.ask")
    return tags(span)


def test_each_is_one_tree(jaeger, traces):
    assert len(traces) == 2
    (found,) = jaeger.search(SERVICE, **{"overcoat.ask.outcome": "ok"})
    call = "/overcoat.call/chat openai/gpt-4o-mini"
    retried = f"/overcoat.ask/ask.view_selection{call}"
    assert {f"{retried}/attempt", "/overcoat.ask/ask.similarity"} < set(by_path(found))
    assert by_path(found).count(f"/overcoat.ask/ask.iql{call}") == 3
    assert by_path(found).count(f"{retried}/attempt") == 2
    assert by_path(found).count("/overcoat.ask/request/llm") == 5, "db-ally's own"


@pytest.mark.parametrize(
    "search",
    [
        {"overcoat.ask.view": "Books", "overcoat.ask.retries": 1, "overcoat.ask.requests": 6},
        {"overcoat.ask.outcome": "error", "error.type": "bad_request"},
        {"overcoat.ask.collection": "library", "overcoat.ask.iql.attempts": 1},
    ],
)
def test_one_search_finds_it(jaeger, traces, search):
    (found,) = jaeger.search(SERVICE, **search)
    assert search.items() <= ask_of(found).items(), "a roll-up on the ask, not a coincidence of several spans"


def test_an_ask_is_no_call_to_a_model(traces):
    """In its GenAI view Jaeger shows what has a `gen_ai.*`."""
    for trace in traces:
        models = {span["operationName"] for span in trace["spans"] if "gen_ai." in " ".join(tags(span))}
        assert models == {"chat openai/gpt-4o-mini"}


def test_the_example_exports_where_a_jaeger_listens(jaeger):
    """Each of its four asks is a trace; the second collection's is a part of the first one's."""
    need("dbally")
    need("litellm")
    own = {"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_grpc, "OTEL_SERVICE_NAME": "dbally-example"}
    command = [sys.executable, Path(__file__).parents[2] / "examples" / "dbally" / "library.py"]
    ended = subprocess.run(command, check=False, env={**os.environ, **own}, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"The trace of each is at {jaeger.otlp_grpc}" in ended.stdout
    found = [ask_of(trace) for trace in jaeger.traces("dbally-example", count=4)]
    refused = sorted((each["overcoat.ask.view"], each["overcoat.ask.iql.refused"]) for each in found)
    assert refused == [("Books", 1), ("Books", 1), ("Hours", 0), ("Loans", 0)]
    (fallen,) = (trace for trace in jaeger.search("dbally-example", **{"overcoat.ask.view": "Hours"}))
    assert ask_of(fallen)["overcoat.ask.fallback"] == "front desk"
    assert "/overcoat.ask/ask.fallback/ask.sql/overcoat.call/chat openai/gpt-4o-mini" in by_path(fallen)
