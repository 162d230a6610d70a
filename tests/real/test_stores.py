"""One suite for all stores: what the cache may rely on, whichever it is given, also where two processes share it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from overcoat.stores import Inspectable, Leases, Store
from overcoat.stores.memory import MemoryStore
from overcoat.stores.redis import RedisStore
from overcoat.stores.sqlite import SQLiteStore
from overcoat.testing import VirtualTimeLoop

from .parts import need

KINDS = ["memory", "sqlite", "redis"]
SHARED = ["sqlite", "redis"]


def patient(url):
    """The URL of a server that may take its time: the machine may be busy with other tests."""
    return f"{url}?socket_timeout=10"


@dataclass
class Kind:
    """A kind of store; each `make()` is the store of another process, as far as the store can see."""

    make: Callable[[], Store]
    namespace: str


@pytest.fixture
def kind(request, tmp_path):
    namespace = uuid.uuid4().hex  # Redis is shared with other tests
    if request.param == "memory":
        return Kind(lambda: MemoryStore(2**30), namespace)
    if request.param == "sqlite":
        return Kind(lambda: SQLiteStore(tmp_path / "answers.db"), namespace)
    need("redis")
    url = patient(request.getfixturevalue("redis_url"))
    return Kind(lambda: RedisStore(url), namespace)


every_store = pytest.mark.parametrize("kind", KINDS, indirect=True)
every_shared_store = pytest.mark.parametrize("kind", SHARED, indirect=True)


def with_stores(kind, main, count=1):
    async def run():
        stores = [kind.make() for _ in range(count)]
        try:
            return await main(*stores)
        finally:
            for store in stores:
                await store.close()

    return asyncio.run(run())


@every_store
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("key", b"value"),
        ("key", b""),
        ("key", bytes(range(256)) * 5000),
        ("", b"x"),
        ("k" * 1000, b"x"),
        ("{\u20ac:%} *", b"x"),
    ],
    ids=["plain", "empty", "large", "no key", "long key", "strange key"],
)
@pytest.mark.parametrize("name", ["", "{a}:entry:*?", "\u00e9 \u4e2d/\n\0"])
def test_what_was_set_comes_back(kind, key, value, name):
    async def main(store):
        namespace = kind.namespace + name
        assert await store.get(namespace, key) is None
        await store.set(namespace, key, value, 60)
        assert await store.get(namespace, key) == value
        assert await store.get(namespace, key + "2") is None
        await store.set(namespace, key, b"other", 60)
        assert await store.get(namespace, key) == b"other"
        await store.delete(namespace, key)
        await store.delete(namespace, key)
        assert await store.get(namespace, key) is None

    with_stores(kind, main)


@every_store
def test_namespaces_are_apart(kind):
    async def main(store):
        one, other = kind.namespace + "1", kind.namespace + "2"
        await store.set(one, "key", b"1", 60)
        await store.set(other, "key", b"2", 60)
        assert await store.get(one, "key") == b"1"
        await store.delete(one, "key")
        assert await store.get(one, "key") is None
        await store.set(one, "key", b"1", 60)
        await store.invalidate(one)
        assert [await store.get(one, "key"), await store.get(other, "key")] == [None, b"2"]

    with_stores(kind, main)


@every_store
def test_no_namespace_and_key_can_be_read_as_another(kind):
    """A tenant who may choose a namespace or a key must not reach another's by it."""

    async def main(store):
        places = [("a", "b:c"), ("a:b", "c"), ("a}:entry:b", "c"), ("a", "b}:entry:c"), ("a%7D", "c"), ("a}", "c")]
        for index, (namespace, key) in enumerate(places):
            await store.set(kind.namespace + namespace, key, bytes([index]), 60)
        found = [await store.get(kind.namespace + namespace, key) for namespace, key in places]
        assert found == [bytes([index]) for index in range(len(places))]

    with_stores(kind, main)


@every_store
def test_what_was_missed_before_an_invalidation_is_not_seen_after_it(kind):
    """An answer takes seconds to make; what it was made from is no longer true."""

    async def main(store):
        assert await store.get(kind.namespace, "key") is None
        await store.invalidate(kind.namespace)
        await store.set(kind.namespace, "key", b"of the world before", 60)
        assert await store.get(kind.namespace, "key") is None
        await store.set(kind.namespace, "key", b"of this one", 60)
        assert await store.get(kind.namespace, "key") == b"of this one"

    with_stores(kind, main)


