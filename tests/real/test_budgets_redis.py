"""The store of budgets in a real Redis: held to the same model as the others, by a clock of the test's."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from datetime import UTC
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overcoat import Budget, BudgetUnchecked, LLMEvent, Meter, capture, stack
from overcoat.arithmetic.calendar import parse_window
from overcoat.arithmetic.reservation import Denied, Want
from overcoat.budgets import Held
from overcoat.budgets import redis as module
from overcoat.budgets.redis import RedisBudgets
from overcoat.errors import StoreUnavailable
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Answer, ScriptedClient

from ..budgets.model import LEASE, drive, steps
from ..budgets.race import race
from .parts import need
from .process import poll
from .redis_server import find_binary, free_port, running_redis

scripts = st.lists(steps, max_size=25)
prefixes = itertools.count()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts, st.integers(0, 4_000_000_000), st.sampled_from([0, 0, 7, -86_400, 10_000_000]))
def test_any_interleaving(redis_url, monkeypatch, script, start, skew):
    """Also where the clock of the client's machine is wrong."""
    clock = [float(start)]
    prefix = f"model:{next(prefixes)}"
    ask = "local time = redis.call('TIME')"
    assert ask in module._RESERVE

    class Clocked(RedisBudgets):
        async def _run(self, script, held, arguments):
            now = int(clock[0] * 1000)
            fake = f"local time = {{0, {now} * 1000}}"
            return await super()._run(script.replace(ask, fake), held, arguments)

    async def main():
        store = Clocked(redis_url, lease=LEASE, prefix=prefix)
        try:
            await drive(store, clock, script)
        finally:
            await store.close()

    with monkeypatch.context() as patch:
        patch.setattr(module, "_now", lambda: int((clock[0] + skew) * 1000))
        asyncio.run(main())


EVER = parse_window(None, None, "Test")
HOURLY = parse_window("calendar hour", None, "Test")


def want(amount=10, limit=100, account="a", window=EVER):
    return Want(account, window, limit, amount)


def raw(url):
    return need("redis").Redis.from_url(url)


def test_four_processes_do_not_overspend(redis_url):
    """By the providers' own count; and the budget is used, not only kept."""
    with raw(redis_url) as redis:
        redis.flushall()
    billed, refusals = race(redis_url)
    assert 900 < billed <= 1000
    assert "BudgetExceeded" in refusals


