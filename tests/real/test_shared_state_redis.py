"""Limits, circuits and budgets that processes share through a real Redis: by the provider's own count, they hold."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from overcoat import (
    Backoff,
    Breaker,
    CircuitOpen,
    LLMEvent,
    LLMStatusError,
    RateLimit,
    RateLimited,
    Retry,
    RetryBudget,
    capture,
    stack,
    wrap,
)
from overcoat.arithmetic.quota import Quota
from overcoat.shared import forget
from overcoat.stores import cell
from overcoat.testing import Answer, Provider, ScriptedClient, answer, error, slow

from .parts import missing, need
from .process import poll
from .redis_server import find_binary, free_port, running_redis

WORKER = Path(__file__).with_name("shared_state_worker.py")
CHAT = [{"role": "user", "content": "x" * 30}]
PROCESSES = 4
DOWN = LLMStatusError("down", 500)
NOTHING = (0, 0, 0)


@pytest.fixture(autouse=True)
def _redis():
    need("redis")


@pytest.fixture
def store(redis_url):
    """Without a time limit for commands: a shared machine that is slow for once must not let a process go alone."""
    redis = need("redis").Redis.from_url(redis_url)
    redis.flushdb()
    redis.close()
    return f"{redis_url}?socket_timeout=20"


@pytest.fixture
def provider():
    with Provider() as running:
        yield running


class Worker:
    def __init__(self, process):
        self.process = process

    def order(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def do(self, count):
        self.order(count)
        return self.answer()


@contextmanager
def workers(provider, count=PROCESSES, lease=15.0, **layers):
    setup = json.dumps({"provider": provider.url, "lease": lease, "layers": layers})
    with ExitStack() as stacked:
        started = []
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, str(WORKER), setup], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stacked.enter_context(process)
            stacked.callback(process.kill)
            started.append(Worker(process))
        assert [each.answer() for each in started] == ["ready"] * count
        yield started


def together(started, count):
    """Return how the calls of all processes ended, so many of each at once."""
    for each in started:
        each.order(count)
    return sum((Counter(each.answer()) for each in started), Counter())


def pause(seconds):
    poll(lambda: None, seconds=seconds)


def most_at_once(provider, seconds):
    """By the provider's own count, of requests that take it so long."""
    events = sorted(event for each in provider.requests for event in ((each.at, 1), (each.at + seconds, -1)))
    running = most = 0
    for _, step in events:
        running += step
        most = max(most, running)
    return most


