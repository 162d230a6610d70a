"""`Cache`: what is a hit, what is kept, and who pays when equal requests share one inference."""

from __future__ import annotations

import asyncio
import gc
import pickle
from decimal import Decimal

import pytest

from overcoat import (
    Cache,
    LiteLLMOptions,
    LLMEvent,
    LLMStatusError,
    Meter,
    Retry,
    Trace,
    Usage,
    capture,
    stack,
)
from overcoat.caching.single_flight import Flight
from overcoat.pricing.rates import Rates, Tier
from overcoat.stores.memory import MemoryStore
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

RATES = Rates((Tier(0, Decimal("0.01"), Decimal("0.1")),), "test")


def conversation(text: str = "hello") -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def metered(client, **settings):
    return stack(client, Cache(**settings), Meter(prices=lambda model, now: RATES))


def flights():
    gc.collect()
    return [each for each in gc.get_objects() if type(each) is Flight]


async def ask(client, text="hello", options=None, json_mode=False, event=None):
    return await client.call(conversation(text), options, event or LLMEvent([], "test"), json_mode)


class TestHits:
    def test_an_equal_request_is_answered_once(self):
        provider = ScriptedClient(Answer("hi", 10, 2, finish_reason="stop"))
        client, own = metered(provider), LLMEvent([], "test")

        async def main():
            await ask(client)
            return await ask(client, event=own)

        with capture() as calls:
            assert run(main()) == "hi"
        assert len(provider.calls) == 1
        assert (own.prompt_tokens, own.completion_tokens, own.total_tokens, own.finish_reason) == (10, 2, 12, "stop")
        first, second = calls
        assert (first.cache.result, second.cache.result) == ("miss", "hit")
        assert (first.cost.billed, first.cost.saved) == (Decimal("0.3"), 0)
        assert (second.cost.billed, second.cost.saved) == (0, Decimal("0.3"))
        assert (second.usage, second.delivered) == (None, Usage(10, 2, 12))

    def test_different_requests_are_not_confused(self):
        provider = ScriptedClient(lambda messages, _: messages[0]["content"].upper())

        async def main():
            client = stack(provider, Cache())
            return [await ask(client, text) for text in ("a", "b", "a", "b")]

        assert run(main()) == ["A", "B", "A", "B"]
        assert len(provider.calls) == 2

    def test_json_mode_and_options_are_part_of_the_question(self):
        provider = ScriptedClient("1")

        async def main():
            client = stack(provider, Cache())
            await ask(client)
            await ask(client, json_mode=True)
            await ask(client, options=LiteLLMOptions(max_tokens=5))
            await ask(client, options=LiteLLMOptions(timeout=5))  # travels differently, asks the same
            await ask(client, options=LiteLLMOptions())

        run(main())
        assert len(provider.calls) == 3

    def test_a_client_that_is_pointed_elsewhere_asks_anew(self):
        """A gateway's address may change while its stack lives."""
        provider = ScriptedClient("hi")

        async def main():
            client = stack(provider, Cache())
            for name, value in (("base_url", "http://a"), ("base_url", "http://b"), ("api_key", "1"), ("api_key", "2")):
                setattr(provider, name, value)
                await ask(client)
                await ask(client)

        run(main())
        assert len(provider.calls) == 4

    def test_namespaces_share_nothing(self):
        store = MemoryStore(2**20)
        provider = ScriptedClient("hi")

        async def main():
            for tenant in ("acme", "globex", None):
                await ask(stack(provider, Cache(store=store, namespace=tenant)))

        run(main())
        assert len(provider.calls) == 3

    def test_answers_expire(self):
        provider = ScriptedClient("hi")

        async def main():
            client = stack(provider, Cache(ttl="1h", jitter=0))
            await ask(client)
            await asyncio.sleep(3599.9)
            await ask(client)
            assert len(provider.calls) == 1
            await asyncio.sleep(0.1)
            await ask(client)

        run(main())
        assert len(provider.calls) == 2

    def test_a_hit_links_to_the_span_that_made_it(self):
        telemetry = InMemoryTelemetry()
        client = stack(ScriptedClient("hi"), Trace(tracer_provider=telemetry.tracer_provider), Cache())

        async def main():
            await ask(client)
            await ask(client)

        run(main())
        (chat,), (lookup,) = telemetry.named("chat"), telemetry.named("cache.get")
        assert [link.context.span_id for link in lookup.links] == [chat.context.span_id]
        assert lookup.attributes["overcoat.cache.result"] == "hit"


