"""What an application sets up: where it exports to by the standard variables, and what it says when it cannot."""

import io
import logging
import os
import socket
import subprocess
import sys
import time

import pytest
from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import _internal as logs_internal
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

from overcoat.telemetry import Telemetry, setup
from overcoat.telemetry.providers import _log_exporter, _metric_exporter, _OncePerOutage, _span_exporter
from overcoat.testing import Provider, error, raw

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
PROTOCOL, ENDPOINT = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_ENDPOINT"
HTTP = "http/protobuf"


@pytest.fixture(autouse=True)
def _no_globals(monkeypatch):
    """OpenTelemetry lets nobody set its providers twice in a process; tests are the exception."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(logs_internal, "_LOGGER_PROVIDER", None)
    monkeypatch.setattr(logs_internal, "_LOGGER_PROVIDER_SET_ONCE", Once())


@pytest.fixture(autouse=True)
def _new_outage(monkeypatch):
    """No outage of another test is remembered."""
    monkeypatch.setattr("overcoat.telemetry.providers._once_per_outage", _OncePerOutage())
    yield
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("opentelemetry.exporter."):
            exporters = logging.getLogger(name)
            exporters.filters = [each for each in exporters.filters if not isinstance(each, _OncePerOutage)]


@pytest.fixture
def collector(monkeypatch):
    """Takes OTLP over HTTP: it answers 200, and says what came."""
    with Provider(raw(200)) as running:
        monkeypatch.setenv(PROTOCOL, HTTP)
        monkeypatch.setenv(ENDPOINT, running.url.removesuffix("/v1"))
        yield running


@pytest.fixture
def nowhere():
    """An endpoint at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def paths(collector: Provider) -> list[str]:
    return sorted({request.path for request in collector.requests})


def record_something() -> None:
    with trace.get_tracer("test").start_as_current_span("span"):
        metrics.get_meter("test").create_counter("counter").add(1)
    _logs.get_logger("test").emit(event_name="event")


def name_of(telemetry: Telemetry) -> object:
    return telemetry.tracer_provider.resource.attributes["service.name"]


def test_spans_and_metrics_of_the_global_providers_arrive(collector):
    with setup("app") as telemetry:
        record_something()
        telemetry.flush()
        assert paths(collector) == ["/v1/metrics", "/v1/traces"]
    assert telemetry.endpoint == os.environ[ENDPOINT]
    assert telemetry.tree is None


def test_the_end_of_the_block_loses_nothing(collector):
    with setup():
        record_something()
    assert paths(collector) == ["/v1/metrics", "/v1/traces"]


def test_the_end_of_the_process_loses_nothing(collector):
    program = (
        "from overcoat.telemetry import setup; setup();"
        "from opentelemetry import trace; trace.get_tracer('t').start_span('s').end()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
    assert "/v1/traces" in paths(collector)


def test_the_application_has_the_name_that_the_environment_gives_and_else_its_own(monkeypatch):
    with setup("app", otlp=False) as telemetry:
        assert name_of(telemetry) == "app"
        assert telemetry.meter_provider._sdk_config.resource.attributes["service.name"] == "app"
    _again(monkeypatch)
    with setup(otlp=False) as telemetry:
        assert str(name_of(telemetry)).startswith("unknown_service")
    _again(monkeypatch)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "deployed")
    with setup("app", otlp=False) as telemetry:
        assert name_of(telemetry) == "deployed"


def _again(monkeypatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics_internal, "_METER_PROVIDER_SET_ONCE", Once())


def test_without_a_collector_nothing_is_exported_and_nothing_said(monkeypatch, nowhere, caplog):
    monkeypatch.setattr("overcoat.telemetry.providers._ENDPOINTS", {"grpc": nowhere})
    with setup() as telemetry:
        record_something()
    assert telemetry.endpoint is None
    assert caplog.records == []


@pytest.mark.parametrize("signal", ["", "TRACES_"])
def test_a_collector_that_was_named_and_is_not_there_is_missed(monkeypatch, nowhere, caplog, signal):
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT", nowhere.removeprefix("http://"))
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with setup() as telemetry:
        record_something()
    assert telemetry.endpoint is None
    assert [record.message.partition(" are")[0] for record in caplog.records] == [
        f"nothing listens at {nowhere.removeprefix('http://')}: traces"
    ]


