"""`Breaker`: what opens the circuit, who is refused, and how it closes again."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from overcoat import (
    Backoff,
    CircuitOpen,
    LLMConnectionError,
    LLMEvent,
    LLMResponseError,
    LLMStatusError,
    Retry,
    Timeout,
    Trace,
    capture,
    stack,
)
from overcoat.classification import Kind
from overcoat.errors import OvercoatError
from overcoat.layers.breaker import Breaker
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]
DOWN = LLMStatusError("down", 500)


class Failed(OvercoatError):
    """A failure that says itself of which kind it is."""

    def __init__(self, kind):
        super().__init__(kind)
        self.kind = kind


def call(client):
    return client.call(CONVERSATION, None, LLMEvent([], "test"))


async def outcomes(client, count):
    """Return the answers, or the classes of the errors, of so many calls one after the other."""
    return [
        answer if isinstance(answer, str) else type(answer)
        for _ in range(count)
        for answer in await asyncio.gather(call(client), return_exceptions=True)
    ]


def circuit_of(client):
    return next(bound.function.circuit for bound in client.bound if isinstance(bound.layer, Breaker))


def test_it_opens_and_refuses_and_closes_again():
    inner = ScriptedClient(DOWN, DOWN, "hi")
    client = stack(inner, Breaker(min_calls=2, open_for="15s"))

    async def main():
        assert await outcomes(client, 3) == [LLMStatusError, LLMStatusError, CircuitOpen]
        await asyncio.sleep(14.5)
        with pytest.raises(CircuitOpen) as refused:
            await call(client)
        assert (refused.value.key, refused.value.retry_after) == ("ScriptedClient/scripted", 0.5)
        assert len(inner.calls) == 2
        await asyncio.sleep(0.5)
        assert await outcomes(client, 3) == ["hi"] * 3

    with capture() as calls:
        run(main())
    assert [each.outcome for each in calls] == ["error"] * 2 + ["refused"] * 2 + ["ok"] * 3
    assert not calls[2].attempts


@pytest.mark.parametrize("kind", list(Kind))
def test_what_counts(kind):
    """The provider's own trouble opens the circuit; what the request or we are to blame for does not."""
    client = stack(ScriptedClient(Failed(kind)), Breaker(min_calls=2))
    run(outcomes(client, 2))
    opens = {"overloaded", "server_error", "timeout", "connection", "quota_exhausted"}
    assert circuit_of(client).state == ("open" if kind.value in opens else "closed")


@pytest.mark.parametrize("error", [LLMStatusError("no", 400), LLMResponseError(), KeyError("bug")])
def test_what_is_neither_does_not_dilute_the_ratio(error):
    client = stack(ScriptedClient(*[error] * 50, DOWN, LLMConnectionError()), Breaker(min_calls=2, failure_ratio=1))
    run(outcomes(client, 52))
    assert circuit_of(client).state == "open"


def test_timeouts_count():
    client = stack(ScriptedClient(Answer("late", delay=60)), Breaker(min_calls=1), Timeout("5s"))
    run(outcomes(client, 1))
    assert circuit_of(client).state == "open"


def test_an_exhausted_quota_opens_it_for_long():
    client = stack(ScriptedClient(LLMStatusError("pay", 402), "hi"), Breaker(quota_open_for="10m"))

    async def main():
        assert await outcomes(client, 2) == [LLMStatusError, CircuitOpen]
        await asyncio.sleep(599)
        assert await outcomes(client, 1) == [CircuitOpen]
        await asyncio.sleep(1)
        assert await outcomes(client, 1) == ["hi"]

    run(main())


def test_a_retry_does_not_hammer_an_open_circuit():
    """Each attempt counts, and the refusal ends the retries; the caller gets the real error, with the reason."""
    error = LLMStatusError("down", 500)
    inner = ScriptedClient(error)
    client = stack(inner, Retry(max_attempts=9, backoff=Backoff(base=0)), Breaker(min_calls=3))
    assert run(outcomes(client, 1)) == [LLMStatusError]
    assert len(inner.calls) == 3
    assert error.__notes__ == ["overcoat: gave up after 3 attempts (server_error; the circuit is open)"]


