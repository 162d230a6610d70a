"""The single flight: who waits for whom, by whose deadline, and what follows when somebody goes."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from contextlib import nullcontext
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overcoat import (
    Backoff,
    Budget,
    BudgetExceeded,
    BudgetUnchecked,
    Cache,
    Deadline,
    DeadlineExceeded,
    LiteLLMOptions,
    LLMConnectionError,
    LLMEvent,
    LLMStatusError,
    Meter,
    RateLimit,
    RateLimited,
    RequestsExceeded,
    Retry,
    Timeout,
    capture,
    stack,
    tags,
)
from overcoat.bounds import max_requests
from overcoat.pricing.rates import Rates, Tier
from overcoat.stores.memory import MemoryStore
from overcoat.testing import Answer, ScriptedClient, run

RATES = Rates((Tier(0, Decimal("0.01"), Decimal("0.1")),), "test")
PRICE = Decimal("0.3")


def metered(client, *inside, **cache):
    return stack(client, Cache(**cache), *inside, Meter(prices=lambda model, now: RATES))


async def ask(client, text="hello", options=None, within=None):
    """Ask, as a caller who has so many seconds."""
    if within is not None:
        client = stack(client, Deadline(within))
    return await client.call([{"role": "user", "content": text}], options, LLMEvent([], "test"))


class Slow(MemoryStore):
    """A store that takes its time, as one on the network does."""

    def __init__(self, delay: float = 0.01, set_delay: float | None = None) -> None:
        super().__init__(2**20)
        self.delay = delay
        self.set_delay = delay if set_delay is None else set_delay
        self.gets = 0

    async def get(self, namespace: str, key: str) -> bytes | None:
        self.gets += 1
        await asyncio.sleep(self.delay)
        return await super().get(namespace, key)

    async def set(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        await asyncio.sleep(self.set_delay)
        await super().set(namespace, key, value, ttl)


class Leasing(Slow):
    """A store that lets one process at a time make an answer."""

    def __init__(self, delay: float = 0.01) -> None:
        super().__init__(delay)
        self.held: dict[tuple[str, str], tuple[str, float]] = {}
        self.tokens = iter(map(str, range(1000)))

    async def acquire(self, namespace: str, key: str, ttl: float) -> str | None:
        await asyncio.sleep(self.delay)
        now = asyncio.get_running_loop().time()
        if self.held.get((namespace, key), ("", 0.0))[1] > now:
            return None
        token = next(self.tokens)
        self.held[namespace, key] = token, now + ttl
        return token

    async def release(self, namespace: str, key: str, token: str) -> None:
        await asyncio.sleep(self.delay)
        if self.held.get((namespace, key), ("", 0.0))[0] == token:
            del self.held[namespace, key]


class TestDeadlines:
    """One caller's haste must not fail another."""

    def test_who_has_more_time_is_not_failed_when_a_retry_would_come_too_late_for_the_leader(self):
        provider = ScriptedClient(Answer("x", delay=0), LLMStatusError("down", 500), Answer("hi", 10, 2))
        client = metered(provider, Retry(backoff=Backoff(base="4s"), random=lambda: 0.999))

        async def main():
            await ask(client, "something else")
            hasty, patient = await asyncio.gather(ask(client, within=2), ask(client, within=60), return_exceptions=True)
            assert isinstance(hasty, LLMStatusError)
            assert patient == "hi"

        with capture() as calls:
            run(main())
        assert len(provider.calls) == 3
        assert [(call.outcome, call.cache.result, len(call.attempts)) for call in calls[1:]] == [
            ("error", "miss", 1),
            ("ok", "miss", 1),
        ]

    def test_the_attempt_under_way_goes_on_for_them(self):
        """Nobody pays twice for the leader's having gone."""
        provider = ScriptedClient(Answer("hi", 10, 2, delay=5))
        client = metered(provider, Retry(), Timeout(20))

        async def main():
            results = await asyncio.gather(ask(client, within=2), ask(client, within=60), return_exceptions=True)
            assert isinstance(results[0], DeadlineExceeded)
            assert results[1] == "hi"

        with capture() as calls:
            run(main())
        assert len(provider.calls) == 1
        assert [(call.outcome, call.cost.billed) for call in calls] == [("error", 0), ("ok", PRICE)]

    def test_who_has_no_deadline_does_not_share_an_inference_that_has_one(self):
        """The timers below leave themselves out where a deadline comes first, and an attempt could hang for ever."""
        provider = ScriptedClient(Answer("never", delay=10_000), Answer("never", delay=10_000), Answer("hi"))
        client = metered(provider, Retry(random=lambda: 0.0), Timeout(20))

        async def main():
            hasty = asyncio.create_task(ask(client, within=5))
            await asyncio.sleep(1)
            assert await ask(client) == "hi"
            assert asyncio.get_running_loop().time() < 25
            assert isinstance((await asyncio.gather(hasty, return_exceptions=True))[0], DeadlineExceeded)

        run(main())

    def test_who_has_a_deadline_shares_one_that_has_none(self):
        provider = ScriptedClient(Answer("hi", delay=5))
        client = metered(provider)

        async def main():
            return await asyncio.gather(ask(client), ask(client, within=9), ask(client, within=7))

        assert run(main()) == ["hi"] * 3
        assert len(provider.calls) == 1

    def test_a_failure_that_is_the_provider_s_is_not_asked_for_again(self):
        async def fail(conversation, options):
            await asyncio.sleep(1)
            return LLMStatusError("no", 400)

        provider = ScriptedClient(fail)
        client = metered(provider, Retry())

        async def main():
            results = await asyncio.gather(*(ask(client, within=2 + n) for n in range(5)), return_exceptions=True)
            assert {type(result) for result in results} == {LLMStatusError}

        run(main())
        assert len(provider.calls) == 1

    def test_the_most_patient_leads_next_so_that_nobody_asks_a_third_time(self):
        async def fail(conversation, options):
            await asyncio.sleep(1)
            return LLMStatusError("down", 500)

        provider = ScriptedClient(fail)
        client = metered(provider, Retry(max_attempts=3, backoff=Backoff(base="4s"), random=lambda: 0.999))
        patience = [4, 5, 60, 6, 30]

        async def main():
            return await asyncio.gather(*(ask(client, within=each) for each in patience), return_exceptions=True)

        with capture() as calls:
            results = run(main())
        assert [type(result) for result in results] == [
            LLMStatusError, DeadlineExceeded, LLMStatusError, DeadlineExceeded, LLMStatusError,
        ]  # fmt: skip
        assert len(provider.calls) == 1 + 3
        assert [len(call.attempts) for call in calls if call.attempts] == [1, 3]

    def test_a_queue_that_is_too_long_for_the_leader(self):
        provider = ScriptedClient(Answer("hi"))
        client = metered(provider, RateLimit(requests=1, window=10, max_wait=60))

        async def main():
            await ask(client, "something else")
            hasty, patient = await asyncio.gather(ask(client, within=2), ask(client, within=60), return_exceptions=True)
            assert isinstance(hasty, RateLimited)
            assert patient == "hi"

        run(main())


