"""The scripted client by itself, and as db-ally's interface."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from overcoat.testing import Answer, ScriptedClient, ScriptExhaustedError, run

CONVERSATION = [{"role": "user", "content": "How many?"}]
OPTIONS = SimpleNamespace(temperature=0)


def call(client: ScriptedClient, **event: Any) -> str:
    return run(client.call(CONVERSATION, OPTIONS, SimpleNamespace(**event)))


def test_steps_are_taken_in_order_and_the_last_repeats() -> None:
    client = ScriptedClient("one", "two")
    assert [call(client) for _ in range(4)] == ["one", "two", "two", "two"]
    assert len(client.calls) == 4


def test_an_exhausted_script_can_be_an_error() -> None:
    client = ScriptedClient("only", then="raise")
    call(client)
    with pytest.raises(ScriptExhaustedError, match="Call 2 came to a script of 1 steps"):
        call(client)
    assert client.in_flight == 0


def test_the_very_arguments_are_kept() -> None:
    client = ScriptedClient("answer", model_name="gpt-4o")
    event = SimpleNamespace()
    run(client.call(CONVERSATION, OPTIONS, event, json_mode=True))
    (made,) = client.calls
    assert made.conversation is CONVERSATION
    assert made.options is OPTIONS
    assert made.event is event
    assert made.json_mode is True
    assert client.model_name == "gpt-4o"


def test_an_instance_is_raised_itself_and_a_class_anew() -> None:
    raised = LookupError("as it is")
    client = ScriptedClient(raised, TimeoutError)
    with pytest.raises(LookupError) as caught:
        call(client)
    assert caught.value is raised
    errors = []
    for _ in range(2):
        with pytest.raises(TimeoutError) as again:
            call(client)
        errors.append(again.value)
    assert errors[0] is not errors[1]


@pytest.mark.parametrize(
    ("step", "event"),
    [
        ("plain", {}),
        (Answer("plain"), {}),
        (Answer("a", 10, 5), {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}),
        (Answer("a", completion_tokens=5), {"completion_tokens": 5, "total_tokens": 5}),
        (Answer("a", 10, 5, total_tokens=20), {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 20}),
        (Answer("a", response="kept"), {"response": "kept"}),
    ],
)
def test_only_what_a_step_gives_reaches_the_event(step: str | Answer, event: dict[str, object]) -> None:
    given = SimpleNamespace()
    run(ScriptedClient(step).call(CONVERSATION, OPTIONS, given))
    assert vars(given) == event


def test_a_delay_is_virtual() -> None:
    async def main() -> float:
        client = ScriptedClient(Answer("late", delay=3600))
        assert await client.call(CONVERSATION, OPTIONS, SimpleNamespace()) == "late"
        return asyncio.get_running_loop().time()

    assert run(main()) == 3600


def test_functions_see_the_request_and_make_any_step() -> None:
    def echo(conversation: Any, options: Any) -> Answer:
        return Answer(f"{conversation[0]['content']} {options.temperature}", completion_tokens=3)

    def fail(conversation: Any, options: Any) -> Exception:
        return LookupError("made")

    client = ScriptedClient(echo, fail)
    assert call(client) == "How many? 0"
    with pytest.raises(LookupError, match="made"):
        call(client)


def test_an_async_function_holds_calls_until_the_test_lets_them_go() -> None:
    """So a test can look at calls in flight, and end them in the way that it wants."""

    async def main() -> None:
        gate = asyncio.Event()

        async def gated(conversation: Any, options: Any) -> str:
            await gate.wait()
            return "through"

        client = ScriptedClient(gated)
        calls = [asyncio.create_task(client.call(CONVERSATION, OPTIONS, SimpleNamespace())) for _ in range(3)]
        await asyncio.sleep(0)
        assert client.in_flight == 3
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        assert (client.in_flight, client.cancelled) == (2, 1)
        gate.set()
        assert await asyncio.gather(*calls[1:]) == ["through", "through"]
        assert (client.in_flight, client.most_in_flight, client.cancelled) == (0, 3, 1)

    run(main())


def test_an_answer_shows_what_it_sets() -> None:
    assert repr(Answer("a", 1, delay=2.0)) == "Answer('a', delay=2.0, prompt_tokens=1, total_tokens=1)"


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (ScriptedClient, ValueError, r"steps=\(\); expected at least one"),
        (lambda: ScriptedClient("fine", 7), TypeError, r"steps\[1\]=7; expected a str, an Answer"),  # type: ignore[arg-type] - the mistake
        (lambda: ScriptedClient("a", then="stop"), ValueError, "then='stop'; expected 'repeat' or 'raise'"),  # type: ignore[arg-type] - the mistake
        (lambda: Answer("a", delay=-1), ValueError, "delay=-1; expected seconds: a finite number, 0 or more"),
        (lambda: Answer("a", prompt_tokens=-1), ValueError, "prompt_tokens=-1; expected 0 or more"),
    ],
)
def test_mistakes_are_named(mistake: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mistake()