@every_store
def test_a_thousand_at_once(kind):
    async def main(store):
        async def one(index):
            key, value = f"{index % 500}", str(index % 500).encode()
            if await store.get(kind.namespace, key) is None:
                await store.set(kind.namespace, key, value, 60)
            return await store.get(kind.namespace, key) == value

        assert all(await asyncio.gather(*map(one, range(1000))))

    with_stores(kind, main)


@every_store
def test_cancelled_calls_mix_nothing_up(kind):
    """A reply that nobody waited for must not become the reply to the next question."""

    async def main(store):
        for index in range(50):
            await store.set(kind.namespace, str(index), str(index).encode(), 60)
        for turn in range(20):
            tasks = [asyncio.ensure_future(store.get(kind.namespace, str(index))) for index in range(50)]
            for _ in range(turn):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            for index, value in enumerate(found):
                assert value == str(index).encode() or (isinstance(value, asyncio.CancelledError) and index % 2 == 0)

    with_stores(kind, main)


@every_store
def test_a_store_works_on_the_next_loop_too(kind):
    store = kind.make()

    async def main(index):
        await store.set(kind.namespace, "key", b"%d" % index, 60)
        return await store.get(kind.namespace, "key")

    assert [asyncio.run(main(index)) for index in range(3)] == [b"0", b"1", b"2"]
    asyncio.run(store.close())


@every_store
def test_a_closed_store_opens_again(kind):
    async def main(store):
        await store.close()
        await store.set(kind.namespace, "key", b"value", 60)
        assert await store.get(kind.namespace, "key") == b"value"
        await store.close()
        await store.close()
        assert await store.get(kind.namespace, "key") == (None if isinstance(store, MemoryStore) else b"value")

    with_stores(kind, main)


# --- Shared by processes ---


@every_shared_store
def test_processes_see_what_others_set_delete_and_invalidate(kind):
    async def main(one, other):
        await one.set(kind.namespace, "key", b"1", 60)
        assert await other.get(kind.namespace, "key") == b"1"
        await other.set(kind.namespace, "key", b"2", 60)
        assert await one.get(kind.namespace, "key") == b"2"
        await one.delete(kind.namespace, "key")
        assert await other.get(kind.namespace, "key") is None
        await other.set(kind.namespace, "key", b"3", 60)
        await one.invalidate(kind.namespace)
        assert await other.get(kind.namespace, "key") is None

    with_stores(kind, main, 2)


@every_shared_store
def test_what_another_process_was_about_to_set_is_not_seen(kind):
    async def main(one, other):
        for _ in range(2):  # an unknown namespace, and a known one
            assert await one.get(kind.namespace, "key") is None
            await other.invalidate(kind.namespace)
            await one.set(kind.namespace, "key", b"of the world before", 60)
            assert [await one.get(kind.namespace, "key"), await other.get(kind.namespace, "key")] == [None, None]
            await other.set(kind.namespace, "key", b"of this one", 60)
            assert await one.get(kind.namespace, "key") == b"of this one"
            await one.delete(kind.namespace, "key")

    with_stores(kind, main, 2)


@every_shared_store
def test_all_that_miss_at_first_may_set(kind):
    """The first that sets something must not be taken for an invalidation."""

    async def main(one, other):
        keys = [str(index) for index in range(20)]
        for key in keys:
            assert [await one.get(kind.namespace, key), await other.get(kind.namespace, key)] == [None, None]
        for key in keys:
            await one.set(kind.namespace, key, b"1", 60)
        assert [await other.get(kind.namespace, key) for key in keys] == [b"1"] * 20
        for key in keys:
            await other.set(kind.namespace, key, b"2", 60)
        assert [await one.get(kind.namespace, key) for key in keys] == [b"2"] * 20

    with_stores(kind, main, 2)