class TestMeans:
    """What one caller has too little of must not fail another who has more."""

    @staticmethod
    async def slowly(conversation, options):
        await asyncio.sleep(1)
        return LLMConnectionError()

    def test_who_may_make_more_requests_makes_them(self):
        """The leader's error is its last attempt's, since its retry was refused; the others' is of their own."""
        provider = ScriptedClient(self.slowly, self.slowly, Answer("hi", 10, 2))
        client = metered(provider, Retry(max_attempts=3, random=lambda: 0.0))

        async def main():
            with max_requests(1):
                poor = asyncio.gather(*(ask(client) for _ in range(3)), return_exceptions=True)
            await asyncio.sleep(0.1)
            with max_requests(2):
                rich = asyncio.gather(*(ask(client) for _ in range(3)))
            assert {type(result) for result in await poor} == {LLMConnectionError}
            assert await rich == ["hi"] * 3

        with capture() as calls:
            run(main())
        assert len(provider.calls) == 3
        assert [len(call.attempts) for call in calls if call.attempts] == [1, 2]
        assert Counter(call.cache.result for call in calls if call.outcome == "ok") == {"miss": 1, "coalesced": 2}

    def test_who_may_make_none_at_all_fails_itself_only(self):
        provider = ScriptedClient("something", Answer("hi", 10, 2))
        client = metered(provider)

        async def main():
            with max_requests(1):
                await ask(client, "something else")
                poor = asyncio.gather(ask(client), ask(client), return_exceptions=True)
            assert await asyncio.gather(ask(client), ask(client)) == ["hi", "hi"]
            assert [type(result) for result in await poor] == [RequestsExceeded] * 2

        run(main())
        assert len(provider.calls) == 2

    def test_a_block_within_a_spent_one_has_no_more(self):
        provider = ScriptedClient("something")
        client = metered(provider)

        async def main():
            with max_requests(1):
                await ask(client, "something else")
                first = asyncio.create_task(ask(client))
                with max_requests(9):
                    second = asyncio.create_task(ask(client))
            return await asyncio.gather(first, second, return_exceptions=True)

        assert [type(result) for result in run(main())] == [RequestsExceeded] * 2
        assert len(provider.calls) == 1

    def test_who_may_make_the_most_leads_next(self):
        provider = ScriptedClient(*[self.slowly] * 5, Answer("hi", 10, 2))
        client = metered(provider, Retry(max_attempts=9, random=lambda: 0.0))

        async def one(most):
            with max_requests(most):
                return await ask(client)

        async def main():
            return await asyncio.gather(*map(one, (1, 2, 5, 3)), return_exceptions=True)

        assert run(main())[1:] == ["hi"] * 3
        assert len(provider.calls) == 1 + 5

    def test_a_spent_budget_is_its_owner_s_alone(self):
        """Nor is anyone else told of it."""
        provider = ScriptedClient(Answer("hi", 10, 2))
        spending = Budget(usd=1.6, window="1h", scope="tag:tenant", prices=lambda model, now: RATES)
        client = metered(provider, spending, store=Slow())

        async def of(tenant, text="hello"):
            with tags(tenant=tenant):
                return await ask(client, text, LiteLLMOptions(max_tokens=3))

        async def main():
            assert await of("acme", "something else") == "hi"
            tenants = ["acme", "globex", "acme", "globex"]
            return await asyncio.gather(*map(of, tenants), return_exceptions=True)

        first, second, third, fourth = run(main())
        assert [type(result) for result in (first, third)] == [BudgetExceeded] * 2
        assert (second, fourth) == ("hi", "hi")
        assert len(provider.calls) == 2

    def test_who_says_whose_budget_it_is_does_not_fail_with_who_does_not(self):
        spending = Budget(usd=9, window="1h", scope="tag:tenant", prices=lambda model, now: RATES)
        client = metered(ScriptedClient("hi"), spending, store=Slow())

        async def of(**said):
            with tags(**said):
                return await ask(client, options=LiteLLMOptions(max_tokens=3))

        async def main():
            return await asyncio.gather(of(), of(tenant="acme"), of(), return_exceptions=True)

        first, second, third = run(main())
        assert second == "hi"
        assert [type(result) for result in (first, third)] == [BudgetUnchecked] * 2

    @pytest.mark.parametrize("scope", ["global", "model"])
    def test_a_spent_budget_of_all_is_asked_once(self, scope):
        provider = ScriptedClient(Answer("hi", 10, 2))
        spending = Budget(usd=1.6, window="1h", scope=scope, prices=lambda model, now: RATES)
        client = metered(provider, spending, store=Slow())

        async def of(tenant, text="hello"):
            with tags(tenant=tenant):
                return await ask(client, text, LiteLLMOptions(max_tokens=3))

        async def main():
            await of("acme", "something else")
            return await asyncio.gather(of("acme"), of("globex"), return_exceptions=True)

        with capture() as calls:
            assert [type(result) for result in run(main())] == [BudgetExceeded] * 2
        assert sorted(len(call.reservations) for call in calls) == [0, 1, 1]


