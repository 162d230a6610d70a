"""What the layers that guard a call cost beside tenacity: on success, after a failure, and in a long queue."""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from typing import Any

import tenacity
from floor import Provider, Yardstick, providers
from measure import Overhead, Target, Variant, fresh, judge, measure, table, versions
from overhead import Tenacious

from overcoat import Backoff, Breaker, Deadline, LLMEvent, RateLimit, Retry, Timeout, stack

OVER_TENACITY_OK, OVER_TENACITY_FAILED = 0.5, 1.0
QUEUED = 10_000
LINEAR = 1.5
"""How much longer a call may take in a queue that is four times as long: by a quadratic cost it would be four."""


class Flaky(Provider):
    """A provider that cannot be reached at every first attempt, and answers the second."""

    down = False

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Fail and answer in turn."""
        self.down = not self.down
        if self.down:
            raise ConnectionResetError
        return await super().call(conversation, options, event, json_mode)


class Impatient:
    """tenacity around the call, without a pause."""

    def __init__(self, client: Provider) -> None:
        self._client = client

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer, retried at once."""
        async for attempt in tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none(), reraise=True
        ):
            with attempt:
                return await self._client.call(conversation, options, event, json_mode)
        raise AssertionError("tenacity returns or raises")


class Ordered(Provider):
    """A provider that notes in which order questions come."""

    def __init__(self) -> None:
        self.came: list[int] = []

    async def call(self, conversation: Any, options: Any, event: LLMEvent, json_mode: bool = False) -> str:
        """Answer in a moment, so that others have to wait."""
        self.came.append(options)
        await asyncio.sleep(0)
        return await super().call(conversation, options, event, json_mode)


async def queued(calls: int) -> tuple[float, int]:
    """Let so many *calls* wait for a limiter of 10; return the microseconds a call, and how many overtook another."""
    provider = Ordered()
    client = stack(provider, RateLimit(concurrency=10, max_wait="10m", name=f"queue of {calls}"))
    conversation = fresh(0)
    # The collector goes through all tasks that wait, with a limiter or without: it would hide what the queue costs.
    gc.collect()
    gc.disable()
    begun = time.process_time()
    await asyncio.gather(
        *(client.call(conversation, number, LLMEvent(conversation, "Benchmark")) for number in range(calls))
    )
    took = time.process_time() - begun
    gc.enable()
    if len(provider.came) != calls:
        raise AssertionError(f"{len(provider.came)} of {calls} calls came")
    early = sum(later < earlier for earlier, later in zip(provider.came, provider.came[1:], strict=False))
    return took / calls * 1e6, early


async def run(rounds: int) -> list[Target]:
    """Measure and print all; return the targets."""
    bare = Variant("nothing: the client itself", Provider())
    yard = Variant("YARD: one span, three records", Yardstick(Provider(), *providers()), bare)
    record = Variant("a stack of no layers: the record", stack(Provider()), bare)
    guards = Deadline("30s"), Retry(), Breaker(), RateLimit(concurrency=10), Timeout("20s")
    guarded = Variant("Deadline, Retry, Breaker, RateLimit, Timeout", stack(Provider(), *guards), record)
    plain = Variant("tenacity.AsyncRetrying around the call", Tenacious(Provider()), bare)
    repaired = Variant("Retry, a failure and a success", stack(Flaky(), Retry(backoff=Backoff(base=0))), record)
    tenacious = Variant("tenacity.AsyncRetrying, likewise", Impatient(Flaky()), bare)
    measured = [bare, yard, record, guarded, plain, repaired, tenacious]
    await measure(measured, rounds)
    print(table(measured[1:], yard))
    overhead = {variant.name: Overhead.of(variant) for variant in measured}
    ok = overhead[guarded.name].ratio(overhead[plain.name]).least
    failed = overhead[repaired.name].ratio(overhead[tenacious.name]).least

    short = min([await queued(QUEUED // 4) for _ in range(3)])
    long = min([await queued(QUEUED) for _ in range(3)])
    print(f"a queue of {QUEUED // 4:,}: {short[0]:.1f} us a call; of {QUEUED:,}: {long[0]:.1f}")
    return [
        Target("the five layers / tenacity, on success", ok, OVER_TENACITY_OK, "times"),
        Target("Retry / tenacity, a failure and a success", failed, OVER_TENACITY_FAILED, "times"),
        Target(f"{QUEUED:,} in a queue, of which came before their turn", short[1] + long[1], 0, "calls"),
        Target(f"a call in a queue of {QUEUED:,} / of {QUEUED // 4:,}", long[0] / short[0], LINEAR, "times"),
    ]


def main() -> int:
    """Measure, print, and judge where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="blocks of each variant (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    arguments = parser.parse_args()
    targets = asyncio.run(run(arguments.rounds))
    print(f"{versions('tenacity')}; {arguments.rounds} rounds")
    return judge(targets, check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
