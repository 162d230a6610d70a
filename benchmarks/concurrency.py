"""A thousand calls at once: the throughput over a provider that takes 10 ms, and what a stampede sends to it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from floor import Floor, Provider, Yardstick, providers
from measure import OPTIONS, fresh, versions
from overhead import Tenacious, layers, silent, traced

from overcoat import LLMEvent, stack

TASKS = 1_000
DELAY = 0.01


class Slow(Provider):
    """A provider that takes its time, and counts what reaches it."""

    requests = 0

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer after the delay."""
        self.requests += 1
        await asyncio.sleep(DELAY)
        return await super().call(conversation, options, event, json_mode)


async def wave(client: Any, *, equal: bool = False, tasks: int = TASKS) -> tuple[float, float]:
    """Make all calls at once; return the seconds of wall and of processor time until the last has its answer."""
    start = 0 if equal else random.getrandbits(48)
    conversations = [fresh(start if equal else start + number) for number in range(tasks)]
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client.call(each, OPTIONS, LLMEvent(each, "Benchmark")) for each in conversations))
    return time.perf_counter() - wall, time.process_time() - cpu


async def throughput(rounds: int) -> dict[str, tuple[float, float]]:
    """Return by variant the calls per second and the microseconds of processor time a call, of its best wave."""
    clients = {
        "nothing: the client itself": Slow(),
        "YARD: one span, three records": Yardstick(Slow(), *providers()),
        "floor: by hand, two spans, three records, key": Floor(Slow(), *providers()),
        "Trace, Cache (miss), Retry, Meter": stack(Slow(), *layers(traced())),
        "the same with Deadline and Timeout": stack(Slow(), *layers(traced(), bounded=True)),
        "Trace, Cache (miss), Retry, Meter, no SDK": stack(Slow(), *layers(silent())),
        "a stack of no layers: the record": stack(Slow()),
        "tenacity.AsyncRetrying around the call": Tenacious(Slow()),
    }
    waves: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for client in clients.values():
        await wave(client)
    gc.collect()
    gc.freeze()
    order = list(clients)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            waves[name].append(await wave(clients[name]))
    return {
        name: (TASKS / min(wall for wall, _ in done), min(cpu for _, cpu in done) / TASKS * 1e6)
        for name, done in waves.items()
    }


async def stampede() -> int:
    """Return how many of a thousand equal calls, cold and at once, reach the provider."""
    provider = Slow()
    await wave(stack(provider, *layers(traced())), equal=True)
    return provider.requests


def main() -> int:
    """Measure, print, and judge where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="waves of each variant (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--check", action="store_true", help="exit 1 where more than one call reaches the provider")
    arguments = parser.parse_args()

    reached = asyncio.run(stampede())
    results = asyncio.run(throughput(arguments.rounds))
    used = versions("opentelemetry-sdk", "tenacity", "msgspec")
    print(f"{used}; best of {arguments.rounds} waves of {TASKS} calls at once, each {DELAY * 1000:g} ms")
    width = max(map(len, results))
    unit = results["floor: by hand, two spans, three records, key"][0]
    print(f"{'':{width}}   {'calls/s':>8}   {'us of processor a call':>22}   {'calls/s to the floor':>20}")
    for name, (rate, cpu) in results.items():
        print(f"{name:{width}}   {rate:8,.0f}   {cpu:22.1f}   {rate / unit:20.2f}")
    print(f"stampede: of {TASKS} equal calls at once, {reached} reached the provider; target: 1")
    if arguments.json:
        text = json.dumps(
            {"versions": used, "rounds": arguments.rounds, "reached": reached, "results": results}, indent=2
        )
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return int(arguments.check and reached != 1)


if __name__ == "__main__":
    sys.exit(main())
