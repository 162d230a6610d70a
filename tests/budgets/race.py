"""Processes that spend from one budget at the same time."""

from __future__ import annotations

import json
import subprocess
import sys

WORKER = """
import asyncio, json, sys
from decimal import Decimal
from overcoat import Budget, BudgetExceeded, LLMEvent, Meter, capture, stack
from overcoat.pricing.rates import Rates, Tier

RATES = Rates((Tier(0, Decimal(0), Decimal("0.001")),), "test")

class Provider:
    model_name = "m"
    billed = 0
    async def call(self, conversation, options, event, json_mode=False):
        await asyncio.sleep(0.001)
        number = int(conversation[0]["content"])
        event.prompt_tokens, event.completion_tokens = 1, options["max_tokens"] * (number % 4) // 3
        self.billed += event.completion_tokens
        return "hi"

async def main():
    provider = Provider()
    prices = lambda model, now: RATES
    client = stack(provider, Budget(usd=1, window=None, store=sys.argv[1], prices=prices), Meter(prices=prices))
    async def one(number):
        event = LLMEvent([], "test")
        return await client.call([{"role": "user", "content": str(number)}], {"max_tokens": 12}, event)
    with capture() as calls:
        answers = []
        for _ in range(6):
            answers += await asyncio.gather(*[one(number) for number in range(100)], return_exceptions=True)
    overrun = sum(each.overrun for call in calls for each in call.reservations)
    kinds = {type(answer).__name__ for answer in answers if not isinstance(answer, str)}
    print(json.dumps({"billed": provider.billed, "overrun": float(overrun), "kinds": sorted(kinds)}))

asyncio.run(main())
"""


def race(url):
    """Let 4 processes make 100 calls at once, six times over, against one dollar for ever, a thousand tokens.

    Returns:
        How many tokens the providers have billed together, and how calls were refused.
    """
    command = [sys.executable, "-c", WORKER, url]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    said = [json.loads(output) for output in outputs]
    assert [each["overrun"] for each in said] == [0] * 4
    return sum(each["billed"] for each in said), {kind for each in said for kind in each["kinds"]}
