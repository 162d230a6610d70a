"""`Hedge`: asks once more when an answer is slow in coming, and takes the first that comes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import ClassVar

from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place


@dataclass(frozen=True, repr=False)
class Hedge(PlacedLayer):
    """Start another inference when there is no answer *after* so long; the first answer wins, the others are cancelled.

    It trades money for latency: what a cancelled one has cost by then is counted as wasted. An error does not win
    while another may still answer; where all fail, the caller gets the first one's error.

    Attributes:
        after: Seconds, or text such as "3s", from the beginning of the latest inference.
        max_extra: How many to start beside the first, at the most.
    """

    place: ClassVar[Place] = Place.HEDGE
    because: ClassVar[str] = "each of its inferences needs a budget, retries and a span of its own"
    twice: ClassVar[str] = "the inferences that the two start would multiply"

    after: Duration
    max_extra: int = 1

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        seconds(self.after, "Hedge(after=...)")
        check_count(self.max_extra, "Hedge.max_extra")

    def bind(self, client: Client) -> _Hedging:  # noqa: ARG002 - the same for all clients
        """Return the function that starts inferences."""
        return _Hedging(seconds(self.after, "Hedge(after=...)"), self.max_extra)


class _Hedging:
    def __init__(self, after: float, max_extra: int) -> None:
        self._after = after
        self._max_extra = max_extra

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(_run(inner(request)))]
        running = set(tasks)
        due = loop.time() + self._after
        try:
            while True:
                timeout = due - loop.time() if len(tasks) <= self._max_extra else None
                done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not task.cancelled() and task.exception() is None:
                        return task.result()
                if not running:
                    return tasks[0].result()  # all have failed
                if not done:
                    tasks.append(loop.create_task(_run(inner(request.replace(role="hedge")))))
                    running.add(tasks[-1])
                    due = loop.time() + self._after
        finally:
            for task in running:
                task.cancel()
            if running and not isinstance(sys.exception(), GeneratorExit):  # which allows no waiting
                # Their records belong to this call, and nothing may outlive it.
                await asyncio.gather(*running, return_exceptions=True)


async def _run(reply: Awaitable[Reply]) -> Reply:
    return await reply
