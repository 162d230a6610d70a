"""An LLM of one's own, with overcoat's layers around its client: db-ally's how-to without db-ally, on every Python.

    python examples/custom_llm.py

It needs no key, no network and no SDK: what answers is a provider on this machine, which refuses the first request and
drops the second.
"""

import asyncio
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from overcoat import (
    LLM,
    Backoff,
    Cache,
    ChatFormat,
    LLMClient,
    LLMEvent,
    LLMOptions,
    Meter,
    PromptTemplate,
    Retry,
    Trace,
    capture,
    stack,
    tags,
)
from overcoat.testing import Provider, answer, dropped, rate_limited, truncated

# 1. The options.


@dataclass
class MyLLMOptions(LLMOptions):
    """What my model can be told; at a temperature above 0 it answers anew each time, and `Cache` keeps nothing."""

    temperature: float
    max_tokens: int = 4096


# 2. The client.


class MyLLMClient(LLMClient[MyLLMOptions]):
    """Makes one request a call, and says on the event what it used; everything else is for the layers around it."""

    def __init__(self, model_name: str, *, base_url: str) -> None:
        super().__init__(model_name)
        self.base_url = base_url

    async def call(
        self, conversation: ChatFormat, options: MyLLMOptions, event: LLMEvent, json_mode: bool = False
    ) -> str:
        """Return the model's answer, or raise what urllib raises: `Retry` knows its errors, and those of SDKs."""
        request: dict[str, Any] = {"model": self.model_name, "messages": conversation, **options.dict()}
        if json_mode:
            request["response_format"] = {"type": "json_object"}
        response = await asyncio.to_thread(self._post, request)
        usage, choice = response["usage"], response["choices"][0]
        event.prompt_tokens = usage["prompt_tokens"]
        event.completion_tokens = usage["completion_tokens"]
        event.total_tokens = usage["total_tokens"]
        event.finish_reason = choice["finish_reason"]  # tells `Cache` which answers were cut off or filtered
        text: str = choice["message"]["content"]
        return text

    def _post(self, request: dict[str, Any]) -> Any:
        headers = {"content-type": "application/json"}
        url = f"{self.base_url}/chat/completions"
        sent = urllib.request.Request(url, json.dumps(request).encode(), headers)  # noqa: S310 - the scheme is ours
        try:
            with urllib.request.urlopen(sent) as response:  # noqa: S310 - likewise
                return json.load(response)
        except urllib.error.HTTPError as error:
            error.close()  # its connection; the status and the headers stay
            raise


# 3. The LLM.


class MyLLM(LLM[MyLLMOptions]):
    """Returns the client in its layers, and counts tokens as the model does."""

    _options_cls = MyLLMOptions

    def __init__(self, model_name: str, options: MyLLMOptions, *, base_url: str) -> None:
        super().__init__(model_name, options)
        self.base_url = base_url

    @cached_property
    def client(self) -> MyLLMClient:
        """The one stack of this LLM: a plain property would make one for every call, with an empty cache."""
        client = MyLLMClient(self.model_name, base_url=self.base_url)
        return stack(client, Trace(), Cache(ttl="1h"), Retry(max_attempts=4, backoff=Backoff(base="50ms")), Meter())

    def count_tokens(self, prompt: PromptTemplate[Any]) -> int:
        """Count as the tokenizer of my model does: by words."""
        return sum(len(message["content"].split()) for message in prompt.chat)


# 4. Using it.

PROMPT = PromptTemplate[Any](
    [
        {"role": "system", "content": "You name things, in a word."},
        {"role": "user", "content": "What is worn over everything else?"},
    ]
)


async def main() -> None:
    """Ask the same twice, and then with so small a `max_tokens` that the answer is cut off, and not kept."""
    with Provider() as provider:
        provider.script(rate_limited(retry_after=0.1), dropped(), answer("An overcoat."), truncated("An over"))
        llm = MyLLM("gpt-4o-mini", MyLLMOptions(temperature=0.0), base_url=provider.url)
        print(f"{llm.count_tokens(PROMPT)} tokens to send")
        with tags(feature="naming"), capture() as calls:
            for options in (None, None, MyLLMOptions(temperature=0.0, max_tokens=5)):
                print(await llm.generate_text(PROMPT, options=options))
        for call in calls:
            tried = ", ".join(attempt.error_type or "ok" for attempt in call.attempts) or "none"
            cache = f"{call.cache.result} {call.cache.reason or ''}".strip() if call.cache else "none"
            print(f"cache: {cache}; attempts: {tried}; billed ${call.cost.billed}, saved ${call.cost.saved}")
        print(f"{len(provider)} requests")


if __name__ == "__main__":
    asyncio.run(main())
