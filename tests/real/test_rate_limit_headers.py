"""`RateLimit` learns from real headers, through real litellm over HTTP: it waits as the provider told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from overcoat import LiteLLMClient, LiteLLMOptions, LLMEvent, RateLimit, RateLimited, capture, stack
from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.testing import Provider, answer, anthropic_answer, anthropic_error, empty_choices, error, rate_limited

from .litellm_loop import run
from .parts import need

OPENAI, ANTHROPIC = "openai/gpt-4o", "anthropic/claude-sonnet-4-5"
CHAT = [{"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module", autouse=True)
def litellm():
    module = need("litellm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "suppress_debug_info", True)  # else it prints advice
        yield module


@pytest.fixture
def provider():
    with Provider() as running:
        yield running


def requests(remaining, reset):
    return {"x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": reset}


def tokens(remaining, reset):
    return {"x-ratelimit-remaining-tokens": remaining, "x-ratelimit-reset-tokens": reset}


def anthropic(what, remaining, seconds):
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    name = f"anthropic-ratelimit-{what}"
    return {f"{name}-remaining": remaining, f"{name}-reset": moment.isoformat().replace("+00:00", "Z")}


def client(provider, model=OPENAI, **settings):
    inner = LiteLLMClient(model, base_url=provider.url, api_key="k")
    return stack(inner, RateLimit(**({"concurrency": 50, "max_wait": "20s"} | settings)))


async def call(stacked, options=None):
    event = LLMEvent(prompt=CHAT, type="test")
    try:
        await stacked.call(CHAT, options or LiteLLMOptions(), event)
    except Exception as raised:  # noqa: BLE001 - the error is the result here
        return raised
    return event


def gaps(provider):
    times = [each.at for each in provider.requests]
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize(
    "told", [requests("0", "700ms"), tokens("0", "0.7"), tokens("-1", "9s") | requests("0", "0.7s")]
)
def test_after_none_is_left_the_next_waits_for_the_reset(provider, told):
    """Though our own limit would let it pass."""
    provider.script(answer(headers=told), answer())
    stacked = client(provider)

    async def main():
        await call(stacked)
        await call(stacked)

    with capture() as calls:
        run(main())
    (gap,) = gaps(provider)
    assert 0.7 <= gap < 5
    first, second = calls
    assert first.attempts[0].quota is not None
    (wait,) = second.inferences[0].waits
    assert (wait.kind, wait.source) == ("rate_limit", "server")
    assert wait.asked == pytest.approx(0.7, abs=0.2)


def test_no_more_than_is_left_pass_before_the_reset(provider):
    provider.script(answer(headers=requests("2", "1.5s")))
    stacked = client(provider)

    async def main():
        await call(stacked)
        await asyncio.gather(*[call(stacked) for _ in range(6)])

    with capture() as calls:
        run(main())
    times = [each.at - provider.requests[0].at for each in provider.requests]
    assert [time >= 1.5 for time in times] == [False] * 3 + [True] * 4
    sources = [wait.source for each in calls for wait in each.inferences[0].waits]
    assert sources == ["server"] * 4


def test_tokens_are_counted_once_the_server_speaks_of_them(provider):
    """An answer may have 50; so much is left for one of them."""
    provider.script(answer(headers=tokens("60", "1s")))
    stacked = client(provider)

    async def main():
        await call(stacked)
        await asyncio.gather(*[call(stacked, LiteLLMOptions(max_tokens=50)) for _ in range(2)])

    run(main())
    soon, late = gaps(provider)
    assert soon < 0.9
    assert soon + late >= 1


@pytest.mark.parametrize("what", ["requests", "tokens", "input-tokens"])
def test_anthropic(provider, what):
    provider.script(anthropic_answer(headers=anthropic(what, "0", 1.5)), anthropic_answer())
    stacked = client(provider, ANTHROPIC)

    async def main():
        await call(stacked)
        return datetime.now(UTC), await call(stacked), datetime.now(UTC)

    with capture() as calls:
        before, _, after = run(main())
    assert after - before > timedelta(seconds=0.5)
    assert [wait.source for wait in calls[1].inferences[0].waits] == ["server"]


@pytest.mark.parametrize(
    ("model", "step"),
    [
        (OPENAI, error(500, headers=requests("0", "700ms"))),
        (OPENAI, error(429, headers=tokens("0", "700ms"))),
        (OPENAI, error(400, headers=requests("0", "700ms"))),
        (ANTHROPIC, None),
    ],
)
def test_refusals_tell_as_well(provider, model, step):
    step = step or anthropic_error(529, headers=anthropic("requests", "0", 1.7))
    provider.script(step, answer() if model == OPENAI else anthropic_answer())
    stacked = client(provider, model)

    async def main():
        assert isinstance(await call(stacked), Exception)
        await call(stacked)

    with capture() as calls:
        run(main())
    assert gaps(provider)[0] >= 0.69
    assert calls[0].attempts[0].failure.quota is not None
    assert [wait.source for wait in calls[1].inferences[0].waits] == ["server"]


def test_an_answer_that_is_then_refused_tells_as_well(provider):
    step = empty_choices()
    provider.script(type(step)(200, step.body, requests("0", "600ms")), answer())
    stacked = client(provider)

    async def main():
        assert isinstance(await call(stacked), Exception)
        await call(stacked)

    run(main())
    assert gaps(provider)[0] >= 0.6


@pytest.mark.parametrize(
    "told",
    [
        requests("0", "-5s"),
        requests("0", "nan"),
        requests("0", "1e99"),
        requests("nan", "9s"),
        requests("-1", "9s"),
        requests("0", "9" * 80),
        requests("soon", "2026-11-23T12:00:00Z"),
        requests("0", "6 m"),
        requests("0", "0s"),
        requests("5", "9m"),
        {"x-ratelimit-remaining-requests": "0"},
    ],
)
def test_what_makes_no_sense_or_no_difference_holds_nobody_up(provider, told):
    provider.script(answer(headers=told), answer())
    stacked = client(provider, max_wait=0)

    async def main():
        return [await call(stacked) for _ in range(2)]

    assert [type(each) for each in run(main())] == [LLMEvent, LLMEvent]


def test_it_can_only_tighten(provider):
    provider.default = answer(headers=requests("100000", "1h") | tokens("9999999", "1h"))
    stacked = client(provider, requests=2, max_wait=0)

    async def main():
        return [type(await call(stacked)) for _ in range(3)]

    assert run(main()) == [LLMEvent, LLMEvent, RateLimited]
    assert len(provider) == 2


def test_a_word_for_days_holds_for_a_window(provider):
    provider.default = answer(headers=requests("0", "30d"))
    stacked = client(provider, window="700ms")

    async def main():
        for _ in range(3):
            await call(stacked)

    run(main())
    assert all(0.69 <= gap < 5 for gap in gaps(provider))


def test_the_caller_s_event_does_not_have_them(provider):
    """They are for the record; and a cache would keep them beside the answer."""
    provider.script(answer(headers=requests("5", "1s")))
    with capture() as calls:
        event = run(call(client(provider)))
    assert event.rate_limit_headers is None
    assert calls[0].attempts[0].quota == ProviderQuota(5, 1.0)


def test_a_retry_after_is_the_server_s_word_too(provider):
    provider.script(rate_limited(retry_after=0.7), answer())
    stacked = client(provider)

    async def main():
        await call(stacked)
        await call(stacked)

    with capture() as calls:
        run(main())
    assert gaps(provider)[0] >= 0.7
    assert [wait.source for wait in calls[1].inferences[0].waits] == ["server"]
