"""`Cache` under control: modes, tenants, samples, the caller's judgement, and eviction."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from overcoat import (
    Cache,
    LiteLLMOptions,
    LLMEvent,
    Meter,
    NotCached,
    Trace,
    Usage,
    cache_mode,
    cache_sample,
    capture,
    invalidate,
    stack,
    tags,
)
from overcoat.pricing.rates import Rates, Tier
from overcoat.stores.memory import MemoryStore
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

RATES = Rates((Tier(0, Decimal("0.01"), Decimal("0.1")),), "test")
WARM = LiteLLMOptions(temperature=0.7)


def counting(**fields):
    """Answer "1", "2", "3", ..., so that it can be seen which answer is which."""
    numbers = iter(range(1, 1000))
    return ScriptedClient(lambda messages, options: Answer(str(next(numbers)), 10, 2, **fields))


async def ask(client, text="hello", options=None, json_mode=False, event=None):
    return await client.call([{"role": "user", "content": text}], options, event or LLMEvent([], "test"), json_mode)


def lookups(calls):
    return [(call.cache.result, call.cache.reason) for call in calls]


class TestModes:
    def test_bypass_neither_reads_nor_stores(self):
        client = stack(counting(), Cache())

        async def main():
            with cache_mode("bypass"):
                return [await ask(client), await ask(client)]

        with capture() as calls:
            assert run(main()) == ["1", "2"]
            assert run(ask(client)) == "3"
        assert lookups(calls) == [("bypass", "asked"), ("bypass", "asked"), ("miss", None)]

    def test_refresh_replaces_what_is_stored(self):
        client = stack(counting(), Cache())

        async def main():
            first = await ask(client)
            with cache_mode("refresh"):
                second = await ask(client)
            return first, second, await ask(client)

        with capture() as calls:
            assert run(main()) == ("1", "2", "2")
        assert lookups(calls) == [("miss", None), ("miss", "refresh"), ("hit", None)]

    def test_equal_refreshes_at_once_share_one_inference_of_their_own(self):
        client = stack(counting(delay=1), Cache())

        async def main():
            usual = asyncio.create_task(ask(client))
            await asyncio.sleep(0.5)
            with cache_mode("refresh"):
                return [await usual, *await asyncio.gather(*(ask(client) for _ in range(3)))]

        assert run(main()) == ["1", "2", "2", "2"]

    def test_only_if_cached_asks_nobody(self):
        provider = counting()
        client = stack(provider, Cache())

        async def main():
            with cache_mode("only-if-cached"):
                with pytest.raises(NotCached, match="no stored answer under") as caught:
                    await ask(client)
                assert caught.value.key == calls[0].cache.entry.key
            await ask(client)
            with cache_mode("only-if-cached"):
                return await ask(client)

        with capture() as calls:
            assert run(main()) == "1"
        assert len(provider.calls) == 1
        assert [(call.outcome, call.error_type) for call in calls] == [
            ("refused", "not_cached"),
            ("ok", None),
            ("ok", None),
        ]
        assert lookups(calls) == [("miss", None), ("miss", None), ("hit", None)]

    def test_only_if_cached_where_there_is_no_key(self):
        provider = counting()

        async def main():
            with cache_mode("only-if-cached"), pytest.raises(NotCached, match="passes the cache by") as caught:
                await ask(stack(provider, Cache()), options=WARM)
            return caught.value.key

        with capture() as calls:
            assert run(main()) is None
        assert (lookups(calls), provider.calls) == ([("bypass", "sampled")], [])


class TestTenants:
    def test_a_tag_keeps_apart(self):
        client = stack(counting(), Cache(namespace="tag:tenant"))

        async def main():
            answers = []
            for tenant in ("acme", "globex", "acme"):
                with tags(tenant=tenant, feature="search"):
                    answers.append(await ask(client))
            return answers

        assert run(main()) == ["1", "2", "1"]

    @pytest.mark.parametrize("given", [{}, {"tenant": ""}, {"customer": "acme"}])
    def test_without_the_tag_nothing_is_shared_and_that_is_said(self, given, caplog):
        client = stack(counting(), Cache(namespace="tag:tenant"))

        async def main():
            with tags(**given):
                return [await ask(client), await ask(client)]

        with capture() as calls:
            assert run(main()) == ["1", "2"]
        assert lookups(calls) == [("bypass", "no_namespace")] * 2
        assert [record.message for record in caplog.records] == ["calls without the tag 'tenant' pass the cache by"]

    def test_a_name_and_a_tag_of_that_value_are_one_tenant(self):
        """So that a service of one tenant can share with one of many."""
        store = MemoryStore(2**20)
        provider = counting()

        async def main():
            first = await ask(stack(provider, Cache(store=store, namespace="acme")))
            with tags(tenant="acme"):
                return first, await ask(stack(provider, Cache(store=store, namespace="tag:tenant")))

        assert run(main()) == ("1", "1")

    def test_a_tenant_can_be_thrown_away(self):
        store = MemoryStore(2**20)
        client = stack(counting(), Cache(store=store, namespace="tag:tenant"))

        async def of(tenant):
            with tags(tenant=tenant):
                return await ask(client)

        async def main():
            first = [await of("acme"), await of("globex")]
            await store.invalidate("acme")
            return first, [await of("acme"), await of("globex")]

        assert run(main()) == (["1", "2"], ["3", "2"])


class TestSamples:
    def test_an_index_has_an_answer_of_its_own(self):
        client = stack(counting(), Cache(sampled=True))

        async def main():
            answers = []
            for index in (0, 1, 2, 1, 0):
                with cache_sample(index):
                    answers.append(await ask(client, options=WARM))
            return [*answers, await ask(client, options=WARM)]

        assert run(main()) == ["1", "2", "3", "2", "1", "1"]

    def test_an_index_counts_for_any_request(self):
        """A provider's own temperature is above 0 where a request says nothing."""
        client = stack(counting(), Cache())

        async def main():
            with cache_sample(1):
                first = await ask(client)
            return first, await ask(client)

        assert run(main()) == ("1", "2")

    def test_an_index_does_not_allow_what_the_settings_do_not(self):
        client = stack(counting(), Cache())

        async def main():
            with cache_sample(1):
                return [await ask(client, options=WARM) for _ in range(2)]

        assert run(main()) == ["1", "2"]

    def test_chance_takes_one_of_so_many(self):
        jitter = 0.0  # for which each miss draws once more
        draws = iter([0.0, jitter, 0.99, jitter, 0.5, jitter, 0.34, 0.0, 0.99])
        client = stack(counting(), Cache(sampled=True, samples=3, random=lambda: next(draws)))

        async def main():
            return [await ask(client, options=WARM) for _ in range(6)]

        assert run(main()) == ["1", "2", "3", "3", "1", "2"]

    def test_what_is_not_sampled_has_one_answer(self):
        client = stack(counting(), Cache(sampled=True, samples=3))

        async def main():
            return {await ask(client, options=LiteLLMOptions(temperature=0)) for _ in range(20)}

        assert run(main()) == {"1"}


