"""Clients over real litellm and HTTP: an attempt is one request, and waits no longer than we do, whatever SDKs do."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    AttemptTimeout,
    Backoff,
    Deadline,
    DeadlineExceeded,
    LiteLLMClient,
    LiteLLMOptions,
    LLMConnectionError,
    LLMEvent,
    Retry,
    Timeout,
    capture,
    stack,
)
from overcoat.sdk_retries import sdk_timeout
from overcoat.testing import Provider, answer, error, rate_limited

from .litellm_loop import run
from .parts import need

CONVERSATION = [{"role": "user", "content": "Why?"}]


@pytest.fixture(scope="module")
def clients():
    return need("dbally.llms.clients.litellm")


@pytest.fixture
def provider():
    with Provider() as server:
        yield server


def ask(client, options):
    events = need("dbally.audit.events")

    return run(client.call(CONVERSATION, options, events.LLMEvent(prompt=CONVERSATION, type="test")))


def own_client(clients, provider):
    return clients.LiteLLMClient("openai/gpt-4o", base_url=provider.url, api_key="k")


def test_alone_it_sends_three(clients, provider):
    """What the others here are measured against: should this change, so may they."""
    provider.default = error(500)
    with pytest.raises(need("dbally.llms.clients.exceptions").LLMStatusError):
        ask(own_client(clients, provider), clients.LiteLLMOptions())
    assert len(provider) == 3


@pytest.mark.parametrize("failure", [error(500), error(503), rate_limited(retry_after=0)])
@pytest.mark.parametrize("attempts", [1, 3])
def test_in_a_stack_it_sends_what_the_policy_says(clients, provider, failure, attempts):
    provider.default = failure
    client = stack(own_client(clients, provider), Retry(max_attempts=attempts, backoff=Backoff(base=0)))
    with capture() as calls, pytest.raises(need("dbally.llms.clients.exceptions").LLMStatusError):
        ask(client, clients.LiteLLMOptions())
    assert len(provider) == len(calls[0].attempts) == attempts


def test_options_reach_the_provider_as_they_are(clients, provider):
    provider.script(answer("Because."))
    options = clients.LiteLLMOptions(temperature=0.5, max_tokens=7)
    assert ask(stack(own_client(clients, provider)), options) == "Because."
    body = provider.requests[0].body
    assert (body["temperature"], body["max_tokens"]) == (0.5, 7)
    assert "max_retries" not in body
    assert options == clients.LiteLLMOptions(temperature=0.5, max_tokens=7)


def test_options_of_the_user_s_own(clients, provider):
    """Also where they ask for retries: retrying is the stack's."""

    @dataclass(frozen=False)
    class Options(clients.LiteLLMOptions):
        max_retries: int = 5

    provider.default = error(500)
    with pytest.raises(need("dbally.llms.clients.exceptions").LLMStatusError):
        ask(stack(own_client(clients, provider)), Options(temperature=0.0))
    assert len(provider) == 1


@dataclass(slots=True)
class Slotted(LiteLLMOptions):
    """With nothing in its dict to copy."""


class TestTimeouts:
    """What our own client and db-ally's tell the SDK, as it tells the provider."""

    @pytest.fixture(params=["overcoat", "db-ally"])
    def client(self, request, provider):
        if request.param == "overcoat":
            need("litellm")
            return LiteLLMClient("openai/gpt-4o", base_url=provider.url, api_key="k"), LiteLLMOptions
        theirs = need("dbally.llms.clients.litellm")
        return own_client(theirs, provider), Timed(theirs)

    def told(self, provider, client, layers, **options):
        inner, kind = client
        run(stack(inner, *layers).call(CONVERSATION, kind(**options), LLMEvent([], "test")))
        return float(provider.requests[-1].headers["x-stainless-read-timeout"])

    def test_what_the_attempt_has(self, provider, client):
        assert self.told(provider, client, [Timeout("20s")]) == 20

    def test_what_the_deadline_leaves(self, provider, client):
        assert self.told(provider, client, [Deadline("10s"), Timeout("20s")]) == 10
        assert self.told(provider, client, [Deadline("5s")]) == 5

    def test_the_caller_s_own_where_it_is_less(self, provider, client):
        assert self.told(provider, client, [Timeout("20s")], timeout=3) == 3
        assert self.told(provider, client, [Timeout("20s")], timeout=60) == 20

    def test_the_sdk_s_own_where_nobody_is_in_a_hurry(self, provider, client):
        assert self.told(provider, client, []) >= 600

    def test_options_without_a_dict(self, provider, client):
        assert self.told(provider, (client[0], Slotted), [Timeout("20s")]) == 20

    @pytest.mark.parametrize(
        ("layer", "error"), [(Timeout("300ms"), AttemptTimeout), (Deadline("300ms"), DeadlineExceeded)]
    )
    def test_a_provider_that_never_answers_is_left_in_time(self, client, layer, error):
        """By the provider's own account of when the connection was closed."""

        async def main():
            async with silent_provider() as (url, heard, closed):
                inner = LiteLLMClient("openai/gpt-4o", base_url=url, api_key="k")
                with pytest.raises(error):
                    await stack(inner, layer).call(CONVERSATION, LiteLLMOptions(), LLMEvent([], "test"))
                gone = time.monotonic()
                async with asyncio.timeout(5):
                    return await heard, gone, await closed

        heard, gone, closed = run(main())
        assert closed - heard < 0.3 + 0.2
        assert closed - gone < 0.2

    def test_a_request_that_no_cancellation_reaches_is_ended_by_the_sdk(self):
        """As those are that litellm sends from a thread."""
        need("litellm")

        class Shielding(LiteLLMClient):
            async def call(self, conversation, options, event, json_mode=False):
                self.task = asyncio.ensure_future(super().call(conversation, options, event, json_mode))
                return await asyncio.shield(self.task)

        async def main():
            async with silent_provider() as (url, heard, closed):
                inner = Shielding("openai/gpt-4o", base_url=url, api_key="k")
                with pytest.raises(AttemptTimeout):
                    await stack(inner, Timeout("300ms")).call(CONVERSATION, LiteLLMOptions(), LLMEvent([], "test"))
                async with asyncio.timeout(5):
                    with pytest.raises(LLMConnectionError):
                        await inner.task
                    return await closed - await heard

        assert 0.2 < run(main()) < 2


def Timed(clients):  # noqa: N802 - it makes a class
    @dataclass
    class Options(clients.LiteLLMOptions):
        timeout: float | None = None

    return Options


@asynccontextmanager
async def silent_provider():
    """Yield the URL of a provider that reads and never answers, and when it heard of the first request and lost it."""
    loop = asyncio.get_running_loop()
    heard, closed = loop.create_future(), loop.create_future()

    async def listen(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        heard.set_result(time.monotonic())
        await reader.read()
        closed.set_result(time.monotonic())
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", heard, closed


@given(st.floats(0.001, 1e6))
def test_an_sdk_has_at_least_what_is_left_and_at_most_a_quarter_more(left):
    assert left <= sdk_timeout(left) <= 1.25 * left


@given(st.floats(-10, 0.001))
def test_an_sdk_always_has_some_time(left):
    assert 0 < sdk_timeout(left) < 0.01


def test_there_are_few_timeouts():
    """For each, litellm makes a client with connections of its own."""
    assert len({sdk_timeout(20 - millisecond / 1000) for millisecond in range(10_000)}) <= 5
