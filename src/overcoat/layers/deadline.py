"""`Deadline`: how long the caller waits for a call, with all its queueing, backoff and attempts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from overcoat.alarm import Alarm
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.errors import DeadlineExceeded
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place


@dataclass(frozen=True, repr=False)
class Deadline(PlacedLayer):
    """End a call *after* so long, with `DeadlineExceeded`; layers below clip their waits to what is left.

    Attributes:
        after: Seconds, or text such as "30s", from the beginning of the call.
    """

    place: ClassVar[Place] = Place.DEADLINE
    because: ClassVar[str] = "one clock must run over queueing, backoff and attempts alike"
    twice: ClassVar[str] = "the later of the two would never have an effect"

    after: Duration

    def __post_init__(self) -> None:
        """Check *after* where it was written."""
        seconds(self.after, "Deadline(after=...)")

    def bind(self, client: Client) -> _Ending:  # noqa: ARG002 - the same for all clients
        """Return the function that ends calls."""
        return _Ending(seconds(self.after, "Deadline(after=...)"))


class _Ending:
    def __init__(self, after: float) -> None:
        self._after = after

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + self._after
        if request.deadline is not None and request.deadline <= deadline:
            return await inner(request)  # the one outside comes first
        alarm = Alarm(loop, deadline)
        try:
            return await inner(request.by(deadline))
        except asyncio.CancelledError as error:
            if not alarm.rang_alone():
                raise
            raise DeadlineExceeded(self._after, loop.time() - started) from error
        finally:
            alarm.off()
