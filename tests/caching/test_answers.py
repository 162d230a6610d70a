"""A store's failures, as a cache sees them: calls go through, a counter says how many failed, the log says it once."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from overcoat import Cache, LLMEvent, NotCached, Trace, cache_mode, capture, invalidate, stack
from overcoat.caching.answers import Answers
from overcoat.caching.failures import store_failures
from overcoat.errors import StoreUnavailable
from overcoat.stores.envelope import pack
from overcoat.stores.memory import MemoryStore
from overcoat.testing import InMemoryTelemetry, ScriptedClient, run


class Failing(MemoryStore):
    """A store that fails at what is in `down`."""

    def __init__(self, *down: str, error: type[Exception] = StoreUnavailable) -> None:
        super().__init__(2**20)
        self.down = set(down)
        self.error = error

    def check(self, operation):
        if operation in self.down:
            raise self.error("secret-host:6379 is down")

    async def get(self, namespace, key):
        self.check("get")
        return await super().get(namespace, key)

    async def set(self, namespace, key, value, ttl):
        self.check("set")
        await super().set(namespace, key, value, ttl)

    async def delete(self, namespace, key):
        self.check("delete")
        await super().delete(namespace, key)


async def ask(client, text="hello"):
    return await client.call([{"role": "user", "content": text}], None, LLMEvent([], "test"))


def warnings(caplog):
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


@pytest.fixture(autouse=True)
def _failures():
    store_failures.clear()


@pytest.mark.parametrize("error", [StoreUnavailable, OSError, TimeoutError, KeyError, RuntimeError])
def test_a_dead_store_is_a_miss_a_reason_and_a_counter(error, caplog):
    provider = ScriptedClient("hi")
    client = stack(provider, Cache(store=Failing("get", "set", error=error)))

    async def main():
        return [await ask(client) for _ in range(5)]

    with capture() as calls:
        assert run(main()) == ["hi"] * 5
    assert len(provider.calls) == 5
    assert {(call.cache.result, call.cache.reason) for call in calls} == {("miss", "store_failed")}
    assert store_failures == {("read",): 5, ("write",): 5}
    assert warnings(caplog) == [
        "the cache's store failed to read; calls go on without it",
        "the cache's store failed to write; calls go on without it",
    ]


def test_the_next_outage_is_told_again(caplog):
    caplog.set_level(logging.INFO)
    store = Failing("get")
    client = stack(ScriptedClient("hi"), Cache(store=store))

    async def main():
        for down in ({"get"}, {"get"}, set(), set(), {"get"}, {"get"}):
            store.down = down
            await ask(client)

    run(main())
    assert [record.message for record in caplog.records] == [
        "the cache's store failed to read; calls go on without it",
        "the cache's store can read again",
        "the cache's store failed to read; calls go on without it",
    ]


def test_what_can_be_read_and_not_written_is_told_once(caplog):
    """A full disk: each of its successes in reading must not make the next failure news."""
    client = stack(ScriptedClient("hi"), Cache(store=Failing("set")))

    async def main():
        for n in range(10):
            await ask(client, str(n))

    run(main())
    assert store_failures == {("write",): 10}
    assert len(warnings(caplog)) == 1


def test_the_counter_is_a_metric():
    telemetry = InMemoryTelemetry()
    trace = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    client = stack(ScriptedClient("hi"), trace, Cache(store=Failing("get", "set", "delete")))

    async def main():
        await ask(client)
        assert not await invalidate(calls[0])

    with capture() as calls:
        run(main())
    for operation in ("read", "write", "delete"):
        labels = {"overcoat.cache.store.operation": operation}
        assert telemetry.total("overcoat.cache.store.failures", labels) == 1
    assert telemetry.total("overcoat.cache.requests", {"overcoat.cache.reason": "store_failed"}) == 1


def test_only_if_cached_with_a_dead_store():
    provider = ScriptedClient("hi")

    async def main():
        with cache_mode("only-if-cached"), pytest.raises(NotCached):
            await ask(stack(provider, Cache(store=Failing("get"))))

    with capture() as calls:
        run(main())
    assert (calls[0].cache.reason, provider.calls) == ("store_failed", [])


def entry(key):
    return pack("stored", key=key, created=0, fresh_until=9e9, fields={}, usage=None, cost=None, span=None)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda value: b"garbage", "foreign"),
        (lambda value: b"", "foreign"),
        (lambda value: value[:2] + b"\x01" + value[3:], "version"),
        (lambda value: value[:-1], "altered"),
        (lambda value: value[:20] + b"\0" + value[21:], "altered"),
        (lambda value: entry("another"), "wrong_key"),
    ],
)
def test_what_is_no_answer_is_a_miss_that_says_why(spoil, reason):
    """And the new answer takes its place."""
    store = MemoryStore(2**20)
    provider = ScriptedClient("old", "new")
    client = stack(provider, Cache(store=store))

    async def main():
        await ask(client)
        (key,) = (key for _, key in store._entries)
        await store.set("", key, spoil(await store.get("", key)), 3600)
        return [await ask(client), await ask(client)]

    with capture() as calls:
        assert run(main()) == ["new", "new"]
    assert [(call.cache.result, call.cache.reason) for call in calls] == [
        ("miss", None),
        ("miss", reason),
        ("hit", None),
    ]


def test_a_store_that_is_cancelled_does_not_swallow_it():
    class Hanging(MemoryStore):
        async def get(self, namespace, key):
            await asyncio.sleep(3600)

    client = stack(ScriptedClient("hi"), Cache(store=Hanging(2**20)))

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await ask(client)
        assert len(asyncio.all_tasks()) == 1
        assert not client.bound[0].function._flights

    with capture() as calls:
        run(main())
    assert calls[0].outcome == "cancelled"
    assert not store_failures


@pytest.mark.parametrize("value", ["text", 7, memoryview(b"x"), object()])
def test_a_store_that_returns_something_else_than_bytes(value):
    class Odd(MemoryStore):
        async def get(self, namespace, key):
            return value

    with capture() as calls:
        assert run(ask(stack(ScriptedClient("hi"), Cache(store=Odd(2**20))))) == "hi"
    assert calls[0].cache.reason == "store_failed"


@pytest.mark.parametrize("down", [False, True])
def test_a_write_that_is_cancelled_is_tried_once_more_and_stays_cancelled(down):
    tries = []

    class Slow(MemoryStore):
        async def set(self, namespace, key, value, ttl):
            tries.append(key)
            await asyncio.sleep(1)
            if down:
                raise StoreUnavailable("down")
            await super().set(namespace, key, value, ttl)

    async def main():
        store = Slow(2**20)
        task = asyncio.create_task(Answers(store).keep("", "key", b"value", 60))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return len(store)

    assert run(main()) == (0 if down else 1)
    assert len(tries) == 2


def test_stores_by_their_names():
    assert type(Cache().bind(ScriptedClient("x"))._answers._store) is MemoryStore
    with pytest.raises(ValueError, match="no store is called"):
        Cache(store="memcached://host").bind(ScriptedClient("x"))
    assert "secret" not in repr(Cache(store="redis://:secret@host:6379/0"))


def test_the_counter_of_a_process_is_in_every_export():
    readers = [InMemoryMetricReader() for _ in range(2)]
    providers = [MeterProvider([reader], shutdown_on_exit=False) for reader in readers]
    for provider in providers:
        run(ask(stack(ScriptedClient("hi"), Trace(meter_provider=provider), Cache(store=Failing("get")))))
    for reader in readers:
        metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
        (failures,) = (metric for metric in metrics if metric.name == "overcoat.cache.store.failures")
        assert sum(point.value for point in failures.data.data_points) == 2
