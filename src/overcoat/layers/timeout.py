"""`Timeout`: how long one attempt may take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from overcoat.alarm import Alarm
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.errors import AttemptTimeout
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place


@dataclass(frozen=True, repr=False)
class Timeout(PlacedLayer):
    """Cancel an attempt that takes longer than *after*, with `AttemptTimeout`, which `Retry` may retry.

    The clock starts when the attempt does: time in queues and backoff does not count.

    Attributes:
        after: Seconds, or text such as "20s".
    """

    place: ClassVar[Place] = Place.TIMEOUT
    because: ClassVar[str] = "it bounds one request to the provider, not what is around it"
    twice: ClassVar[str] = "the longer of the two would never have an effect"

    after: Duration

    def __post_init__(self) -> None:
        """Check *after* where it was written."""
        seconds(self.after, "Timeout(after=...)")

    def bind(self, client: Client) -> _TimingOut:  # noqa: ARG002 - the same for all clients
        """Return the function that times attempts."""
        return _TimingOut(seconds(self.after, "Timeout(after=...)"))


class _TimingOut:
    def __init__(self, after: float) -> None:
        self._after = after

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        loop = asyncio.get_running_loop()
        when = loop.time() + self._after
        if request.deadline is not None and request.deadline <= when:
            return await inner(request)  # the deadline's own timer comes first, and a second one would race with it
        alarm = Alarm(loop, when)
        try:
            return await inner(request.by(when))  # for the SDK's own timeout
        except asyncio.CancelledError as error:
            if not alarm.rang_alone():
                raise
            raise AttemptTimeout(self._after) from error
        finally:
            alarm.off()
