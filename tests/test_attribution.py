"""`tags` and `capture`: whose a call is, and who gets its record."""

from __future__ import annotations

import asyncio

import pytest

from overcoat import LLMEvent, LLMStatusError, capture, stack, tags
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]


async def ask(client):
    return await client.call(CONVERSATION, None, LLMEvent([], "test"))


def test_calls_of_tasks_and_nested_captures():
    client = stack(ScriptedClient("hi"))

    async def main():
        with capture() as outer:
            await asyncio.create_task(ask(client))
            with capture() as inner:
                await asyncio.gather(ask(client), ask(client))
            await ask(client)
        await ask(client)
        return outer, inner

    outer, inner = run(main())
    assert (len(outer), len(inner)) == (4, 2)
    assert outer[1:3] == inner


def test_neighbours_do_not_see_each_other():
    client = stack(ScriptedClient(Answer("hi", delay=1)))

    async def one():
        with capture() as calls:
            await ask(client)
        return calls

    async def main():
        return await asyncio.gather(one(), one())

    assert [len(calls) for calls in run(main())] == [1, 1]


def test_calls_that_fail():
    with capture() as calls, pytest.raises(LLMStatusError):
        run(ask(stack(ScriptedClient(LLMStatusError("no", 401)))))
    assert [(call.outcome, call.error_type, call.failure.status) for call in calls] == [("error", "auth", 401)]


def test_they_attribute_calls_and_nest():
    client = stack(ScriptedClient("hi"))

    async def main():
        with capture() as calls:
            with tags(tenant="acme", feature="search"):
                await asyncio.create_task(ask(client))
                with tags(feature="chat"):
                    await ask(client)
            await ask(client)
        return calls

    assert [dict(call.tags) for call in run(main())] == [
        {"tenant": "acme", "feature": "search"},
        {"tenant": "acme", "feature": "chat"},
        {},
    ]


def test_a_value_that_is_no_text():
    with pytest.raises(TypeError, match=r"tags\(tenant=7\)"), tags(tenant=7):
        pass