class TestProcesses:
    def test_requests(self, provider, store):
        settings = {"requests": 23, "window": "1m", "max_wait": 0, "store": store}
        with workers(provider, RateLimit=settings) as started:
            assert together(started, 30) == {"ok": 23, "RateLimited": 97}
        assert len(provider) == 23

    def test_requests_over_several_windows(self, provider, store):
        settings = {"requests": 10, "window": "2s", "max_wait": "1m", "store": store}
        with workers(provider, RateLimit=settings) as started:
            assert together(started, 10) == {"ok": 40}
        times = [each.at for each in provider.requests]
        # Seconds may pass from a grant to the request's arrival; what is early is so by that of the tenth before it.
        assert [later - earlier > 1 for earlier, later in zip(times, times[10:], strict=False)] == [True] * 30

    def test_tokens(self, provider, store):
        """Each takes 10 tokens, and the provider's answers do not say otherwise."""
        settings = {"tokens": 155, "window": "1m", "max_wait": 0, "store": store}
        with workers(provider, RateLimit=settings) as started:
            assert together(started, 10) == {"ok": 15, "RateLimited": 25}
        assert len(provider) == 15

    def test_concurrency(self, provider, store):
        provider.default = slow(0.1)
        settings = {"concurrency": 3, "max_wait": "1m", "store": store}
        with workers(provider, RateLimit=settings) as started:
            assert together(started, 6) == {"ok": 24}
        assert most_at_once(provider, 0.1) == 3

    def test_a_provider_s_word_is_for_all(self, provider, store):
        told = {"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1m"}
        provider.script(answer(headers=told))
        with workers(provider, RateLimit={"concurrency": 50, "max_wait": 0, "store": store}) as started:
            assert started[0].do(1) == {"ok": 1}
            pause(0.2)  # it tells the others without holding up its answer
            assert together(started, 5) == {"ok": 5, "RateLimited": 15}
        assert len(provider) == 6

    def test_a_circuit_that_one_opened_refuses_in_all(self, provider, store):
        provider.default = error(500)
        with workers(provider, Breaker={"min_calls": 3, "open_for": "1m", "store": store}) as started:
            for each in started[:3]:
                assert each.do(1) == {"LLMStatusError": 1}
            assert together(started, 5) == {"CircuitOpen": 20}
        assert len(provider) == 3

    def test_probes_are_so_many_in_all(self, provider, store):
        provider.script(error(500))
        provider.default = slow(1)
        settings = {"min_calls": 1, "open_for": "500ms", "half_open_calls": 2, "store": store}
        with workers(provider, Breaker=settings) as started:
            assert started[0].do(1) == {"LLMStatusError": 1}
            pause(0.6)
            assert together(started, 3) == {"ok": 2, "CircuitOpen": 10}
            assert len(provider) == 3
            provider.default = answer()
            assert together(started, 3) == {"ok": 12}

    def test_a_retry_budget_is_one_for_all(self, provider, store):
        """40 first attempts allow 8 retries, and the reserve 5 more."""
        provider.default = error(500)
        budget = {"ratio": 0.2, "min_per_second": 0.1, "window": "50s", "store": store}
        with workers(provider, Retry={"max_attempts": 4, "budget": budget}) as started:
            together(started, 10)
        assert 40 + 5 <= len(provider) <= 40 + 13

    def test_what_a_dead_process_had_is_free_when_its_lease_is_over(self, provider, store):
        provider.default = slow(60)
        settings = {"concurrency": 2, "max_wait": "30s", "store": store}
        with workers(provider, count=2, lease=1.5, RateLimit=settings) as (victim, heir):
            victim.order(2)
            assert poll(lambda: len(provider) == 2 or None, seconds=20)
            heir.order(1)
            assert poll(lambda: len(provider) > 2 or None, seconds=3) is None, "who lives renews its lease"
            provider.default = answer()
            victim.process.kill()
            killed = time.monotonic()
            assert heir.answer() == {"ok": 1}
            assert time.monotonic() - killed < 10


def call(client):
    return client.call(CHAT, None, LLMEvent([], "test"))


async def outcomes(client, count):
    """Return the answers, or the classes of the errors, of so many calls at once."""
    answers = await asyncio.gather(*[call(client) for _ in range(count)], return_exceptions=True)
    return Counter(each if isinstance(each, str) else type(each).__name__ for each in answers)


def as_another_process(client, layer):
    """Return a stack that shares nothing with others but the store."""
    forget()
    return stack(client, layer)


def remote_of(client):
    return next(bound.function.limiter for bound in client.bound if isinstance(bound.layer, RateLimit))


async def settled(client):
    """Wait until all is written, and return what the store then has: what is under way, and all of it by process."""
    here = remote_of(client)._cells.here()
    while here._task is not None and not here._task.done():
        await asyncio.wait([here._task])

    def look(common, at):
        return common.quota.running, common.quota.unsettled, common.waiting

    return here.held, await here.change(look)


