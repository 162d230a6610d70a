"""`stack`: what it accepts, what it makes of it, and what becomes of the caller's event."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from overcoat import (
    Cache,
    LLMEvent,
    LLMStatusError,
    Meter,
    Reply,
    Request,
    Retry,
    StackOrderError,
    Timeout,
    Trace,
    capture,
    stack,
)
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]


def event(**fields: Any) -> LLMEvent:
    return LLMEvent(prompt=CONVERSATION, type="test", **fields)


class Plain:
    """A client without a base class, and without a model name."""

    async def call(self, conversation, options, event, json_mode=False):
        event.prompt_tokens = 3
        return f"{conversation[-1]['content']}{'!' if json_mode else ''}"

    def __repr__(self):
        return "Plain()"


async def shout(request: Request, inner) -> Reply:
    reply = await inner(request)
    return reply.replace(text=reply.text.upper())


async def ask_twice(request: Request, inner) -> Reply:
    await inner(request)
    return await inner(request)


def test_a_stack_without_layers_is_the_client():
    """No layer is needed for the record."""
    with capture() as calls:
        assert run(stack(Plain()).call(CONVERSATION, None, event())) == "hello"
    assert [attempt.usage.input_tokens for attempt in calls[0].attempts] == [3]


def test_the_first_layer_is_the_outermost():
    seen = []

    def note(name):
        async def layer(request, inner):
            seen.append(name)
            return await inner(request)

        return layer

    run(stack(Plain(), note("first"), note("second"), note("third")).call(CONVERSATION, None, event()))
    assert seen == ["first", "second", "third"]


def test_any_async_function_is_a_layer():
    assert run(stack(Plain(), shout).call(CONVERSATION, None, event())) == "HELLO"


def test_a_layer_may_send_something_else():
    async def louder(request, inner):
        return await inner(request.replace(conversation=[{"role": "user", "content": "hey"}], json_mode=True))

    assert run(stack(Plain(), louder).call(CONVERSATION, None, event())) == "hey!"


def test_a_layer_may_answer_alone():
    async def canned(request, inner):
        return Reply("canned")

    with capture() as calls:
        assert run(stack(Plain(), canned).call(CONVERSATION, None, event())) == "canned"
    assert calls[0].outcome == "ok"
    assert not calls[0].attempts


async def forgets(request, inner):
    await inner(request)


async def text_only(request, inner):
    return (await inner(request)).text


@pytest.mark.parametrize("outside", [(), (Trace(),), (Trace(), Cache()), (Retry(),)])
@pytest.mark.parametrize(("layer", "problem"), [(forgets, "returned NoneType"), (text_only, "returned str")])
def test_a_layer_that_returns_no_reply_is_named(outside, layer, problem):
    """And the record does not say "ok" of a call whose caller gets an error."""
    with capture() as calls, pytest.raises(TypeError, match=f"{layer.__name__} {problem}; expected the Reply"):
        run(stack(Plain(), *outside, layer, Meter()).call(CONVERSATION, None, event()))
    assert [call.outcome for call in calls] == ["error"]


def test_arguments_reach_the_client_unchanged():
    """The conversation and the options are the caller's own objects; only the event is a copy."""
    client, options, own = ScriptedClient("hi"), object(), event()
    run(stack(client, Timeout("1s")).call(CONVERSATION, options, own, True))
    (call,) = client.calls
    assert (call.conversation is CONVERSATION, call.options is options, call.json_mode) == (True, True, True)
    assert call.event is not own
    assert call.event.prompt is CONVERSATION


def test_call_takes_keywords_as_db_ally_passes_them():
    assert run(stack(Plain()).call(conversation=CONVERSATION, options=None, event=event(), json_mode=False)) == "hello"


