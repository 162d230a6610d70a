"""What type checkers make of a user's code: it is checked by mypy and by pyright, and never run.

A line with a comment is one that must be refused; test_typing.py holds both checkers to these lines and to no others.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, assert_type

from overcoat import (
    LLM,
    Attempt,
    Cache,
    Call,
    Calls,
    ChatFormat,
    Deadline,
    Explanation,
    Layer,
    LiteLLM,
    LiteLLMClient,
    LiteLLMOptions,
    LLMClient,
    LLMEvent,
    LLMOptions,
    Meter,
    Policy,
    PolicyWatch,
    PromptTemplate,
    Reply,
    Request,
    Retry,
    Timeout,
    Trace,
    Usage,
    capture,
    explain,
    stack,
    tags,
    wrap,
)
from overcoat.layer import Handler
from overcoat.testing import ScriptedClient

# Clients, and what comes out: the type that went in.


@dataclass
class MyOptions(LLMOptions):
    temperature: float
    max_tokens: int = 4096


class MyClient(LLMClient[MyOptions]):
    """Derived from ours."""

    async def call(self, conversation: ChatFormat, options: MyOptions, event: LLMEvent, json_mode: bool = False) -> str:
        return f"{conversation} {options.temperature} {event.type} {json_mode}"


class PlainClient:
    """Derived from nothing, with types of its own."""

    async def call(
        self, conversation: Sequence[dict[str, str]], options: None, event: object, json_mode: bool = False
    ) -> str:
        return f"{conversation} {options} {event} {json_mode}"


class TalkativeClient:
    """Takes more than it has to."""

    async def call(
        self, conversation: Any, options: Any, event: Any, json_mode: bool = False, *, trace: bool = False
    ) -> str:
        return f"{conversation} {options} {event} {json_mode} {trace}"


mine = stack(MyClient("m"), Trace(), Deadline(30), Cache(ttl="1h"), Retry(max_attempts=4), Timeout("20s"), Meter())
assert_type(mine, MyClient)
assert_type(stack(PlainClient(), Retry()), PlainClient)
assert_type(stack(TalkativeClient(), Retry(), order="as given"), TalkativeClient)
assert_type(stack(ScriptedClient("Hello!")), ScriptedClient)
assert_type(stack(stack(MyClient("m"), Meter()), Trace()), MyClient)
assert_type(stack(LiteLLMClient("openai/gpt-4o"), Trace()), LiteLLMClient)


policy = Policy.watch("overcoat.yaml", every="5s")
assert_type(policy, PolicyWatch)
assert_type(wrap(MyClient("m"), policy, spending=["daily"]), MyClient)
assert_type(explain(mine, error=503), Explanation)
wrap(MyClient("m"), policy, deadlin="5s")  # type: ignore[call-arg]


def any_of_ours(client: LLMClient[MyOptions]) -> LLMClient[MyOptions]:
    return stack(client, Trace())


class NoClient:
    async def complete(self, conversation: Any) -> str:
        return str(conversation)


class BlockingClient:
    def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> str:
        return f"{conversation} {options} {event} {json_mode}"


class CountingClient:
    async def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> int:
        return len(f"{conversation} {options} {event} {json_mode}")


class ForgetfulClient:
    """Has no JSON mode."""

    async def call(self, conversation: Any, options: Any, event: Any) -> str:
        return f"{conversation} {options} {event}"


stack(NoClient(), Retry())  # type: ignore[type-var]
stack(BlockingClient())  # type: ignore[type-var]
stack(CountingClient())  # type: ignore[type-var]
stack(ForgetfulClient())  # type: ignore[type-var]
stack(MyClient)  # type: ignore[type-var]
stack(MyClient("m"), order="sorted")  # type: ignore[arg-type]


# LLMs, whose client is a stack.


class MyLLM(LLM[MyOptions]):
    _options_cls = MyOptions

    @cached_property
    def client(self) -> MyClient:
        return stack(MyClient(self.model_name), Trace(), Retry())


class LooseLLM(LLM[MyOptions]):
    _options_cls = MyOptions

    @cached_property
    def client(self) -> LLMClient[MyOptions]:
        return stack(MyClient(self.model_name), Trace(), Retry())


class Stacked(LiteLLM):
    @cached_property
    def client(self) -> LLMClient[LiteLLMOptions]:
        return stack(super().client, Trace(), Retry())


assert_type(MyLLM("m", MyOptions(temperature=0.5)).client, MyClient)
assert_type(LooseLLM("m", MyOptions(temperature=0.5)).client, LLMClient[MyOptions])
assert_type(Stacked("openai/gpt-4o").client, LLMClient[LiteLLMOptions])


class OtherLLM(LLM[MyOptions]):
    _options_cls = MyOptions

    @cached_property
    def client(self) -> LiteLLMClient:  # type: ignore[override]
        return stack(LiteLLMClient(self.model_name), Trace())


# Layers.


async def renamed(r: Request, call_on: Handler) -> Reply:
    return (await call_on(r.replace(json_mode=True))).replace(text="overwritten")


async def positional(request: Request, inner: Handler, /) -> Reply:
    return await inner(request)


def forwarded(request: Request, inner: Handler) -> Awaitable[Reply]:
    return inner(request)


class Counted:
    calls = 0

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        self.calls += 1
        return await inner(request)


class Methodical:
    async def layer(self, request: Request, inner: Handler) -> Reply:
        return await inner(request)


async def sharing(request: Request, inner: Handler) -> Reply:
    assert_type(request.conversation, Any)
    assert_type(request.call, Call)
    assert_type(request.deadline, float | None)
    reply = await inner(request)
    assert_type(reply.text, str | None)
    assert_type(reply.attempt, Attempt | None)
    return reply


layers: list[Layer] = [renamed, positional, forwarded, Counted(), Methodical().layer, sharing]
assert_type(stack(MyClient("m"), Trace(), renamed, positional, forwarded, Retry()), MyClient)
assert_type(stack(MyClient("m"), Counted(), Methodical().layer, sharing, *layers), MyClient)
stack(MyClient("m"), lambda request, inner: inner(request))


def blocking(request: Request, inner: Handler) -> Reply:
    return Reply(f"{request} {inner}")


async def wordy(request: Request, inner: Handler) -> str:
    return (await inner(request)).text or ""


async def forgetful(request: Request) -> Reply:
    return Reply(request.call.client)


async def reversed_(inner: Handler, request: Request) -> Reply:
    return await inner(request)


async def demanding(request: Request, inner: Handler, region: str) -> Reply:
    return Reply(f"{request} {inner} {region}")


async def keyword(*, request: Request, inner: Handler) -> Reply:
    return await inner(request)


stack(MyClient("m"), blocking)  # type: ignore[arg-type]
stack(MyClient("m"), wordy)  # type: ignore[arg-type]
stack(MyClient("m"), forgetful)  # type: ignore[arg-type]
stack(MyClient("m"), reversed_)  # type: ignore[arg-type]
stack(MyClient("m"), demanding)  # type: ignore[arg-type]
stack(MyClient("m"), keyword)  # type: ignore[arg-type]
stack(MyClient("m"), Retry)  # type: ignore[arg-type]
stack(MyClient("m"), [Trace(), Retry()])  # type: ignore[arg-type]
stack(MyClient("m"), "retry")  # type: ignore[arg-type]
Retry(attempts=4)  # type: ignore[call-arg]
Trace(attempts="never")  # type: ignore[arg-type]
tags(tenant=7)  # type: ignore[arg-type]


# What calling gives.


async def use(prompt: PromptTemplate[Any], event: LLMEvent) -> None:
    assert_type(await mine.call(prompt.chat, MyOptions(temperature=0.0), event), str)
    assert_type(await LooseLLM("m").generate_text(prompt), str | None)
    with tags(tenant="acme"), capture() as calls:
        assert_type(calls, Calls)
        assert_type(calls[0].cost.billed, Decimal | None)
        assert_type(calls[0].usage, Usage | None)
        assert_type(calls[0].attempts, Sequence[Attempt])
    await mine.call("Why?", MyOptions(temperature=0), event)  # type: ignore[arg-type]
