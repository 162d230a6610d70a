"""db-ally's own client, over real litellm and HTTP: one attempt is one request, whatever its SDK would do."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from overcoat import Backoff, Retry, capture, stack
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
