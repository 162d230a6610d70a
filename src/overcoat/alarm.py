"""A timer that cancels the current task, as `asyncio.timeout` does, for a third of its time."""

from __future__ import annotations

import asyncio


class Alarm:
    """Cancels the task that makes it, at a moment on the event loop's clock, unless it is turned off before.

    It is used so, and must be turned off in every case:

        alarm = Alarm(loop, when)
        try:
            result = await something()
        except asyncio.CancelledError as error:
            if not alarm.rang_alone():
                raise
            raise TimeoutError from error
        finally:
            alarm.off()

    `asyncio.timeout` is two coroutines and an object with five states; each attempt needs one, and so does each call.
    """

    __slots__ = ("_cancelling", "_handle", "_rang", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("a timer needs a task that it can cancel")
        self._task = task
        self._cancelling = task.cancelling()
        self._rang = False
        self._handle = loop.call_at(when, self._ring) if when > loop.time() else loop.call_soon(self._ring)

    def rang_alone(self) -> bool:
        """Say whether a cancellation that has come is this timer's, and nobody else's as well."""
        return self._rang and self._task.cancelling() <= self._cancelling + 1

    def off(self) -> None:
        """Turn it off; where it has rung, take its cancellation back, which is over now."""
        self._handle.cancel()
        if self._rang:
            self._rang = False
            self._task.uncancel()

    def _ring(self) -> None:
        self._rang = True
        self._task.cancel()
