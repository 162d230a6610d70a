"""Calls models through litellm: one request a call, everything that the provider said on the event, typed errors."""

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Literal, cast

from overcoat.errors import LLMConnectionError, LLMError, LLMResponseError, LLMStatusError
from overcoat.llm.base import LLM, LLMClient, LLMEvent
from overcoat.llm.options import NOT_GIVEN, LLMOptions, NotGiven
from overcoat.llm.prompt import ChatFormat, PromptTemplate, check_chat
from overcoat.models import parse_model
from overcoat.pricing.tokens import ByteCounter, LiteLLMCounter, TokenCounter, asks_the_hub


@dataclass
class LiteLLMOptions(LLMOptions):
    """The options of litellm's calls (https://docs.litellm.ai/docs/completion/input).

    There is none for retries: `LiteLLMClient` makes one request a call, and retrying is for the layers around it.

    Attributes:
        frequency_penalty: -2.0 to 2.0.
        max_tokens: The most tokens that the answer may have.
        n: How many answers to make; the first is returned, all are charged.
        presence_penalty: -2.0 to 2.0.
        seed: For answers that repeat, as far as the provider can.
        stop: Where to stop: one string, or a list of them.
        temperature: 0.0 to 2.0, as a rule.
        top_p: 0.0 to 1.0.
        timeout: Seconds that the SDK waits for the provider; db-ally has no such option.
    """

    frequency_penalty: float | NotGiven | None = NOT_GIVEN
    max_tokens: int | NotGiven | None = NOT_GIVEN
    n: int | NotGiven | None = NOT_GIVEN
    presence_penalty: float | NotGiven | None = NOT_GIVEN
    seed: int | NotGiven | None = NOT_GIVEN
    stop: str | list[str] | NotGiven | None = NOT_GIVEN
    temperature: float | NotGiven | None = NOT_GIVEN
    top_p: float | NotGiven | None = NOT_GIVEN
    timeout: float | NotGiven | None = NOT_GIVEN


_SILENT_ON_ZERO = ("gcp.gemini", "gcp.vertex_ai")
"""Whose answers are protocol buffers, which leave out a count of 0: there, no cached tokens are none."""


class LiteLLMClient(LLMClient[LiteLLMOptions]):
    """A client for every provider that litellm knows. A call is one request, whatever the options ask for.

    There is one exception that litellm lets nobody turn off: where an application has it use its httpx transport
    (`disable_aiohttp_transport`), it sends a request to Anthropic again, once, when the connection is dropped.

    litellm is imported when a client is made and not in its first call, where the seconds that it takes would block
    the event loop: make clients at start. It is kept from fetching its price map over the network while it is imported,
    unless the application has set LITELLM_LOCAL_MODEL_COST_MAP itself.

    Args:
        model_name: As litellm names it, with its provider: "openai/gpt-4o".
        base_url: Of the provider's API; by default the provider's own.
        api_key: By default from the environment variable that litellm documents for the provider.
        api_version: Of the provider's API, where it has several.

    Raises:
        ImportError: litellm is not installed.
        TypeError: *model_name* is not a string.
        ValueError: *model_name* is empty.
    """

    def __init__(
        self,
        model_name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        api_version: str | None = None,
    ) -> None:
        super().__init__(model_name)
        self.base_url = base_url
        self.api_key = api_key
        self.api_version = api_version
        import_litellm()

    async def call(
        self, conversation: ChatFormat, options: LiteLLMOptions, event: LLMEvent, json_mode: bool = False
    ) -> str | None:
        """Send one request and return the text of the first choice; None where it has none, as when it was filtered.

        Fields that a subclass adds to the options are passed to litellm as they are, but for its retries, which are
        forced to 0. What the provider charged for is on *event* also where the answer is then refused. The response's
        id and finish reason are litellm's: it makes up an id for providers whose own it drops (Anthropic).

        Raises:
            LLMStatusError: The provider answered with an error status.
            LLMConnectionError: There was no answer, or none in time; as in db-ally, 408 and 504 say that, too.
            LLMResponseError: The answer is an error without a status, has no choices, or cannot be read.
            TypeError: *conversation* is not a list of role/content dicts; no request is made.
        """
        check_chat("conversation", conversation)
        litellm = import_litellm()
        outer = sys.exception()
        try:
            response = await litellm.acompletion(**self._request(conversation, options, json_mode=json_mode))
        except litellm.openai.APIError as exc:
            raise _translate(exc, litellm.openai, outer) from exc
        _report(response, event, self.model_name)
        choices = getattr(response, "choices", None)
        if not choices:
            raise LLMResponseError(f"The answer of {self.model_name} has no choices.")
        event.finish_reason = choices[0].finish_reason
        content: str | None = choices[0].message.content
        return content

    def _request(self, conversation: ChatFormat, options: LiteLLMOptions, *, json_mode: bool) -> dict[str, Any]:
        request = {
            **options.dict(),
            "model": self.model_name,
            # Copies: the caller's messages are not litellm's to edit, and db-ally's mark is not the provider's to see.
            "messages": [{key: message[key] for key in message if key != "is_example"} for message in conversation],
            "base_url": self.base_url,
            "api_key": self.api_key,
            "api_version": self.api_version,
            "max_retries": 0,  # the SDK's
            "num_retries": 0,  # litellm's own, also over an application's `litellm.num_retries`
        }
        if json_mode:
            request["response_format"] = {"type": "json_object"}
        return {name: value for name, value in request.items() if value is not None}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(model_name={self.model_name!r}, base_url={self.base_url!r}, "
            f"api_version={self.api_version!r})"
        )


