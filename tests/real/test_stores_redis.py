"""Holds the store on Redis to one round trip, and to costing next to nothing while its server is down or hangs."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import traceback
import uuid
from contextlib import asynccontextmanager, closing

import pytest

from overcoat.cli import main
from overcoat.errors import StoreUnavailable
from overcoat.stores import outage
from overcoat.stores.envelope import pack
from overcoat.stores.redis import RedisStore, _entry_name, _generation_name
from overcoat.stores.redis_client import RedisClient

from .parts import missing, need
from .redis_server import find_binary, free_port, running_redis

need("redis")

from redis.asyncio import Redis  # noqa: E402 - where it is present

MARGIN = 10
"""Times as long as it should take: the machine may be busy with other tests."""


@pytest.fixture
def namespace():
    """The server is shared with other tests."""
    return uuid.uuid4().hex


@pytest.fixture
def patient_url(redis_url):
    """For tests that are not of time: a busy machine may take longer than a store would wait."""
    return f"{redis_url}?socket_timeout=10"


@asynccontextmanager
async def opened(url):
    """A store, and a client beside it that does what should not be done."""
    store, other = RedisStore(url), Redis.from_url(url)
    try:
        yield store, other
    finally:
        await store.close()
        await other.aclose()


async def failing(store, namespace):
    """Ask a store that cannot answer; return what it said and the seconds that it took."""
    began = time.perf_counter()
    with pytest.raises(StoreUnavailable) as failed:
        await store.get(namespace, "key")
    return failed.value, time.perf_counter() - began


# --- What it says to the server ---


def test_a_look_up_and_an_answer_are_a_round_trip_each(patient_url, namespace):
    """After the first of a namespace, which begins it."""

    async def main():
        async with opened(patient_url) as (store, other), other.monitor() as monitor:
            await store.get(namespace, "first")
            said = []
            await store.get(namespace, "key")
            await store.set(namespace, "key", b"value", 60)
            assert await store.get(namespace, "key") == b"value"
            await store.get(namespace, "end")
            async for command in monitor.listen():
                said.append(command["command"].split()[0])
                if f"{namespace}}}:entry:end" in command["command"]:
                    break
            return [word for word in said if word not in ("CLIENT", "HELLO", "SELECT")]

    assert asyncio.run(main()) == ["MGET", "SET", "GET", "MGET", "SET", "MGET", "MGET"]


@pytest.mark.parametrize(("ttl", "least", "most"), [(60, 50_000, 60_000), (0.5, 0, 500), (1e300, 3e12, 3.2e12)])
def test_the_server_has_the_ttl(patient_url, namespace, ttl, least, most):
    async def main():
        async with opened(patient_url) as (store, other):
            await store.set(namespace, "key", b"value", ttl)
            assert least <= await other.pttl(_entry_name(namespace, "key")) <= most
            token = await store.acquire(namespace, "key", ttl)
            (lease,) = await other.keys(f"overcoat:cache:{{{namespace}}}:lease:*")
            assert least <= await other.pttl(lease) <= most
            assert await other.get(lease) == token.encode()

    asyncio.run(main())


def test_a_ttl_below_a_millisecond_is_one(patient_url, namespace):
    async def main():
        async with opened(patient_url) as (store, _):
            await store.set(namespace, "key", b"value", 1e-9)  # Redis refuses 0

    asyncio.run(main())


# --- What else may lie there ---


def test_what_is_no_entry_is_a_miss_and_is_replaced(patient_url, namespace):
    async def main():
        async with opened(patient_url) as (store, other):
            await store.set(namespace, "key", b"value", 60)
            generation = await other.get(_generation_name(namespace))
            for garbage in (b"", b"garbage", generation[:-1], bytes(16) + b"value"):
                await other.set(_entry_name(namespace, "key"), garbage)
                assert await store.get(namespace, "key") is None
            await other.delete(_entry_name(namespace, "key"))
            await other.lpush(_entry_name(namespace, "key"), "wrong type")
            assert await store.get(namespace, "key") is None
            assert [entry async for entry in store.scan() if entry.namespace == namespace] == []
            await store.set(namespace, "key", b"value", 60)
            assert await store.get(namespace, "key") == b"value"

    asyncio.run(main())


def test_a_generation_of_the_wrong_type_is_said_and_invalidation_mends_it(patient_url, namespace):
    async def main():
        async with opened(patient_url) as (store, other):
            await store.set(namespace, "key", b"value", 60)
            await other.delete(_generation_name(namespace))
            await other.lpush(_generation_name(namespace), "wrong type")
            for ask in (store.get(namespace, "key"), store.set(namespace, "key", b"value", 60)):
                with pytest.raises(StoreUnavailable, match="ResponseError"):
                    await ask
            await store.invalidate(namespace)
            assert await store.get(namespace, "key") is None
            await store.set(namespace, "key", b"value", 60)
            assert await store.get(namespace, "key") == b"value"

    asyncio.run(main())


@pytest.mark.parametrize("garbage", [b"", b"x", b"x" * 17])
def test_a_generation_that_is_none_is_a_miss(patient_url, namespace, garbage):
    async def main():
        async with opened(patient_url) as (store, other):
            await other.set(_generation_name(namespace), garbage)
            await other.set(_entry_name(namespace, "key"), garbage + b"x" * 20)
            assert await store.get(namespace, "key") is None

    asyncio.run(main())


@pytest.mark.parametrize("lost", ["everything", "the generation"])
def test_what_the_server_forgets_brings_nothing_back(patient_url, namespace, lost):
    """A server that runs out of memory throws away what it likes: a generation that began at 0 again would be fatal."""

    async def main():
        async with opened(patient_url) as (store, other):
            await store.set(namespace, "old", b"of the world before", 60)
            assert await store.get(namespace, "slow") is None
            await store.invalidate(namespace)
            names = await other.keys(f"overcoat:cache:{{{namespace}}}:*")
            await other.delete(*(names if lost == "everything" else [_generation_name(namespace)]))
            assert await store.get(namespace, "old") is None
            await store.set(namespace, "slow", b"of the world before", 60)
            assert await store.get(namespace, "slow") is None
            await store.set(namespace, "old", b"new", 60)
            assert [await store.get(namespace, "old"), await store.get(namespace, "slow")] == [b"new", None]

    asyncio.run(main())


# --- Servers that are not there ---


@pytest.fixture
def quick_probes(monkeypatch):
    """The pause after a failure is over at once, so that no test waits for it."""
    monkeypatch.setattr(outage, "_FIRST_PAUSE", 0.0)


def test_a_server_that_is_down_costs_one_call_next_to_nothing_and_the_others_less(namespace):
    async def main():
        store = RedisStore(f"redis://127.0.0.1:{free_port()}/0")
        error, seconds = await failing(store, namespace)
        assert "ConnectionError" in str(error)
        assert seconds < 0.25 * MARGIN
        began = time.perf_counter()
        for _ in range(1000):
            error, _ = await failing(store, namespace)
        assert time.perf_counter() - began < 0.25 * MARGIN
        assert "left alone" in str(error)

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 1000])
def test_a_server_that_says_nothing_costs_a_fifth_of_a_second_once(namespace, count):
    """It accepts connections, as a machine does whose program hangs."""

    async def main(port):
        store = RedisStore(f"redis://127.0.0.1:{port}/0")
        began = time.perf_counter()
        calls = [failing(store, namespace) for _ in range(count)]
        results = await asyncio.gather(*calls)
        assert 0.15 < time.perf_counter() - began < 0.25 * MARGIN
        waited = [error for error, _ in results if "did not answer within 0.2 s" in str(error)]
        assert 1 <= len(waited) <= max(1, count // 20), "all others are told at once"
        _, seconds = await failing(store, namespace)
        assert seconds < 0.02 * MARGIN

    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        asyncio.run(main(server.getsockname()[1]))


def test_a_server_that_begins_to_hang_and_comes_back(redis_url, namespace, quick_probes):
    async def main():
        async with opened(redis_url) as (store, other):
            await store.set(namespace, "key", b"value", 60)
            await other.client_pause(600)
            try:
                _, seconds = await failing(store, namespace)
            finally:
                await other.ping()  # which is answered when the pause is over
            assert 0.15 < seconds < 0.25 * MARGIN
            assert await store.get(namespace, "key") == b"value"

    asyncio.run(main())


def test_who_is_further_away_may_have_more_time(redis_url, namespace):
    async def main():
        async with opened(f"{redis_url}?socket_timeout=0.02") as (store, _), opened(redis_url) as (_, other):
            await other.client_pause(600)
            try:
                error, _ = await failing(store, namespace)
            finally:
                await other.ping()
        assert "did not answer within 0.02 s" in str(error)

    asyncio.run(main())


def test_a_server_that_starts_again_is_found_again(tmp_path, namespace, quick_probes):
    binary = find_binary() or missing("there is no redis-server")
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"

    async def main():
        store = RedisStore(url)
        await failing(store, namespace)
        with running_redis(binary, tmp_path, port):
            await store.set(namespace, "key", b"1", 60)
            assert await store.get(namespace, "key") == b"1"
        await failing(store, namespace)
        await failing(store, namespace)
        with running_redis(binary, tmp_path, port):
            assert await store.get(namespace, "key") is None
            await store.set(namespace, "key", b"2", 60)
            assert await store.get(namespace, "key") == b"2"
        with running_redis(binary, tmp_path, port):  # while nobody asked: a stale connection is no outage
            for _ in range(3):
                await asyncio.sleep(0)  # until the loop has heard that it is closed
            assert await store.get(namespace, "key") is None
        await store.close()

    asyncio.run(main())


def test_a_server_that_wants_a_password(tmp_path, namespace, quick_probes):
    binary = find_binary() or missing("there is no redis-server")

    async def main(url):
        async with opened(url) as (_, other):
            await other.config_set("requirepass", "geheim")
        for wrong in (url, url.replace("//", "//:geheimer@")):
            store = RedisStore(wrong)
            error, _ = await failing(store, namespace)
            assert "Auth" in "".join(traceback.format_exception(error))
            assert "geheim" not in "".join(traceback.format_exception(error))
            await store.close()
        async with opened(url.replace("//", "//:geheim@")) as (store, _):
            await store.set(namespace, "key", b"value", 60)
            assert await store.get(namespace, "key") == b"value"

    with running_redis(binary, tmp_path) as url:
        asyncio.run(main(url))


def test_a_server_that_repeats_the_password(namespace):
    """As Redis repeats the arguments of a command that it does not know; what is raised may be logged."""

    async def talk(reader, writer):
        while await reader.read(1000):
            writer.write(b"-ERR unknown command `AUTH`, with args beginning with: `geheim`\r\n")
        writer.close()

    async def main():
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            store = RedisStore(f"redis://:geheim@127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
            error, _ = await failing(store, namespace)
            shown = "".join(traceback.format_exception(error))
            await store.close()
        assert "ResponseError" in shown
        assert "geheim" not in shown

    asyncio.run(main())


def test_a_server_that_is_none(namespace):
    """Garbage is a failure, and not an answer."""

    async def talk(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main():
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            store = RedisStore(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
            await failing(store, namespace)
            await store.close()

    asyncio.run(main())


# --- The client ---


def test_a_refusal_is_no_outage(patient_url, namespace):
    async def main():
        client = RedisClient(patient_url)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="ResponseError"):
                await client.run(lambda redis: redis.execute_command("NONSENSE"))
        assert await client.run(lambda redis: redis.ping())
        await client.close()

    asyncio.run(main())


def test_a_mistake_in_a_command_is_the_callers(patient_url):
    async def main():
        client = RedisClient(patient_url)

        async def mistaken(redis):
            raise KeyError

        with pytest.raises(KeyError):
            await client.run(mistaken)
        assert await client.run(lambda redis: redis.ping())
        await client.close()

    asyncio.run(main())


def test_a_cancelled_call_is_no_outage_and_ends_at_once(patient_url, namespace):
    async def main():
        async with opened(patient_url) as (store, other):
            await store.get(namespace, "key")
            await other.client_pause(600)
            try:
                call = asyncio.ensure_future(store.get(namespace, "key"))
                await asyncio.sleep(0)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            finally:
                await other.ping()  # which is answered when the pause is over
            assert await store.get(namespace, "key") is None

    asyncio.run(main())


def test_a_blocked_loop_is_no_outage(redis_url, namespace):
    """What an application does on its loop, such as importing litellm, says nothing of the server."""

    async def main():
        async with opened(f"{redis_url}?socket_timeout=1") as (store, _):
            assert await store.get(namespace, "key") is None
            calls = [asyncio.ensure_future(store.get(namespace, "key")) for _ in range(5)]
            await asyncio.sleep(0)
            time.sleep(1.1)  # noqa: ASYNC251 - which blocks the loop
            await asyncio.gather(*calls, return_exceptions=True)
            assert await store.get(namespace, "key") is None

    asyncio.run(main())


def test_a_loop_that_ends_closes_its_connections(patient_url, namespace):
    """Without `close()`: what is left open would be a ResourceWarning, which fails this test."""
    store = RedisStore(patient_url)

    async def main():
        await asyncio.gather(*(store.get(namespace, str(index)) for index in range(100)))
        assert len(store._client._loops) == 1

    for _ in range(3):
        asyncio.run(main())
        assert store._client._loops == {}


def test_a_loop_that_was_ended_roughly_is_forgotten(patient_url, namespace):
    store = RedisStore(patient_url)
    rough = asyncio.new_event_loop()
    rough.run_until_complete(store.get(namespace, "key"))
    (connections,) = store._client._loops.values()
    rough.run_until_complete(connections.redis.aclose())  # else asyncio complains of its sockets
    rough.close()

    async def main():
        assert await store.get(namespace, "key") is None
        assert list(store._client._loops) == [asyncio.get_running_loop()]

    asyncio.run(main())


def test_few_connections_serve_many(patient_url, namespace):
    async def main():
        async with opened(patient_url) as (store, other):
            before = len(await other.client_list())
            await asyncio.gather(*(store.get(namespace, str(index)) for index in range(1000)))
            assert len(await other.client_list()) - before <= 10

    asyncio.run(main())


def test_the_command_looks_into_it_and_tidies_up(patient_url, namespace, capsys):
    value = pack(
        "The secret answer",
        key="key",
        created=time.time(),
        fresh_until=time.time() + 60,
        fields={},
        usage=None,
        cost=None,
        span=None,
    )

    async def fill():
        async with opened(patient_url) as (store, _):
            await store.set(namespace, "dead", value, 60)
            await store.invalidate(namespace)
            await store.set(namespace, "key", value, 60)
            await store.set(namespace + "2", "key", value, 60)

    def read(*arguments):
        assert main(["cache", *arguments, patient_url, "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    asyncio.run(fill())
    (found,) = read("stats", "--namespace", namespace)
    assert (found["entries"], found["fresh"], found["invalidated"]) == (2, 1, 1)
    assert read("show", "key", "--namespace", namespace, "--content")["text"] == "The secret answer"
    assert read("purge", "--namespace", namespace) == {"removed": 2}
    assert read("stats", "--namespace", namespace) == []
    assert len(read("ls", "--namespace", namespace + "2")) == 1
