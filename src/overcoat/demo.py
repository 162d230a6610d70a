"""`overcoat demo`: real litellm, over real HTTP, against a provider that misbehaves by a script."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from importlib import import_module
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
UNPRICED = "openai/our-own-finetune"

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
        return dressed(client, deadline="10s", timeout="1s")

    client = connect(MODEL)

    show.scene("A call", "Its span says how long it took, what it used and what it cost.")
    provider.script(answer("Paris.", prompt_tokens=812, completion_tokens=96, delay=0.3))
    await show.ask(client, CAPITAL)

    show.scene("The same question again", "The cache answers: no request, no cost, and a link to the trace that paid.")
    await show.ask(client, CAPITAL)

    show.scene("429, come back in a second", "The retry waits as it is told, and the wait has a span of its own.")
    provider.script(rate_limited(retry_after=1), answer("Still Paris.", prompt_tokens=640, completion_tokens=80))
    await show.ask(client, "And of Texas?")

    show.scene("Fifty identical questions at once", "One is sent, and the others share its answer.")
    provider.script(answer("Try, and try again.", prompt_tokens=420, completion_tokens=310, delay=0.4))
    with show.together():
        await asyncio.gather(*(show.ask(client, POEM) for _ in range(50)))

    show.scene(
        "An answer without content", "It was charged, so it is counted: as wasted, apart from what bought answers."
    )
    provider.script(empty_choices(prompt_tokens=900), answer("42", prompt_tokens=900, completion_tokens=1))
    await show.ask(client, "How much is six times seven?")

    show.scene("No answer", "Each attempt has its own time limit, so one that hangs does not take the others' time.")
    provider.script(slow(60), answer("Here I am.", prompt_tokens=24, completion_tokens=4))
    await show.ask(client, "Are you there?")

    show.scene("429 again, but for an empty account", "No wait refills it, so there is no second attempt.")
    provider.script(insufficient_quota())
    await show.ask(client, "One more?")

    show.scene("429, come back in 20 seconds", "That is past the call's deadline of 10: it fails now, not then.")
    provider.script(rate_limited(retry_after=20))
    await show.ask(client, "Do you have a moment?")

    show.scene(
        "JSON mode, cut off", "The caller gets what came, but nobody else will: it is not kept, and asked for anew."
    )
    provider.script(truncated('{"city": "Par', prompt_tokens=30, completion_tokens=16))
    provider.script(answer('{"city": "Paris"}', prompt_tokens=30, completion_tokens=9))
    await show.ask(client, CITY, json_mode=True)
    await show.ask(client, CITY, json_mode=True)

    show.scene("A model without a known price", "Unknown is not free: it is said, and left out of every sum.")
    provider.script(answer("Hello.", prompt_tokens=18, completion_tokens=3))
    await show.ask(connect(UNPRICED), "Hello?")


async def against(model: str, show: Show) -> None:
    """Tell what can be shown of a provider that behaves."""
    client = dressed(LiteLLMClient(model), deadline="60s", timeout="30s")

    show.scene("A call", "Its span says how long it took, what it used and what it cost.")
    await show.ask(client, CAPITAL)

    show.scene("The same question again", "The cache answers: no request, no cost, and a link to the trace that paid.")
    await show.ask(client, CAPITAL)

    show.scene("Fifty identical questions at once", "One is sent, and the others share its answer.")
    with show.together():
        await asyncio.gather(*(show.ask(client, POEM, LiteLLMOptions(max_tokens=200)) for _ in range(50)))

    show.scene("JSON mode", "What comes back is kept only if it is JSON.")
    await show.ask(client, CITY, json_mode=True)

    show.scene(
        "At most 16 tokens", "The caller gets what came, but nobody else will: an answer that is cut off is not kept."
    )
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
        self._console.print()
        self._console.print(Text.assemble((f"{self._scenes}. {title}. ", "bold"), why))

    async def ask(
        self, client: LiteLLMClient, question: str, options: LiteLLMOptions | None = None, *, json_mode: bool = False
    ) -> None:
        """Ask, and go on with the story whatever comes of it."""
        conversation = [{"role": "user", "content": question}]
        event = LLMEvent(prompt=conversation, type="Demo")
        try:
            await client.call(conversation, options or LiteLLMOptions(), event, json_mode=json_mode)
        except (LLMError, OvercoatError) as error:
            said = getattr(error, "__notes__", [str(error)])
            self._console.print(Text(f"{type(error).__name__} for the caller, who can read: {said[-1]}", "red"))

    def sum_up(self, calls: Sequence[Call], *, received: int | None) -> None:
        """Print what *calls* came to; *received* is how many requests the provider counted, where it could be asked."""
        ended = Counter(call.outcome for call in calls)
        served = sum(call.cost.saved != 0 for call in calls)
        unpriced = sum(call.cost.billed is None for call in calls)
        usage = [call.usage for call in calls if call.usage is not None]
        tokens_in = sum(each.input_tokens or 0 for each in usage)
        tokens_out = sum(each.output_tokens or 0 for each in usage)
        lines = [
            ("calls", f"{len(calls)}: {', '.join(f'{count} {outcome}' for outcome, count in ended.items())}"),
            ("requests", f"{_sent(calls)} by the records{'' if received is None else f', {received} by the provider'}"),
            ("tokens", f"{tokens_in:,} in, {tokens_out:,} out"),
            ("billed", dollars(_sum(call.cost.billed for call in calls))),
            ("wasted", f"{dollars(_sum(call.cost.wasted for call in calls))} of that, for answers without content"),
            ("saved", f"{dollars(_sum(call.cost.saved for call in calls))}, by {served} answers from the cache"),
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
    console = Console(highlight=False)
    console.print(f"overcoat {__version__}: loading litellm, which takes a few seconds", style="dim")
    trace_url = f"{jaeger.rstrip('/')}/trace/{{trace_id}}"
    with setup("overcoat-demo", tree=sys.stdout, otlp="auto" if otlp else False, trace_url=trace_url) as telemetry:
        return asyncio.run(_perform(Show(console, telemetry), model))


async def _perform(show: Show, model: str | None) -> bool:
    litellm: Any = import_module("litellm")
    litellm.suppress_debug_info = True  # it prints advice on reporting bugs, to stdout, for every error it raises
    if model is not None:
        with capture() as calls:
            await against(model, show)
        show.sum_up(calls, received=None)
        return all(call.outcome == "ok" for call in calls)
    await _rehearse()
    with Provider() as provider, capture() as calls:
        await against_the_script(show, provider)
    show.sum_up(calls, received=len(provider))
    return len(provider) == _sent(calls)


async def _rehearse() -> None:
    """Call once, unseen: litellm loads much of itself in its first call, a second that is not the provider's."""
    with Provider() as provider:
        client = stack(LiteLLMClient(MODEL, base_url=provider.url, api_key="any"), Meter())
        await client.call([{"role": "user", "content": "?"}], LiteLLMOptions(), LLMEvent(prompt="?", type="Rehearsal"))


def _sent(calls: Sequence[Call]) -> int:
    return sum(len(call.attempts) for call in calls)


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    """Add what is known; how many are not is said beside it."""
    return sum((amount for amount in amounts if amount is not None), Decimal(0))
