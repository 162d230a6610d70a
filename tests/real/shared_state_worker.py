"""One of several processes that share limits, circuits and budgets through Redis; a program for the tests beside it.

It reads its orders as JSON, one a line, and answers each with a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from urllib.parse import urlsplit

import overcoat
from overcoat import LLMEvent, LLMStatusError, stack
from overcoat.stores import cell

CHAT = [{"role": "user", "content": "x" * 30}]


class HttpClient:
    """A client without any SDK: one connection a request."""

    model_name = "openai/gpt-4o"

    def __init__(self, url: str) -> None:
        self.base_url = url

    async def call(self, conversation, options, event, json_mode=False):
        url = urlsplit(self.base_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        try:
            body = json.dumps({"model": "gpt-4o", "messages": conversation}).encode()
            head = f"POST {url.path}/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            status = int((await reader.readline()).split()[1])
            answer = await reader.read()
        finally:
            writer.close()
        if status != 200:
            raise LLMStatusError("refused", status)
        head, _, body = answer.partition(b"\r\n\r\n")
        event.rate_limit_headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return body.decode()


def layer(name: str, settings: dict) -> object:
    """Make a layer; a retry budget is a part of one."""
    if "budget" in settings:
        settings["budget"] = overcoat.RetryBudget(**settings["budget"])
        settings["backoff"] = overcoat.Backoff(base=0)
    return getattr(overcoat, name)(**settings)


async def calls(stacked, count: int) -> dict[str, int]:
    """Return how many of so many calls at once ended how."""

    async def one() -> str:
        try:
            await stacked.call(CHAT, None, LLMEvent([], "test"))
        except Exception as error:  # noqa: BLE001 - the error is the result here
            return type(error).__name__
        return "ok"

    with overcoat.capture() as records:
        ended = Counter(await asyncio.gather(*[one() for _ in range(count)]))
    return ended | Counter(degraded=sum(bool(each.degraded) for each in records))


async def main() -> None:
    """Do what is ordered until there are no more orders."""
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    setup = json.loads(sys.argv[1])
    cell.LEASE, cell._RENEWAL = setup["lease"], setup["lease"] / 3
    stacked = stack(HttpClient(setup["provider"]), *[layer(*each) for each in setup["layers"].items()])
    print(json.dumps("ready"), flush=True)
    while order := await orders.readline():
        print(json.dumps(await calls(stacked, json.loads(order))), flush=True)


asyncio.run(main())