class TestOneProcess:
    def test_a_thousand_at_once(self, store):
        inner = ScriptedClient("hi")
        layer = RateLimit(requests=321, window="1m", max_wait=0, store=store)
        with capture() as calls:
            assert asyncio.run(outcomes(stack(inner, layer), 1000)) == {"hi": 321, "RateLimited": 679}
        assert len(inner.calls) == 321
        assert not any(each.degraded for each in calls)

    def test_the_queue_is_in_order_and_waits_are_recorded(self, store):
        inner = ScriptedClient(Answer("hi", delay=0.02))
        client = stack(inner, RateLimit(concurrency=2, max_wait="1m", store=store))

        async def main():
            await asyncio.gather(
                *[client.call([{"role": "user", "content": str(n)}], None, LLMEvent([], "t")) for n in range(20)]
            )
            assert await settled(client) == (NOTHING, NOTHING)

        with capture() as calls:
            asyncio.run(main())
        assert [int(each.conversation[0]["content"]) for each in inner.calls] == list(range(20))
        assert inner.most_in_flight == 2
        waits = [wait for each in calls for wait in each.inferences[0].waits]
        assert len(waits) == 18
        assert all(wait.duration > 0 and wait.source == "limiter" for wait in waits)

    def test_two_that_contend(self, store):
        """Each change of the one is refused where the other has made one meanwhile, and is made anew."""
        layer = RateLimit(requests=30, window="1m", max_wait=0, store=store)
        one, other = (as_another_process(ScriptedClient("hi"), layer) for _ in range(2))

        async def main():
            rounds = [await asyncio.gather(outcomes(one, 5), outcomes(other, 5)) for _ in range(5)]
            return sum((each for pair in rounds for each in pair), Counter())

        assert asyncio.run(main()) == {"hi": 30, "RateLimited": 20}

    def test_what_a_provider_says_is_recorded(self, store):
        told = Answer("hi", rate_limit_headers={"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m"})
        client = stack(ScriptedClient(told), RateLimit(concurrency=9, max_wait="100ms", store=store))

        async def main():
            await call(client)
            await settled(client)
            assert await outcomes(client, 1) == {"RateLimited": 1}
            more = stack(client.client, RateLimit(concurrency=9, max_wait="2m", store=store))
            waiting = asyncio.create_task(call(more))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.wait([waiting])

        with capture() as calls:
            asyncio.run(main())
        (wait,) = calls[-1].inferences[0].waits
        assert (wait.source, wait.asked) == ("server", pytest.approx(60, abs=5))

    def test_who_lives_renews_its_lease(self, store, monkeypatch):
        monkeypatch.setattr(cell, "LEASE", 0.6)
        monkeypatch.setattr(cell, "_RENEWAL", 0.2)
        layer = RateLimit(concurrency=1, max_wait=0, store=store)
        client = stack(ScriptedClient(Answer("hi", delay=1.5)), layer)
        other = as_another_process(ScriptedClient("hi"), layer)

        async def main():
            running = asyncio.create_task(call(client))
            for _ in range(6):
                await asyncio.sleep(0.2)
                assert await outcomes(other, 1) == {"RateLimited": 1}
            assert await running == "hi"

        asyncio.run(main())

    def test_a_busy_process_lets_others_have_their_turn(self, store):
        """Else its own next call would take each place in the moment in which it is free."""
        layer = RateLimit(concurrency=1, max_wait="1m", store=store)
        busy = stack(ScriptedClient(Answer("hi", delay=0.02)), layer)
        other = as_another_process(ScriptedClient("hi"), layer)

        async def main():
            crowd = [asyncio.create_task(call(busy)) for _ in range(100)]
            await asyncio.sleep(0.1)
            assert await call(other) == "hi"
            waiting = sum(not each.done() for each in crowd)
            for each in crowd:
                each.cancel()
            await asyncio.wait(crowd)
            return waiting

        assert asyncio.run(main()) > 50

    def test_a_program_that_ends_gives_its_place_back(self, store):
        """And not only when its lease is over: the next one passes at once."""
        layer = RateLimit(concurrency=1, max_wait=0, store=store)
        for _ in range(5):
            assert asyncio.run(call(as_another_process(ScriptedClient("hi"), layer))) == "hi"

    def test_a_loop_that_is_left_alone_gives_it_back_when_its_lease_is_over(self, store, monkeypatch):
        monkeypatch.setattr(cell, "LEASE", 0.5)
        layer = RateLimit(concurrency=1, max_wait="20s", store=store)
        left = []

        async def abandon():
            client = as_another_process(ScriptedClient(Answer("hi", delay=60)), layer)
            left.append(call(client))
            left[0].send(None)
            await asyncio.sleep(0)
            here = remote_of(client)._cells.here()
            while here._task is not None and not here._task.done():
                await asyncio.wait([here._task])
            assert here.held == (1, 0, 0)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(abandon())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        began = time.monotonic()
        assert asyncio.run(call(as_another_process(ScriptedClient("hi"), layer))) == "hi"
        assert 0.2 < time.monotonic() - began < 10
        left.clear()

    def test_what_was_used_takes_the_estimate_s_place(self, store):
        used = Answer("hi", prompt_tokens=1, completion_tokens=1)
        client = stack(ScriptedClient(used), RateLimit(tokens=20, window="1m", max_wait=0, store=store))

        async def main():
            for _ in range(6):
                assert await call(client) == "hi"
                await settled(client)
            return await outcomes(client, 3)

        assert asyncio.run(main()) == {"RateLimited": 3}

    def test_what_was_not_sent_is_given_back(self, store):
        async def refuse(request, inner):
            raise CircuitOpen("inside")

        client = stack(ScriptedClient("hi"), RateLimit(requests=1, max_wait=0, store=store), refuse)

        async def main():
            for _ in range(3):
                assert await outcomes(client, 1) == {"CircuitOpen": 1}
                await settled(client)

        asyncio.run(main())

    def test_a_long_wait_is_refused_at_once(self, store):
        client = stack(ScriptedClient("hi"), RateLimit(requests=1, window="1m", max_wait="5s", store=store))

        async def main():
            await call(client)
            with pytest.raises(RateLimited) as refused:
                await call(client)
            return refused.value.retry_after

        began = time.monotonic()
        assert 50 < asyncio.run(main()) <= 60
        assert time.monotonic() - began < 5

    @pytest.mark.parametrize("waits", [False, True])
    def test_cancelled_at_every_step_it_leaves_nothing(self, store, waits):
        """After 0, 1, 2, ... turns of the loop; where it waits, from when the only place is free."""
        inner = ScriptedClient(Answer("hi", delay=0.005))
        client = stack(inner, RateLimit(concurrency=1, max_wait="1m", store=store))

        async def cancelled(turns):
            task = asyncio.create_task(call(client))
            if waits:
                await asyncio.sleep(0.002)
                first, task = task, asyncio.create_task(call(client))
                await first
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert await settled(client) == (NOTHING, NOTHING)
            assert len(remote_of(client)._queue) == 0
            return task.cancelled()

        async def main():
            ended = [await cancelled(turns) for turns in range(0, 200, 2)]
            assert await call(client) == "hi"
            return ended

        assert True in asyncio.run(main())

    @pytest.mark.parametrize("answered", [False, True])
    def test_one_that_is_thrown_away_leaves_nothing(self, store, answered):
        """Before the store has answered, and after."""
        client = stack(ScriptedClient("hi"), RateLimit(concurrency=1, store=store))

        async def main():
            thrown_away = call(client)
            thrown_away.send(None)
            if answered:
                assert (await settled(client))[0] == (1, 0, 0)
            thrown_away.close()
            assert await settled(client) == (NOTHING, NOTHING)

        asyncio.run(main())

    def test_from_a_policy_file(self, store, tmp_path):
        file = tmp_path / "overcoat.toml"
        file.write_text(f"""
            version = 1
            limits.common = {{requests = 3, max_wait = "0s", store = "{store}"}}
            policies.default = {{limit = "common"}}
        """)
        inner = ScriptedClient("hi")

        async def main():
            ended = Counter()
            for _ in range(2):
                forget()
                ended += await outcomes(wrap(inner, file), 4)
            return ended

        assert asyncio.run(main()) == {"hi": 3, "RateLimited": 5}

    def test_a_circuit_and_what_is_recorded(self, store, caplog):
        caplog.set_level(logging.INFO, "overcoat")
        layer = Breaker(min_calls=2, open_for="300ms", store=store)

        async def main():
            client = stack(ScriptedClient(DOWN, DOWN, "hi", DOWN, DOWN, "hi"), layer)
            ended = []
            for _ in range(2):
                ended += [await outcomes(client, 1) for _ in range(3)]
                await asyncio.sleep(0.35)
                ended.append(await outcomes(client, 1))
            return [name for each in ended for name in each]

        with capture() as calls:
            assert asyncio.run(main()) == ["LLMStatusError", "LLMStatusError", "CircuitOpen", "hi"] * 2
        assert [[turn.state for turn in each.turns] for each in calls] == [
            *([], ["open"], [], ["half_open", "closed"]) * 2
        ]
        assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
            f"the circuit of 'ScriptedClient/scripted' is now {state}" for state in ("open", "half_open", "closed")
        ] * 2

    @pytest.mark.parametrize("turns", range(0, 60, 5))
    def test_a_cancelled_probe_gives_its_place_back(self, store, turns):
        layer = Breaker(min_calls=1, open_for="10ms", store=store)
        client = stack(ScriptedClient(DOWN, Answer("hi", delay=0.05), "hi"), layer)

        async def main():
            await outcomes(client, 1)
            await asyncio.sleep(0.02)
            task = asyncio.create_task(call(client))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            return await outcomes(client, 1)

        assert asyncio.run(main()) == {"hi": 1}


