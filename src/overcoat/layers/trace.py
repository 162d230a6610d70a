"""`Trace`: makes every call visible, as spans in Jaeger, as metrics, and as lines and events in logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

from opentelemetry import trace

from overcoat._version import __version__
from overcoat.arithmetic.counts import check_count
from overcoat.layer import Client, Observer, PlacedLayer
from overcoat.order import Place
from overcoat.telemetry import names, redaction
from overcoat.telemetry.content import Capture, Contents, capture_by_environment
from overcoat.telemetry.events import Events
from overcoat.telemetry.metrics import metrics_of
from overcoat.telemetry.redaction import Redactor
from overcoat.telemetry.spans import Settings, SpanObserver

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


@dataclass(frozen=True, kw_only=True, repr=False)
class Trace(PlacedLayer):
    """Trace and measure calls by OpenTelemetry's conventions for generative AI, version 1.41.

    A call is an `overcoat.call` span, which carries what one would search for, and inside it a `chat` span for each
    inference. Attempts and the waits between them have spans where there was a failure. An inference that failed is a
    log event as well. Contents are recorded only where that is asked for.

    Each call is a line in the log, with what its span carries, where the logger "overcoat.calls" is on for INFO.

    Attributes:
        attempts: "failed" gives spans to failed attempts and those that follow them; "always" to all, and a histogram
            of how long each took, which else is known on average only.
        cost_tiers: Dollars from which the cost of a call is called "medium" and "high", for searches: Jaeger cannot
            compare numbers.
        content: Whether prompts and answers are captured: on the "spans" of inferences, in log "events", on both, or
            nowhere. "environment" is what OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT says when the layer is
            stacked, and nowhere where it says nothing.
        redact: Takes out of each captured text what must not leave the process; its own errors leave the text out. The
            default one knows keys, addresses, cards and phone numbers by their shapes.
        content_limit: Characters of each captured text that are kept.
        metric_tags: The tags that become labels of the counters of calls, tokens and costs, each with up to 100 values
            and then "other". Others are on spans alone: a label for every tenant would be a series for every tenant.
        tracer_provider: Where spans go; None is the global one, also where that is set later.
        meter_provider: Where metrics go; None likewise.
        logger_provider: Where log events go; None likewise.
    """

    place: ClassVar[Place] = Place.CALL
    because: ClassVar[str] = "its span must cover hits, refusals and waits"
    twice: ClassVar[str] = "every call, token and dollar would be counted twice"

    attempts: Literal["failed", "always"] = "failed"
    cost_tiers: tuple[float, float] = (0.001, 0.01)
    content: Literal["environment", "none", "spans", "events", "spans and events"] = "environment"
    redact: Redactor = field(default=redaction.redact, repr=False)
    content_limit: int = 8192
    metric_tags: tuple[str, ...] = ()
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None
    logger_provider: LoggerProvider | None = None

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        if self.attempts not in ("failed", "always"):
            raise ValueError(f'Trace(attempts={self.attempts!r}): expected "failed" or "always"')
        medium, high = self.cost_tiers
        if not 0 <= medium <= high:
            raise ValueError(f"Trace(cost_tiers={self.cost_tiers!r}): expected 0 <= medium <= high, in dollars")
        if self.content not in ("environment", *get_args(Capture)):
            expected = ", ".join(f'"{each}"' for each in get_args(Capture))
            raise ValueError(f'Trace(content={self.content!r}): expected "environment", {expected}')
        if not callable(self.redact):
            raise TypeError(f"Trace(redact={self.redact!r}): expected a function from a text to a text")
        check_count(self.content_limit, "Trace.content_limit")
        listed = cast("Any", self.metric_tags)  # callers are not all typed, and a text is a sequence of texts
        if not isinstance(listed, tuple) or not all(name and isinstance(name, str) for name in cast("Any", listed)):
            raise TypeError(f"Trace(metric_tags={listed!r}): expected a tuple of names of tags")

    def bind(self, client: Client) -> None:
        """Return nothing: there is no function around the call, only an observer of its record."""

    def observer(self, client: Client) -> Observer:
        """Return what makes the spans, metrics, events and log lines of calls to *client*."""
        capture = capture_by_environment() if self.content == "environment" else self.content
        contents = Contents(self.redact, self.content_limit) if capture != "none" else None
        settings = Settings(
            every_attempt=self.attempts == "always",
            tiers=self.cost_tiers,
            tags=self.metric_tags,
            contents=contents,
            on_spans=capture in ("spans", "spans and events"),
            on_events=capture in ("events", "spans and events"),
        )
        tracer = trace.get_tracer("overcoat", __version__, self.tracer_provider, names.SCHEMA_URL)
        events = Events(self.logger_provider, contents)
        return SpanObserver(tracer, metrics_of(self.meter_provider), events, client, settings)
