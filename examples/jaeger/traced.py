"""An application whose calls are in Jaeger: what it takes, and how to ask Jaeger about them afterwards.

    python examples/jaeger/traced.py [JAEGER_URL]

Where nothing listens on port 4317, or where OTEL_EXPORTER_OTLP_ENDPOINT points to, it prints the calls and exports
nothing. The client is a scripted one: it needs no key and no network.
"""

import asyncio
import json
import sys
import urllib.parse
import urllib.request

import overcoat.telemetry
from overcoat import Cache, LLMEvent, LLMStatusError, Meter, Retry, Trace, capture, stack, tags
from overcoat.testing import Answer, ScriptedClient

SERVICE = "bookshop"

# What the provider does: three answers, and a failure before the second.
SCRIPT = (
    Answer("Solaris, by Lem.", prompt_tokens=60, completion_tokens=8, delay=0.05),
    LLMStatusError("Slow down.", 429),
    Answer("The Cyberiad.", prompt_tokens=60, completion_tokens=6, delay=0.05),
    Answer("A long list.", prompt_tokens=90_000, completion_tokens=9_000, delay=0.4),
)


async def ask(client: ScriptedClient, question: str) -> None:
    """Ask one question."""
    conversation = [{"role": "user", "content": question}]
    await client.call(conversation, None, LLMEvent(prompt=conversation, type="Question"))


async def work() -> None:
    """Ask four questions: one plainly, one twice, one that is retried, and one that is slow and dear."""
    client = stack(
        ScriptedClient(*SCRIPT, model_name="openai/gpt-4o"), Trace(), Cache(ttl="1h"), Retry(max_attempts=3), Meter()
    )
    with tags(feature="search"):
        await ask(client, "What shall I read?")
        await ask(client, "What shall I read?")
        await ask(client, "And then?")
        await ask(client, "What else do you have?")


# What to search for. Jaeger matches the attributes of one span, so that all of these are on the span of the call.
SEARCHES = {
    "retried": {"overcoat.retried": "true"},
    "expensive": {"overcoat.cost.tier": "high"},
    "answered by the cache": {"overcoat.outcome": "ok", "overcoat.cache.result": "hit"},
    "of one feature": {"overcoat.tag.feature": "search"},
    "failed": {"overcoat.outcome": "error"},
}


def look(jaeger: str, tags: dict[str, str]) -> list[str]:
    """Return the links to the traces that a search finds, as its page would show them."""
    query = urllib.parse.urlencode({"service": SERVICE, "tags": json.dumps(tags), "lookback": "1h"})
    with urllib.request.urlopen(f"{jaeger}/api/traces?{query}", timeout=5) as response:  # noqa: S310 - http, as given
        return [f"{jaeger}/trace/{trace['traceID']}" for trace in json.load(response)["data"]]


def main(jaeger: str) -> None:
    """Work, and then look at it."""
    with overcoat.telemetry.setup(SERVICE, tree=sys.stdout, trace_url=f"{jaeger}/trace/{{trace_id}}") as telemetry:
        with capture() as calls:
            asyncio.run(work())
        telemetry.flush()
        exported = telemetry.endpoint is not None
    print(f"\n{len(calls)} calls, ${calls.cost.billed:.4f} billed, ${calls.cost.saved:.4f} saved")
    if not exported:
        print("Nothing listens for traces: see examples/jaeger/README.md")
        return
    for name, wanted in SEARCHES.items():
        found = look(jaeger, wanted)
        print(f"{name}: {len(found)}", *found[:1])


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://localhost:16686")