class TestOutage:
    @contextmanager
    def server(self, folder):
        """Yield the URL of a Redis, and functions that stop it and start it again."""
        binary, port = find_binary(), free_port()
        if binary is None:
            missing("there is no redis-server")
        with ExitStack() as running:
            running.enter_context(running_redis(binary, folder, port))

            def start():
                running.enter_context(running_redis(binary, folder, port))

            yield f"redis://127.0.0.1:{port}/0", running.close, start

    def test_each_process_goes_on_alone_and_comes_back(self, tmp_path, caplog):
        with self.server(tmp_path) as (url, stop, start):
            inner = ScriptedClient("hi")
            client = stack(
                inner,
                Retry(budget=RetryBudget(store=url)),
                Breaker(store=url),
                RateLimit(requests=3, window="1m", max_wait=0, store=url),
            )

            async def main():
                assert await outcomes(client, 5) == {"hi": 3, "RateLimited": 2}
                stop()
                began = time.monotonic()
                # Its own limits are kept, by what it granted on its own.
                assert await outcomes(client, 5) == {"hi": 3, "RateLimited": 2}
                took = time.monotonic() - began
                began = time.monotonic()
                for _ in range(20):
                    assert await outcomes(client, 1) == {"RateLimited": 1}
                start()
                return took, (time.monotonic() - began) / 20, await back()

            async def back():
                """Ask until the store is asked again: it has forgotten all, and so lets some pass."""
                for _ in range(1000):
                    with capture() as asked:
                        ended = await outcomes(client, 1)
                    if not asked[0].degraded:
                        return ended
                    await asyncio.sleep(0.02)
                return None

            with capture() as calls:
                first, others, after = asyncio.run(main())
            assert first < 0.25 + 0.25
            assert others < 0.2
            assert after == {"hi": 1}
            assert [each.degraded for each in calls[:5]] == [()] * 5
            assert all(set(each.degraded) == {"breaker", "rate_limit"} for each in calls[5:10])
            said = [record.getMessage() for record in caplog.records if "process goes" in record.getMessage()]
            assert len(said) == 1
            assert sum("shared again" in record.getMessage() for record in caplog.records) == 1

    def test_a_server_that_hangs_costs_a_quarter_of_a_second_once(self, tmp_path):
        with self.server(tmp_path) as (url, _, _):
            client = stack(ScriptedClient("hi"), RateLimit(requests=100, max_wait=0, store=url))
            redis = need("redis").Redis.from_url(url)
            pid = redis.info("server")["process_id"]
            redis.close()

            async def main():
                assert await call(client) == "hi"
                os.kill(pid, signal.SIGSTOP)
                try:
                    times = [time.monotonic()]
                    for _ in range(10):
                        assert await call(client) == "hi"
                        times.append(time.monotonic())
                finally:
                    os.kill(pid, signal.SIGCONT)
                return [later - earlier for earlier, later in pairwise(times)]

            first, *others = asyncio.run(main())
            assert 0.19 < first < 0.5
            assert sum(others) < 0.2

    def test_who_waits_when_it_goes_waits_for_this_process_s_own(self, tmp_path):
        with self.server(tmp_path) as (url, stop, _):
            inner = ScriptedClient(Answer("hi", delay=0.3))
            client = stack(inner, Breaker(store=url), RateLimit(concurrency=1, max_wait="1m", store=url))

            async def main():
                tasks = [asyncio.create_task(call(client)) for _ in range(3)]
                await asyncio.sleep(0.1)
                stop()
                return await asyncio.gather(*tasks)

            assert asyncio.run(main()) == ["hi"] * 3

    def test_what_cannot_be_done_fails_no_call(self, store, monkeypatch, caplog):
        """A bug of ours, say."""
        monkeypatch.setattr(Quota, "dump", lambda self: object())
        client = stack(ScriptedClient("hi"), RateLimit(requests=1, max_wait=0, store=store))

        async def main():
            return await outcomes(client, 2)

        assert asyncio.run(main()) == {"hi": 1, "RateLimited": 1}
        assert "could not be changed" in caplog.text

    def test_one_that_was_never_there(self):
        url = f"redis://127.0.0.1:{free_port()}/0"
        client = stack(
            ScriptedClient(DOWN),
            Retry(max_attempts=9, backoff=Backoff(base=0), budget=RetryBudget(min_per_second=0.2, store=url)),
            Breaker(min_calls=7, store=url),
        )

        async def main():
            return await outcomes(client, 1)

        with capture() as calls:
            assert asyncio.run(main()) == {"LLMStatusError": 1}
        assert len(calls[0].attempts) == 3  # its first, and the reserve of its own budget
        assert {"breaker", "retry"} == set(calls[0].degraded)

    def test_what_is_not_ours_is_replaced(self, store, caplog):
        url = store.partition("?")[0]
        client = stack(ScriptedClient("hi"), RateLimit(requests=1, max_wait=0, store=store))
        redis = need("redis").Redis.from_url(url)
        redis.set(remote_of(client)._cells._key, b"x" * 100)
        redis.close()

        async def main():
            return await outcomes(client, 3)

        assert asyncio.run(main()) == {"hi": 1, "RateLimited": 2}
        assert "is not ours" in caplog.text


@pytest.mark.parametrize("layer", [Breaker, RateLimit, RetryBudget])
@pytest.mark.parametrize("url", ["http://host:secret@x", "localhost:6379", 6379, b"redis://x"])
def test_bad_urls(layer, url):
    more = {"requests": 1} if layer is RateLimit else {}
    with pytest.raises(ValueError, match=rf"^{layer.__name__}\(store=...\): expected the URL of a Redis") as refused:
        layer(store=url, **more)
    assert "secret" not in str(refused.value)


def test_a_password_is_nowhere_to_be_read():
    url = "redis://user:secret@host:6379/0"
    layers = [Breaker(store=url), RateLimit(requests=1, store=url), RetryBudget(store=url)]
    assert "secret" not in repr(layers)
