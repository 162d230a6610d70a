"""What a collector that is down costs an application that exports to it, and whether one that is up gets every span."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from floor import Provider, prices, providers
from measure import OPTIONS, Target, fresh, judge, versions
from opentelemetry import metrics, trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from overcoat import LLMEvent, Meter, Trace, stack
from overcoat.telemetry import setup

DOWN = 1.05
AWAY_CALLS, SENT_CALLS = 20_000, 10_000
AT_ONCE = 100


class Times(NamedTuple):
    """Of a process's calls: microseconds a call, and the longest pause for the garbage collector in milliseconds."""

    wall: float
    cpu: float
    pause: float


async def work(calls: int) -> Times:
    """Make all calls, many at once."""
    client = stack(Provider(), Trace(), Meter(prices=prices))
    conversation = fresh(0)
    begun, longest = 0.0, 0.0

    def collected(phase: str, _: Any) -> None:
        nonlocal begun, longest
        if phase == "start":
            begun = time.thread_time()
        else:
            longest = max(longest, time.thread_time() - begun)

    async def caller() -> None:
        for _ in range(calls // AT_ONCE):
            await client.call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
            await asyncio.sleep(0)

    gc.callbacks.append(collected)
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Times(wall / calls * 1e6, cpu / calls * 1e6, longest * 1e3)


def child(name: str) -> int:
    """Make the calls in this process, with telemetry of that *name*, and print their times."""
    if name == "nowhere":
        tracer_provider, meter_provider = providers()
        trace.set_tracer_provider(tracer_provider)
        metrics.set_meter_provider(meter_provider)
        print(json.dumps(asyncio.run(work(AWAY_CALLS))))
    else:
        telemetry = setup("benchmark", otlp=True)
        print(json.dumps(asyncio.run(work(SENT_CALLS if name == "up" else AWAY_CALLS))))
        telemetry.shutdown(60.0 if name == "up" else 0.1)
    return 0


def run(name: str, endpoint: str) -> Times:
    """Return what a child prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    if name == "up":
        environment["OTEL_METRICS_EXPORTER"] = "none"  # the sink takes spans only
    command = [sys.executable, __file__, "--child", name]
    made = subprocess.run(  # noqa: S603 - our own
        command, check=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return Times(*json.loads(made.stdout))


class Sink(TraceServiceServicer):
    """A collector that counts spans, and keeps none."""

    def __init__(self) -> None:
        self.spans: set[bytes] = set()

    def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:  # noqa: N802, ARG002 - gRPC's name
        """Count."""
        self.spans.update(
            span.trace_id + span.span_id
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )
        return ExportTraceServiceResponse()


@contextmanager
def listening(sink: Sink) -> Generator[str]:
    """Let *sink* listen, and yield where."""
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(sink, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def main() -> int:
    """Measure, print, and judge where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--child", choices=["nowhere", "down", "up"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child)

    sink = Sink()
    with listening(sink) as endpoint:
        run("up", endpoint)
    with socket.socket() as nobody:  # bound, and not listening: nobody else can come to listen there meanwhile
        nobody.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        found: dict[str, list[Times]] = {"nowhere": [], "down": []}
        order = list(found)
        for _ in range(arguments.rounds):
            random.shuffle(order)
            for name in order:
                found[name].append(run(name, away))
    least = {name: Times(*map(min, zip(*runs, strict=True))) for name, runs in found.items()}
    print(f"{'':28}  {'us a call by the wall':>21}  {'of processor':>12}  {'longest pause, ms':>17}")
    for name, title in (("nowhere", "spans that go nowhere"), ("down", "setup(), its collector down")):
        times = least[name]
        print(f"{title:28}  {times.wall:21.1f}  {times.cpu:12.1f}  {times.pause:17.1f}")
    used = versions("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc", "grpcio")
    print(f"{used}; least of {arguments.rounds} processes of {AWAY_CALLS:,} calls")
    spans = 2 * SENT_CALLS
    targets = [
        Target("collector down / spans nowhere, of processor", least["down"].cpu / least["nowhere"].cpu, DOWN, "times"),
        Target(f"of {spans:,} spans of {SENT_CALLS:,} calls were lost", spans - len(sink.spans), 0, "spans"),
    ]
    return judge(targets, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
