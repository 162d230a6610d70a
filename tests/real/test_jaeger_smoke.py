"""Shows that what the SDK exports arrives in a real Jaeger, so that other tests may judge by what they read there."""

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode

from .jaeger_server import Jaeger, tags


def test_two_spans_exported_over_grpc_are_read_back(jaeger: Jaeger) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "smoke"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=jaeger.otlp_grpc, insecure=True)))
    tracer = provider.get_tracer("smoke")
    with (
        tracer.start_as_current_span("parent", attributes={"overcoat.attempts": 2, "overcoat.retried": True}) as parent,
        tracer.start_as_current_span("child") as child,
    ):
        child.add_event("retry", {"error.type": "timeout"})
        child.set_status(Status(StatusCode.ERROR, "gave up"))
    provider.shutdown()

    trace_id = parent.get_span_context().trace_id
    trace = jaeger.trace(trace_id, spans=2)
    by_name = {span["operationName"]: span for span in trace["spans"]}
    assert by_name.keys() == {"parent", "child"}
    assert tags(by_name["parent"])["overcoat.attempts"] == 2
    assert tags(by_name["child"])["otel.status_description"] == "gave up"
    (event,) = by_name["child"]["logs"]
    assert tags(event) == {"event": "retry", "error.type": "timeout"}
    (reference,) = by_name["child"]["references"]
    assert reference["spanID"] == by_name["parent"]["spanID"]

    (found,) = jaeger.traces("smoke", **{"overcoat.retried": True, "overcoat.attempts": 2})
    assert int(found["traceID"], 16) == trace_id
    assert jaeger.search("smoke", **{"overcoat.attempts": 3}) == []


def test_a_trace_that_never_arrives_is_a_failure_that_says_so(jaeger: Jaeger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{Jaeger.__module__}._PATIENCE", 0.1)
    with pytest.raises(AssertionError, match=r"0 instead of 1 spans in trace 0*1f$"):
        jaeger.trace(0x1F)
