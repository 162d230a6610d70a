"""Measures calls against each other in one process and one event loop: short blocks, shuffled anew in every round."""

from __future__ import annotations

import gc
import platform
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from statistics import median
from typing import Any

from overcoat import LiteLLMOptions, LLMEvent

BLOCK_SECONDS = 0.015
"""Short, so that a machine that changes its pace does so between blocks; long enough for hundreds of calls."""

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
        around: Entered around each block, outside what is timed: for libraries that patch classes.
        wall: Seconds a call, block by block.
        cpu: The same, by the process's clock, with what background threads do for it.
    """

    name: str
    client: Any
    base: Variant | None = None
    repeated: bool = False
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    wall: list[float] = field(default_factory=list[float], repr=False)
    cpu: list[float] = field(default_factory=list[float], repr=False)
    calls: int = 8
    made: int = 0

    async def block(self) -> tuple[float, float]:
        """Make a block of calls and return its seconds of wall and of processor time, for one call."""
        if self.repeated:
            conversations = [fresh(0) for _ in range(self.calls)]
        else:
            conversations = [fresh(number) for number in range(self.made, self.made + self.calls)]
            self.made += self.calls
        call = self.client.call
        with self.around():
            cpu, wall = time.process_time(), time.perf_counter()
            for conversation in conversations:
                await call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall / self.calls, cpu / self.calls


@dataclass(frozen=True)
class Overhead:
    """What a variant costs more than its base, in microseconds a call, or in units of another one.

    The processor's time is what counts: it is the process's, with the threads that export in the background, and
    without what others do on the same machine. On a quiet machine the wall's is the same.

    Attributes:
        least: Processor time, between the fastest block of each: noise can only add, so this is what repeats.
        median: Processor time, between the medians of all blocks.
        wall: Between the fastest blocks, by the clock on the wall.
    """

    least: float
    median: float
    wall: float

    @classmethod
    def of(cls, variant: Variant) -> Overhead:
        """Compare *variant* with its base."""
        base = variant.base
        return cls(
            (min(variant.cpu) - (min(base.cpu) if base else 0.0)) * 1e6,
            (median(variant.cpu) - (median(base.cpu) if base else 0.0)) * 1e6,
            (min(variant.wall) - (min(base.wall) if base else 0.0)) * 1e6,
        )

    def ratio(self, unit: Overhead) -> Overhead:
        """Return this in units of *unit*."""
        return Overhead(self.least / unit.least, self.median / unit.median, self.wall / unit.wall)


async def measure(variants: Sequence[Variant], rounds: int) -> None:
    """Fill in the times of *variants*: one block of each in every round, in an order that is drawn anew."""
    for variant in variants:
        for _ in range(3):  # the first block pays for what is made once; the last says how many calls fill a block
            wall, _ = await variant.block()
            variant.calls = max(2, min(5000, int(BLOCK_SECONDS / wall)))
    # What the imports and the warm-up left would make every collection slower, for all variants alike.
    gc.collect()
    gc.freeze()
    order = list(variants)
    for _ in range(rounds):
        random.shuffle(order)
        for variant in order:
            wall, cpu = await variant.block()
            variant.wall.append(wall)
            variant.cpu.append(cpu)


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


def versions(*packages: str) -> str:
    """Return the versions of Python and of *packages*, as text."""
    return ", ".join(
        (f"python {platform.python_version()}", *(f"{package} {version(package)}" for package in packages))
    )
