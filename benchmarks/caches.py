"""What an answer out of a store costs, what it costs others meanwhile, and how many equal calls ask the provider."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from concurrency import TASKS, Slow, wave
from floor import Provider, Yardstick, providers
from measure import (
    OPTIONS,
    SINGLE_CALLS,
    Conversation,
    Overhead,
    Target,
    Variant,
    fresh,
    judge,
    measure,
    table,
    typical,
    versions,
)
from server import redis_server

from overcoat import Cache, LLMEvent, Reply, Request, capture, stack
from overcoat.layer import Handler
from overcoat.stores import Store, open_store
from overcoat.stores.memory import MemoryStore

HIT_2KB, HIT_100KB, SQLITE_HIT = 15.0, 200.0, 150.0
"""Microseconds: what the layer may add to a call that it answers, and what one out of a file may take as a whole."""

LAG = 5.0
"""Milliseconds for which a store may block the event loop."""

CEILING = 4 * 2**20
DISTINCT = 10_000
JOBS, WORKERS = 2_000, 10


def talk(messages: int, size: int) -> Callable[[int], Conversation]:
    """Return what makes conversations of so many *messages*, each of *size* bytes, in new strings."""

    def ask(number: int) -> Conversation:
        filler = "who? " * (size // 5)
        return [{"role": "user", "content": f"{number}.{message}: {filler}"[:size]} for message in range(messages)]

    return ask


async def answered(request: Request, inner: Handler) -> Reply:  # noqa: ARG001 - in place of a cache
    """Answer at once, as a cache does that has nothing to look up: what the rest of the stack costs a hit."""
    return Reply("SELECT 1")


def hits() -> list[Variant]:
    """Return the hits that are measured, each after its base."""
    found: list[Variant] = []
    for name, ask in (
        ("2 kB", talk(2, 1_000)),
        ("100 kB", talk(20, 5_000)),
        ("1,000 messages of 100 bytes", talk(1_000, 100)),
    ):
        base = Variant(f"{name}: a layer that answers at once", stack(Provider(), answered), repeated=True, ask=ask)
        found += [base, Variant("  Cache, a hit", stack(Provider(), Cache()), base, repeated=True, ask=ask)]
    return found


async def lag(store: Store) -> float:
    """Return the longest time, in milliseconds, for which *store* kept the event loop from a timer that was due."""
    loop = asyncio.get_running_loop()
    late: list[float] = []
    value = bytes(2_000)

    async def watch() -> None:
        while True:
            due = loop.time() + 0.001
            await asyncio.sleep(0.001)
            late.append(loop.time() - due)

    async def work(worker: int) -> None:
        for number in range(JOBS // WORKERS):
            await store.set("", f"{worker}.{number}", value, 60.0)
            await store.get("", f"{worker}.{number}")

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(work, range(WORKERS)))
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    return max(late) * 1000


class Wordy(Provider):
    """A provider whose answers are of a kilobyte, each a text of its own."""

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer."""
        await super().call(conversation, options, event, json_mode)
        return str(time.perf_counter_ns()) + "." * 1_000


async def distinct() -> tuple[int, int]:
    """Make many calls, none like another; return what the store says it holds, and what the process does, in bytes."""
    store = MemoryStore(CEILING)
    client = stack(Wordy(), Cache(store=store))
    for warm in (True, False):
        gc.collect()
        if not warm:
            await store.close()
            tracemalloc.start()
        for number in range(100 if warm else DISTINCT):
            conversation = fresh(number)
            await client.call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return store.size, held


async def run(rounds: int, stores: dict[str, str]) -> list[Target]:
    """Measure and print all; return the targets."""
    targets: list[Target] = []
    for name, url in stores.items():
        provider = Slow()
        await wave(stack(provider, Cache(store=url)), equal=True)
        await asyncio.sleep(0.05)  # the answer is stored after all have it
        targets.append(Target(f"{TASKS:,} equal calls at once, {name}", provider.requests, 1, "requests"))

    yard = Variant("YARD: one span, three records", Yardstick(Provider(), *providers()))
    yard.base = Variant("nothing: the client itself", Provider())
    measured = hits()
    await measure([yard.base, yard, *measured], rounds)
    print(table([yard, *measured], yard))
    added = [Overhead.of(variant).least for variant in measured if variant.base]
    targets += [
        Target(f"Cache, a hit, {name}", value, most)
        for name, value, most in zip(
            ("2 kB", "100 kB", "1,000 messages of 100 bytes"), added, (HIT_2KB, HIT_100KB, HIT_100KB), strict=True
        )
    ]

    clients = {name: stack(Provider(), Cache(store=url)) for name, url in stores.items()}
    with capture() as calls:
        whole = await typical(clients, rounds, repeated=True)
    warm = calls[SINGLE_CALLS * len(clients) :]
    if others := sum(call.cache is None or call.cache.result != "hit" for call in warm):
        raise AssertionError(f"{others} calls were not answered out of their store: there is nothing to judge")
    print(
        *(f"a hit from {name}, the whole call, median by the wall: {took:.1f} us" for name, took in whole.items()),
        sep="\n",
    )
    targets.append(Target("a hit from SQLite, the whole call, median", whole["SQLite"], SQLITE_HIT))

    for name, url in stores.items():
        if name == "memory":  # which never lets the loop go on, and has nothing to wait for
            continue
        store = open_store(url)
        blocked = min([await lag(store) for _ in range(rounds // 2)])
        targets.append(Target(f"{JOBS:,} sets and gets, {name}: the loop was blocked for", blocked, LAG, "ms"))
        await store.close()

    size, held = await distinct()
    name = f"{DISTINCT:,} calls, none like another, in memory:"
    targets += [
        Target(f"{name} the store says", size / 2**20, CEILING / 2**20, "MiB"),
        Target(f"{name} the process holds", held / 2**20, CEILING / 2**20, "MiB"),
    ]
    return targets


def main() -> int:
    """Measure, print, and judge where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="blocks of each variant (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, redis_server() as redis:
        stores = {"memory": "memory://", "SQLite": f"sqlite:///{Path(folder, 'answers.db')}"}
        if redis is not None:
            stores["Redis"] = redis
        targets = asyncio.run(run(arguments.rounds, stores))
    print(f"{versions('msgspec', 'redis')}; {arguments.rounds} rounds")
    return judge(targets, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