def test_what_is_recorded():
    """Each turn of the circuit on the call that caused it, and each refusal by its cause."""
    telemetry = InMemoryTelemetry()
    client = stack(
        ScriptedClient(DOWN, "hi", model_name="openai/gpt-4o"),
        Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider),
        Breaker(min_calls=1, open_for="10s"),
    )

    async def main():
        await outcomes(client, 2)
        await asyncio.sleep(10)
        await outcomes(client, 1)

    with capture() as calls:
        run(main())
    assert [[(turn.circuit, turn.state) for turn in call.turns] for call in calls] == [
        [("openai/gpt-4o", "open")],
        [],
        [("openai/gpt-4o", "half_open"), ("openai/gpt-4o", "closed")],
    ]
    assert [(call.outcome, call.error_type) for call in calls] == [
        ("error", "server_error"),
        ("refused", "breaker_open"),
        ("ok", None),
    ]
    first, second, third = (span.attributes for span in telemetry.named("overcoat.call"))
    assert (first["overcoat.breaker.state"], third["overcoat.breaker.state"]) == ("open", "closed")
    assert (second["overcoat.outcome"], second["error.type"]) == ("refused", "breaker_open")
    assert telemetry.total("overcoat.breaker.turns", {"overcoat.breaker.state": "open"}) == 1


class TestProbes:
    def breaker(self, inner, **settings):
        return stack(inner, Breaker(min_calls=1, open_for="10s", **settings))

    def test_one_at_a_time(self):
        client = self.breaker(ScriptedClient(DOWN, Answer("hi", delay=3)))

        async def main():
            await outcomes(client, 1)
            await asyncio.sleep(10)
            answers = await asyncio.gather(*[call(client) for _ in range(5)], return_exceptions=True)
            assert [type(answer) for answer in answers] == [str, *[CircuitOpen] * 4]
            assert {answer.retry_after for answer in answers[1:]} == {0}
            assert await outcomes(client, 2) == ["hi", "hi"]

        run(main())

    @pytest.mark.parametrize("turns", range(8))
    def test_a_cancelled_one_gives_its_place_back(self, turns):
        """Whenever it is cancelled, from before it has begun."""
        client = self.breaker(ScriptedClient(DOWN, Answer("hi", delay=3)))

        async def main():
            await outcomes(client, 1)
            await asyncio.sleep(10)
            task = asyncio.create_task(call(client))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await outcomes(client, 2) == ["hi", "hi"]

        run(main())

    def test_one_that_is_thrown_away_gives_its_place_back(self):
        client = self.breaker(ScriptedClient(DOWN, Answer("hi", delay=3)))

        async def main():
            await outcomes(client, 1)
            await asyncio.sleep(10)
            probe = call(client)
            probe.send(None)
            assert await outcomes(client, 1) == [CircuitOpen]
            probe.close()
            assert await outcomes(client, 1) == ["hi"]

        run(main())

    def test_one_whose_loop_is_gone_gives_its_place_back(self):
        client = self.breaker(ScriptedClient(DOWN, Answer("hi", delay=3)))
        left = []

        async def main():
            await outcomes(client, 1)
            await asyncio.sleep(10)
            left.append(call(client))
            left[0].send(None)

        run(main())
        left.clear()
        gc.collect()
        assert run(outcomes(client, 1), start=20) == ["hi"]

    def test_those_that_began_before_it_opened_are_not_asked(self):
        """A slow answer of before does not close it, and a slow failure does not open it again."""
        steps = [Answer("slow", delay=20), DOWN, Answer("hi", delay=30)]
        client = self.breaker(ScriptedClient(*steps))

        async def main():
            slow = asyncio.create_task(call(client))
            await asyncio.sleep(0)
            await outcomes(client, 1)
            await asyncio.sleep(15)
            probe = asyncio.create_task(call(client))
            assert await slow == "slow"
            assert circuit_of(client).state == "half_open"
            assert await outcomes(client, 1) == [CircuitOpen]
            assert await probe == "hi"
            assert circuit_of(client).state == "closed"

        run(main())

    def test_an_answer_of_another_kind_leaves_it_half_open(self):
        client = self.breaker(ScriptedClient(DOWN, LLMStatusError("limit", 429), "hi"))

        async def main():
            await outcomes(client, 1)
            await asyncio.sleep(10)
            await outcomes(client, 1)
            assert circuit_of(client).state == "half_open"
            assert await outcomes(client, 1) == ["hi"]

        run(main())