class TestNesting:
    """A stack is a client; stacked again, the two are one call."""

    def test_one_call_one_record(self):
        inner = stack(ScriptedClient(LLMStatusError("down", 503), Answer("hi", 10, 2)), Retry(max_attempts=3))
        with capture() as calls:
            assert run(stack(inner, Cache()).call(CONVERSATION, None, event())) == "hi"
        (call,) = calls
        assert [attempt.error_type for attempt in call.attempts] == ["overloaded", None]
        assert call.cache.result == "miss"

    def test_the_order_is_checked_across(self):
        inner = stack(Plain(), Cache())
        with pytest.raises(StackOrderError, match="Cache stands inside Retry"):
            stack(inner, Retry())

    def test_state_of_the_inner_stack_is_kept(self):
        """What the inner stack has cached is not forgotten by stacking it."""
        client = ScriptedClient(Answer("hi", 10, 2))
        inner = stack(client, Cache())

        async def main():
            await inner.call(CONVERSATION, None, event())
            await stack(inner, shout).call(CONVERSATION, None, event())

        run(main())
        assert len(client.calls) == 1

    def test_repr_reads_like_the_code(self):
        client = stack(stack(Plain(), Retry(max_attempts=2), Meter()), shout, Cache(ttl="1h"), order="as given")
        assert repr(client) == (
            "stack(stack(Plain(), Retry(max_attempts=2), Meter()), shout, Cache(ttl='1h'), order='as given')"
        )

    def test_model_name_is_passed_through(self):
        assert stack(stack(ScriptedClient("hi", model_name="gpt-4o")), Retry()).model_name == "gpt-4o"
        assert stack(Plain()).model_name is None


class TestOddClients:
    def test_none_passes_through(self):
        """db-ally's client returns None for a filtered answer, against its own signature."""

        class Filtered(Plain):
            async def call(self, conversation, options, event, json_mode=False):
                event.prompt_tokens = 5

        client, own = stack(Filtered(), Cache(), Retry(), Timeout("1s"), Meter()), event()
        with capture() as calls:
            assert run(client.call(CONVERSATION, None, own)) is None
        assert own.prompt_tokens == 5
        assert (calls[0].outcome, calls[0].cache.result, calls[0].cache.reason) == ("ok", "refused", "empty")

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
    def test_a_base_exception_passes_through(self, kind):
        """It is recorded as a cancellation and never retried."""

        class Doomed(Plain):
            requests = 0

            async def call(self, conversation, options, event, json_mode=False):
                self.requests += 1
                raise kind

        doomed = Doomed()
        with capture() as calls, pytest.raises(kind):
            asyncio.run(stack(doomed, Retry(), Timeout("1s"), Meter()).call(CONVERSATION, None, event()))
        assert doomed.requests == 1
        assert [(call.outcome, call.error_type) for call in calls] == [("cancelled", "cancelled")]

    def test_the_callers_exception_keeps_its_type_and_identity(self):
        error = LLMStatusError("down", 503)
        with pytest.raises(LLMStatusError) as caught:
            run(stack(ScriptedClient(error), Retry(max_attempts=2)).call(CONVERSATION, None, event()))
        assert caught.value is error


class TestBadInput:
    def test_a_client_without_call(self):
        with pytest.raises(TypeError, match=r"stack\(client=42\).*`async call\(.*int has no method `call`"):
            stack(42, Retry())

    @pytest.mark.parametrize("layer", [None, 7, Retry, "retry"])
    def test_a_layer_that_is_none(self, layer):
        with pytest.raises(TypeError, match=r"layer 1 is .* expected one of overcoat's layers"):
            stack(Plain(), shout, layer)

    def test_an_unknown_order(self):
        with pytest.raises(ValueError, match=r"order='random'.*\"canonical\" or \"as given\""):
            stack(Plain(), order="random")

    @pytest.mark.parametrize(
        ("conversation", "problem"),
        [
            ("hello", "not str"),
            (None, "not NoneType"),
            ({"role": "user", "content": "secret"}, "not dict"),
            (["hello"], "message 0 is str"),
            (
                [{"role": "user", "content": "a"}, {"role": "user", "text": "secret"}],
                "message 1 has the keys role, text",
            ),
            ([{}], "message 0 has the keys none"),
        ],
    )
    def test_a_conversation_that_is_none(self, conversation, problem):
        """Refused before the provider is reached, and without its contents in the error."""
        client = ScriptedClient("hi")
        with pytest.raises(TypeError, match=problem) as caught:
            run(stack(client).call(conversation, None, event()))
        assert not client.calls
        assert "secret" not in str(caught.value)