class TestWhatIsKept:
    """A wrong or useless answer must not be given to anyone else."""

    @pytest.mark.parametrize(
        ("answer", "options", "json_mode", "reason"),
        [
            (Answer("cut", finish_reason="length"), None, False, "truncated"),
            (Answer("cut", 5, 16), LiteLLMOptions(max_tokens=16), False, "truncated"),
            (Answer("", finish_reason="stop"), None, False, "empty"),
            (Answer("sorry", finish_reason="content_filter"), None, False, "filtered"),
            (Answer("no json"), None, True, "no_json"),
            (Answer("hi", trace=object()), None, False, "unstorable"),
            (Answer("hi", seed=2**70), None, False, "unstorable"),
            (Answer("\ud800"), None, False, "unstorable"),
        ],
    )
    def test_refused(self, answer, options, json_mode, reason):
        """The caller gets the answer all the same, and the record says why it was not kept."""
        provider = ScriptedClient(answer)

        async def main():
            client = stack(provider, Cache())
            return [await ask(client, options=options, json_mode=json_mode) for _ in range(2)]

        with capture() as calls:
            assert run(main()) == [answer.text, answer.text]
        assert [(call.cache.result, call.cache.reason) for call in calls] == [("refused", reason)] * 2
        assert len(provider.calls) == 2

    def test_json_that_parses_is_kept(self):
        provider = ScriptedClient('{"a": 1}')

        async def main():
            client = stack(provider, Cache())
            return [await ask(client, json_mode=True) for _ in range(2)]

        run(main())
        assert len(provider.calls) == 1

    def test_errors_are_not_kept(self):
        provider = ScriptedClient(LLMStatusError("no", 400), "hi")

        async def main():
            client = stack(provider, Cache())
            with pytest.raises(LLMStatusError):
                await ask(client)
            return await ask(client)

        assert run(main()) == "hi"


class TestBypass:
    def test_randomness_that_was_asked_for(self):
        provider = ScriptedClient("hi")

        async def main(client):
            for _ in range(2):
                await ask(client, options=LiteLLMOptions(temperature=0.7))

        with capture() as calls:
            run(main(stack(provider, Cache())))
        assert len(provider.calls) == 2
        assert {(call.cache.result, call.cache.reason) for call in calls} == {("bypass", "sampled")}
        run(main(stack(provider, Cache(sampled=True))))
        assert len(provider.calls) == 3

    @pytest.mark.parametrize("temperature", ["0.7", "0", float("nan"), True, 1])
    def test_what_may_be_randomness(self, temperature):
        """A text, which some providers take for a number, is no plain 0."""
        with capture() as calls:
            run(ask(stack(ScriptedClient("hi"), Cache()), options={"temperature": temperature}))
        assert (calls[0].cache.result, calls[0].cache.reason) == ("bypass", "sampled")

    @pytest.mark.parametrize("temperature", [0, 0.0, -0.0, False, None])
    def test_what_is_none(self, temperature):
        with capture() as calls:
            run(ask(stack(ScriptedClient("hi"), Cache()), options={"temperature": temperature}))
        assert calls[0].cache.result == "miss"

    @pytest.mark.parametrize("options", [object(), {"seed": 2**70}, {"stop": {1, object()}}, {"user": "\ud800"}])
    def test_what_has_no_unambiguous_key(self, options):
        provider = ScriptedClient("hi")

        async def main():
            client = stack(provider, Cache())
            for _ in range(2):
                assert await ask(client, options=options) == "hi"

        with capture() as calls:
            run(main())
        assert len(provider.calls) == 2
        assert {(call.cache.result, call.cache.reason) for call in calls} == {("bypass", "uncacheable")}


