"""An application that exports: nothing is lost in a burst, and a collector that is away costs nothing but its spans."""

import os
import re
import subprocess
import sys
import time

import pytest

from .collector_server import running_collector
from .jaeger_server import find_binary
from .parts import missing
from .redis_server import free_port

CALLS = 10_000
BURST = f"""
import asyncio, time
import overcoat.telemetry
from overcoat import LLMEvent, Meter, Trace, stack

class Client:
    model_name = "openai/gpt-4o-mini"
    async def call(self, conversation, options, event, json_mode=False):
        await asyncio.sleep(0)
        return "42"

async def main():
    client = stack(Client(), Trace(), Meter())
    question = [{{"role": "user", "content": "?"}}]
    await asyncio.gather(*(client.call(question, None, LLMEvent(question, "Burst")) for _ in range({CALLS})))

with overcoat.telemetry.setup("burst", otlp=True):
    began = time.perf_counter()
    asyncio.run(main())
    print(time.perf_counter() - began)
"""


def burst(endpoint):
    """Make the calls in a process of their own; return what it said, on both streams."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRICS_EXPORTER": "none"}
    ended = subprocess.run(
        [sys.executable, "-c", BURST], check=False, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def collector(jaeger, tmp_path_factory):
    binary = find_binary()
    if binary is None:
        missing("there is no Jaeger: build it with `make jaeger`, or name one in JAEGER_BINARY")
    with running_collector(binary, tmp_path_factory.mktemp("burst"), jaeger, sample=0) as running:
        yield running


def test_a_burst_of_ten_thousand_calls_arrives_whole(collector):
    ended = burst(collector.otlp_grpc)
    assert ended.stderr == ""
    assert collector.accepted_spans() == 2 * CALLS


def test_a_collector_that_is_away_is_mentioned_once_and_not_waited_for():
    began = time.monotonic()
    ended = burst(f"http://127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 25, "the SDK alone would wait for half a minute at the end"
    assert len(re.findall("StatusCode.UNAVAILABLE", ended.stderr)) <= 1, ended.stderr
    assert ended.stderr.count("\n") <= 2, ended.stderr