@pytest.mark.parametrize(("protocol", "module"), [(None, "grpc"), ("grpc", "grpc"), (HTTP, "http")])
def test_the_exporters_are_those_of_the_protocol(monkeypatch, protocol, module):
    """As they are made: what arrives over gRPC is tested with a real Jaeger, over HTTP above."""
    if protocol is not None:
        monkeypatch.setenv(PROTOCOL, protocol)
    for make in (_span_exporter, _metric_exporter, _log_exporter):
        exporter = make()
        exporter.shutdown()
        assert f".otlp.proto.{module}." in type(exporter).__module__


def test_each_signal_may_have_a_protocol_of_its_own(collector, monkeypatch):
    monkeypatch.setenv(PROTOCOL, "grpc")
    for signal in ("TRACES", "METRICS"):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", HTTP)
    with setup():
        record_something()
    assert paths(collector) == ["/v1/metrics", "/v1/traces"]


def test_a_socket_in_the_file_system_is_taken_at_its_word(monkeypatch):
    monkeypatch.setenv(ENDPOINT, "unix:///run/collector.sock")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with setup() as telemetry:
        assert telemetry.endpoint == "unix:///run/collector.sock"


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true"), ("OTEL_SDK_DISABLED", "True")]
)
def test_the_environment_can_switch_it_off(collector, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with setup() as telemetry:
        record_something()
    assert telemetry.endpoint is None
    assert "/v1/traces" not in paths(collector)


def test_the_application_can_switch_it_off(collector):
    with setup(otlp=False):
        record_something()
    assert paths(collector) == []


def test_a_protocol_that_nobody_speaks_is_refused(monkeypatch):
    monkeypatch.setenv(PROTOCOL, "http/json")
    with pytest.raises(
        ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL='http/json': expected one of grpc, http/protobuf"
    ):
        setup()


def test_a_second_setup_is_refused_and_the_first_goes_on(collector):
    with setup("first") as telemetry:
        with pytest.raises(RuntimeError, match="there are global providers already"):
            setup("second", otlp=False)
        assert trace.get_tracer_provider() is telemetry.tracer_provider
        record_something()
        telemetry.flush()
        assert "/v1/traces" in paths(collector)


def test_an_outage_is_said_once(monkeypatch, nowhere, caplog):
    """With the real exporter: each of its attempts would be a line, and each export another."""
    monkeypatch.setenv(PROTOCOL, HTTP)
    monkeypatch.setenv(ENDPOINT, nowhere)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with setup(otlp=True) as telemetry:
        for _ in range(3):
            record_something()
            telemetry.flush()
    (said,) = [record for record in caplog.records if record.name.startswith("opentelemetry.exporter.")]
    assert "export" in said.message


@pytest.mark.parametrize(
    ("settings", "exported"),
    [
        ({}, False),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, True),
        ({CAPTURE: "EVENT_ONLY"}, True),
        ({CAPTURE: "SPAN_AND_EVENT"}, True),
        ({CAPTURE: "SPAN_ONLY"}, False),
        ({CAPTURE: "EVENT_ONLY", "OTEL_LOGS_EXPORTER": "none"}, False),
    ],
)
def test_log_events_are_exported_where_that_is_asked_for(collector, monkeypatch, settings, exported):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with setup() as telemetry:
        record_something()
        telemetry.flush()
        assert ("/v1/logs" in paths(collector)) == exported
    assert (telemetry.logger_provider is not None) == exported


def test_a_global_logger_provider_is_respected(collector, monkeypatch):
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    there_was = LoggerProvider(shutdown_on_exit=False)
    _logs.set_logger_provider(there_was)
    with pytest.raises(RuntimeError, match="there are global providers already"):
        setup()
    assert _logs.get_logger_provider() is there_was


