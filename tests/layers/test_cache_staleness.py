"""`Cache` and time: what is fresh for how long, what is given out after that, and who pays for making it anew."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest

from overcoat import (
    Breaker,
    Cache,
    CircuitOpen,
    Deadline,
    LiteLLMOptions,
    LLMConnectionError,
    LLMEvent,
    LLMStatusError,
    Meter,
    Retry,
    Timeout,
    Trace,
    cache_mode,
    cache_sample,
    capture,
    stack,
    tags,
)
from overcoat.pricing.rates import Rates, Tier
from overcoat.stores.memory import MemoryStore
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

RATES = Rates((Tier(0, Decimal("0.01"), Decimal("0.1")),), "test")
PRICE = Decimal("0.3")
NOON = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch):
    """Let the calendar's clock go with the loop's, which is virtual."""
    clock = SimpleNamespace(time=lambda: NOON + asyncio.get_running_loop().time())
    monkeypatch.setattr("overcoat.client.time", clock)


def counting(delay=0.0):
    """Answer "1", "2", "3", ..., so that it can be seen which answer is which."""
    numbers = iter(range(1, 1000))
    return ScriptedClient(lambda messages, options: Answer(str(next(numbers)), 10, 2, delay=delay))


def cached(provider, *inside, outside=(), **settings):
    settings = {"ttl": 100, "jitter": 0, **settings}
    return stack(provider, *outside, Cache(**settings), *inside, Meter(prices=lambda model, now: RATES))


async def ask(client, text="hello", options=None):
    return await client.call([{"role": "user", "content": text}], options, LLMEvent([], "test"))


async def quiet():
    """Let all come to its end that goes on in the background."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)


def said(call):
    return call.cache.result, call.cache.reason, call.cost.billed, call.cost.saved


MADE = ("miss", None, PRICE, 0)
HIT = ("hit", None, 0, PRICE)
STALE = ("stale", "while_revalidate", 0, PRICE)
REFRESH = ("miss", "refresh", PRICE, 0)
SPARE = ("stale", "if_error", 0, PRICE)


class TestTimeToLive:
    @pytest.mark.parametrize(("draw", "fresh_for"), [(0.0, 100), (0.5, 90), (0.999, 80.02)])
    def test_a_part_of_it_is_left_to_chance(self, draw, fresh_for):
        client = cached(counting(), jitter=0.2, random=lambda: draw)

        async def main():
            answers = [await ask(client)]
            await asyncio.sleep(fresh_for - 0.001)
            answers.append(await ask(client))
            await asyncio.sleep(0.002)
            return [*answers, await ask(client)]

        assert run(main()) == ["1", "1", "2"]

    def test_what_was_stored_together_does_not_end_together(self):
        client = cached(counting(), ttl=1000)

        async def main(client):
            for n in range(50):
                await ask(client, str(n))
            await asyncio.sleep(950)
            with capture() as calls:
                for n in range(50):
                    await ask(client, str(n))
            return {call.cache.result for call in calls}

        assert run(main(client)) == {"hit"}
        assert run(main(cached(counting(), ttl=1000, jitter=0.1))) == {"hit", "miss"}

    def test_no_cache_takes_what_is_older_than_it_allows(self):
        """Whoever stored it, and for however long."""
        store = MemoryStore(2**20)
        provider = counting()
        patient, strict = cached(provider, store=store), cached(provider, store=store, ttl=10)

        async def main():
            first = await ask(patient)
            await asyncio.sleep(10)
            return first, await ask(patient), await ask(strict)

        assert run(main()) == ("1", "1", "2")


