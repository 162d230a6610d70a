"""A file of budgets: what processes share, what it survives, and what it says where it cannot be used."""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys

import pytest

from overcoat.arithmetic.calendar import parse_window
from overcoat.arithmetic.reservation import Denied, Want
from overcoat.budgets import Held
from overcoat.budgets.sqlite import SqliteBudgets
from overcoat.errors import StoreUnavailable

from .race import race

EVER = parse_window(None, None, "Test")
HOURLY = parse_window("calendar hour", None, "Test")


def want(amount=10, limit=100, account="a", window=EVER):
    return Want(account, window, limit, amount)


async def standing(store, *wants):
    return [tuple(each) for each in (await store.settle(Held("none", wants or [want()]), [0])).standings]


def test_it_is_there_for_the_next_process(tmp_path):
    path = tmp_path / "budgets.db"

    async def spend():
        store = SqliteBudgets(path)
        await store.settle(await store.reserve([want()]), [7])
        await store.reserve([want(5)])
        await store.close()
        return await standing(SqliteBudgets(path))

    assert asyncio.run(spend()) == [(7, 5)]
    gc.collect()  # a file that nobody closes is no complaint


def test_who_closes_it_may_go_on(tmp_path):
    async def main():
        store = SqliteBudgets(tmp_path / "budgets.db")
        assert "budgets.db" in repr(store)
        await store.close()
        await store.settle(await store.reserve([want()]), [7])
        await store.close()
        await store.close()
        assert await standing(store) == [(7, 0)]
        await store.close()

    asyncio.run(main())


def test_it_serves_one_loop_after_another(tmp_path):
    store = SqliteBudgets(tmp_path / "budgets.db")
    for spent in (7, 14, 21):
        asyncio.run(self_spend(store))
        assert asyncio.run(standing(store)) == [(spent, 0)]


async def self_spend(store):
    await store.settle(await store.reserve([want()]), [7])


def test_a_process_that_dies_has_spent_what_it_reserved(tmp_path):
    """When its lease is over; and who was only slow corrects it."""
    clock = [1000.0]

    def store():
        return SqliteBudgets(tmp_path / "budgets.db", lease=60, clock=lambda: clock[0])

    async def main():
        dying, living, slow = store(), store(), store()
        await dying.reserve([want(10)])
        late = await slow.reserve([want(20)])
        kept = await living.reserve([want(30)])
        clock[0] += 40
        await living.renew(kept)
        clock[0] += 40
        refused = await living.reserve([want(50)])
        assert isinstance(refused, Denied)
        assert refused.standing == (30, 30)
        await slow.renew(late)  # too late to be renewed, but not to be settled
        assert (await slow.settle(late, [5])).standings == [(15, 30)]
        assert (await slow.settle(late, [5])).standings == [(15, 30)]
        assert (await living.settle(kept, [30])).standings == [(45, 0)]
        for each in (dying, living, slow):
            await each.close()

    asyncio.run(main())


def test_several_accounts_or_none(tmp_path):
    async def main():
        store = SqliteBudgets(tmp_path / "budgets.db")
        wants = [want(10, account="a"), want(10, limit=5, account="b")]
        refused = await store.reserve(wants)
        assert (refused.which, refused.standing) == (1, (0, 0))
        assert await standing(store, *wants) == [(0, 0), (0, 0)]
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("jump", [0, 10**9])
def test_what_is_long_over_is_forgotten(tmp_path, jump):
    """Not at once by a clock that jumps: it may come back."""
    clock = [0.0]
    path = tmp_path / "budgets.db"

    async def main():
        store = SqliteBudgets(path, clock=lambda: clock[0])
        for tenant in range(5):
            await store.settle(await store.reserve([want(1, 9, f"tenant {tenant}", HOURLY)]), [1])
        clock[0] += 30 * 86_400 + jump
        await store.reserve([want(1, 9, "now", HOURLY)])
        assert await count(store) == 6
        clock[0] += 3600
        await store.reserve([want(1, 9, "now", HOURLY)])
        assert await count(store) == 2
        await store.close()

    async def count(store):
        with sqlite3.connect(path) as connection:
            (found,) = connection.execute("SELECT COUNT(*) FROM slices").fetchone()
        connection.close()
        return found

    asyncio.run(main())


def test_a_folder_that_is_not_there(tmp_path):
    async def main():
        store = SqliteBudgets(tmp_path / "nowhere" / "budgets.db")
        with pytest.raises(StoreUnavailable, match="unable to open"):
            await store.reserve([want()])
        (tmp_path / "nowhere").mkdir()
        assert isinstance(await store.reserve([want()]), Held)
        await store.close()

    asyncio.run(main())


def test_a_file_that_is_none_of_its_own(tmp_path):
    path = tmp_path / "budgets.db"
    path.write_bytes(b"something else " * 99)

    async def main():
        store = SqliteBudgets(path)
        with pytest.raises(StoreUnavailable, match="not a database"):
            await store.reserve([want()])
        await store.close()

    asyncio.run(main())
    assert path.read_bytes() == b"something else " * 99


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_opens_it_anew(tmp_path):
    program = """
import asyncio, os, sys
from overcoat.arithmetic.calendar import parse_window
from overcoat.arithmetic.reservation import Want
from overcoat.budgets.sqlite import SqliteBudgets

store = SqliteBudgets(sys.argv[1])

async def spend():
    held = await store.reserve([Want("a", parse_window(None, None, ""), 100, 10)])
    return (await store.settle(held, [7])).standings[0].spent

first = asyncio.run(spend())
child = os.fork()
second = asyncio.run(spend())
if child == 0:
    os._exit(0)
_, status = os.waitpid(child, 0)
print(first, status, asyncio.run(spend()))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "budgets.db")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["7", "0", "28"]


def test_four_processes_do_not_overspend(tmp_path):
    """By the providers' own count; and the budget is used, not only kept."""
    billed, refusals = race(f"sqlite:///{tmp_path / 'budgets.db'}")
    assert 900 < billed <= 1000
    assert refusals == {"BudgetExceeded"}
