"""`overcoat demo`: real litellm, over real HTTP, against a provider that misbehaves by a script."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.text import Text

from overcoat import (
    Cache,
    Call,
    Deadline,
    LiteLLMClient,
    LiteLLMOptions,
    LLMError,
    LLMEvent,
    Meter,
    OvercoatError,
    Retry,
    Timeout,
    Trace,
    __version__,
    capture,
    stack,
)
from overcoat.telemetry import Telemetry, setup
from overcoat.telemetry.tree import dollars
from overcoat.testing import Provider, answer, empty_choices, insufficient_quota, rate_limited, slow, truncated

MODEL = "openai/gpt-4o-mini"
UNPRICED = "openai/our-finetune"

CAPITAL = "What is the capital of France?"
POEM = "Write a poem about retries."
CITY = 'Give me a city, as JSON: {"city": ...}'


def dressed(client: LiteLLMClient, *, deadline: str, timeout: str) -> LiteLLMClient:
    """Return *client* with the layers around it: this is all that an application has to write."""
    return stack(
        client,
        Trace(),
        Deadline(deadline),
        Cache(ttl="1h"),
        Retry(max_attempts=3),
        Timeout(timeout),
        Meter(),
    )


async def against_the_script(show: Show, provider: Provider) -> None:
    """Tell what happens to calls whose provider does, request by request, what the scene says."""

    def connect(model: str) -> LiteLLMClient:
        client = LiteLLMClient(model, base_url=provider.url, api_key="any")
        return dressed(client, deadline="10s", timeout="1500ms")

    client = connect(MODEL)

    show.scene("A call", "Its span says how long it took, what it used and what it cost.")
    provider.script(answer("Paris.", prompt_tokens=812, completion_tokens=96, delay=0.3))
    await show.ask(client, CAPITAL)

    show.scene("The same question again", "A hit: no request, no cost, and a link to the trace that paid for it.")
    await show.ask(client, CAPITAL)

    show.scene("429, come back in a second", "The retry waits as it is told, and the wait has a span of its own.")
    provider.script(rate_limited(retry_after=1), answer("Austin.", prompt_tokens=640, completion_tokens=80, delay=0.2))
    await show.ask(client, "And of Texas?")

    show.scene("Fifty identical questions at once", "One is sent; the others share its answer, and cost nothing.")
    provider.script(answer("Try, and try again.", prompt_tokens=420, completion_tokens=310, delay=0.4))
    with show.together():
        await asyncio.gather(*(show.ask(client, POEM) for _ in range(50)))

    show.scene("An answer with nothing in it", "It is charged all the same: counted, and told apart as wasted.")
    provider.script(empty_choices(prompt_tokens=900), answer("42", prompt_tokens=900, completion_tokens=1))
    await show.ask(client, "How much is six times seven?")

    show.scene("A provider that hangs", "Each attempt has a time limit of its own, and the call another.")
    provider.script(slow(60), answer("Here I am.", prompt_tokens=24, completion_tokens=4, delay=0.1))
    await show.ask(client, "Are you there?")

    show.scene("429 again, but the account is empty", "No wait refills it: there is no second attempt.")
    provider.script(insufficient_quota())
    await show.ask(client, "One more?")

    show.scene("429, come back in 20 seconds", "The call has 10: it fails at once instead of waiting in vain.")
    provider.script(rate_limited(retry_after=20))
    await show.ask(client, "Do you have a moment?")

    show.scene("JSON that is cut off", "The caller gets it, the cache does not: the next one asks anew.")
    provider.script(truncated('{"city": "Par', prompt_tokens=30, completion_tokens=16))
    provider.script(answer('{"city": "Paris"}', prompt_tokens=30, completion_tokens=9))
    await show.ask(client, CITY, json_mode=True)
    await show.ask(client, CITY, json_mode=True)

    show.scene("A model that no price list has", "Unknown is not free: no sum below pretends to know.")
    provider.script(answer("Hello.", prompt_tokens=18, completion_tokens=3))
    await show.ask(connect(UNPRICED), "Hello?")


async def against(model: str, show: Show) -> None:
    """Tell what can be shown with a provider that behaves; nothing more, if it does not even answer the first call."""
    client = dressed(LiteLLMClient(model), deadline="60s", timeout="30s")

    show.scene("A call", "Its span says how long it took, what it used and what it cost.")
    if not await show.ask(client, CAPITAL):
        return

    show.scene("The same question again", "A hit: no request, no cost, and a link to the trace that paid for it.")
    await show.ask(client, CAPITAL)

    show.scene("Fifty identical questions at once", "One is sent; the others share its answer, and cost nothing.")
    with show.together():
        await asyncio.gather(*(show.ask(client, POEM) for _ in range(50)))

    show.scene("JSON mode", "An answer that is no JSON would reach the caller, but not the cache.")
    await show.ask(client, CITY, json_mode=True)

    show.scene("At most 16 tokens", "An answer that is cut off reaches the caller, but not the cache.")
    await show.ask(client, "Count to a hundred.", LiteLLMOptions(max_tokens=16))


class Show:
    """Says what comes, asks, and says what the caller gets; the trees in between are printed by the telemetry."""

    def __init__(self, console: Console, telemetry: Telemetry) -> None:
        self._console = console
        self._scenes = 0
        self.together = telemetry.together

    def scene(self, title: str, why: str) -> None:
        """Announce what is shown next, and why it matters."""
        self._scenes += 1
        self._console.print(f"\n[bold]{self._scenes}. {title}[/]\n{why}")

    async def ask(
        self, client: LiteLLMClient, question: str, options: LiteLLMOptions | None = None, *, json_mode: bool = False
    ) -> bool:
        """Ask, and say whether there was an answer; if not, what the caller got instead."""
        conversation = [{"role": "user", "content": question}]
        event = LLMEvent(prompt=conversation, type="Demo")
        try:
            await client.call(conversation, options or LiteLLMOptions(), event, json_mode=json_mode)
        except (LLMError, OvercoatError) as error:
            said = getattr(error, "__notes__", [str(error)])[-1].removeprefix("overcoat: ")
            self._console.print(Text(f"The caller gets the {type(error).__name__}, with a note: {said}", "red"))
            return False
        return True

    def sum_up(self, calls: Sequence[Call], *, received: int | None) -> None:
        """Print what *calls* came to; *received* is how many requests the provider counted, where it could be asked."""
        usage = [call.usage for call in calls if call.usage is not None]
        tokens_in = sum(each.input_tokens or 0 for each in usage)
        tokens_out = sum(each.output_tokens or 0 for each in usage)
        answered = sum(call.outcome == "ok" for call in calls)
        unpriced = sum(call.cost.billed is None for call in calls)
        saving = [call.cost.saved for call in calls if call.cost.saved != 0]
        wasted = dollars(_sum(call.cost.wasted for call in calls))
        lines = [
            ("calls", f"{len(calls)}, of which {answered} were answered"),
            ("requests", f"{_sent(calls)} by the records{'' if received is None else f', {received} by the provider'}"),
            ("tokens", f"{tokens_in:,} in, {tokens_out:,} out"),
            ("billed", dollars(_sum(call.cost.billed for call in calls))),
            ("wasted", f"{wasted} of that, for attempts without an answer"),
            ("saved", f"{dollars(_sum(saving))}, by {len(saving)} answers from the cache"),
        ]
        if unpriced:
            lines.append(("unknown", f"the price of {unpriced} of the calls, which no sum has guessed"))
        self._console.print()
        for name, text in lines:
            self._console.print(Text.assemble((f"{name:<10}", "bold"), text))


def run(model: str | None, *, otlp: bool, jaeger: str) -> bool:
    """Run the demo and return whether all went as it should.

    Args:
        model: A real provider's, as litellm names it; None for the script.
        otlp: Export where something listens on the OTLP endpoint.
        jaeger: The URL of the user interface that shows what was exported.
    """
    logging.getLogger("overcoat").setLevel(logging.ERROR)  # the scenes say themselves what is amiss
    console = Console(highlight=False)
    console.print(f"overcoat {__version__}: loading litellm, which takes a few seconds", style="dim")
    trace_url = f"{jaeger.rstrip('/')}/trace/{{trace_id}}"
    with setup("overcoat-demo", tree=sys.stdout, otlp="auto" if otlp else False, trace_url=trace_url) as telemetry:
        return asyncio.run(_perform(Show(console, telemetry), model))


async def _perform(show: Show, model: str | None) -> bool:
    await _rehearse()
    try:
        return await (_on_our_stage(show) if model is None else _on_a_real_one(show, model))
    finally:
        await _litellm().close_litellm_async_clients()


async def _on_our_stage(show: Show) -> bool:
    with Provider() as provider, capture() as calls:
        await against_the_script(show, provider)
    show.sum_up(calls, received=len(provider))
    return len(provider) == _sent(calls)


async def _on_a_real_one(show: Show, model: str) -> bool:
    with capture() as calls:
        await against(model, show)
    show.sum_up(calls, received=None)
    return all(call.outcome == "ok" for call in calls)


async def _rehearse() -> None:
    """Load, unseen, what litellm leaves for its first call, which takes a second."""
    with Provider() as provider:
        client = LiteLLMClient(MODEL, base_url=provider.url, api_key="any")
        await client.call([{"role": "user", "content": "?"}], LiteLLMOptions(), LLMEvent(prompt="?", type="Rehearsal"))


def _litellm() -> Any:
    return sys.modules["litellm"]  # the client has imported it


def _sent(calls: Sequence[Call]) -> int:
    return sum(len(call.attempts) for call in calls)


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    """Add what is known; how many are not is said beside it."""
    return sum((amount for amount in amounts if amount is not None), Decimal(0))