class TestStaleWhileRevalidate:
    def test_it_is_given_out_at_once_and_made_anew(self):
        client = cached(counting(delay=2), stale_while_revalidate=50)

        async def main():
            loop = asyncio.get_running_loop()
            await ask(client)
            await asyncio.sleep(110)
            asked = loop.time()
            stale = await ask(client)
            assert loop.time() == asked
            await quiet()
            return stale, await ask(client)

        with capture() as calls:
            assert run(main()) == ("1", "2")
        assert [said(call) for call in calls] == [MADE, STALE, REFRESH, HIT]
        assert calls[1].cache.age == 110
        assert (calls[2].outcome, len(calls[2].attempts), calls[2].started) == ("ok", 1, 112)

    def test_who_comes_meanwhile_starts_no_other(self):
        provider = counting(delay=2)
        client = cached(provider, stale_while_revalidate=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            answers = await asyncio.gather(*(ask(client) for _ in range(10)))
            await asyncio.sleep(1)
            answers.append(await ask(client))
            await quiet()
            return answers

        with capture() as calls:
            assert run(main()) == ["1"] * 11
        assert len(provider.calls) == 2
        assert [said(call) for call in calls] == [MADE, *[STALE] * 11, REFRESH]

    def test_there_are_never_more_than_allowed(self):
        """And those that were not made anew are the next time."""
        provider = counting(delay=2)
        client = cached(provider, stale_while_revalidate=50, max_refreshes=3)

        async def main():
            for n in range(10):
                await ask(client, str(n))
            await asyncio.sleep(105)
            provider.most_in_flight = 0
            for _ in range(2):
                await asyncio.gather(*(ask(client, str(n)) for n in range(10)))
                await quiet()

        run(main())
        assert provider.most_in_flight == 3
        assert len(provider.calls) == 10 + 3 + 3

    def test_one_that_fails_harms_nobody(self):
        provider = ScriptedClient(Answer("1", 10, 2), LLMStatusError("down", 401), Answer("2", 10, 2))
        client = cached(provider, stale_while_revalidate=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            answers = [await ask(client)]
            await quiet()
            answers.append(await ask(client))
            await quiet()
            return [*answers, await ask(client)]

        with capture() as calls:
            assert run(main()) == ["1", "1", "2"]
        assert [(call.cache.reason, call.outcome, call.error_type) for call in calls] == [
            (None, "ok", None),
            ("while_revalidate", "ok", None),
            ("refresh", "error", "auth"),
            ("while_revalidate", "ok", None),
            ("refresh", "ok", None),
            (None, "ok", None),
        ]

    def test_it_asks_what_the_caller_asked(self):
        """Who has the answer goes on with the conversation, and not all make another list for that."""
        provider = counting()
        client = cached(provider, stale_while_revalidate=50)

        async def main():
            options = LiteLLMOptions(max_tokens=50)
            for _ in range(2):
                conversation = [{"role": "user", "content": "hello"}]
                await client.call(conversation, options, event := LLMEvent([], "test"))
                conversation[0]["content"] = "changed"
                conversation.append({"role": "assistant", "content": "1"})
                await asyncio.sleep(110)
            return event

        with tags(tenant="acme"), capture() as calls:
            event = run(main())
        assert [call.conversation for call in provider.calls][1] == [{"role": "user", "content": "hello"}]
        assert provider.calls[1].options.max_tokens == 50
        assert [call.tags for call in calls] == [{"tenant": "acme"}] * 3
        assert event.prompt_tokens == 10

    def test_it_makes_the_same_sample_anew(self):
        client = cached(counting(), stale_while_revalidate=50, sampled=True, samples=9)
        options = LiteLLMOptions(temperature=1)

        async def main():
            with cache_sample(3):
                await ask(client, options=options)
            await asyncio.sleep(110)
            with cache_sample(3):
                await ask(client, options=options)
            await quiet()
            with cache_sample(3):
                return await ask(client, options=options)

        assert run(main()) == "2"

    def test_it_has_a_deadline_of_its_own(self):
        """That of the caller is none of its business: the caller has gone."""
        client = cached(counting(delay=2), stale_while_revalidate=50, outside=[Deadline(3)])

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            await ask(client)
            await quiet()
            return await ask(client)

        assert run(main()) == "2"

    def test_only_if_cached_takes_it_and_leaves_it_at_that(self):
        provider = counting()
        client = cached(provider, stale_while_revalidate=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            with cache_mode("only-if-cached"):
                return await ask(client)

        with capture() as calls:
            assert run(main()) == "1"
        assert said(calls[1]) == STALE
        assert len(provider.calls) == 1

    def test_after_that_it_is_a_miss(self):
        client = cached(counting(), stale_while_revalidate=50)

        async def main():
            await ask(client)
            await asyncio.sleep(150)
            return await ask(client)

        assert run(main()) == "2"

    def test_its_span_is_a_trace_of_its_own_with_a_link(self):
        telemetry = InMemoryTelemetry()
        trace = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
        client = cached(counting(delay=2), stale_while_revalidate=50, outside=[trace])

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            await ask(client)
            await quiet()

        run(main())
        made, stale, refresh = telemetry.named("overcoat.call")
        assert refresh.parent is None
        assert refresh.context.trace_id != stale.context.trace_id
        assert [link.context.span_id for link in refresh.links] == [stale.context.span_id]
        assert not made.links
        assert [chat.parent.span_id for chat in telemetry.named("chat")] == [
            made.context.span_id,
            refresh.context.span_id,
        ]
        (lookup,) = telemetry.named("cache.get")
        assert (lookup.attributes["overcoat.cache.result"], lookup.attributes["overcoat.cache.age"]) == ("stale", 110)
        assert telemetry.total("overcoat.cost.billed") == pytest.approx(2 * float(PRICE))
        assert telemetry.total("overcoat.calls") == 3

    def test_a_loop_that_ends_takes_it_along(self):
        """Its record is complete all the same, and nothing of it stays in the cache."""
        client = cached(counting(delay=2), stale_while_revalidate=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            await ask(client)
            await asyncio.sleep(1)

        with capture() as calls:
            run(main())
        assert [call.outcome for call in calls] == ["ok", "ok", "cancelled"]
        caching = client.bound[0].function
        assert not caching._refreshes
        assert not caching._flights


FAILURES = [
    LLMConnectionError(),
    LLMStatusError("down", 500),
    LLMStatusError("overloaded", 503),
    LLMStatusError("slow down", 429),
]


class TestStaleIfError:
    @pytest.mark.parametrize("failure", FAILURES, ids=str)
    def test_it_makes_up_for_a_provider_that_is_not_there(self, failure):
        client = cached(ScriptedClient(Answer("1", 10, 2), failure), stale_if_error=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            return await ask(client)

        with capture() as calls:
            assert run(main()) == "1"
        assert said(calls[1]) == SPARE
        assert (calls[1].outcome, calls[1].cache.age, len(calls[1].attempts)) == ("ok", 110, 1)
        assert calls[1].delivered == calls[0].delivered
        assert not calls[1].attempts[0].ok

    @pytest.mark.parametrize(
        "failure", [LLMStatusError("no", 401), LLMStatusError("no", 400), LLMStatusError("no", 404), ValueError("bug")]
    )
    def test_it_hides_no_mistake_of_ours(self, failure):
        client = cached(ScriptedClient(Answer("1", 10, 2), failure), stale_if_error=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            with pytest.raises(type(failure)):
                await ask(client)

        run(main())

    def test_an_attempt_that_takes_too_long(self):
        provider = ScriptedClient(Answer("1", 10, 2), Answer("2", delay=60))
        client = cached(provider, Timeout(5), stale_if_error=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            return await ask(client)

        assert run(main()) == "1"

    def test_an_open_circuit_is_that_same_failure(self):
        provider = ScriptedClient(Answer("1", 10, 2), LLMStatusError("down", 500))
        client = cached(provider, Breaker(min_calls=1, failure_ratio=0.1, open_for=1000), stale_if_error=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            answers = [await ask(client) for _ in range(3)]
            with pytest.raises(CircuitOpen):
                await ask(client, "something else")
            return answers

        assert run(main()) == ["1"] * 3
        assert len(provider.calls) == 2

    def test_what_the_failed_attempts_cost_is_billed_and_wasted(self):
        async def charge(conversation, options):
            raise LLMStatusError("down", 500)

        class Charging(ScriptedClient):
            async def call(self, conversation, options, event, json_mode=False):
                event.prompt_tokens, event.completion_tokens, event.total_tokens = 10, 2, 12
                return await super().call(conversation, options, event, json_mode)

        provider = Charging(Answer("1", 10, 2), LLMStatusError("down", 500))
        client = cached(provider, Retry(max_attempts=2, random=lambda: 0.0), stale_if_error=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            return await ask(client)

        with capture() as calls:
            assert run(main()) == "1"
        assert (calls[1].cost.billed, calls[1].cost.wasted, calls[1].cost.saved) == (2 * PRICE, 2 * PRICE, PRICE)

    def test_all_who_wait_get_it(self):
        async def fail(conversation, options):
            await asyncio.sleep(1)
            return LLMStatusError("down", 500)

        client = cached(ScriptedClient(Answer("1", 10, 2), fail), stale_if_error=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            return await asyncio.gather(*(ask(client) for _ in range(3)))

        with capture() as calls:
            assert run(main()) == ["1"] * 3
        assert [said(call) for call in calls[1:]] == [SPARE] * 3
        assert [len(call.attempts) for call in calls[1:]] == [1, 0, 0]

    def test_not_for_ever(self):
        """Nor where its time was up before the failure was known."""

        async def fail(conversation, options):
            await asyncio.sleep(20)
            return LLMStatusError("down", 500)

        client = cached(ScriptedClient(Answer("1", 10, 2), fail), stale_if_error=50)

        async def main():
            await ask(client)
            for wait in (135, 50):
                await asyncio.sleep(wait)
                with pytest.raises(LLMStatusError):
                    await ask(client)

        run(main())

    def test_a_refresh_that_was_asked_for_says_that_it_failed(self):
        client = cached(ScriptedClient(Answer("1", 10, 2), LLMStatusError("down", 500)), stale_if_error=50)

        async def main():
            await ask(client)
            await asyncio.sleep(110)
            with cache_mode("refresh"), pytest.raises(LLMStatusError):
                await ask(client)

        run(main())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jitter": 1}, r"Cache\(jitter=1\): expected a number of at least 0, and below 1"),
        ({"jitter": -0.1}, "below 1"),
        ({"jitter": True}, "below 1"),
        ({"jitter": "10%"}, "below 1"),
        ({"jitter": float("nan")}, "below 1"),
        ({"stale_while_revalidate": -1}, r"Cache\(stale_while_revalidate=\.\.\.\)"),
        ({"stale_if_error": "60"}, "'60' is no duration"),
        ({"max_refreshes": 0}, r"Cache\(max_refreshes=0\)"),
        ({"samples": 0}, r"Cache\(samples=0\)"),
        ({"namespace": ""}, r"Cache\(namespace=''\)"),
        ({"namespace": "tag:"}, r"Cache\(namespace='tag:'\)"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Cache(**settings)