class TestTheStore:
    def test_callers_do_not_wait_until_the_answer_is_stored(self):
        store = Slow(0.0, set_delay=5)
        client = metered(ScriptedClient(Answer("hi", delay=1)), store=store)

        async def main():
            assert await ask(client) == "hi"
            assert asyncio.get_running_loop().time() == 1
            assert len(store) == 0
            await asyncio.sleep(5.1)
            assert len(store) == 1
            assert len(asyncio.all_tasks()) == 1

        run(main())

    def test_between_answer_and_store_nobody_asks_again(self):
        provider = ScriptedClient(Answer("hi", 10, 2, delay=1))
        client = metered(provider, store=Slow(0.01, set_delay=5))

        async def main():
            answers = [await ask(client)]
            for _ in range(8):
                answers.append(await ask(client))
                await asyncio.sleep(1)
            return answers

        with capture() as calls:
            assert run(main()) == ["hi"] * 9
        assert len(provider.calls) == 1
        results = [call.cache.result for call in calls]
        assert results == sorted(results, key=["miss", "coalesced", "hit"].index)
        assert {"coalesced", "hit"} < set(results)
        assert sum(call.cost.billed for call in calls) == PRICE
        assert sum(call.cost.saved for call in calls) == 8 * PRICE

    def test_a_loop_that_ends_loses_no_answer(self):
        store = Slow(0.0, set_delay=0.5)
        client = metered(ScriptedClient("hi"), store=store)
        run(ask(client))
        assert len(store) == 1

    @pytest.mark.parametrize("delay", [0.0, 0.01])
    def test_a_thousand_at_once_are_one_look_and_one_request(self, delay):
        provider, store = ScriptedClient(Answer("hi", 10, 2)), Slow(delay)
        client = metered(provider, store=store)

        async def main():
            return await asyncio.gather(*(ask(client) for _ in range(1000)))

        with capture() as calls:
            assert run(main()) == ["hi"] * 1000
        assert (len(provider.calls), store.gets) == (1, 1)
        assert sum(call.cost.billed for call in calls) == PRICE
        assert sum(call.cost.saved for call in calls) == 999 * PRICE

    def test_who_waits_for_a_look_that_finds_an_answer_has_a_hit(self):
        provider, store = ScriptedClient(Answer("hi", 10, 2)), Slow(0.01)

        async def main():
            await ask(metered(provider, store=store))
            with capture() as calls:
                await asyncio.gather(*(ask(client) for _ in range(3)))
            return calls

        client = metered(provider, store=store)
        calls = run(main())
        assert [(call.cache.result, call.cost.saved) for call in calls] == [("hit", PRICE)] * 3
        assert store.gets == 2

    def test_when_who_looks_is_cancelled_the_next_one_looks(self):
        provider, store = ScriptedClient(Answer("hi", 10, 2)), Slow(1)
        client = metered(provider, store=store)

        async def main():
            first, *others = [asyncio.create_task(ask(client)) for _ in range(4)]
            await asyncio.sleep(0.5)
            first.cancel()
            return await asyncio.gather(*others)

        with capture() as calls:
            assert run(main()) == ["hi"] * 3
        assert (len(provider.calls), store.gets) == (1, 2)
        assert [call.outcome for call in calls] == ["cancelled", "ok", "ok", "ok"]

    def test_memory_stays_under_its_ceiling(self):
        client = metered(ScriptedClient(Answer("x" * 500)), max_bytes=2**20)

        async def main():
            for n in range(10_000):
                await ask(client, str(n))

        run(main())
        store = client.bound[0].function._answers._store
        assert 0.9 * 2**20 < store.size <= 2**20