class TestAccept:
    def test_what_is_not_accepted_is_passed_on_and_not_kept(self):
        client = stack(counting(), Cache(accept=lambda text: text != "1"))

        async def main():
            return [await ask(client) for _ in range(3)]

        with capture() as calls:
            assert run(main()) == ["1", "2", "2"]
        assert lookups(calls) == [("refused", "rejected"), ("miss", None), ("hit", None)]

    def test_a_judge_that_fails_costs_nobody_the_answer(self, caplog):
        def accept(text):
            raise RuntimeError(f"secret {text}")

        with capture() as calls:
            assert run(ask(stack(counting(), Cache(accept=accept)))) == "1"
        assert lookups(calls) == [("refused", "rejected")]
        assert "raised RuntimeError; the answer is not kept" in caplog.text
        assert "secret" not in caplog.text

    def test_it_is_not_asked_about_what_is_of_no_use_anyway(self):
        asked = []
        client = stack(ScriptedClient(Answer("", finish_reason="stop")), Cache(accept=asked.append))
        run(ask(client))
        assert asked == []


class TestUsage:
    def test_an_event_can_be_left_without_what_was_used_by_another_call(self):
        """For a host that adds up its events."""
        client = stack(counting(colour="red", finish_reason="stop"), Cache(replay_usage=False), Meter(prices=_prices))
        events = [LLMEvent([], "test") for _ in range(2)]

        async def main():
            for event in events:
                await ask(client, event=event)

        with capture() as calls:
            run(main())
        assert [(event.prompt_tokens, event.total_tokens) for event in events] == [(10, 12), (None, None)]
        assert [(event.colour, event.finish_reason) for event in events] == [("red", "stop")] * 2
        assert [call.cost.saved for call in calls] == [0, Decimal("0.3")]
        assert calls[1].cache.usage == Usage(10, 2, 12)


