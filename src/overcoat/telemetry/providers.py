"""What an application sets up to see its calls: OpenTelemetry's providers, an OTLP export, a tree in the terminal."""

from __future__ import annotations

import atexit
import logging
import os
import socket
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Timer
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TextIO
from urllib.parse import urlsplit

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from overcoat.telemetry.content import capture_by_environment

if TYPE_CHECKING:
    from overcoat.telemetry.tree import TreeSpanProcessor

logger = logging.getLogger("overcoat")

Signal = Literal["TRACES", "METRICS", "LOGS"]
Exporter = SpanExporter | MetricExporter | LogRecordExporter

_ENDPOINTS = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}  # the exporters' defaults
_PROBE = 0.5  # seconds
_QUEUE = 2**15
"""Spans that wait for export at most: the SDK's 2,048 are less than what a burst of a thousand calls leaves behind, and
with four times as many the garbage collector's pauses grow to half a second where the collector is away."""
_OUTAGE = 120.0  # seconds: failures that are not further apart are one outage; metrics are exported once a minute


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What `setup` made; as a context manager it ends with the block.

    Attributes:
        tracer_provider: The global one.
        meter_provider: The global one.
        logger_provider: The global one; None where log events are not exported.
        endpoint: Where traces are exported to; None where they are not.
        tree: What prints calls; None where nothing does.
    """

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    logger_provider: LoggerProvider | None
    endpoint: str | None
    tree: TreeSpanProcessor | None
    _exporters: tuple[Exporter, ...] = field(repr=False)

    def together(self) -> AbstractContextManager[None]:
        """Print the calls that end inside when it is left, and those that got one and the same answer as one line."""
        return nullcontext() if self.tree is None else self.tree.together()

    def flush(self, timeout: float = 10.0) -> None:
        """Export what has been recorded, and wait for it for up to *timeout* seconds."""
        self.tracer_provider.force_flush(int(timeout * 1000))
        self.meter_provider.force_flush(timeout * 1000)
        if self.logger_provider is not None:
            self.logger_provider.force_flush(int(timeout * 1000))

    def shutdown(self, timeout: float = 5.0) -> None:
        """Flush and end the export; what a collector has not taken by *timeout* seconds is lost, which the log says.

        A process that exits does so by itself. The SDK's own end would wait for a collector that is away for half a
        minute.
        """
        atexit.unregister(self.shutdown)
        # It ends the exporters' retries. pyright: the SDK's **kwargs have no type.
        giving_up = [Timer(timeout, each.shutdown) for each in self._exporters]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        for timer in giving_up:
            timer.daemon = True
            timer.start()
        try:
            self.tracer_provider.shutdown()
            self.meter_provider.shutdown()
            if self.logger_provider is not None:
                self.logger_provider.shutdown()
        finally:
            for timer in giving_up:
                timer.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()


def setup(
    service_name: str | None = None,
    *,
    tree: bool | TextIO = False,
    otlp: Literal["auto"] | bool = "auto",
    trace_url: str | None = None,
) -> Telemetry:
    """Make the providers of an application and set them as the global ones; once, at its start.

    The standard variables hold (https://opentelemetry.io/docs/languages/sdk-configuration/): OTEL_SERVICE_NAME,
    OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_SDK_DISABLED, OTEL_EXPORTER_OTLP_* with the protocols "grpc"
    (where it says none) and "http/protobuf", and "none" for OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER. Log events
    are exported where OTEL_LOGS_EXPORTER is "otlp", or where it says nothing and contents are captured as events by
    OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT.

    While a collector is away one line is logged, not one every few seconds. What Jaeger answers to metrics and logs,
    which it does not take, is not logged at all.

    Args:
        service_name: The application's name in Jaeger, where the environment gives none.
        tree: Print each call as a tree of spans: True to stderr, or a file. See `TreeSpanProcessor`.
        otlp: Whether to export; "auto" does so where something listens on the endpoint now.
        trace_url: What the tree prints under each exported call, such as "http://localhost:16686/trace/{trace_id}".

    Raises:
        RuntimeError: There are global providers already.
        ValueError: OTEL_EXPORTER_OTLP_PROTOCOL is neither of the two.
    """
    traces, numbers, logs = (_endpoint(signal, otlp) for signal in ("TRACES", "METRICS", "LOGS"))
    resource = _resource(service_name)
    exporters: list[Exporter] = []
    tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if traces is not None:
        exporters.append(spans := _span_exporter())
        tracer_provider.add_span_processor(BatchSpanProcessor(spans, max_queue_size=_queue_size()))
    printer = None
    if tree is not False:
        from overcoat.telemetry.tree import TreeSpanProcessor  # noqa: PLC0415 - rich, for those who want it

        printer = TreeSpanProcessor(None if tree is True else tree, trace_url=trace_url if traces else None)
        tracer_provider.add_span_processor(printer)
    readers: list[PeriodicExportingMetricReader] = []
    if numbers is not None:
        exporters.append(exporter := _metric_exporter())
        readers.append(PeriodicExportingMetricReader(exporter))
    meter_provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    logger_provider = None
    if logs is not None:
        exporters.append(lines := _log_exporter())
        logger_provider = LoggerProvider(resource, shutdown_on_exit=False)
        logger_provider.add_log_record_processor(BatchLogRecordProcessor(lines))
    _log_outages_once()
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(meter_provider)
    if logger_provider is not None:
        _logs.set_logger_provider(logger_provider)
    telemetry = Telemetry(tracer_provider, meter_provider, logger_provider, traces, printer, tuple(exporters))
    atexit.register(telemetry.shutdown)
    if (
        trace.get_tracer_provider() is not tracer_provider
        or metrics.get_meter_provider() is not meter_provider
        or (logger_provider is not None and _logs.get_logger_provider() is not logger_provider)
    ):
        telemetry.shutdown()
        raise RuntimeError("setup(): there are global providers already; call it once, before anything else sets them")
    return telemetry


def _resource(service_name: str | None) -> Resource:
    resource = Resource.create()  # from the environment
    unnamed = str(resource.attributes[SERVICE_NAME]).startswith("unknown_service")
    return resource.merge(Resource({SERVICE_NAME: service_name})) if service_name and unnamed else resource


def _endpoint(signal: Signal, otlp: Literal["auto"] | bool) -> str | None:
    """Return where the exporter of *signal* will send to; None where there is to be none."""
    # Who has no use for events has no collector for them: Jaeger takes none.
    usual = "otlp" if signal != "LOGS" or "events" in capture_by_environment() else "none"
    wanted = os.environ.get(f"OTEL_{signal}_EXPORTER", usual).split(",")
    if otlp is False or "otlp" not in wanted or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    named = _variable(signal, "ENDPOINT")
    endpoint = named or _ENDPOINTS[_protocol(signal)]
    if otlp == "auto" and not _listens(endpoint):
        if named:
            logger.warning("nothing listens at %s: %s are not exported", endpoint, signal.lower())
        return None
    return endpoint


def _queue_size() -> int | None:
    return None if "OTEL_BSP_MAX_QUEUE_SIZE" in os.environ else _QUEUE  # None is what the variable says


def _protocol(signal: Signal) -> str:
    protocol = _variable(signal, "PROTOCOL") or "grpc"
    if protocol not in _ENDPOINTS:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}: expected one of {', '.join(_ENDPOINTS)}")
    return protocol


def _variable(signal: Signal, name: str) -> str | None:
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")


def _listens(endpoint: str) -> bool:
    url = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")  # gRPC takes "localhost:4317" as well
    if not url.hostname:
        return True  # a socket in the file system, or another of gRPC's schemes: not for us to probe
    try:
        socket.create_connection((url.hostname, url.port or (80 if url.scheme == "http" else 443)), _PROBE).close()
    except OSError:
        return False
    return True


def _span_exporter() -> SpanExporter:
    # Only the one that is asked for: gRPC's libraries are of no use to the other.
    if _protocol("TRACES") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPSpanExporter()
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415

    return http.OTLPSpanExporter()


def _metric_exporter() -> MetricExporter:
    if _protocol("METRICS") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPMetricExporter()
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http  # noqa: PLC0415

    return http.OTLPMetricExporter()


def _log_exporter() -> LogRecordExporter:
    if _protocol("LOGS") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPLogExporter()
    from opentelemetry.exporter.otlp.proto.http import _log_exporter as http  # noqa: PLC0415

    return http.OTLPLogExporter()


class _OncePerOutage(logging.Filter):
    """Lets the first of the exporters' complaints about a collector through, and all that is about something else."""

    def __init__(self) -> None:
        super().__init__()
        self._failed = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.startswith(("Transient error", "Failed to export", "Exporter already shutdown")):
            return True
        refused = "UNIMPLEMENTED" in message or "code: 404" in message
        if refused and ("metrics" in message or "logs" in message):
            return False  # Jaeger's answer: it takes traces only
        known = record.created - self._failed < _OUTAGE
        self._failed = record.created
        return not known


_once_per_outage = _OncePerOutage()


def _log_outages_once() -> None:
    # A filter on a logger does not see what the loggers below it log, so each of the exporters' has to have it.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("opentelemetry.exporter."):
            logging.getLogger(name).addFilter(_once_per_outage)