class TestLeases:
    """Two caches over one store are as two processes."""

    def test_processes_make_an_answer_once(self):
        provider, store = ScriptedClient(Answer("hi", 10, 2, delay=3)), Leasing()
        clients = [metered(provider, store=store) for _ in range(3)]

        async def main():
            answers = await asyncio.gather(*(ask(client) for client in clients for _ in range(100)))
            await asyncio.sleep(1)
            assert not store.held
            return answers

        with capture() as calls:
            assert run(main()) == ["hi"] * 300
        assert len(provider.calls) == 1
        assert sum(call.cost.billed for call in calls) == PRICE
        assert sum(call.cost.saved for call in calls) == 299 * PRICE
        assert {call.cache.result for call in calls} == {"miss", "coalesced"}

    def test_where_the_first_one_fails_the_next_one_tries(self):
        async def fail(conversation, options):
            await asyncio.sleep(1)
            return LLMStatusError("no", 400)

        provider, store = ScriptedClient(fail, "hi"), Leasing()
        clients = [metered(provider, store=store) for _ in range(2)]

        async def main():
            results = await asyncio.gather(*(ask(client) for client in clients), return_exceptions=True)
            await asyncio.sleep(1)
            assert not store.held
            return results

        first, second = run(main())
        assert isinstance(first, LLMStatusError)
        assert second == "hi"

    def test_one_that_has_died_is_waited_for_until_its_lease_ends(self):
        provider, store = ScriptedClient("hi"), Leasing()
        client = metered(provider, store=store)

        async def main():
            await ask(client)
            await asyncio.sleep(1)
            (key,) = (key for _, key in store._entries)
            await store.delete("", key)
            assert await store.acquire("", key, 10)
            before = asyncio.get_running_loop().time()
            await ask(client)
            return asyncio.get_running_loop().time() - before

        assert 9 < run(main()) < 12

    @pytest.mark.parametrize(("within", "waited"), [(8, 4), (None, 30)])
    def test_but_no_longer_than_the_caller_can_wait(self, within, waited):
        """Half of the time is left for asking by oneself, and that is what then happens."""
        provider, store = ScriptedClient("hi"), Leasing()
        client = metered(provider, store=store)

        async def main():
            await ask(client)
            await asyncio.sleep(1)
            (key,) = (key for _, key in store._entries)
            await store.delete("", key)
            assert await store.acquire("", key, 10_000)
            before = asyncio.get_running_loop().time()
            assert await ask(client, within=within) == "hi"
            return asyncio.get_running_loop().time() - before

        assert run(main()) == pytest.approx(waited, abs=1.1)

    def test_who_is_cancelled_gives_its_lease_back(self):
        for moment in range(1, 60):
            store = Leasing()
            client = metered(ScriptedClient(Answer("hi", delay=0.2)), store=store)

            async def main(client=client, moment=moment, store=store):
                task = asyncio.create_task(ask(client))
                await asyncio.sleep(moment * 0.005 + 0.0001)
                task.cancel()
                await asyncio.wait([task])
                await asyncio.sleep(1)
                # Where the request for it was on its way, nobody knows: it ends by itself.
                assert not store.held or 0.01 <= moment * 0.005 <= 0.02
                assert len(asyncio.all_tasks()) == 1

            run(main())

    def test_processes_make_a_stale_answer_anew_once(self, monkeypatch):
        clock = SimpleNamespace(time=lambda: 1.8e9 + asyncio.get_running_loop().time())
        monkeypatch.setattr("overcoat.client.time", clock)
        provider, store = ScriptedClient(Answer("hi", 10, 2, delay=3)), Leasing()
        clients = [metered(provider, store=store, ttl=100, jitter=0, stale_while_revalidate=50) for _ in range(3)]

        async def main():
            await ask(clients[0])
            await asyncio.sleep(110)
            await asyncio.gather(*(ask(client) for client in clients))
            await asyncio.sleep(10)
            assert not store.held
            return [await ask(client) for client in clients]

        with capture() as calls:
            run(main())
        assert len(provider.calls) == 2
        assert [call.cache.result for call in calls] == ["miss", *["stale"] * 3, "miss", *["hit"] * 3]

    @pytest.mark.parametrize("operation", ["lease", "release"])
    def test_a_store_that_cannot_lease_holds_up_nobody(self, caplog, operation):
        class Broken(Leasing):
            async def acquire(self, namespace: str, key: str, ttl: float) -> str | None:
                return await self.check("lease") or await super().acquire(namespace, key, ttl)

            async def release(self, namespace: str, key: str, token: str) -> None:
                await self.check("release")

            async def check(self, now: str) -> None:
                if now == operation:
                    raise OSError("down")

        provider = ScriptedClient("hi")
        client = metered(provider, store=Broken())

        async def main():
            answers = [await ask(client, str(n)) for n in range(3)]
            await asyncio.sleep(1)
            return answers

        assert run(main()) == ["hi"] * 3
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
            f"the cache's store failed to {operation}; calls go on without it"
        ]


