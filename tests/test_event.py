"""The caller's event gets the fields of the attempt that won, once, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from overcoat import LLMEvent, LLMStatusError, Retry, capture, stack
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]


def event(**fields: Any) -> LLMEvent:
    return LLMEvent(prompt=CONVERSATION, type="test", **fields)


class Plain:
    """A client without a base class, and without a model name."""

    async def call(self, conversation, options, event, json_mode=False):
        event.prompt_tokens = 3
        return "hello"


def test_a_failed_attempt_leaves_nothing_behind():
    async def fail(conversation, options):
        raise LLMStatusError("down", 503)

    class Leaky(ScriptedClient):
        async def call(self, conversation, options, event, json_mode=False):
            event.prompt_tokens, event.response_id, event.colour = 7, "first", "red"
            event.notes.append("first")
            return await super().call(conversation, options, event, json_mode)

    own = event()
    own.notes = []
    with pytest.raises(LLMStatusError):
        run(stack(Leaky(fail), Retry(max_attempts=2)).call(CONVERSATION, None, own))
    assert (own.prompt_tokens, own.response_id, own.notes) == (None, None, [])
    assert not hasattr(own, "colour")


def test_the_winner_s_fields_are_copied_back():
    """Also those that a custom client adds."""
    client = ScriptedClient(LLMStatusError("down", 503), Answer("hi", 10, 2, colour="blue", finish_reason="stop"))
    own = event()
    run(stack(client, Retry(max_attempts=2)).call(CONVERSATION, None, own))
    assert (own.prompt_tokens, own.completion_tokens, own.total_tokens) == (10, 2, 12)
    assert (own.colour, own.finish_reason) == ("blue", "stop")


def test_what_the_caller_changes_meanwhile_stays():
    """Only what the client wrote is written back."""
    own = event(response="draft")

    async def meddle(request, inner):
        reply = await inner(request)
        own.response = "final"
        return reply

    run(stack(Plain(), meddle).call(CONVERSATION, None, own))
    assert own.response == "final"


def test_counts_of_an_earlier_call_are_not_taken_for_this_one_s():
    """A client that reports nothing leaves None, even on an event that was used before."""
    own = event(prompt_tokens=99, completion_tokens=9, total_tokens=108, finish_reason="length")
    with capture() as calls:
        run(stack(ScriptedClient("hi")).call(CONVERSATION, None, own))
    assert (own.prompt_tokens, own.finish_reason) == (None, None)
    assert calls[0].usage is None


def test_an_event_with_slots():
    @dataclass(slots=True)
    class Slotted:
        prompt_tokens: int | None = None
        completion_tokens: int | None = None
        total_tokens: int | None = None

    own = Slotted()
    run(stack(Plain(), Retry()).call(CONVERSATION, None, own))
    assert own.prompt_tokens == 3


@pytest.mark.parametrize("garbage", [-1, "7", 1.5, True, float("nan")])
def test_garbage_counts_reach_the_caller_but_not_the_record(garbage):
    """What a client wrote is the caller's to see; money is not computed from it."""

    class Garbling(Plain):
        async def call(self, conversation, options, event, json_mode=False):
            event.prompt_tokens = garbage
            return "hi"

    own = event()
    with capture() as calls:
        run(stack(Garbling()).call(CONVERSATION, None, own))
    assert own.prompt_tokens is garbage
    assert calls[0].usage is None


@pytest.mark.parametrize("broken", [None, object(), {}])
def test_an_event_without_token_fields(broken):
    client = ScriptedClient("hi")
    with pytest.raises(TypeError, match=r"call\(event=...\).*prompt_tokens, completion_tokens, total_tokens"):
        run(stack(client).call(CONVERSATION, None, broken))
    assert not client.calls


def test_an_event_that_nobody_can_write_to():
    """It is the client that fails, as it would alone; a client that writes nothing is not hindered."""

    @dataclass(frozen=True)
    class Frozen:
        prompt_tokens: int | None = None
        completion_tokens: int | None = None
        total_tokens: int | None = None

    with pytest.raises(AttributeError, match="prompt_tokens"):
        run(stack(Plain()).call(CONVERSATION, None, Frozen()))
    assert run(stack(ScriptedClient("hi")).call(CONVERSATION, None, Frozen())) == "hi"
