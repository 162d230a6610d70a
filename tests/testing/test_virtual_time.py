"""The virtual-time loop against asyncio's own promises: order, exactness, cancellation, closing."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overcoat.testing import DeadlockError, VirtualTimeLoop, run

finite_delays = st.floats(min_value=0.0, max_value=1e9)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_year_takes_no_time() -> None:
    """The timer lies beyond asyncio's longest wait, which is a day."""
    began = time.perf_counter()

    async def main() -> float:
        await asyncio.sleep(365 * 86400)
        return now()

    assert run(main()) == 365 * 86400
    assert time.perf_counter() - began < 1.0


def test_the_result_and_the_error_of_main_are_the_callers() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("as it is")

    async def succeed() -> str:
        return "done"

    assert run(succeed()) == "done"
    with pytest.raises(LookupError, match="as it is"):
        run(fail())


@settings(deadline=None)  # real time decides nothing here
@given(start=st.floats(min_value=-1e12, max_value=1e12), delay=st.floats(min_value=0.0, max_value=1e12))
def test_a_sleep_ends_exactly_when_it_should(start: float, delay: float) -> None:
    """Exact to the last bit, and also where the clock is too large for asyncio's resolution of a nanosecond."""

    async def main() -> float:
        assert now() == start
        await asyncio.sleep(delay)
        return now()

    assert run(main(), start=start) == start + delay


@settings(deadline=None)
@given(delays=st.lists(finite_delays, max_size=30), start=finite_delays)
def test_wakeups_come_in_the_order_of_their_times(delays: list[float], start: float) -> None:
    """And each at its own time, however the sleeps were started."""
    woken: list[tuple[float, float]] = []

    async def sleeper(delay: float) -> None:
        await asyncio.sleep(delay)
        woken.append((now(), start + delay))

    async def main() -> None:
        await asyncio.gather(*map(sleeper, delays))

    run(main(), start=start)
    assert all(actual == expected for actual, expected in woken)
    assert [actual for actual, _ in woken] == sorted(start + delay for delay in delays)


@settings(deadline=None)
@given(limit=finite_delays, needed=finite_delays)
def test_a_timeout_fires_if_and_only_if_it_is_shorter(limit: float, needed: float) -> None:
    """The equal case is left to asyncio, whose heap does not order equal times."""

    async def main() -> str:
        try:
            async with asyncio.timeout(limit):
                await asyncio.sleep(needed)
        except TimeoutError:
            return "timeout"
        return "done"

    outcome = run(main())
    if limit != needed:
        assert outcome == ("timeout" if limit < needed else "done")


@settings(deadline=None)
@given(victims=st.lists(st.tuples(finite_delays, st.booleans()), max_size=20))
def test_cancelled_sleeps_do_not_move_the_clock(victims: list[tuple[float, bool]]) -> None:
    """The clock ends at the longest of the sleeps that were left alone."""

    async def main() -> float:
        tasks = [asyncio.create_task(asyncio.sleep(delay)) for delay, _ in victims]
        await asyncio.sleep(0)
        for task, (_, cancel) in zip(tasks, victims, strict=True):
            if cancel:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return now()

    assert run(main()) == max((delay for delay, cancel in victims if not cancel), default=0.0)


def test_a_deadlock_is_an_error_that_names_who_waits() -> None:
    async def main() -> None:
        await asyncio.sleep(1.5)
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match=r"(?s)Deadlock at 1\.5 s: nothing is ready.*main\(\)"):
        run(main())


def test_waiting_until_infinity_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.sleep(math.inf)

    with pytest.raises(DeadlockError):
        run(main())


def test_a_deadlocked_program_is_cleaned_up() -> None:
    """Both tasks see their cancellation, as under `asyncio.run`."""
    ended: list[str] = []

    async def wait(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait("one"))
            group.create_task(wait("two"))

    with pytest.raises(DeadlockError):
        run(main())
    assert sorted(ended) == ["one", "two"]


def test_leftover_tasks_are_cancelled_and_generators_closed() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            ended.append("task")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(10)
            ended.append("generator")

    async def main() -> None:
        kept.append(asyncio.create_task(forever()))
        iterator = numbers()
        generators.append(iterator)
        await anext(iterator)

    kept: list[asyncio.Task[None]] = []
    generators: list[AsyncIterator[int]] = []
    run(main())
    assert ended == ["task", "generator"]
    assert kept[0].cancelled()


def test_the_clock_stands_still_while_a_thread_works() -> None:
    """The timer of a virtual millisecond must not fire before a job that takes longer than that in reality."""
    order: list[str] = []
    release = threading.Event()

    def job() -> str:
        assert release.wait(10)
        return "done"

    async def timer() -> None:
        await asyncio.sleep(0.001)
        order.append("timer")

    async def work() -> None:
        result = asyncio.create_task(asyncio.to_thread(job))
        for _ in range(100):  # enough turns of the loop for a timer that is allowed to fire
            await asyncio.sleep(0)
        release.set()
        assert await result == "done"
        assert now() == 0.0
        order.append("thread")

    async def main() -> float:
        await asyncio.gather(timer(), work())
        return now()

    assert run(main()) == 0.001
    assert order == ["thread", "timer"]


def test_a_thread_alone_is_no_deadlock() -> None:
    """Neither while a job runs nor while jobs of one's own executor queue up."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(None, pow, 2, n) for n in range(50)))

    assert run(main()) == [2**n for n in range(50)]


def test_a_jobs_error_reaches_its_caller() -> None:
    async def main() -> float:
        with pytest.raises(ValueError, match=r"math domain error|nonnegative"):
            await asyncio.to_thread(math.sqrt, -1.0)
        await asyncio.sleep(60)
        return now()

    assert run(main()) == 60


def test_a_thread_can_call_back_into_the_loop() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()

        async def inside() -> str:
            return threading.current_thread().name

        return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(inside(), loop).result(10))

    assert run(main()) == threading.current_thread().name


def test_an_abandoned_job_does_not_hold_the_clock() -> None:
    """Its awaiter was cancelled: time goes on for the others, and closing waits for the thread."""
    release = threading.Event()
    ended = threading.Event()

    def job() -> None:
        assert release.wait(10)
        ended.set()

    async def main() -> float:
        abandoned = asyncio.create_task(asyncio.to_thread(job))
        await asyncio.sleep(0)
        abandoned.cancel()
        await asyncio.sleep(60)
        release.set()
        return now()

    assert run(main()) == 60
    assert ended.is_set()


def test_a_job_that_waits_for_the_clock_is_told_apart_from_a_slow_one() -> None:
    """The loop waits for the job and the job for the loop's timer."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def job() -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(1), loop).result()

        await asyncio.to_thread(job)

    with (
        asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience=0.05)) as runner,
        pytest.raises(DeadlockError, match=r"1 executor job\(s\) sent nothing for 0\.05 s"),
    ):
        runner.run(main())


def test_debug_mode_works_and_sees_no_slow_callbacks(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await asyncio.sleep(3600)

    run(main(), debug=True)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