def test_it_begins_at_once_where_python_can():
    """In a task of its own all the same."""
    begun: list[Any] = []

    class Noting(ScriptedClient):
        async def call(self, conversation, options, event, json_mode=False):
            begun.append(asyncio.current_task())
            await asyncio.sleep(0)
            return await super().call(conversation, options, event, json_mode)

    async def main():
        asyncio.get_running_loop().call_soon(begun.append, "a turn of the loop")
        await ask(metered(Noting("hi")))
        assert asyncio.current_task() not in begun

    run(main())
    assert begun.index("a turn of the loop") == (1 if sys.version_info >= (3, 12) else 0)


def test_a_loop_with_a_task_factory_makes_the_task():
    made = []

    def factory(loop, work, **more):
        made.append(work)
        return asyncio.Task(work, loop=loop, **more)

    async def main():
        asyncio.get_running_loop().set_task_factory(factory)
        assert await ask(metered(ScriptedClient("hi"))) == "hi"
        assert len(made) == 1

    run(main())


def test_an_interpreter_that_is_told_to_end_ends():
    def leave(conversation, options):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(ask(metered(ScriptedClient(leave))))


moments = st.sampled_from([0.0, 0.005, 0.01, 0.02, 0.5, 1.0, 1.01, 2.0])
people = st.lists(
    st.tuples(
        moments,
        st.none() | moments,
        st.none() | st.sampled_from([0.5, 1.5, 3.0, 60.0]),
        st.booleans(),
        st.none() | st.integers(1, 2),
    ),
    min_size=1,
    max_size=8,
)
steps = st.lists(st.sampled_from(["hi", 500, 400, 429]), min_size=1, max_size=4)


