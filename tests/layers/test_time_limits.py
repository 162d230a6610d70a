"""`Timeout` and `Deadline`: what they end, when, and as what."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    AttemptTimeout,
    Backoff,
    Cache,
    Deadline,
    DeadlineExceeded,
    LLMEvent,
    LLMStatusError,
    OnError,
    Retry,
    Timeout,
    capture,
    stack,
)
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]


async def ask(client, *layers):
    return await stack(client, *layers).call(CONVERSATION, None, LLMEvent([], "test"))


async def timed(awaitable):
    clock = asyncio.get_running_loop().time
    started = clock()
    try:
        return await awaitable, clock() - started
    except Exception as error:  # noqa: BLE001 - the error is the result here
        return error, clock() - started


class TestTimeout:
    def test_it_ends_an_attempt(self):
        client = ScriptedClient(Answer("late", delay=60))
        with capture() as calls:
            error, waited = run(timed(ask(client, Timeout("5s"))))
        assert (type(error), error.timeout, waited) == (AttemptTimeout, 5, 5)
        assert client.cancelled == 1
        assert [(attempt.error_type, attempt.duration) for attempt in calls[0].attempts] == [("timeout", 5)]
        assert calls[0].outcome == "error"

    def test_it_starts_anew_for_each_attempt(self):
        client = ScriptedClient(Answer("late", delay=60), Answer("hi", delay=4))
        policy = Retry(backoff=Backoff(base=2), random=lambda: 0.5)
        assert run(timed(ask(client, policy, Timeout("5s")))) == ("hi", 5 + 1 + 4)

    def test_the_client_s_own_timeout_is_its_own(self):
        error = TimeoutError("the client's")
        assert run(timed(ask(ScriptedClient(error), Timeout("5s"))))[0] is error

    def test_the_caller_s_cancellation_is_no_timeout(self):
        async def main():
            task = asyncio.create_task(ask(ScriptedClient(Answer("late", delay=60)), Retry(), Timeout("5s")))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())


class TestDeadline:
    def test_it_ends_a_call_with_all_its_attempts(self):
        client = ScriptedClient(Answer("late", delay=4))
        policy = Retry(max_attempts=9, backoff=Backoff(base=0), errors={"timeout": OnError(max_attempts=9)})
        with capture() as calls:
            error, waited = run(timed(ask(client, Deadline("10s"), policy, Timeout("3s"))))
        assert (type(error), error.deadline, error.elapsed, waited) == (DeadlineExceeded, 10, 10, 10)
        assert [attempt.duration for attempt in calls[0].attempts] == [3, 3, 3, 1]
        assert (calls[0].outcome, calls[0].error_type) == ("error", "deadline_exceeded")
        assert calls[0].attempts[-1].error_type == "deadline_exceeded"

    def test_a_backoff_is_cut(self):
        """A wait that ends just before the deadline is waited for; the attempt after it gets what is left."""
        client = ScriptedClient(LLMStatusError("down", 500), Answer("late", delay=60))
        policy = Retry(backoff=Backoff(base="9s"), random=lambda: 0.999)
        error, waited = run(timed(ask(client, Deadline("10s"), policy)))
        assert (type(error), waited) == (DeadlineExceeded, 10)

    def test_the_earlier_of_two_counts(self):
        client = ScriptedClient(Answer("late", delay=60))
        error, _ = run(
            timed(
                stack(stack(client, Deadline("9s")), Deadline("3s"), order="as given").call(
                    CONVERSATION, None, LLMEvent([], "test")
                )
            )
        )
        assert error.deadline == 3

    def test_an_answer_in_time_is_an_answer(self):
        assert run(timed(ask(ScriptedClient(Answer("hi", delay=9)), Deadline("10s"), Timeout("20s")))) == ("hi", 9)

    def test_each_who_shares_an_inference_has_a_deadline_of_their_own(self):
        """Who gives up does not take the answer from those who came later."""
        client = stack(ScriptedClient(Answer("hi", delay=8)), Deadline("10s"), Cache())

        async def main():
            first = asyncio.create_task(timed(client.call(CONVERSATION, None, LLMEvent([], "test"))))
            await asyncio.sleep(5)
            second = asyncio.create_task(timed(client.call(CONVERSATION, None, LLMEvent([], "test"))))
            return await first, await second

        assert run(main()) == (("hi", 8), ("hi", 3))


@given(
    delays=st.lists(st.floats(0.01, 20), min_size=1, max_size=6),
    deadline=st.floats(0.1, 30),
    timeout=st.floats(0.1, 30),
    jitter=st.floats(0, 0.999),
)
def test_no_call_outlives_its_deadline(delays, deadline, timeout, jitter):
    """Whatever attempts take and backoff asks for; and no attempt outlives its timeout."""
    client = ScriptedClient(*[Answer("late", delay=delay) for delay in delays])
    policy = Retry(max_attempts=9, errors={"timeout": OnError(max_attempts=9)}, random=lambda: jitter)
    with capture() as calls:
        _, waited = run(timed(ask(client, Deadline(deadline), policy, Timeout(timeout))))
    assert waited <= deadline + 1e-9
    assert all(attempt.duration <= timeout + 1e-9 for attempt in calls[0].attempts)


@pytest.mark.parametrize("layer", [Timeout, Deadline])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        ("5", ValueError),
        (float("inf"), ValueError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_bad_input(layer, value, error):
    with pytest.raises(error, match=rf"{layer.__name__}\(after=\.\.\.\)"):
        layer(value)
