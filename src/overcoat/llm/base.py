"""The classes that a custom LLM derives from, in the shape of db-ally's: the same code runs with it and without."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, Generic, Protocol

from overcoat.llm.options import LLMClientOptions, LLMOptions
from overcoat.llm.prompt import ChatFormat, PromptTemplate


@dataclass
class LLMEvent:
    """What one call was and became: the caller fills in the prompt, the client the counts.

    A client says what it knows; whatever is None is unknown. The fields from `finish_reason` on are not db-ally's: a
    client that runs under db-ally sets them as attributes on db-ally's own event, and they are read from there.

    Attributes:
        prompt: What was sent.
        type: The class of the prompt template.
        response: The answer.
        completion_tokens: Tokens of the answer, reasoning included.
        prompt_tokens: Tokens of the prompt, cached ones included.
        total_tokens: The sum, as the provider says it.
        finish_reason: Why the answer ended: "stop", "length", "content_filter", "tool_calls", ...
        response_id: The provider's name for the answer.
        response_model: The model that answered, which may be more exact than the one that was asked.
        cached_tokens: Prompt tokens that the provider read from its cache.
        cache_creation_tokens: Prompt tokens that the provider wrote to its cache.
        reasoning_tokens: Tokens of the answer that were spent on reasoning.
        cache_creation_1h_tokens: Those of `cache_creation_tokens` that are kept for an hour, which costs more.
        audio_input_tokens: Prompt tokens that are sound.
        audio_output_tokens: Tokens of the answer that are sound.
        service_tier: How the provider served it, where that has a price of its own: "flex", "priority", "batch", ...
        rate_limit_headers: The answer's headers on the provider's limits, from which `RateLimit` learns. A stack
            takes them off: they say nothing about the answer.
    """

    prompt: str | ChatFormat
    type: str
    response: str | None = None

    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    total_tokens: int | None = None

    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_creation_1h_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    service_tier: str | None = None
    rate_limit_headers: Mapping[str, str] | None = None


class EventTracker(Protocol):
    """The part of db-ally's `EventTracker` that `generate_text` uses."""

    def track_event(self, event: Any) -> AbstractAsyncContextManager[Callable[[Any], object]]:
        """Enter with the event before the call; what it gives is called with the event after a call that succeeded."""
        ...


class LLMClient(ABC, Generic[LLMClientOptions]):
    """A direct connection to a model.

    Args:
        model_name: The model, as the provider calls it.

    Raises:
        TypeError: *model_name* is not a string.
        ValueError: *model_name* is empty.
    """

    def __init__(self, model_name: str) -> None:
        self.model_name = _check_model_name(self, model_name)

    @abstractmethod
    async def call(
        self, conversation: ChatFormat, options: LLMClientOptions, event: LLMEvent, json_mode: bool = False
    ) -> str | None:
        """Return the model's answer; None where it gave none, as when it was filtered.

        Args:
            conversation: The messages so far, each with "role" and "content".
            options: What to set for this call.
            event: Where to say what the call used: `prompt_tokens`, `completion_tokens`, `total_tokens`, and whatever
                else of `LLMEvent` the provider tells.
            json_mode: Make the model answer in JSON.

        Raises:
            LLMError: The call failed.
        """


class LLM(ABC, Generic[LLMClientOptions]):
    """A model to ask. A subclass names its options' class and returns its client.

    ```python
    class MyLLM(LLM[MyOptions]):
        _options_cls = MyOptions

        @cached_property
        def client(self) -> MyClient:
            return stack(MyClient(self.model_name), Trace(), Retry())
    ```

    Args:
        model_name: The model, as the provider calls it.
        default_options: What holds for calls that do not say otherwise; by default nothing is given.

    Raises:
        TypeError: A subclass has no `_options_cls`, or one without fields; *model_name* is not a string, or
            *default_options* are no options.
        ValueError: *model_name* is empty.
    """

    _options_cls: type[LLMClientOptions]

    def __init__(self, model_name: str, default_options: LLMClientOptions | None = None) -> None:
        self.model_name = _check_model_name(self, model_name)
        _check_options("default_options", default_options)
        self.default_options = self._options_cls() if default_options is None else default_options

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        options_cls: object = getattr(cls, "_options_cls", None)
        if options_cls is None:
            raise TypeError(f"Class {cls.__name__} is missing the '_options_cls' attribute")
        if not isinstance(options_cls, type) or not is_dataclass(options_cls) or not fields(options_cls):
            raise TypeError(
                f"{cls.__name__}._options_cls={options_cls!r}: expected a @dataclass derived from LLMOptions, "
                f"with a field for each option"
            )

    @cached_property
    @abstractmethod
    def client(self) -> LLMClient[LLMClientOptions]:
        """The client, always the same one: override it with a `cached_property`.

        A plain property makes a new client for every call, and with it a new stack, whose cache, breaker and limits
        have seen nothing.
        """

    setattr(client, "__isabstractmethod__", True)  # noqa: B010 - no checker knows that a cached_property forgets it

    def count_tokens(self, prompt: PromptTemplate[Any]) -> int:
        """Return the characters of the prompt, as db-ally does: override it where there is a tokenizer."""
        return sum(len(message["content"]) for message in prompt.chat)

    async def generate_text(
        self,
        prompt: PromptTemplate[Any],
        *,
        event_tracker: EventTracker | None = None,
        options: LLMOptions | None = None,
    ) -> str | None:
        """Send the prompt and return the answer; None where the client gave none, as when it was filtered.

        Args:
            prompt: The prompt, filled in.
            event_tracker: db-ally's, or anything with its `track_event`.
            options: What to set for this call, over the default options.

        Raises:
            LLMError: The call failed.
            TypeError: *prompt* is not a prompt, or *options* are no options.
        """
        if not isinstance(getattr(prompt, "chat", None), list):
            raise TypeError(f"generate_text(prompt={prompt!r:.80}): expected a PromptTemplate")
        _check_options("options", options)
        merged = self.default_options if options is None else self.default_options | options
        event = LLMEvent(prompt=prompt.chat, type=type(prompt).__name__)
        async with nullcontext(_untracked) if event_tracker is None else event_tracker.track_event(event) as span:
            event.response = await self.client.call(
                conversation=prompt.chat, options=merged, event=event, json_mode=prompt.json_mode
            )
            span(event)
        return event.response

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model_name={self.model_name!r}, default_options={self.default_options!r})"


def _untracked(event: LLMEvent) -> None:
    pass


def _check_model_name(owner: object, model_name: object) -> str:
    call = f"{type(owner).__name__}(model_name={model_name!r:.80})"
    if not isinstance(model_name, str):
        raise TypeError(f"{call}: expected a string, such as 'openai/gpt-4o'")
    if not model_name.strip():
        raise ValueError(f"{call}: expected the name of a model, such as 'openai/gpt-4o'")
    return model_name


def _check_options(name: str, options: object) -> None:
    # By shape and not by class: db-ally's own options do as well.
    if options is not None and (isinstance(options, type) or not is_dataclass(options)):
        raise TypeError(f"{name}={options!r:.80}: expected an instance of LLMOptions, such as LiteLLMOptions(...)")
