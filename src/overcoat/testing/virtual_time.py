"""An asyncio event loop whose clock jumps to the next timer instead of waiting for it."""

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any, NoReturn, TypeVar, TypeVarTuple

__all__ = ["DeadlockError", "VirtualTimeLoop", "run"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_Events = list[tuple[selectors.SelectorKey, int]]


class DeadlockError(RuntimeError):
    """Every task waits for something that can no longer happen."""


def run(main: Coroutine[Any, Any, _T], *, start: float = 0.0, debug: bool | None = None) -> _T:
    """`asyncio.run` in virtual time: leftover tasks are cancelled and async generators closed, as there.

    Args:
        main: The coroutine to run to its end.
        start: What the loop's clock says at first, in seconds.
        debug: asyncio's debug mode.

    Raises:
        DeadlockError: If nothing is ready or scheduled and no executor job is running while `main` is not done.
    """
    with asyncio.Runner(debug=debug, loop_factory=partial(VirtualTimeLoop, start)) as runner:
        return runner.run(main)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop on which `time()`, `asyncio.sleep` and `asyncio.timeout` take no time and are exact.

    After `sleep(1.5)` the clock says precisely 1.5 seconds more, and timers run in the order of their times. While jobs
    run in an executor (`asyncio.to_thread`, name resolution) the clock stands still and the loop waits for them, so
    that the speed of the machine never decides which timer comes first; a job that itself waits for the clock to move
    is a deadlock, told after `patience` real seconds. Sockets and threads of one's own are outside this world: nothing
    tells the loop that it should wait for them.

    Args:
        start: What the clock says at first, in seconds.
        patience: How many real seconds without any event to wait for executor jobs.
    """

    # Set by BaseEventLoop, from 3.4 to 3.14 at least: the heap of timers, and how far ahead of the clock one may run.
    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float

    def __init__(self, start: float = 0.0, *, patience: float = 30.0) -> None:
        self._patience = patience
        self._jobs = 0
        super().__init__(_Selector(self._poll))
        self._set(float(start))

    def time(self) -> float:
        """Seconds of virtual time."""
        return self._now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """Run a job in a thread; the clock stands still until its result is here or was given up."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the default executor's threads, in real time."""
        # asyncio waits for them by a thread that is no job of the executor's.
        self._jobs += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._jobs -= 1

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1

    def _set(self, now: float) -> None:
        self._now = now
        # The next float after `now`: no timer runs early, and unlike the real clock's 1e-9, which vanishes in the sum
        # beyond 97 days, it lets a due timer run at any time.
        self._clock_resolution = math.ulp(now)

    def _poll(self, select: Callable[[float | None], _Events], timeout: float | None) -> _Events:
        events = select(0)
        if events or timeout == 0:
            return events
        if self._jobs:
            return select(self._patience) or self._deadlock(
                f"{self._jobs} executor job(s) sent nothing for {self._patience:g} s of real time, "
                "through which the virtual clock stood still"
            )
        if timeout is None or self._scheduled[0].when() == math.inf:
            self._deadlock("nothing is ready, no timer is scheduled and no executor job is running")
        # Not now + timeout: the sum would be rounded, and the timeout is cut off at a day.
        self._set(self._scheduled[0].when())
        return events

    def _deadlock(self, why: str) -> NoReturn:
        waiting = sorted(map(repr, asyncio.all_tasks(self)))
        raise DeadlockError("\n  ".join([f"Deadlock at {self._now:g} s: {why}. Waiting:", *waiting]))


class _Selector(selectors.DefaultSelector):
    def __init__(self, poll: Callable[[Callable[[float | None], _Events], float | None], _Events]) -> None:
        super().__init__()
        self._poll = poll

    def select(self, timeout: float | None = None) -> _Events:
        return self._poll(super().select, timeout)