class LiteLLM(LLM[LiteLLMOptions]):
    """Any model that litellm knows.

    Args:
        model_name: As litellm names it, with its provider: "openai/gpt-4o".
        default_options: What holds for calls that do not say otherwise.
        base_url: Of the provider's API; by default the provider's own.
        api_key: By default from the environment variable that litellm documents for the provider.
        api_version: Of the provider's API, where it has several.

    Raises:
        ImportError: litellm is not installed.
        TypeError: *model_name* is not a string, or *default_options* are no options.
        ValueError: *model_name* is empty.
    """

    _options_cls = LiteLLMOptions

    def __init__(
        self,
        model_name: str = "gpt-3.5-turbo",
        default_options: LiteLLMOptions | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        api_version: str | None = None,
    ) -> None:
        super().__init__(model_name, default_options)
        self.base_url = base_url
        self.api_key = api_key
        self.api_version = api_version
        import_litellm()

    @cached_property
    def client(self) -> LLMClient[LiteLLMOptions]:
        """The client; override it to put layers around it."""
        return LiteLLMClient(
            self.model_name, base_url=self.base_url, api_key=self.api_key, api_version=self.api_version
        )

    def count_tokens(self, prompt: PromptTemplate[Any]) -> int:
        """Return the tokens of the messages' contents, by litellm's tokenizer for the model.

        For some models, Llama among them, litellm would look for one on the Hugging Face hub each time, and block for
        as long as that takes; of those it is a guess, by the bytes.
        """
        return sum(self._counter.count_text(message["content"]) for message in prompt.chat)

    @cached_property
    def _counter(self) -> TokenCounter:
        return ByteCounter() if asks_the_hub(self.model_name) else LiteLLMCounter(self.model_name)