@every_shared_store
def test_a_lease_is_one_callers(kind):
    async def main(one, other):
        assert isinstance(one, Leases)
        tokens = await asyncio.gather(*(store.acquire(kind.namespace, "key", 60) for store in [one, other] * 50))
        (token,) = [token for token in tokens if token is not None]
        assert isinstance(await other.acquire(kind.namespace, "another", 60), str)
        assert isinstance(await other.acquire(kind.namespace + "2", "key", 60), str)
        await other.release(kind.namespace, "key", "not " + token)
        assert await other.acquire(kind.namespace, "key", 60) is None
        await other.release(kind.namespace, "key", token)
        again = await other.acquire(kind.namespace, "key", 60)
        assert again not in (None, token)
        await one.release(kind.namespace, "key", token)  # too late: it is the other's
        assert await one.acquire(kind.namespace, "key", 60) is None

    with_stores(kind, main, 2)


@every_shared_store
def test_everything_can_be_looked_into(kind):
    async def main(store):
        assert isinstance(store, Inspectable)
        strange = kind.namespace + "{\u20ac:%} *"
        await store.set(kind.namespace, "dead", b"1", 60)
        await store.invalidate(kind.namespace)
        for index in range(250):  # more than a page
            await store.set(kind.namespace, str(index), str(index).encode(), 60)
        await store.set(strange, "a:b", b"2", 60)
        found = {
            (entry.namespace, entry.key): (entry.value, entry.state)
            async for entry in store.scan()
            if entry.namespace.startswith(kind.namespace)
        }
        assert found.pop((kind.namespace, "dead")) == (b"1", "invalidated")
        assert found.pop((strange, "a:b")) == (b"2", "live")
        assert found == {(kind.namespace, str(index)): (str(index).encode(), "live") for index in range(250)}
        await store.compact()
        assert await store.get(strange, "a:b") == b"2"

    with_stores(kind, main)


# --- Against a model ---


class Machine(RuleBasedStateMachine):
    """Whatever is done to a store, it holds what a dict would."""

    keys = st.sampled_from("abc")
    names = st.sampled_from(["1", "2"])

    def __init__(self, store, namespace, do):
        super().__init__()
        self.store, self.namespace, self.do = store, namespace, do
        self.entries: dict[tuple[str, str], tuple[bytes, float]] = {}
        self.generations = {"1": 0, "2": 0}
        self.missed: dict[tuple[str, str], int] = {}
        self.now = 0.0

    def teardown(self):
        self.do(self.store.close())

    @rule(name=names, key=keys, value=st.binary(max_size=50), ttl=st.integers(1, 5))
    def set(self, name, key, value, ttl):
        self.do(self.store.set(self.namespace + name, key, value, ttl * 60))
        if self.missed.pop((name, key), self.generations[name]) == self.generations[name]:
            self.entries[name, key] = value, self.now + ttl * 60

    @rule(name=names, key=keys)
    def get(self, name, key):
        value, expires = self.entries.get((name, key), (None, 0))
        expected = value if self.now < expires else None
        if expected is None:
            self.missed.setdefault((name, key), self.generations[name])
        assert self.do(self.store.get(self.namespace + name, key)) == expected

    @rule(name=names, key=keys)
    def delete(self, name, key):
        self.do(self.store.delete(self.namespace + name, key))
        self.entries.pop((name, key), None)

    @rule(name=names)
    def invalidate(self, name):
        self.do(self.store.invalidate(self.namespace + name))
        self.generations[name] += 1
        self.entries = {place: entry for place, entry in self.entries.items() if place[0] != name}


class TimedMachine(Machine):
    @rule(minutes=st.integers(1, 3))
    def time_passes(self, minutes):
        self.do(asyncio.sleep(minutes * 60))
        self.now += minutes * 60


_steps = settings(max_examples=30, stateful_step_count=30, suppress_health_check=[HealthCheck.too_slow])


def test_the_store_in_memory_is_like_a_model():
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        run_state_machine_as_test(lambda: TimedMachine(MemoryStore(2**30), "n", runner.run), settings=_steps)


def test_the_store_in_a_file_is_like_a_model(tmp_path):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:

        def make():
            store = SQLiteStore(tmp_path / uuid.uuid4().hex, now=runner.get_loop().time)
            return TimedMachine(store, "n", runner.run)

        run_state_machine_as_test(make, settings=_steps)


def test_the_store_on_redis_is_like_a_model(redis_url):
    """Without time, which is the server's own."""
    need("redis")
    with asyncio.Runner() as runner:
        run_state_machine_as_test(
            lambda: Machine(RedisStore(patient(redis_url)), uuid.uuid4().hex, runner.run), settings=_steps
        )
