"""Holds the store in memory to its times, its order and its ceiling, in virtual time and against a simple model."""

from __future__ import annotations

import asyncio
import gc
import math
import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overcoat.stores.memory import _OVERHEAD, MemoryStore
from overcoat.testing import VirtualTimeLoop, run

ROOMY = 2**30
NS = "namespace"


@given(st.floats(1e-6, 1e9), st.floats(0, 1e9))
def test_an_entry_lives_exactly_as_long_as_its_ttl(ttl, start):
    """Up to the last moment before, and not at the moment itself: a TTL of 1 s is never a second and a bit."""

    async def main():
        loop, store = asyncio.get_running_loop(), MemoryStore(ROOMY)
        end = loop.time() + ttl
        await store.set(NS, "key", b"value", ttl)
        if (last := math.nextafter(end, 0)) > loop.time():
            await until(last)
            assert await store.get(NS, "key") == b"value"
        await until(end)
        assert await store.get(NS, "key") is None
        assert (len(store), store.size) == (0, 0)

    async def until(moment):
        loop = asyncio.get_running_loop()
        passed = loop.create_future()
        loop.call_at(moment, passed.set_result, None)
        await passed
        assert loop.time() == moment

    run(main(), start=start)


def test_writing_again_begins_a_new_life():
    """In litellm, a live key that is written keeps its old end."""

    async def main():
        store = MemoryStore(ROOMY)
        await store.set(NS, "key", b"old", 10)
        await asyncio.sleep(9)
        await store.set(NS, "key", b"new", 10)
        await asyncio.sleep(9)
        assert await store.get(NS, "key") == b"new"
        assert (len(store), store.size) == (1, 3 + _OVERHEAD)

    run(main())


def test_reading_does_not_prolong_a_life():
    async def main():
        store = MemoryStore(ROOMY)
        await store.set(NS, "key", b"value", 10)
        for _ in range(9):
            await asyncio.sleep(1)
            assert await store.get(NS, "key") is not None
        await asyncio.sleep(1)
        assert await store.get(NS, "key") is None

    run(main())


def test_the_least_recently_used_goes_first():
    async def main():
        store = MemoryStore(2 * (_OVERHEAD + 1))
        await store.set(NS, "a", b"1", 10)
        await store.set(NS, "b", b"2", 10)
        await store.get(NS, "a")
        await store.set(NS, "c", b"3", 10)
        assert [await store.get(NS, key) for key in "abc"] == [b"1", None, b"3"]

    run(main())


def test_one_large_value_may_push_out_many():
    async def main():
        store = MemoryStore(10 * _OVERHEAD)
        for index in range(9):
            await store.set(NS, str(index), b"", 10)
        await store.set(NS, "large", bytes(8 * _OVERHEAD), 10)
        assert [await store.get(NS, str(index)) for index in range(9)] == [None] * 8 + [b""]
        assert store.size == store._max_bytes

    run(main())


@pytest.mark.parametrize(("spare", "kept"), [(0, b"new"), (-1, None)])
def test_a_value_larger_than_the_store_is_not_kept(spare, kept):
    """What it should have replaced is gone as well, since it is no longer true; the rest is left alone."""

    async def main():
        store = MemoryStore(2 * _OVERHEAD + 8 + spare)
        await store.set(NS, "key", b"old", 10)
        await store.set(NS, "other", b"x", 10)
        value = bytes(_OVERHEAD + 8)
        await store.set(NS, "key", value, 10)
        assert await store.get(NS, "key") == (value if kept else None)
        if not kept:
            assert await store.get(NS, "other") == b"x"

    run(main())


def test_deleting_what_is_not_there():
    async def main():
        store = MemoryStore(ROOMY)
        await store.delete(NS, "key")
        await store.set(NS, "key", b"value", 10)
        await store.delete(NS, "key")
        await store.delete(NS, "key")
        assert await store.get(NS, "key") is None
        assert (len(store), store.size) == (0, 0)

    run(main())


