"""Measures calls against each other in one process and one event loop: short blocks, shuffled anew in every round."""

from __future__ import annotations

import asyncio
import gc
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any, NamedTuple

from overcoat import LiteLLMOptions, LLMEvent

BLOCK_SECONDS = 0.015
"""Short, so that a machine that changes its pace does so between blocks; long enough for hundreds of calls."""

SINGLE_CALLS = 200
"""How many of a round's single calls a median is of."""

OPTIONS = LiteLLMOptions(temperature=0.0, max_tokens=512)
_SYSTEM = "You answer questions about a table of customers, with one SQL statement and nothing else. " * 8

Conversation = list[dict[str, str]]


def fresh(number: int) -> Conversation:
    """Return a conversation of about 1 kB that no other *number* has, in new strings."""
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": f"Question {number}: " + "who? " * 50}]


@dataclass(eq=False)
class Variant:
    """One way to make a call.

    Attributes:
        name: In the table.
        client: Anything with db-ally's `call`.
        base: The variant that makes the same call without what is measured; None where this is such a one.
        repeated: Whether all calls ask the same, so that a cache can answer.
        ask: Makes the conversation of that number.
        around: Entered around each block, outside what is timed: for libraries that patch classes.
        wall: Seconds a call, block by block.
        cpu: The same, by the process's clock, with what background threads do for it.
        own: The same, by the clock of the event loop's thread, without them.
    """

    name: str
    client: Any
    base: Variant | None = None
    repeated: bool = False
    ask: Callable[[int], Conversation] = fresh
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    wall: list[float] = field(default_factory=list[float], repr=False)
    cpu: list[float] = field(default_factory=list[float], repr=False)
    own: list[float] = field(default_factory=list[float], repr=False)
    calls: int = 8
    made: int = 0

    async def block(self) -> tuple[float, float, float]:
        """Make a block of calls; return its seconds of wall, the process's and its thread's, for one call."""
        if self.repeated:
            conversations = [self.ask(0) for _ in range(self.calls)]
        else:
            conversations = [self.ask(number) for number in range(self.made, self.made + self.calls)]
            self.made += self.calls
        call = self.client.call
        with self.around():
            own, cpu, wall = time.thread_time(), time.process_time(), time.perf_counter()
            for conversation in conversations:
                await call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
            wall, cpu, own = time.perf_counter() - wall, time.process_time() - cpu, time.thread_time() - own
        return wall / self.calls, cpu / self.calls, own / self.calls


@dataclass(frozen=True)
class Overhead:
    """What a variant costs more than its base, in microseconds a call, or in units of another one.

    The processor's time is what counts: it is the process's, with the threads that export in the background, and
    without what others do on the same machine. On a quiet machine the wall's is the same.

    Attributes:
        least: Processor time, between the fastest block of each: noise can only add, so this is what repeats.
        median: Processor time, between the medians of all blocks.
        wall: Between the fastest blocks, by the clock on the wall.
        own: Between the fastest blocks, by the clock of the event loop's thread.
    """

    least: float
    median: float
    wall: float
    own: float

    @classmethod
    def of(cls, variant: Variant) -> Overhead:
        """Compare *variant* with its base."""
        base = variant.base
        return cls(
            (min(variant.cpu) - (min(base.cpu) if base else 0.0)) * 1e6,
            (median(variant.cpu) - (median(base.cpu) if base else 0.0)) * 1e6,
            (min(variant.wall) - (min(base.wall) if base else 0.0)) * 1e6,
            (min(variant.own) - (min(base.own) if base else 0.0)) * 1e6,
        )

    def ratio(self, unit: Overhead) -> Overhead:
        """Return this in units of *unit*."""
        return Overhead(self.least / unit.least, self.median / unit.median, self.wall / unit.wall, self.own / unit.own)


async def measure(variants: Sequence[Variant], rounds: int) -> None:
    """Fill in the times of *variants*: one block of each in every round, in an order that is drawn anew."""
    for variant in variants:
        for _ in range(3):  # the first block pays for what is made once; the last says how many calls fill a block
            wall, _, _ = await variant.block()
            variant.calls = max(2, min(5000, int(BLOCK_SECONDS / wall)))
    # What the imports and the warm-up left would make every collection slower, for all variants alike.
    gc.collect()
    gc.freeze()
    order = list(variants)
    for _ in range(rounds):
        random.shuffle(order)
        for variant in order:
            wall, cpu, own = await variant.block()
            variant.wall.append(wall)
            variant.cpu.append(cpu)
            variant.own.append(own)


async def typical(clients: Mapping[str, Any], rounds: int, *, repeated: bool = False) -> dict[str, float]:
    """Return what a call to each client takes by the clock on the wall, in microseconds, for what waits for others.

    It is the median of single calls, one after another, in the best of the rounds; the first round is not counted.
    """
    medians: dict[str, list[float]] = {name: [] for name in clients}
    order = list(clients)
    for number in range(rounds + 1):
        random.shuffle(order)
        for name in order:
            await asyncio.sleep(0.01)  # what calls have left to be done goes on, as it would between two requests
            taken: list[float] = []
            for each in range(SINGLE_CALLS):
                conversation = fresh(0 if repeated else number * SINGLE_CALLS + each)
                event = LLMEvent(conversation, "Benchmark")
                begun = time.perf_counter()
                await clients[name].call(conversation, OPTIONS, event)
                taken.append(time.perf_counter() - begun)
            medians[name].append(median(taken) * 1e6)
    return {name: min(found[1:]) for name, found in medians.items()}


def table(variants: Sequence[Variant], unit: Variant) -> str:
    """Return the overheads as text, in microseconds and in units of *unit*."""
    width = max(len(variant.name) for variant in variants)
    yard = Overhead.of(unit)
    lines = [
        f"{'':{width}}   {'us of processor':>15}   {'of wall':>7}   {'ratio to YARD':>15}",
        f"{'a call, over its base':{width}}   {'least':>7} {'median':>7}   {'least':>7}   {'least':>7} {'median':>7}",
    ]
    for variant in variants:
        own = Overhead.of(variant)
        line = f"{variant.name:{width}}   {own.least:7.2f} {own.median:7.2f}   {own.wall:7.2f}"
        if variant.base:
            ratio = own.ratio(yard)
            line += f"   {ratio.least:7.2f} {ratio.median:7.2f}"
        lines.append(line)
    return "\n".join(lines)


class Target(NamedTuple):
    """What was promised of a figure, and what was measured."""

    name: str
    value: float
    most: float
    unit: str = "us"

    @property
    def met(self) -> bool:
        """Whether it was kept."""
        return self.value <= self.most

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {self.value:,.4g} {self.unit}, target at most {self.most:,g}: {verdict}"


def judge(targets: Sequence[Target], *, check: bool) -> int:
    """Print all; return the status to exit with, 1 where one is missed and that is *checked*."""
    print(*targets, sep="\n")
    return int(check and not all(target.met for target in targets))


def versions(*packages: str) -> str:
    """Return the versions of Python and of *packages*, as text."""
    return ", ".join(
        (f"python {platform.python_version()}", *(f"{package} {version(package)}" for package in packages))
    )
