"""What bounds a block bounds all calls in it, whatever layers they have and whichever task they are in."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import Backoff, Deadline, Hedge, LLMEvent, Retry, Timeout, capture, stack
from overcoat.bounds import RequestsExceeded, current_allowance, current_deadline, deadline, max_requests
from overcoat.classification import Kind, classify
from overcoat.errors import DeadlineExceeded, LLMConnectionError
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "Why?"}]
AT_ONCE = Retry(max_attempts=3, backoff=Backoff(base=0))


def call(client):
    return client.call(CONVERSATION, None, LLMEvent(CONVERSATION, "test"))


def now():
    return asyncio.get_running_loop().time()


def slow(seconds):
    return ScriptedClient(Answer("Late.", delay=seconds))


LAYERS = {
    "none": (),
    "its own, later": (Deadline("1h"),),
    "a timeout that leaves the end to the deadline": (Timeout("50s"),),
    "all": (Deadline("1h"), Hedge("3s"), Retry(), Timeout("50s")),
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("apart", [False, True])
def test_a_call_ends_with_the_block(layers, apart):
    """Also in a task of its own, for which db-ally's generators are started."""
    client = slow(100)

    async def main():
        with capture() as calls, pytest.raises(DeadlineExceeded) as raised, deadline("30s"):
            await asyncio.gather(call(stack(client, *layers))) if apart else await call(stack(client, *layers))
        assert now() == 30
        assert (raised.value.deadline, raised.value.elapsed) == (30, 30)
        assert asyncio.current_task().cancelling() == 0
        return calls[0]

    record = run(main())
    assert (record.outcome, record.error_type) == ("error", "deadline_exceeded")
    assert client.in_flight == 0


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_a_call_in_a_task_that_the_block_does_not_wait_for_ends_with_it(layers):
    """Its `Timeout` relies on the deadline's timer, so that without one it would go on for ever."""

    async def main():
        with deadline("30s"):
            task = asyncio.create_task(call(stack(slow(100), *layers)))
        with pytest.raises(DeadlineExceeded):
            await task
        return now()

    assert run(main()) == 30


def test_waits_are_clipped_to_what_is_left():
    """A retry that could not begin in time is not waited for: the caller has the error, and the rest of its time."""
    failing = ScriptedClient(LLMConnectionError)
    client = stack(failing, Retry(max_attempts=9, backoff=Backoff(base=20.0, cap=20.0), random=lambda: 0.9))

    async def main():
        with deadline("30s"), pytest.raises(LLMConnectionError) as raised:
            await call(client)
        assert now() == 18
        return raised.value.__notes__

    assert "after the deadline" in run(main())[0]
    assert len(failing.calls) == 2


@pytest.mark.parametrize(("outer", "inner"), [("10s", "20s"), ("20s", "10s"), ("10s", "10s")])
def test_the_earlier_of_two_holds(outer, inner):
    async def main():
        with pytest.raises(DeadlineExceeded, match="10 s"), deadline(outer), deadline(inner):
            await call(stack(slow(100)))
        assert current_deadline() is None
        return now()

    assert run(main()) == 10


def test_what_is_in_time_passes():
    async def main():
        with deadline("30s"), deadline("1m"):
            answers = await asyncio.gather(call(stack(slow(29))), call(stack(slow(29), Deadline("1h"))))
        await asyncio.sleep(10)
        return answers

    assert run(main()) == ["Late.", "Late."]


def test_a_cancellation_from_outside_passes():
    """Also where it comes when the time is over."""

    async def main():
        async def block():
            with deadline("30s"):
                await call(stack(slow(100)))

        for after in (10, 30):
            task = asyncio.create_task(block())
            asyncio.get_running_loop().call_later(after, task.cancel)
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


def test_it_needs_a_task_and_a_duration():
    with pytest.raises(RuntimeError), deadline("30s"):
        pass
    with pytest.raises(ValueError, match="deadline"), deadline("soon"):
        pass


# Requests.


@given(
    most=st.integers(1, 8),
    calls=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    together=st.booleans(),
    nested=st.none() | st.integers(1, 8),
)
def test_no_more_requests_than_were_allowed(most, calls, together, nested):
    """Whatever fails, and whether the calls run at a time; and no fewer than would have been made."""
    clients = [ScriptedClient(*[LLMConnectionError] * failures, "Yes.") for failures in calls]

    async def one(client):
        if nested is None:
            return await call(stack(client, AT_ONCE))
        with max_requests(nested):
            return await call(stack(client, AT_ONCE))

    async def main():
        with max_requests(most):
            if together:
                return await asyncio.gather(*map(one, clients), return_exceptions=True)
            return [(await asyncio.gather(one(client), return_exceptions=True))[0] for client in clients]

    with capture() as records:
        results = run(main())
    wanted = sum(min(failures + 1, 3, nested or 3) for failures in calls)
    assert sum(len(client.calls) for client in clients) == min(most, wanted)
    assert sum(len(record.attempts) for record in records) == min(most, wanted)
    assert all(isinstance(result, (str, LLMConnectionError, RequestsExceeded)) for result in results)
    assert current_allowance() is None


def test_what_is_refused():
    """The error of a call that made an attempt is that attempt's; a call that made none says why."""

    async def main():
        with max_requests(2):
            with pytest.raises(LLMConnectionError) as raised:
                await call(stack(ScriptedClient(LLMConnectionError), AT_ONCE))
            assert len(raised.value.attempts) == 2
            with pytest.raises(RequestsExceeded, match="the 2 requests") as refused:
                await call(stack(ScriptedClient("Yes.")))
        return refused.value

    with capture() as calls:
        error = run(main())
    assert error.most == 2
    assert classify(error).kind is Kind.REFUSED
    first, second = calls
    assert first.inferences[0].gave_up == "requests_exceeded"
    assert (second.outcome, second.error_type, list(second.attempts)) == ("refused", "requests_exceeded", [])


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "3"])
def test_a_number_of_requests_is_one(most):
    with pytest.raises(ValueError, match=r"max_requests\(most="), max_requests(most):
        pass