def test_a_process_that_is_killed_has_spent_what_it_reserved(redis_url):
    program = """
import asyncio, sys
from overcoat.arithmetic.calendar import parse_window
from overcoat.arithmetic.reservation import Want
from overcoat.budgets.redis import RedisBudgets

async def main():
    store = RedisBudgets(sys.argv[1], lease=0.5, prefix="killed")
    await store.reserve([Want("a", parse_window(None, None, ""), 100, 70)])
    print("reserved", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""

    async def look():
        store = RedisBudgets(redis_url, lease=60, prefix="killed")
        denied = await store.reserve([want(40)])
        await store.close()
        assert isinstance(denied, Denied)
        return tuple(denied.standing)

    with subprocess.Popen([sys.executable, "-c", program, redis_url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "reserved\n"
        process.kill()
    assert asyncio.run(look()) in ((0, 70), (70, 0))
    assert poll(lambda: asyncio.run(look()) == (70, 0) or None, seconds=20)


def test_nothing_is_left_that_does_not_count(redis_url):
    """Of what is settled no trace, and of windows nothing that lives for ever; all keys in one slot of a cluster."""

    async def main():
        store = RedisBudgets(redis_url, prefix="tidy")
        held = await store.reserve([want(window=HOURLY), want(account="b")])
        with raw(redis_url) as redis:
            keys = redis.keys("{tidy}:*")
            assert len(keys) == len(redis.keys("*tidy*")) == 4
            assert redis.pttl(f"{{tidy}}:reservation:{held.id}") > 0
        await store.settle(held, [7, 7])
        with raw(redis_url) as redis:
            assert sorted(redis.keys("{tidy}:*")) == [b"{tidy}:account:a", b"{tidy}:account:b"]
            assert 0 < redis.pttl("{tidy}:account:a") <= HOURLY.keep
            assert redis.pttl("{tidy}:account:b") == -1
            redis.delete("{tidy}:account:a")
        again = await store.reserve([want()])
        with raw(redis_url) as redis:
            redis.delete("{tidy}:account:a")
        assert (await store.settle(again, [7])).standings == [(0, 0)]  # it was forgotten, and does not come back
        with raw(redis_url) as redis:
            assert redis.keys("{tidy}:account:a") == []
        await store.close()

    asyncio.run(main())


def test_an_account_does_not_grow_with_its_slices(redis_url, monkeypatch):
    """A minute is a slice; a thousand of them are not kept."""
    minute = parse_window("calendar minute", None, "Test")

    async def main():
        store = RedisBudgets(redis_url, prefix="slices")
        with raw(redis_url) as redis:
            redis.hset("{slices}:account:a", mapping={f"s{number}": 1 for number in range(1000)})
        await store.reserve([want(window=minute)])
        with raw(redis_url) as redis:
            assert redis.hlen("{slices}:account:a") <= 2 * module.KEPT + 1
        await store.close()

    asyncio.run(main())


def test_sums_are_exact_up_to_nine_million_dollars(redis_url):
    most = 2**53 - 1

    async def main():
        store = RedisBudgets(redis_url, prefix="exact")
        held = await store.reserve([want(most - 1, limit=most)])
        assert isinstance(await store.reserve([want(2, limit=most)]), Denied)
        assert isinstance(await store.reserve([want(1, limit=most)]), Held)
        assert (await store.settle(held, [most - 2])).standings == [(most - 2, 1)]
        await store.close()

    asyncio.run(main())


def test_an_outage_refuses_and_what_was_owed_is_settled(tmp_path):
    """The server goes away while an inference is under way, and comes back with what it had: nothing is lost."""
    binary = find_binary()
    if binary is None:
        pytest.skip("there is no redis-server")
    port = free_port()
    rates = Rates((Tier(0, Decimal(0), Decimal("0.01")),), "test")
    sent, proceed = asyncio.Event(), asyncio.Event()

    async def slowly(conversation, options):
        sent.set()
        await proceed.wait()
        return Answer("hi", 1, 3)

    client = ScriptedClient(slowly, Answer("hi", 1, 3), model_name="m")

    async def ask(client):
        return await client.call([{"role": "user", "content": "a"}], {"max_tokens": 10}, LLMEvent([], "test"))

    async def answers(store):
        try:
            return isinstance(await store.reserve([want(0)]), Held)
        except StoreUnavailable:
            await asyncio.sleep(0.1)
            return False

    async def main():
        with running_redis(binary, tmp_path, port) as url:
            store = RedisBudgets(url, prefix="outage")
            layers = [
                Budget(usd=1, window=None, store=store, prices=lambda m, n: rates),
                Meter(prices=lambda m, n: rates),
            ]
            stacked = stack(client, *layers)
            task = asyncio.create_task(ask(stacked))
            await sent.wait()
        proceed.set()
        assert await task == "hi"  # an answer that was paid for
        with pytest.raises(BudgetUnchecked):
            await ask(stacked)
        assert len(client.calls) == 1
        with running_redis(binary, tmp_path, port) as url:
            while not await answers(store):
                pass
            assert store._owed == {}
            assert await ask(stacked) == "hi"
            await store.close()

    with capture() as calls:
        asyncio.run(main())
    assert [call.reservations[0].reason for call in calls] == ["store_failed", "store_failed", None]


def test_a_clock_that_does_not_go_with_the_calendar_is_no_endless_loop(redis_url):
    """A window that ends before it begins, as no clock can have it."""

    class Never(type(HOURLY)):
        def _slot(self, now):
            return super()._slot(now)._replace(ends=0)

    async def main():
        store = RedisBudgets(redis_url, prefix="never")
        with pytest.raises(StoreUnavailable, match="does not go with ours"):
            await store.reserve([want(window=Never("hour", UTC))])
        await store.close()

    asyncio.run(main())
