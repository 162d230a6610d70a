"""What steers caches from outside: it holds for its context, and nothing else is taken for it."""

from __future__ import annotations

import asyncio

import pytest

from overcoat import LLMEvent, cache_mode, cache_sample, capture, invalidate, stack
from overcoat.caching.controls import current_mode, current_sample
from overcoat.testing import ScriptedClient


def test_modes_and_samples_nest_and_end():
    with cache_mode("refresh"), cache_sample(3):
        with cache_mode("bypass"), cache_sample(0):
            assert (current_mode(), current_sample()) == ("bypass", 0)
        assert (current_mode(), current_sample()) == ("refresh", 3)
    assert (current_mode(), current_sample()) == ("default", None)


def test_they_follow_into_tasks_that_are_started_inside():
    async def main():
        async def look():
            return current_mode()

        with cache_mode("refresh"):
            task = asyncio.create_task(look())
        return await task, await look()

    assert asyncio.run(main()) == ("refresh", "default")


@pytest.mark.parametrize("mode", ["no-cache", "only_if_cached", "", None])
def test_no_other_mode(mode):
    with pytest.raises(
        ValueError, match=r"cache_mode\(.*\): expected one of 'default', 'bypass', 'refresh', 'only-if-cac"
    ):
        cache_mode(mode).__enter__()


@pytest.mark.parametrize("index", [-1, 1.0, True, "1", None])
def test_no_other_sample(index):
    with pytest.raises(ValueError, match=r"cache_sample\(index=.*\): expected a whole number of at least 0"):
        cache_sample(index).__enter__()


def test_a_call_without_a_cache_has_nothing_to_invalidate():
    async def main():
        with capture() as calls:
            await stack(ScriptedClient("hi")).call([{"role": "user", "content": "hi"}], None, LLMEvent([], "test"))
        return await invalidate(calls[0])

    assert asyncio.run(main()) is False
