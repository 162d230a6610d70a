"""What overcoat adds to a call that succeeds, against the same telemetry written by hand; see README.md beside it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tenacity
from floor import Floor, Provider, Yardstick, prices, providers
from measure import OPTIONS, Overhead, Variant, fresh, measure, table, versions
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider

from overcoat import Cache, Deadline, LLMEvent, Meter, Reply, Request, Retry, Timeout, Trace, stack
from overcoat.layer import Handler
from overcoat.telemetry import names

OVER_FLOOR = 1.25
OVER_YARDSTICK = 2.0


class Tenacious:
    """tenacity as its documentation shows it, around the call."""

    def __init__(self, client: Provider) -> None:
        self._client = client

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer, retried."""
        async for attempt in tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential(max=20), reraise=True
        ):
            with attempt:
                return await self._client.call(conversation, options, event, json_mode)
        raise AssertionError("tenacity returns or raises")


async def passed_through(request: Request, inner: Handler) -> Reply:
    """Do nothing, as a layer of the user's own."""
    return await inner(request)


def silent() -> Trace:
    """Return tracing as it is where no SDK is installed."""
    return Trace(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())


def layers(trace: Trace, *, bounded: bool = False) -> list[Any]:
    """Return the stack that is measured; *bounded* adds the two layers that watch the clock."""
    if bounded:
        return [trace, Deadline("30s"), Cache(), Retry(), Timeout("20s"), Meter(prices=prices)]
    return [trace, Cache(), Retry(), Meter(prices=prices)]


def traced() -> Trace:
    """Return tracing with an SDK of its own."""
    tracer_provider, meter_provider = providers()
    return Trace(tracer_provider=tracer_provider, meter_provider=meter_provider)


def variants() -> dict[str, Variant]:
    """Return what is measured, by the names of the results."""
    client = Provider()
    bare = Variant("nothing: the client itself", client)
    recorded = Variant("a stack of no layers: the record", stack(client), bare)
    return {
        "nothing": bare,
        "yardstick": Variant("YARD: one span, three records", Yardstick(client, *providers()), bare),
        "floor": Variant("floor: by hand, two spans, three records, key", Floor(client, *providers()), bare),
        "stack": Variant("Trace, Cache (miss), Retry, Meter", stack(client, *layers(traced())), bare),
        "bounded": Variant("the same with Deadline and Timeout", stack(client, *layers(traced(), bounded=True)), bare),
        "silent": Variant("Trace, Cache (miss), Retry, Meter, no SDK", stack(client, *layers(silent())), bare),
        "trace": Variant("Trace alone", stack(client, traced()), bare),
        "hit": Variant(
            "Cache (hit), Retry, Meter: no Trace", stack(client, *layers(silent())[1:]), bare, repeated=True
        ),
        "record": recorded,
        "five": Variant("five layers that pass through", stack(client, *[passed_through] * 5), recorded),
        "retry": Variant("Retry", stack(client, Retry()), recorded),
        "tenacity": Variant("tenacity.AsyncRetrying around the call", Tenacious(client), bare),
    }


async def observe(make: Any) -> tuple[list[Any], list[Any]]:
    """Return the spans and the metric points of one call through the client that `make(providers)` returns.

    Identifiers and durations differ from call to call, and are left out, as are series at 0: those are begun with the
    client, and cost a call nothing.
    """
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = MeterProvider([reader], shutdown_on_exit=False)
    client, conversation = make(tracer_provider, meter_provider), fresh(0)
    await client.call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
    finished = exporter.get_finished_spans()
    by_id = {span.context.span_id: span.name for span in finished if span.context}
    spans = [
        (
            span.name,
            span.kind.name,
            by_id[span.parent.span_id] if span.parent else None,
            sorted((span.attributes or {}).items()),
        )
        for span in finished
    ]
    data = reader.get_metrics_data()
    points = [
        (
            metric.name,
            sorted((point.attributes or {}).items()),
            _amount(metric.name, point),
        )
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if getattr(point, "value", None) != 0
    ]
    return spans, sorted(points, key=repr)


def _amount(name: str, point: Any) -> Any:
    if isinstance(point, HistogramDataPoint):
        return point.count, len(point.exemplars)
    return None if name == names.METRIC_ATTEMPT_TIME else point.value


async def verify() -> None:
    """Check that the floor and the stack emit the same; else comparing their times would say nothing.

    Raises:
        AssertionError: With both, where they differ.
    """
    client = Provider()
    by_hand = await observe(lambda *sdk: Floor(client, *sdk))
    ours = await observe(
        lambda spans, metrics: stack(client, *layers(Trace(tracer_provider=spans, meter_provider=metrics)))
    )
    if by_hand != ours:
        raise AssertionError(f"the floor and the stack do not emit the same:\n{by_hand}\n{ours}")
    spans, points = ours
    print(
        f"Floor and stack emit the same: {len(spans)} spans of {', '.join(str(len(span[3])) for span in spans)} "
        f"attributes and an id, {len(points)} metric points."
    )


def judge(measured: dict[str, Variant]) -> list[tuple[str, float, float]]:
    """Return each target as its name, what was measured, and the most that it may be.

    It is judged by the fastest blocks: what else a shared machine does can only add to them.
    """
    ours = Overhead.of(measured["stack"])
    return [
        ("stack / floor", ours.ratio(Overhead.of(measured["floor"])).least, OVER_FLOOR),
        ("stack / YARD", ours.ratio(Overhead.of(measured["yardstick"])).least, OVER_YARDSTICK),
    ]


def main() -> int:
    """Measure, print, and judge where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="blocks of each variant (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    arguments = parser.parse_args()

    async def run() -> dict[str, Variant]:
        await verify()
        measured = variants()
        await measure(list(measured.values()), arguments.rounds)
        return measured

    measured = asyncio.run(run())
    used = versions("opentelemetry-sdk", "tenacity", "msgspec")
    print(f"{used}; {arguments.rounds} rounds")
    print(table(list(measured.values()), measured["yardstick"]))
    targets = judge(measured)
    for name, value, most in targets:
        print(f"{name}: {value:.2f}, target at most {most:g}: {'met' if value <= most else 'MISSED'}")
    if arguments.json:
        results = {name: asdict(Overhead.of(variant)) for name, variant in measured.items()}
        text = json.dumps({"versions": used, "rounds": arguments.rounds, "microseconds": results}, indent=2)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return int(arguments.check and any(value > most for _, value, most in targets))


if __name__ == "__main__":
    sys.exit(main())
