"""`Alarm`: the same as `asyncio.timeout`, in all that can be seen of it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.alarm import Alarm
from overcoat.testing import run


class Limit:
    """`Alarm`, used as its documentation says."""

    def __init__(self, after):
        self.after = after

    async def around(self, coroutine):
        loop = asyncio.get_running_loop()
        alarm = Alarm(loop, loop.time() + self.after)
        try:
            return await coroutine
        except asyncio.CancelledError as error:
            if not alarm.rang_alone():
                raise
            raise TimeoutError from error
        finally:
            alarm.off()


class Standard(Limit):
    async def around(self, coroutine):
        async with asyncio.timeout(self.after):
            return await coroutine


async def work(seconds, ending):
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if ending == "swallow":
            return "swallowed"
        if ending == "slow":
            await asyncio.sleep(1)
        if ending == "error":
            raise ValueError from None
        raise
    if ending == "fail":
        raise KeyError
    return "done"


def observe(kind, inner, outer, seconds, ending, cancel_at, twice):
    """Run work under two limits, cancel it from outside, and return all that the caller can see."""

    async def main():
        clock = asyncio.get_running_loop().time

        async def nested():
            try:
                result = await kind(outer).around(kind(inner).around(work(seconds, ending)))
            except BaseException as error:  # noqa: BLE001 - what comes is the observation
                result = type(error)
            task = asyncio.current_task()
            seen = (result, clock(), task.cancelling())
            await asyncio.sleep(0)  # a cancellation that is left over would come here
            return seen

        task = asyncio.create_task(nested())
        if cancel_at is not None:
            await asyncio.sleep(cancel_at)
            task.cancel()
            if twice:
                task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "cancelled", clock()

    return run(main())


moments = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0])


@given(
    inner=moments,
    outer=moments,
    seconds=moments,
    ending=st.sampled_from(["", "swallow", "slow", "error", "fail"]),
    cancel_at=st.none() | moments,
    twice=st.booleans(),
)
def test_like_asyncio_timeout(inner, outer, seconds, ending, cancel_at, twice):
    arguments = (inner, outer, seconds, ending, cancel_at, twice)
    assert observe(Limit, *arguments) == observe(Standard, *arguments)


def test_without_a_task_there_is_nothing_to_cancel():
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(RuntimeError, match="needs a task"):
            Alarm(loop, 0.0)
    finally:
        loop.close()