class TestSharing:
    def make(self, model, base_url=None, **settings):
        inner = ScriptedClient(DOWN, model_name=model)
        inner.base_url = base_url
        return stack(inner, Breaker(min_calls=1, **settings))

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ({"model": "openai/gpt-4o"}, {"model": "openai/gpt-4o"}, True),
            ({"model": "openai/gpt-4o"}, {"model": "gpt-4o"}, True),
            ({"model": "openai/gpt-4o"}, {"model": "openai/gpt-5"}, False),
            ({"model": "openai/gpt-4o", "per": "provider"}, {"model": "openai/gpt-5", "per": "provider"}, True),
            ({"model": "openai/gpt-4o", "per": "provider"}, {"model": "groq/gpt-4o", "per": "provider"}, False),
            ({"model": "openai/gpt-4o"}, {"model": "openai/gpt-4o", "base_url": "http://other"}, False),
            ({"model": "openai/gpt-4o", "window": "60s"}, {"model": "openai/gpt-4o", "window": 60}, True),
            ({"model": "openai/gpt-4o", "window": "60s"}, {"model": "openai/gpt-4o", "window": "61s"}, False),
        ],
    )
    def test_who_shares(self, one, other, same):
        """A client that is made anew for every request still protects the provider."""
        run(outcomes(self.make(**one), 1))
        assert run(outcomes(self.make(**other), 1)) == [CircuitOpen if same else LLMStatusError]

    @pytest.mark.parametrize(("per", "key"), [("model", "openai/gpt-4o"), ("provider", "openai")])
    def test_the_key_does_not_have_the_endpoint_s_password(self, per, key):
        client = self.make("openai/gpt-4o", base_url="https://user:secret@host", per=per)
        run(outcomes(client, 1))
        with pytest.raises(CircuitOpen) as refused:
            run(call(client))
        assert refused.value.key == key


def test_each_transition_is_logged_once(caplog):
    caplog.set_level(logging.INFO, "overcoat")
    client = stack(ScriptedClient(DOWN, "hi"), Breaker(min_calls=1))

    async def main():
        await outcomes(client, 1)
        await asyncio.sleep(15)
        await outcomes(client, 2)

    run(main())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "the circuit of 'ScriptedClient/scripted' is now open, for 15 s"),
        ("INFO", "the circuit of 'ScriptedClient/scripted' is now half_open"),
        ("INFO", "the circuit of 'ScriptedClient/scripted' is now closed"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[
            ({"failure_ratio": value}, "number above 0, and at most 1")
            for value in (0, -0.1, 1.1, float("nan"), True, "1", None)
        ],
        *[({"min_calls": value}, "whole number of at least 1") for value in (0, -1, 2.0, True, None, "3")],
        *[({"half_open_calls": value}, "whole number of at least 1") for value in (0, 1.5, False)],
        *[({name: "5"}, "with its unit") for name in ("window", "open_for", "quota_open_for")],
        *[({name: 0}, "must be more than 0") for name in ("window", "open_for", "quota_open_for")],
        ({"per": "tenant"}, '"model" or "provider"'),
        *[({"store": url}, "URL of a Redis server") for url in (7, "", "host:6379", "redis://[::1", "redis://h:99999")],
    ],
)
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=rf"^Breaker\({next(iter(settings))}=.*{message}"):
        Breaker(**settings)


def test_it_reads_like_the_code_that_made_it():
    assert repr(Breaker(open_for="30s", per="provider")) == "Breaker(open_for='30s', per='provider')"