@settings(max_examples=200)
@given(people, steps, st.sampled_from([0.0, 0.01]), st.booleans(), st.sampled_from([0.0, 1.0]))
def test_whoever_comes_and_goes_when_ever(people, steps, store_delay, leases, think):
    """Everybody gets an answer, a real error, or goes; each request is in one record; nothing is left behind."""
    requests = 0

    async def play(conversation, options):
        nonlocal requests
        step = steps[requests % len(steps)]
        requests += 1
        await asyncio.sleep(think)
        return Answer(step, 10, 2) if isinstance(step, str) else LLMStatusError("no", step)

    provider = ScriptedClient(play)
    store = Leasing(store_delay) if leases else Slow(store_delay)
    clients = [
        metered(provider, Retry(max_attempts=2, random=lambda: 0.5), Timeout(5), store=store, ttl=2, jitter=0)
        for _ in range(2)
    ]

    async def caller(start, leaves, within, second, most):
        await asyncio.sleep(start)
        with nullcontext() if most is None else max_requests(most):
            async with asyncio.timeout(leaves):
                return await ask(clients[second], within=within)

    async def main():
        results = await asyncio.gather(*(caller(*person) for person in people), return_exceptions=True)
        for result, (_, leaves, within, _, _) in zip(results, people, strict=True):
            if isinstance(result, DeadlineExceeded):
                assert within is not None
            elif isinstance(result, TimeoutError):
                assert leaves is not None
            else:
                assert result == "hi" or isinstance(result, LLMStatusError)
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == 1

    with capture() as calls:
        run(main())
    for client in clients:
        assert not client.bound[0].function._flights
    assert len(calls) == len(people)
    assert sum(len(call.attempts) for call in calls) == requests
    for call in calls:
        assert call.cost.billed == PRICE * sum(attempt.ok for attempt in call.attempts)
        if call.outcome == "ok":
            assert call.cost.billed - call.cost.wasted + call.cost.saved == PRICE