class TestInvalidate:
    def test_a_call_s_answer_is_evicted(self):
        """Whether it made it, found it, or shared it."""
        client = stack(counting(delay=1), Cache())

        async def main():
            answers = await asyncio.gather(ask(client), ask(client))
            answers.append(await ask(client))
            for call in list(calls):
                assert await invalidate(call)
                answers.append(await ask(client))
            return answers

        with capture() as calls:
            assert run(main()) == ["1", "1", "1", "2", "3", "4"]
        assert {call.cache.result for call in calls[:3]} == {"miss", "coalesced", "hit"}

    def test_only_that_one_is(self):
        client = stack(counting(), Cache())

        async def main():
            await ask(client, "a")
            await ask(client, "b")
            await invalidate(calls[0])
            return await ask(client, "a"), await ask(client, "b")

        with capture() as calls:
            assert run(main()) == ("3", "2")

    def test_a_call_that_passed_the_cache_by(self):
        async def main():
            await ask(stack(counting(), Cache()), options=WARM)
            return await invalidate(calls[0])

        with capture() as calls:
            assert run(main()) is False

    def test_an_answer_that_is_still_on_its_way_into_the_store(self):
        class Slow(MemoryStore):
            async def set(self, namespace, key, value, ttl):
                await asyncio.sleep(1)
                await super().set(namespace, key, value, ttl)

        store = Slow(2**20)
        client = stack(counting(), Cache(store=store))

        async def main():
            await ask(client)
            assert asyncio.get_running_loop().time() == 0
            assert await invalidate(calls[0])
            return await ask(client)

        with capture() as calls:
            assert run(main()) == "2"

    def test_a_store_that_cannot(self):
        class Fixed(MemoryStore):
            async def delete(self, namespace, key):
                raise OSError("read-only")

        async def main():
            await ask(stack(counting(), Cache(store=Fixed(2**20))))
            return await invalidate(calls[0])

        with capture() as calls:
            assert run(main()) is False


class TestKeyParts:
    def test_a_client_says_what_else_makes_a_difference(self):
        provider = counting()
        client = stack(provider, Cache())

        async def main():
            answers = []
            for tools in (["a"], ["b"], ["a"]):
                provider.cache_key_parts = lambda tools=tools: {"tools": tools}
                answers.append(await ask(client))
            return answers

        assert run(main()) == ["1", "2", "1"]

    @pytest.mark.parametrize("parts", [lambda: 1 / 0, {"tools": object()}])
    def test_where_it_cannot_say_nothing_is_shared(self, parts):
        provider = counting()
        provider.cache_key_parts = parts
        client = stack(provider, Cache())

        async def main():
            return [await ask(client), await ask(client)]

        with capture() as calls:
            assert run(main()) == ["1", "2"]
        assert lookups(calls) == [("bypass", "uncacheable")] * 2


def test_metrics_and_spans_say_why():
    telemetry = InMemoryTelemetry()
    trace = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    client = stack(counting(), trace, Cache())

    async def main():
        await ask(client)
        await ask(client)
        await ask(client, options=WARM)
        with cache_mode("refresh"):
            await ask(client)

    run(main())
    spans = [span.attributes for span in telemetry.named("overcoat.call")]
    assert [(each["overcoat.cache.result"], each.get("overcoat.cache.reason")) for each in spans] == [
        ("miss", None),
        ("hit", None),
        ("bypass", "sampled"),
        ("miss", "refresh"),
    ]
    assert telemetry.total("overcoat.cache.requests", {"overcoat.cache.result": "miss"}) == 2
    assert telemetry.total("overcoat.cache.requests", {"overcoat.cache.reason": "sampled"}) == 1
    assert telemetry.total("overcoat.cache.requests") == 4


def _prices(model, now):
    return RATES