def test_a_store_too_small_for_anything_keeps_nothing():
    async def main():
        store = MemoryStore(1)
        await store.set(NS, "key", b"", 10)
        assert await store.get(NS, "key") is None

    run(main())


def test_the_ceiling_holds_for_many_distinct_entries():
    """Ten thousand requests that nobody repeats must not grow the process without a bound."""

    async def main():
        store = MemoryStore(100_000)
        for index in range(10_000):
            await store.set(NS, f"{index:064x}", bytes(index % 200), 3600)
            assert store.size <= 100_000
        assert len(store) > 150
        assert await store.get(NS, f"{9_999:064x}") is not None

    run(main())


@pytest.mark.parametrize("length", [0, 100, 2_000])
def test_the_size_is_what_the_entries_take(length):
    """`max_bytes` is a promise about the process: neither much more than is said, nor half of it wasted."""

    async def main():
        store = MemoryStore(ROOMY)
        for index in range(10_000):
            await store.set(NS, f"{index:064x}", bytes(length), 3600)
        return store

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        store = run(main())
        gc.collect()  # of what the run left, which is not the store's
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == 10_000
    assert 0.7 < (after - before) / store.size <= 1.05


def test_an_entry_that_another_thread_drops_meanwhile_is_a_hit_all_the_same():
    """A hit takes no lock; between finding the entry and moving it up, it may go."""

    class Dropping(OrderedDict):
        def move_to_end(self, key, *, last=True):
            del self[key]
            super().move_to_end(key, last)

    async def main():
        store = MemoryStore(ROOMY)
        store._entries = Dropping()
        await store.set(NS, "key", b"value", 10)
        assert await store.get(NS, "key") == b"value"
        assert await store.get(NS, "key") is None

    run(main())


class AgainstAModel(RuleBasedStateMachine):
    """Whatever is done to it, the store holds what a plain list would, in the order of use."""

    CEILING = 4 * (_OVERHEAD + 10)

    keys = st.sampled_from("abcdefg")
    times = st.integers(1, 5)

    def __init__(self):
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.store = MemoryStore(self.CEILING)
        self.entries: list[tuple[str, bytes, float]] = []  # the least recently used first

    def teardown(self):
        self.loop.close()

    def removed(self, key):
        for entry in self.entries:
            if entry[0] == key:
                self.entries.remove(entry)
                return entry
        return None

    def used(self):
        return sum(len(value) + _OVERHEAD for _, value, _ in self.entries)

    @rule(key=keys, length=st.integers(0, 2 * _OVERHEAD) | st.just(CEILING - _OVERHEAD + 1), ttl=times)
    def set(self, key, length, ttl):
        value = bytes(length)
        self.loop.run_until_complete(self.store.set(NS, key, value, ttl))
        self.removed(key)
        if length + _OVERHEAD <= self.CEILING:
            self.entries.append((key, value, self.loop.time() + ttl))
        while self.used() > self.CEILING:
            del self.entries[0]

    @rule(key=keys)
    def get(self, key):
        expected = None
        if (entry := self.removed(key)) and self.loop.time() < entry[2]:
            expected = entry[1]
            self.entries.append(entry)
        assert self.loop.run_until_complete(self.store.get(NS, key)) == expected

    @rule(key=keys)
    def delete(self, key):
        self.removed(key)
        self.loop.run_until_complete(self.store.delete(NS, key))

    @rule(seconds=times)
    def time_passes(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @invariant()
    def same_entries_in_the_same_order(self):
        held = [(key, value) for (_, key), (_, value) in self.store._entries.items()]
        assert held == [entry[:2] for entry in self.entries]

    @invariant()
    def size_is_the_sum_and_under_the_ceiling(self):
        assert self.store.size == self.used() <= self.CEILING
        assert len(self.store) == len(self.entries)


TestAgainstAModel = AgainstAModel.TestCase
