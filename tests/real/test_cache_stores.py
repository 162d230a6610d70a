"""`Cache` over real stores: a Redis server and a SQLite file, many calls at once, and several processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from overcoat import Cache, LLMEvent, Usage, cache_mode, capture, invalidate, stack, tags
from overcoat.stores import open_store
from overcoat.testing import Answer, ScriptedClient

from . import parts
from .redis_server import find_binary, free_port, running_redis


@pytest.fixture(params=["redis", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a real store."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'answers.db'}"
    parts.need("redis")
    server: str = request.getfixturevalue("redis_url")
    return server


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own, since the tests share a server."""
    return uuid4().hex


async def ask(client, text="hello"):
    return await client.call([{"role": "user", "content": text}], None, LLMEvent([], "test"))


async def stored():
    """Wait until the answers are in the store, which callers do not."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def using(url, main):
    """Run *main*, and close the store that the process has for *url*."""

    async def run():
        try:
            return await main()
        finally:
            await open_store(url).close()

    return asyncio.run(run())


def test_an_answer_is_found_again(url, namespace):
    """By another client, with everything that belongs to it."""
    provider = ScriptedClient(Answer("hi", 10, 2, colour="red"))
    event = LLMEvent([], "test")

    async def main():
        await ask(stack(provider, Cache(store=url, namespace=namespace)))
        await stored()
        client = stack(provider, Cache(store=url, namespace=namespace))
        return await client.call([{"role": "user", "content": "hello"}], None, event)

    with capture() as calls:
        assert using(url, main) == "hi"
    assert len(provider.calls) == 1
    assert (calls[1].cache.result, calls[1].delivered, event.colour) == ("hit", Usage(10, 2, 12), "red")


def test_a_thousand_equal_calls_are_one_request(url, namespace):
    provider = ScriptedClient(Answer("hi", 10, 2))
    client = stack(provider, Cache(store=url, namespace=namespace))

    async def main():
        first = await asyncio.gather(*(ask(client) for _ in range(1000)))
        return first + await asyncio.gather(*(ask(client) for _ in range(1000)))

    with capture() as calls:
        assert using(url, main) == ["hi"] * 2000
    assert len(provider.calls) == 1
    results = Counter(call.cache.result for call in calls)
    assert results["miss"] == 1
    assert results["coalesced"] + results["hit"] == 1999


def test_tenants_and_modes_and_evictions(url, namespace):
    numbers = iter(range(1, 100))
    provider = ScriptedClient(lambda messages, options: str(next(numbers)))
    client = stack(provider, Cache(store=url, namespace="tag:tenant"))

    async def of(tenant):
        with tags(tenant=f"{namespace}-{tenant}"):
            answer = await ask(client)
        await stored()
        return answer

    async def main():
        answers = [await of("acme"), await of("globex"), await of("acme")]
        with cache_mode("refresh"):
            answers.append(await of("acme"))
        answers.append(await of("acme"))
        assert await invalidate(calls[-1])
        answers += [await of("acme"), await of("globex")]
        await open_store(url).invalidate(f"{namespace}-acme")
        return [*answers, await of("acme"), await of("globex")]

    with capture() as calls:
        assert using(url, main) == ["1", "2", "1", "3", "3", "4", "2", "5", "2"]


PROCESS = """
import asyncio, os, sys
from overcoat import Cache, LLMEvent, capture, stack
from overcoat.stores import open_store

url, namespace, log = sys.argv[1:]

class Provider:
    model_name = "gpt-test"

    async def call(self, conversation, options, event, json_mode=False):
        with open(log, "a") as requests:
            requests.write(f"{os.getpid()}\\n")
        await asyncio.sleep(0.5)
        return "hi"

async def ask(client):
    return await client.call([{"role": "user", "content": "hello"}], None, LLMEvent([], "test"))

async def main():
    client = stack(Provider(), Cache(store=url, namespace=namespace))
    print("ready", flush=True)
    sys.stdin.readline()
    answers = await asyncio.gather(*(ask(client) for _ in range(100)))
    assert answers == ["hi"] * 100
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    await open_store(url).close()

with capture() as calls:
    asyncio.run(main())
print(sorted({call.cache.result for call in calls}), flush=True)
"""


def test_processes_share_an_inference(url, namespace, tmp_path):
    log = tmp_path / "requests"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", PROCESS, url, namespace, str(log)]
    processes = [
        subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        ended = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            printed, errors = process.communicate(timeout=30)
            assert process.returncode == 0, errors
            ended.append(printed.strip())
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert len(log.read_text().splitlines()) == 1
    assert sorted(ended) == ["['coalesced', 'miss']", "['coalesced']", "['coalesced']"]


def test_a_server_that_goes_and_comes_back(tmp_path, namespace, caplog):
    """Calls go through at once all the while, and each record says what the cache could not do."""
    parts.need("redis")
    binary = find_binary()
    if binary is None:
        parts.missing("there is no redis-server (Debian, Ubuntu: apt install redis-server)")
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    provider = ScriptedClient(Answer("hi", 10, 2))
    client = stack(provider, Cache(store=url, namespace=namespace))

    async def main():
        loop = asyncio.get_running_loop()
        with running_redis(binary, tmp_path, port):
            await ask(client)
            await stored()
            await ask(client)
        started = loop.time()
        for _ in range(20):
            await ask(client)
        assert loop.time() - started < 1
        with running_redis(binary, tmp_path, port):
            for _ in range(100):
                await ask(client)
                if calls[-1].cache.result == "hit":
                    break
                await asyncio.sleep(0.1)  # a store that was down is left alone for a while

    with capture() as calls:
        using(url, main)
    assert [(call.cache.result, call.cache.reason) for call in calls[:2]] == [("miss", None), ("hit", None)]
    assert {(call.cache.result, call.cache.reason) for call in calls[2:22]} == {("miss", "store_failed")}
    assert calls[-1].cache.result == "hit"
    assert {call.outcome for call in calls} == {"ok"}
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len([each for each in told if "failed to read" in each]) == 1
