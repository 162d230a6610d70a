"""Keeps what telemetry would export in memory, for assertions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["InMemoryTelemetry"]

Labels = frozenset[tuple[str, Any]]


class InMemoryTelemetry:
    """The tracer, meter and logger providers of the real SDK, whose exports stay here.

    ```python
    telemetry = InMemoryTelemetry()
    client = stack(MyClient(), Trace(tracer_provider=telemetry.tracer_provider))
    ...
    assert [span.name for span in telemetry.spans] == ["chat gpt-4o", "overcoat.call"]
    ```

    Attributes:
        tracer_provider: Records every span.
        meter_provider: Records every metric.
        logger_provider: Records every log event.
    """

    def __init__(self) -> None:
        # Here, since a user of the other doubles need not wait for the SDK.
        from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor  # noqa: PLC0415
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415

        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._metrics], shutdown_on_exit=False)
        self._logs = cast("Any", InMemoryLogRecordExporter)()  # which has no annotations
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self._logs))

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order in which they did."""
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the ended spans whose name is *name* or begins with it and a blank."""
        return [span for span in self.spans if span.name == name or span.name.startswith(f"{name} ")]

    def events(self, name: str) -> list[ReadableLogRecord]:
        """Return the log events of that *name*, in the order in which they were emitted."""
        return [each for each in self._logs.get_finished_logs() if each.log_record.event_name == name]

    def points(self, metric: str) -> dict[Labels, Any]:
        """Return the newest data points of *metric* by their attributes; of a histogram, the whole points.

        Counters that are still at 0 are left out: overcoat begins all that it knows there, for `increase()`.
        """
        from opentelemetry.sdk.metrics.export import Sum  # noqa: PLC0415

        data = self._metrics.get_metrics_data()
        return {
            frozenset((point.attributes or {}).items()): getattr(point, "value", point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
            if not isinstance(each.data, Sum) or getattr(point, "value", None) != 0
        }

    def total(self, metric: str, having: Mapping[str, Any] | None = None) -> float:
        """Return the sum of *metric* over all of its points, or over those with the attributes that are to be had."""
        wanted = set((having or {}).items())
        points = [point for labels, point in self.points(metric).items() if wanted <= labels]
        return float(sum(getattr(point, "sum", point) for point in points))