def import_litellm() -> Any:
    """Import litellm, untyped: its annotations are partial, and the package must type-check where it is missing."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    ours = "litellm" not in sys.modules
    try:
        litellm: Any = import_module("litellm")
    except ModuleNotFoundError as exc:
        if exc.name != "litellm":
            raise
        raise ImportError("LiteLLM models need litellm: pip install 'overcoat[litellm]'", name="litellm") from exc
    if ours:  # else an application has it, and may have set it to its taste
        litellm.suppress_debug_info = True  # it prints advice to stdout with every error that it raises
    return litellm


def _report(response: Any, event: LLMEvent, model: str) -> None:
    event.response_id = getattr(response, "id", None)
    event.response_model = getattr(response, "model", None)
    event.rate_limit_headers = _rate_limit_headers(response)
    usage = getattr(response, "usage", None)
    if not getattr(usage, "total_tokens", None):
        return  # litellm counts zeros where the provider did not say; no answer costs no tokens at all
    # As litellm has them, which counts parts in their whole for every provider. What makes no sense as a count is put
    # right, and marked, where the record is made.
    event.prompt_tokens = getattr(usage, "prompt_tokens", None)
    event.completion_tokens = getattr(usage, "completion_tokens", None)
    event.total_tokens = getattr(usage, "total_tokens", None)
    prompt = getattr(usage, "prompt_tokens_details", None)
    event.cached_tokens = getattr(prompt, "cached_tokens", None)
    if event.cached_tokens is None and prompt is not None and parse_model(model).provider in _SILENT_ON_ZERO:
        event.cached_tokens = 0
    event.cache_creation_tokens = getattr(usage, "cache_creation_input_tokens", None)
    if event.cache_creation_tokens is None:
        event.cache_creation_tokens = getattr(prompt, "cache_write_tokens", None)
    created = getattr(prompt, "cache_creation_token_details", None)
    event.cache_creation_1h_tokens = getattr(created, "ephemeral_1h_input_tokens", None)
    event.audio_input_tokens = getattr(prompt, "audio_tokens", None)
    completion = getattr(usage, "completion_tokens_details", None)
    event.reasoning_tokens = getattr(completion, "reasoning_tokens", None)
    event.audio_output_tokens = getattr(completion, "audio_tokens", None)
    event.service_tier = getattr(response, "service_tier", None) or getattr(usage, "service_tier", None)


def _rate_limit_headers(response: Any) -> dict[str, str] | None:
    # Where litellm keeps the headers of every provider's answer, with a mark on those that are the provider's own.
    hidden = getattr(response, "_hidden_params", None)
    kept = cast("dict[str, Any]", hidden).get("additional_headers") if isinstance(hidden, dict) else None
    if not isinstance(kept, dict):
        return None
    own = {name.removeprefix("llm_provider-"): value for name, value in cast("dict[str, str]", kept).items()}
    return {name: own[name] for name in own if name.startswith(("x-ratelimit-", "anthropic-ratelimit-"))} or None


def _translate(exc: Any, openai: Any, outer: BaseException | None) -> LLMError:
    """Return the error that db-ally's client raises, or would if litellm had said what happened.

    litellm passes a lost connection off as a status 500, an answer that it cannot read as a 500 or a lost connection,
    and some of Anthropic's statuses as others. Some come as a plain `APIError`, which db-ally lets through.
    """
    message = str(exc.message).partition("\nTraceback (most recent call last)")[0]
    if isinstance(exc, openai.APIResponseValidationError):
        return LLMResponseError(message)
    status = _status(exc)
    wire = _on_the_wire(exc, outer)
    if wire == "unreadable" and (status is None or status >= 500):
        return LLMResponseError(message)
    if wire == "lost" or isinstance(exc, openai.APIConnectionError):
        return LLMConnectionError(message)
    status = wire if isinstance(wire, int) else status
    return LLMResponseError(message) if status is None else LLMStatusError(message, status)


def _on_the_wire(exc: BaseException, outer: BaseException | None) -> Literal["lost", "unreadable"] | int | None:
    """Tell what happened by the first cause that knows, before *outer*, which was being handled when the call began."""
    link: BaseException | None = exc
    while link is not None and link is not outer:
        # By the name of the module: which of the two it is depends on the version of the SDK.
        if type(link).__module__.partition(".")[0] in ("httpx", "httpx2"):
            response = getattr(link, "response", None)
            return "lost" if response is None else response.status_code
        if isinstance(link, LookupError | TypeError | AttributeError | ValueError) or _status(link) == 200:
            return "unreadable"
        link = link.__cause__ or link.__context__
    return None


def _status(exc: object) -> int | None:
    status = getattr(exc, "status_code", None)  # a provider's error code, in words, where an error came with a 200
    return int(status) if isinstance(status, int) or (isinstance(status, str) and status.isdecimal()) else None