@pytest.mark.parametrize("signal", ["TRACES", "METRICS", "LOGS"])
def test_the_end_waits_for_no_signal_longer_than_it_may(monkeypatch, signal):
    """A collector that is overloaded would be asked again for half a minute."""
    with Provider(error(503)) as overloaded:
        monkeypatch.setenv(PROTOCOL, HTTP)
        monkeypatch.setenv(ENDPOINT, overloaded.url.removesuffix("/v1"))
        for other in ("TRACES", "METRICS", "LOGS"):
            monkeypatch.setenv(f"OTEL_{other}_EXPORTER", "otlp" if other == signal else "none")
        telemetry = setup()
        record_something()
        started = time.monotonic()
        telemetry.shutdown(0.1)
        assert time.monotonic() - started < 5
    assert overloaded.requests


def test_a_receiver_that_takes_no_metrics_is_none_to_complain_about(monkeypatch, caplog):
    """Jaeger takes traces only."""
    with Provider(lambda request: error(404) if "metrics" in request.path else raw(200)) as jaeger:
        monkeypatch.setenv(PROTOCOL, HTTP)
        monkeypatch.setenv(ENDPOINT, jaeger.url.removesuffix("/v1"))
        with setup():
            record_something()
    assert paths(jaeger) == ["/v1/metrics", "/v1/traces"]
    assert caplog.records == []


def complaint(message: str, at: float) -> logging.LogRecord:
    record = logging.LogRecord("opentelemetry.exporter.x", logging.ERROR, __file__, 1, message, (), None)
    record.created = at
    return record


GRPC = "Failed to export traces to localhost:4317, error code: StatusCode.UNAVAILABLE, error details: refused"


@pytest.mark.parametrize(
    ("message", "moments", "passed"),
    [
        (GRPC, [0, 5, 10, 120, 230], [True, False, False, False, False]),
        (GRPC, [0, 119, 240], [True, False, True]),
        ("Transient error StatusCode.UNAVAILABLE encountered while exporting", [0, 1], [True, False]),
        ("Failed to export metrics to x:4317, error code: StatusCode.UNIMPLEMENTED, error details:", [0], [False]),
        ("Failed to export logs to x:4317, error code: StatusCode.UNIMPLEMENTED, error details:", [0], [False]),
        ("Failed to export traces to x:4317, error code: StatusCode.UNIMPLEMENTED, error details:", [0], [True]),
        ("Failed to encode span batch: no", [0, 1, 2], [True, True, True]),
    ],
)
def test_failures_of_one_outage_are_less_than_two_minutes_apart(message, moments, passed):
    once = _OncePerOutage()
    assert [once.filter(complaint(message, at)) for at in moments] == passed


def test_other_losses_are_said_during_an_outage():
    once = _OncePerOutage()
    assert once.filter(complaint(GRPC, 0))
    assert once.filter(complaint("Failed to encode span batch: no", 1))
    assert not once.filter(complaint(GRPC, 2))


def test_the_tree_is_printed_to_the_file_that_is_given():
    file = io.StringIO()
    with setup(tree=file, otlp=False, trace_url="http://jaeger/{trace_id}") as telemetry:
        with telemetry.together():
            with trace.get_tracer("test").start_as_current_span("overcoat.call"):
                pass
            assert file.getvalue() == ""
        assert file.getvalue().startswith("call unknown")
    assert "jaeger" not in file.getvalue(), "a link to a trace that was not exported leads nowhere"


def test_the_tree_is_printed_to_stderr_by_default(capsys):
    with setup(tree=True, otlp=False), trace.get_tracer("test").start_as_current_span("overcoat.call"):
        pass
    shown = capsys.readouterr()
    assert shown.err.startswith("call unknown")
    assert shown.out == ""


def test_an_exported_call_is_printed_with_its_link(collector):
    file = io.StringIO()
    with setup(tree=file, trace_url="http://jaeger/{trace_id}"):
        with trace.get_tracer("test").start_as_current_span("overcoat.call") as span:
            pass
        assert f"http://jaeger/{span.get_span_context().trace_id:032x}" in file.getvalue()


def test_together_is_nothing_where_no_tree_is_printed():
    with setup(otlp=False) as telemetry, telemetry.together():
        assert isinstance(trace.get_tracer_provider(), TracerProvider)
