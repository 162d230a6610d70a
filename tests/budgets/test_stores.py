"""Every store does what the model does; what differs is where the sums lie."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from overcoat.budgets.memory import MemoryBudgets
from overcoat.budgets.sqlite import SqliteBudgets

from .model import LEASE, drive, steps

scripts = st.lists(steps, max_size=25)
starts = st.integers(0, 4_000_000_000) | st.sampled_from([0, 1_700_000_000])


@given(scripts, starts)
def test_memory(script, start):
    clock = [float(start)]
    asyncio.run(drive(MemoryBudgets(lambda: clock[0]), clock, script))


@settings(max_examples=50)
@given(scripts, starts)
def test_sqlite(script, start):
    clock = [float(start)]

    async def main():
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteBudgets(Path(folder) / "budgets.db", lease=LEASE, clock=lambda: clock[0])
            try:
                await drive(store, clock, script)
            finally:
                await store.close()

    asyncio.run(main())
