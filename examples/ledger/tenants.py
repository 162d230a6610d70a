"""What each tenant costs, and no more than it may: tags, a budget for each of them, and a ledger that finance reads.

    python examples/ledger/tenants.py [costs.db]

The client is a scripted one: it needs no key and no network. With a file, `overcoat costs costs.db --by tag.tenant,day`
says the same from a shell, of all processes that write to it; without, the ledger is in memory.
"""

import asyncio
import logging
import sys

from overcoat import Budget, BudgetExceeded, Cache, LLMEvent, Meter, Retry, stack, tags
from overcoat.testing import Answer, ScriptedClient

try:
    from overcoat.ledger import Ledger
except ImportError as missing:
    sys.exit(f"This example needs a ledger. {missing}")

A_DAY = 0.02  # dollars, for each tenant; a store="redis://..." makes it one budget for all processes
QUESTIONS = {
    "acme": ["What is new?", "What is new?", "What else?", "And then?", "Is that all?"],
    "globex": ["What is new?"],
}


async def work(ledger: Ledger) -> None:
    """Ask for each tenant, until it may not ask any more."""
    client = stack(
        ScriptedClient(Answer("A great deal.", prompt_tokens=400, completion_tokens=500), model_name="openai/gpt-4o"),
        Cache(ttl="1h", namespace="tag:tenant"),
        Budget(usd=A_DAY, window="calendar day", scope="tag:tenant"),
        Retry(),
        Meter(ledger=ledger),
    )
    for tenant, questions in QUESTIONS.items():
        for question in questions:
            conversation = [{"role": "user", "content": question}]
            with tags(tenant=tenant, feature="news"):
                try:
                    await client.call(conversation, {"max_tokens": 800}, LLMEvent(conversation, "Question"))
                except BudgetExceeded as refused:
                    print(f"{tenant}: {question} {refused}")


def main(path: str | None) -> None:
    """Work, and sum up."""
    logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")  # where budgets say how full they are
    ledger = Ledger(path) if path else Ledger()
    try:
        asyncio.run(work(ledger))
        for costs in ledger.costs(["tag.tenant"]):
            spent = f"${costs.billed} billed, ${costs.saved} saved by the cache"
            print(f"{costs.by['tag.tenant']}: {costs.calls} calls, {costs.attempts} requests; {spent}")
    finally:
        ledger.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
