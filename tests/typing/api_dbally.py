"""What type checkers make of a db-ally user's code: it is checked by mypy and by pyright, and never run.

A line with a comment is one that must be refused; test_typing.py holds both checkers to these lines and to no others.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, assert_type

from dbally.audit.events import LLMEvent
from dbally.llms.base import LLM
from dbally.llms.clients.base import LLMClient, LLMOptions
from dbally.llms.clients.litellm import LiteLLMClient, LiteLLMOptions
from dbally.prompt.template import ChatFormat, PromptTemplate

import overcoat
from overcoat import Cache, Meter, Reply, Request, Retry, Trace, stack
from overcoat.layer import Handler

# Clients, and what comes out: the type that went in, which db-ally's nominal classes need.


@dataclass
class MyOptions(LLMOptions):
    temperature: float
    max_tokens: int = 4096


class MyClient(LLMClient[MyOptions]):
    async def call(self, conversation: ChatFormat, options: MyOptions, event: LLMEvent, json_mode: bool = False) -> str:
        return f"{conversation} {options.temperature} {event.type} {json_mode}"


async def logged(request: Request, inner: Handler) -> Reply:
    return await inner(request)


assert_type(stack(MyClient("m"), Trace(), Cache(ttl="1h"), Retry(max_attempts=4), Meter()), MyClient)
assert_type(stack(MyClient("m"), logged), MyClient)
assert_type(stack(LiteLLMClient("openai/gpt-4o"), Trace(), Retry()), LiteLLMClient)
assert_type(stack(stack(LiteLLMClient("openai/gpt-4o"), Meter()), Trace()), LiteLLMClient)
accepted: LLMClient[MyOptions] = stack(MyClient("m"), Trace())


def any_of_theirs(client: LLMClient[MyOptions]) -> LLMClient[MyOptions]:
    return stack(client, Trace())


theirs = stack(LiteLLMClient("openai/gpt-4o"))
any_of_theirs(theirs)  # type: ignore[arg-type]


# LLMs, whose client is a stack.


class MyLLM(LLM[MyOptions]):
    _options_cls = MyOptions

    @cached_property
    def client(self) -> LLMClient[MyOptions]:
        return stack(MyClient(self.model_name), Trace(), Cache(ttl="1h"), Retry(), Meter())

    def count_tokens(self, prompt: PromptTemplate[Any]) -> int:
        return sum(len(message["content"].split()) for message in prompt.chat)


class NarrowLLM(LLM[MyOptions]):
    _options_cls = MyOptions

    @cached_property
    def client(self) -> MyClient:
        return stack(MyClient(self.model_name), Trace())


class TheirLLM(LLM[LiteLLMOptions]):
    _options_cls = LiteLLMOptions

    @cached_property
    def client(self) -> LLMClient[LiteLLMOptions]:
        return stack(LiteLLMClient(self.model_name), Trace())


class ForeignLLM(LLM[MyOptions]):
    _options_cls = MyOptions

    @cached_property
    def client(self) -> overcoat.LiteLLMClient:  # type: ignore[override]
        return stack(overcoat.LiteLLMClient(self.model_name), Trace())


assert_type(MyLLM("m", MyOptions(temperature=0.5)).client, LLMClient[MyOptions])
assert_type(NarrowLLM("m", MyOptions(temperature=0.5)).client, MyClient)


async def use() -> None:
    client = stack(MyClient("m"), Trace())
    event = LLMEvent(prompt=[], type="PromptTemplate")
    assert_type(await client.call([], MyOptions(temperature=0.5), event), str)
    await client.call([], LiteLLMOptions(), event)  # type: ignore[arg-type]
