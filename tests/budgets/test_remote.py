"""What is cancelled, thrown away or cannot be settled is not lost, in any store outside the process."""

from __future__ import annotations

import asyncio
import gc

import pytest

from overcoat.arithmetic.calendar import parse_window
from overcoat.arithmetic.reservation import Denied, Ledger, Want
from overcoat.budgets import Settled, remote
from overcoat.budgets.remote import RemoteBudgets
from overcoat.errors import StoreUnavailable
from overcoat.testing import run

WANT = Want("a", parse_window(None, None, "Test"), 100, 10)


class Distant(RemoteBudgets):
    """A ledger that takes a second to answer, and does not always."""

    def __init__(self):
        super().__init__(60.0)
        self.ledger = Ledger()
        self.open = {}
        self.down = set()
        self.lost = set()
        self.asked = []

    async def _ask(self, what):
        self.asked.append(what)
        await asyncio.sleep(1)
        if what in self.down:
            raise StoreUnavailable("down")

    def _answer(self, what):
        if what in self.lost:
            raise StoreUnavailable("it was done, and the answer got lost")

    async def _reserve(self, held):
        await self._ask("reserve")
        slices = self.ledger.reserve(held.wants, 0)
        if isinstance(slices, Denied):
            return slices
        self.open[held.id] = slices
        self._answer("reserve")
        return None

    async def _settle(self, held, amounts):
        await self._ask("settle")
        if held.id in self.open:
            self.ledger.settle(held.wants, self.open.pop(held.id), amounts, 0)
        self._answer("settle")
        return Settled(0, self.ledger.standings(held.wants, 0))

    async def _renew(self, held):
        await self._ask("renew")

    @property
    def standing(self):
        return tuple(self.ledger.standings([WANT], 0)[0])


async def alone():
    """Let what is detached come to its end, and see that nothing is left."""
    await asyncio.sleep(10)
    assert len(asyncio.all_tasks()) == 1


def test_what_is_settled_counts():
    async def main():
        store = Distant()
        held = await store.reserve([WANT])
        assert store.standing == (0, 10)
        assert (await store.settle(held, [7])).standings == [(7, 0)]
        assert (await store.settle(held, [99])).standings == [(7, 0)]
        await store.renew(held)
        assert store.asked == ["reserve", "settle", "settle", "renew"]

    run(main())


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0])
def test_who_is_cancelled_while_it_reserves_has_taken_nothing(after):
    async def main():
        store = Distant()
        task = asyncio.create_task(store.reserve([WANT]))
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.sleep(0.1)
        task.cancel()  # whoever cannot wait
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1, "something outlived the call"
        assert store.standing == (0, 0)

    run(main())


def test_what_no_store_takes_stands_before_nothing_else():
    """It is not tried again: where it fails for what it is, it would fail for ever, and no other would be served."""

    class Strict(Distant):
        async def _ask(self, what):
            await super()._ask(what)
            if len(self.asked) < 3:
                raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")

    async def main():
        store = Strict()
        for _ in range(2):
            with pytest.raises(UnicodeEncodeError):
                await store.reserve([WANT])
        held = await store.reserve([WANT])
        assert (await store.settle(held, [7])).standings == [(7, 0)]
        assert store.asked == ["reserve"] * 3 + ["settle"]

    run(main())


def test_who_is_cancelled_while_it_settles_has_settled():
    async def main():
        store = Distant()
        held = await store.reserve([WANT])
        task = asyncio.create_task(store.settle(held, [7]))
        for _ in range(3):
            await asyncio.sleep(0.2)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1
        assert store.standing == (7, 0)
        await store.reserve([WANT])
        assert store.asked.count("settle") == 1

    run(main())


def test_the_end_of_a_loop_ends_it():
    """Where all tasks are cancelled, those that wait to the end included."""

    async def main():
        store = Distant()
        task = asyncio.create_task(store.reserve([WANT]))
        await asyncio.sleep(0.5)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1
        assert store.standing == (0, 0)

    run(main())