class TestSingleFlight:
    def test_equal_requests_at_once_share_one_inference(self):
        provider = ScriptedClient(Answer("hi", 10, 2, delay=1))
        client = metered(provider)

        async def main():
            return await asyncio.gather(*(ask(client) for _ in range(1000)))

        with capture() as calls:
            assert run(main()) == ["hi"] * 1000
        assert len(provider.calls) == 1
        assert sorted(call.cache.result for call in calls) == ["coalesced"] * 999 + ["miss"]
        assert sum(call.cost.billed for call in calls) == Decimal("0.3")
        assert sum(call.cost.saved for call in calls) == 999 * Decimal("0.3")

    def test_an_error_goes_to_all_and_is_not_kept(self):
        async def fail(messages, options):
            await asyncio.sleep(1)
            return LLMStatusError("no", 401)

        provider = ScriptedClient(fail, "hi")
        client = metered(provider)

        async def main():
            results = await asyncio.gather(*(ask(client) for _ in range(5)), return_exceptions=True)
            assert [type(result) for result in results] == [LLMStatusError] * 5
            return await ask(client)

        with capture() as calls:
            assert run(main()) == "hi"
        assert len(provider.calls) == 2
        assert [(call.outcome, call.cost.saved) for call in calls[:5]] == [("error", 0)] * 5

    def test_the_leader_s_cancellation_does_not_take_the_answer_from_the_others(self):
        """And the one who is left to pay is the one whose record is still open."""
        provider = ScriptedClient(Answer("hi", 10, 2, delay=5))
        client = metered(provider)

        async def main():
            leader = asyncio.create_task(ask(client))
            followers = [asyncio.create_task(ask(client)) for _ in range(2)]
            await asyncio.sleep(1)
            leader.cancel()
            assert await asyncio.gather(*followers) == ["hi", "hi"]
            assert leader.cancelled()

        with capture() as calls:
            run(main())
        assert len(provider.calls) == 1
        assert provider.cancelled == 0
        assert [(call.outcome, call.cache.result, call.cost.billed, call.cost.saved) for call in calls] == [
            ("cancelled", "miss", 0, 0),
            ("ok", "miss", Decimal("0.3"), 0),
            ("ok", "coalesced", 0, Decimal("0.3")),
        ]
        assert calls[1].cache.reason == "took_over"

    def test_the_inference_is_cancelled_when_nobody_waits(self):
        provider = ScriptedClient(Answer("hi", delay=5))
        client = metered(provider)

        async def main():
            tasks = [asyncio.create_task(ask(client)) for _ in range(3)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert provider.cancelled == 1
            assert len(asyncio.all_tasks()) == 1
            late = asyncio.create_task(ask(client))
            await asyncio.sleep(0)
            assert await late == "hi"

        with capture() as calls:
            run(main())
        assert sum(len(call.attempts) for call in calls) == len(provider.calls) == 2

    def test_who_comes_while_it_is_being_cancelled_starts_anew(self):
        """What is dying must not be shared."""
        dying = asyncio.Event()

        class Stubborn(ScriptedClient):
            async def call(self, conversation, options, event, json_mode=False):
                try:
                    return await super().call(conversation, options, event, json_mode)
                except asyncio.CancelledError:
                    dying.set()
                    await asyncio.sleep(3)
                    raise

        provider = Stubborn(Answer("first", delay=10), Answer("second", delay=1))
        client = metered(provider)

        async def main():
            first = asyncio.create_task(ask(client))
            await asyncio.sleep(1)
            first.cancel()
            await dying.wait()
            assert await ask(client) == "second"
            assert (await asyncio.gather(first, return_exceptions=True))[0].__class__ is asyncio.CancelledError

        run(main())
        assert len(provider.calls) == 2

    def test_a_cancellation_inside_reaches_all_who_wait(self):
        """A client that cancels itself must not leave its callers waiting."""

        class Suicidal(ScriptedClient):
            async def call(self, conversation, options, event, json_mode=False):
                await asyncio.sleep(1)
                raise asyncio.CancelledError

        client = metered(Suicidal("hi"))

        async def main():
            results = await asyncio.gather(*(ask(client) for _ in range(3)), return_exceptions=True)
            assert [type(result) for result in results] == [asyncio.CancelledError] * 3
            assert len(asyncio.all_tasks()) == 1

        run(main())

    def test_each_caller_s_event_is_its_own(self):
        provider = ScriptedClient(Answer("hi", 10, 2, delay=1, colour="red"))
        client, events = metered(provider), [LLMEvent([], "test") for _ in range(3)]

        async def main():
            await asyncio.gather(*(ask(client, event=own) for own in events))

        run(main())
        assert [(own.prompt_tokens, own.colour) for own in events] == [(10, "red")] * 3

    def test_followers_link_to_the_leader_s_span(self):
        telemetry = InMemoryTelemetry()
        provider = ScriptedClient(LLMStatusError("down", 500), Answer("hi", delay=1))
        client = stack(
            provider,
            Trace(tracer_provider=telemetry.tracer_provider),
            Cache(),
            Retry(),
        )

        async def main():
            await asyncio.gather(*(ask(client) for _ in range(3)))

        run(main())
        (chat,) = telemetry.named("chat")
        lookups = telemetry.named("cache.get")
        assert [span.attributes["overcoat.cache.result"] for span in lookups] == ["coalesced"] * 2
        assert {link.context.span_id for span in lookups for link in span.links} == {chat.context.span_id}

    def test_two_loops_share_answers_but_no_flight(self):
        """A client that outlives `asyncio.run` keeps its answers."""
        provider = ScriptedClient("hi")
        client = metered(provider)
        for _ in range(2):
            asyncio.run(ask(client))
        assert len(provider.calls) == 1

    def test_nothing_is_left_behind(self):
        """Neither flights nor records in cycles."""
        client = metered(ScriptedClient(lambda *_: LLMStatusError("no", 401)))

        async def main():
            with pytest.raises(LLMStatusError):
                await ask(client)

        before = flights()  # the errors of other tests may hold some, by their tracebacks
        run(main())
        caching = client.bound[0].function
        assert not caching._flights
        assert len(flights()) <= len(before)


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"ttl": -1}, r"Cache\(ttl=\.\.\.\): -1 must be more than 0"),
            ({"ttl": 0}, "more than 0"),
            ({"ttl": "60"}, "'60' is no duration"),
            ({"ttl": float("nan")}, "finite"),
            ({"max_bytes": 0}, r"Cache\(max_bytes=0\)"),
            ({"namespace": 5}, r"Cache\(namespace=5\): expected a name"),
            ({"namespace": b"acme"}, "expected a name"),
            ({"namespace": "tag:"}, "expected a name, or a tag's after 'tag:'"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Cache(**settings)

    @pytest.mark.parametrize("store", [None, 5, object(), {}])
    def test_a_store_that_is_none(self, store):
        """Here, and not as a failure that is counted at each call."""
        with pytest.raises(TypeError, match=r"Cache\(store=\.\.\.\): expected a URL, or an object with get"):
            Cache(store=store)

    def test_chance_that_fails_fails_who_waits(self):
        """And leaves nobody waiting for ever."""
        client = metered(ScriptedClient("hi"), random=lambda: 1 / 0)

        async def main():
            return await asyncio.gather(ask(client), ask(client), return_exceptions=True)

        assert [type(result) for result in run(main())] == [ZeroDivisionError] * 2

    def test_a_judge_that_is_none(self):
        with pytest.raises(TypeError, match=r"Cache\(accept='no'\): expected a function of the answer"):
            Cache(accept="no")


def test_settings_survive_pickle_without_the_state_of_chance():
    """Else all workers that get the same settings would draw the same jitter."""
    assert pickle.loads(pickle.dumps(Cache(ttl="1h"))) == Cache(ttl="1h")  # noqa: S301 - our own
