"""What it costs to price calls, to write them into a ledger, to sum them up, and to keep them within a budget."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sqlite3
import sys
import time
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from floor import Provider, Yardstick, prices, providers
from measure import OPTIONS, Overhead, Target, Variant, fresh, judge, measure, table, typical, versions
from server import redis_server

from overcoat import Budget, BudgetExceeded, LLMEvent, Meter, capture, stack, tags
from overcoat.budgets import open_budgets
from overcoat.ledger import Ledger, total
from overcoat.pricing.rates import Rates, Tier

METER, LEDGER = 5.0, 15.0
"""Microseconds that each may add to a call, the second on the event loop's thread."""

WRITTEN = 10_000
ROWS, SECONDS = 1_000_000, 3.0

CALLERS, DOLLARS = 400, Decimal(1)

# Two hundred tenants and five models over a month, of which one row in a hundred has no price.
MULTIPLY = f"""
INSERT INTO overcoat_ledger ({{columns}})
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {ROWS - 1})
SELECT {{values}} FROM overcoat_ledger, number
"""  # noqa: S608 - of constants
VALUES = {
    "id": "printf('%032x', n)",
    "started": f"started + n * 2592000000 / {ROWS}",
    "model": "'model ' || (n % 5)",
    "tags": """'{"feature": "f' || (n % 4) || '", "tenant": "t' || (n % 200) || '"}'""",
    "billed": "CASE WHEN n % 100 THEN billed + n END",
}


def dear(model: str, now: float) -> Rates | None:  # noqa: ARG001 - the same for every model, at all times
    """Give rates by which one of the calls that are made here costs about a cent."""
    return Rates((Tier(0, Decimal("0.00003"), Decimal("0.00006")),), "benchmark")


class Slow(Provider):
    """A provider that takes its time, now more and now less."""

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer after a while."""
        await asyncio.sleep(random.uniform(0.001, 0.01))
        return await super().call(conversation, options, event, json_mode)


async def written(folder: Path) -> float:
    """Return the microseconds of processor time a call that the ledger takes in its own thread."""
    with Ledger(folder / "written.db") as ledger:
        client = stack(Provider(), Meter(prices=prices, ledger=ledger))
        conversation = fresh(0)
        process, own = time.process_time(), time.thread_time()
        for _ in range(WRITTEN):
            await client.call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
        own = time.thread_time() - own
        ledger.flush()
        return (time.process_time() - process - own) / WRITTEN * 1e6


async def summed(folder: Path, rounds: int) -> dict[str, float]:
    """Return the seconds that sums over a large ledger take, by what they are grouped by."""
    path = folder / "large.db"
    with Ledger(path, service="shop") as ledger:
        conversation = fresh(0)
        with tags(feature="f", tenant="t"):
            client = stack(Provider(), Meter(prices=prices, ledger=ledger))
            await client.call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
        ledger.flush()
        with closing(sqlite3.connect(path)) as connection, connection:
            described = connection.execute("PRAGMA table_info(overcoat_ledger)")
            columns: list[str] = [column for _, column, *_ in described]
            values = ", ".join(VALUES.get(column, column) for column in columns)
            connection.execute(MULTIPLY.format(columns=", ".join(columns), values=values))
        found: dict[str, float] = {}
        for by in ([], ["model"], ["day", "model"], ["tag.tenant"]):
            best = float("inf")
            for _ in range(rounds):
                begun = time.perf_counter()
                rows = ledger.costs(by)
                best = min(best, time.perf_counter() - begun)
                if (calls := total(rows).calls) != ROWS:
                    raise AssertionError(f"the sums are of {calls} calls, not of {ROWS}")
            found[", ".join(by) or "nothing"] = best
        return found


async def spend(url: str | None) -> tuple[Decimal, int]:
    """Let many callers spend one budget until each is refused; return the dollars that were billed, and the calls."""
    layers = Budget(usd=DOLLARS, prices=dear, store=url, window=None), Meter(prices=dear)
    client = stack(Slow(), *layers)

    async def caller(number: int) -> None:
        conversation = fresh(number)
        with suppress(BudgetExceeded):
            while True:
                await client.call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))

    with capture() as calls:
        await asyncio.gather(*map(caller, range(CALLERS)))
    if unknown := [call for call in calls if call.cost.billed is None]:
        raise AssertionError(f"the price of {len(unknown)} calls is unknown: there is nothing to judge")
    billed = sum((call.cost.billed or Decimal(0) for call in calls), Decimal(0))
    return billed, sum(call.outcome == "ok" for call in calls)


async def run(rounds: int, folder: Path, redis: str | None) -> list[Target]:
    """Measure and print all; return the targets."""
    client = Provider()
    bare = Variant("nothing: the client itself", client)
    yard = Variant("YARD: one span, three records", Yardstick(client, *providers()), bare)
    record = Variant("a stack of no layers: the record", stack(client), bare)
    metered = stack(client, Meter(prices=prices))
    meter = Variant("Meter", metered, record)
    with Ledger(folder / "costs.db") as ledger:
        kept = Variant("  with a ledger in SQLite", stack(client, Meter(prices=prices, ledger=ledger)), meter)
        budget = Budget(usd=1_000_000, prices=prices)
        within = Variant("Budget in memory, over Meter", stack(client, budget, Meter(prices=prices)), meter)
        measured = [bare, yard, record, meter, kept, within]
        await measure(measured, rounds)
        if ledger.dropped:
            raise AssertionError(f"the ledger dropped {ledger.dropped} calls: there is nothing to judge")
    print(table(measured[1:], yard))
    print(f"the ledger's thread: {await written(folder):.1f} us of processor time a call")
    targets = [
        Target("Meter", Overhead.of(meter).least, METER),
        Target("its ledger, on the event loop's thread", Overhead.of(kept).own, LEDGER),
    ]

    stores = {"memory": None, "SQLite": f"sqlite:///{folder / 'budgets.db'}", **({"Redis": redis} if redis else {})}
    clients = {
        name: stack(client, Budget(usd=1_000_000, prices=prices, store=url), Meter(prices=prices))
        for name, url in stores.items()
    }
    took = await typical({"none": metered, **clients}, rounds)
    for name in stores:
        print(f"Budget in {name}: {took[name] - took['none']:.1f} us a call, between medians by the wall")

    for name, url in stores.items():
        billed, calls = await spend(url)
        targets.append(
            Target(f"{CALLERS} callers, {name}, billed for {calls} calls", float(billed), float(DOLLARS), "$")
        )
        await open_budgets(url).close()

    for by, best in (await summed(folder, 3)).items():
        targets.append(Target(f"{ROWS:,} rows of the ledger, by {by}", best, SECONDS, "s"))
    return targets


def main() -> int:
    """Measure, print, and judge where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="blocks of each variant (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    arguments = parser.parse_args()
    logging.getLogger("overcoat").setLevel(logging.ERROR)  # the budgets' alerts
    with TemporaryDirectory() as folder, redis_server() as redis:
        targets = asyncio.run(run(arguments.rounds, Path(folder), redis))
    print(f"{versions('sqlalchemy', 'redis')}, SQLite {sqlite3.sqlite_version}; {arguments.rounds} rounds")
    return judge(targets, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