def test_an_error_that_a_cancellation_hides_is_no_complaint():
    """The loop would log it; and what could not be settled is owed."""

    async def main():
        store = Distant()
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        held = await store.reserve([WANT])
        store.down = {"settle"}
        task = asyncio.create_task(store.settle(held, [7]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gc.collect()
        assert complaints == []
        store.down = set()
        await store.reserve([WANT])
        assert store.standing == (7, 10)

    run(main())


@pytest.mark.parametrize("how", ["down", "lost"])
def test_what_could_not_be_settled_is_settled_before_the_next_reservation(how):
    async def main():
        store = Distant()
        held = [await store.reserve([WANT]) for _ in range(3)]
        setattr(store, how, {"settle"})
        for each in held:
            with pytest.raises(StoreUnavailable):
                await store.settle(each, [7])
        with pytest.raises(StoreUnavailable):
            await store.reserve([WANT])
        setattr(store, how, set())
        await store.reserve([WANT])
        assert store.standing == (21, 10)
        await alone()

    run(main())


@pytest.mark.parametrize("how", ["down", "lost"])
def test_what_may_have_been_reserved_is_given_back(how):
    async def main():
        store = Distant()
        setattr(store, how, {"reserve"})
        with pytest.raises(StoreUnavailable):
            await store.reserve([WANT])
        setattr(store, how, set())
        await store.reserve([WANT])
        assert store.standing == (0, 10)

    run(main())


def test_a_reservation_does_not_wait_for_all_debts():
    async def main():
        store = Distant()
        held = [await store.reserve([WANT._replace(amount=1)]) for _ in range(25)]
        store.down = {"settle"}
        await asyncio.gather(*[store.settle(each, [1]) for each in held], return_exceptions=True)
        store.down = set()
        store.asked.clear()
        for debts in (10, 10, 5, 0):
            await store.reserve([WANT])
            assert store.asked.count("settle") == debts
            store.asked.clear()

    run(main())


def test_debts_are_settled_once_by_whoever_comes():
    async def main():
        store = Distant()
        held = [await store.reserve([WANT._replace(amount=1)]) for _ in range(5)]
        store.down = {"settle"}
        await asyncio.gather(*[store.settle(each, [1]) for each in held], return_exceptions=True)
        store.down = set()
        store.asked.clear()
        await asyncio.gather(*[store.reserve([WANT]) for _ in range(8)])
        assert store.asked.count("settle") == 5
        assert store.standing == (5, 80)

    run(main())


def test_more_is_not_owed_than_can_be_remembered(monkeypatch):
    """Beyond, leases end by themselves."""
    monkeypatch.setattr(remote, "_MOST_OWED", 2)

    async def main():
        store = Distant()
        held = [await store.reserve([WANT]) for _ in range(3)]
        store.down = {"settle"}
        await asyncio.gather(*[store.settle(each, [1]) for each in held], return_exceptions=True)
        store.down = set()
        await store.reserve([WANT])
        assert store.standing == (2, 20)

    run(main())


def test_a_call_that_is_thrown_away_cannot_wait_and_owes():
    async def main():
        store = Distant()
        held = await store.reserve([WANT])

        async def call():
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                with pytest.raises(StoreUnavailable):
                    await store.settle(held, [7])

        thrown = call()
        thrown.send(None)
        thrown.close()
        assert store.standing == (0, 10)
        await store.reserve([WANT])
        assert store.standing == (7, 10)

    run(main())


def test_what_is_thrown_away_while_it_reserves():
    """It goes on alone to its end; what it set aside ends with its lease."""

    async def main():
        store = Distant()
        thrown = store.reserve([WANT])
        thrown.send(None)
        await asyncio.sleep(0.5)
        thrown.close()
        await alone()
        assert store.standing == (0, 10)

    run(main())
