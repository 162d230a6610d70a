"""db-ally's `LiteLLM` with layers around its client, by a policy file or by defaults."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from dbally.audit.events import LLMEvent
from dbally.llms import litellm as original
from dbally.llms.clients import exceptions
from dbally.llms.clients import litellm as original_client
from dbally.prompt.template import ChatFormat, PromptTemplate

from overcoat import errors
from overcoat.client import stack
from overcoat.layer import Layer, PlacedLayer
from overcoat.layers.meter import Meter
from overcoat.layers.retry import Retry
from overcoat.layers.trace import Trace
from overcoat.llm import LiteLLM as Plain
from overcoat.llm import LiteLLMClient as PlainClient

if TYPE_CHECKING:
    from overcoat.policy.loading import Policy
    from overcoat.policy.watching import PolicyWatch

LiteLLMOptions = original_client.LiteLLMOptions


def default_layers() -> tuple[PlacedLayer, ...]:
    """Return what `LiteLLM` has without a policy: `Trace(), Retry(), Meter()`.

    Three attempts are as many requests as the SDK makes unseen. What db-ally users have to decide for themselves is
    not in it: whether answers may be cached, and how long they wait.
    """
    return Trace(), Retry(), Meter()


class LiteLLMClient(original_client.LiteLLMClient):
    """db-ally's client, but that a call is one request, and that all that the provider said is on the event.

    It takes db-ally's options and raises db-ally's errors, also for what db-ally lets through as litellm's own
    `APIError` (402, 403, 409, an error in place of an answer).
    """

    async def call(
        self, conversation: ChatFormat, options: LiteLLMOptions, event: LLMEvent, json_mode: bool = False
    ) -> str:
        """Send one request and return the text of the first choice; None where it has none, as db-ally does.

        Raises:
            LLMStatusError: The provider answered with an error status.
            LLMConnectionError: There was no answer.
            LLMResponseError: The answer is not one.
        """
        # A new one each time: this one's attributes may be set after it was made. It costs a microsecond.
        client = PlainClient(
            self.model_name, base_url=self.base_url, api_key=self.api_key, api_version=self.api_version
        )
        try:
            # Options and events are told apart by their fields, and db-ally's have them.
            answer = await client.call(conversation, cast("Any", options), cast("Any", event), json_mode)
        except errors.LLMError as error:
            raise _original(error) from error.__cause__
        return cast("str", answer)


def _original(error: errors.LLMError) -> exceptions.LLMError:
    """Return the error of db-ally's that says what *error* does: db-ally knows no other."""
    if isinstance(error, errors.LLMStatusError):
        return exceptions.LLMStatusError(error.message, error.status_code)
    if isinstance(error, errors.LLMConnectionError):
        return exceptions.LLMConnectionError(error.message)
    return exceptions.LLMResponseError(error.message)


class LiteLLM(original.LiteLLM):
    """db-ally's `LiteLLM`, whose client is a stack: it can be given wherever db-ally takes that one.

    ```python
    llm = overcoat.dbally.LiteLLM("openai/gpt-4o", policy="overcoat.yaml")
    collection = overcoat.dbally.trace(dbally.create_collection("library", llm))
    ```

    Without a policy its layers are `Trace(), Retry(), Meter()`: every call is traced and priced, and what may pass is
    retried, in three attempts at the most. The client is made when it is first asked for, and is one for good: cache,
    breaker and limits have seen what came before. A copy, or what pickle restores, makes a client of its own, as its
    attributes then say.

    Args:
        model_name: As litellm names it, with its provider: "openai/gpt-4o".
        default_options: What holds for calls that do not say otherwise.
        base_url: Of the provider's API; by default the provider's own.
        api_key: By default from the environment variable that litellm documents for the provider.
        api_version: Of the provider's API, where it has several.
        policy: A policy file, a `Policy` or what `Policy.watch` returns; see `overcoat.wrap`.
        layers: In place of a policy: as for `overcoat.stack`.

    Raises:
        ImportError: litellm is not installed.
        PolicyError: The policy makes no sense; it says so when the client is first asked for.
        TypeError: There are both a policy and layers.
    """

    def __init__(
        self,
        model_name: str = "gpt-3.5-turbo",
        default_options: LiteLLMOptions | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        api_version: str | None = None,
        policy: Policy | PolicyWatch | str | os.PathLike[str] | None = None,
        layers: Sequence[Layer | PlacedLayer] | None = None,
    ) -> None:
        super().__init__(model_name, default_options, base_url=base_url, api_key=api_key, api_version=api_version)
        if policy is not None and layers is not None:
            raise TypeError("LiteLLM(policy=..., layers=...): the policy makes the layers; give one of the two")
        self.policy = policy
        self.layers = layers

    @cached_property
    def client(  # pyright: ignore[reportIncompatibleMethodOverride] - a property there: a new client at every access
        self,
    ) -> LiteLLMClient:
        """The client in its layers, always the same one."""
        client = LiteLLMClient(
            self.model_name, base_url=self.base_url, api_key=self.api_key, api_version=self.api_version
        )
        if self.policy is not None:
            from overcoat.policy import wrap  # noqa: PLC0415 - pydantic, half a second, for those who have a file

            return wrap(client, self.policy, client_for=LiteLLMClient)
        return stack(client, *(default_layers() if self.layers is None else self.layers))

    def count_tokens(self, prompt: PromptTemplate[Any]) -> int:
        """Return the tokens of the prompt as `overcoat.LiteLLM` does, by the model's own tokenizer where there is one.

        db-ally's takes an older one for "openai/gpt-4o", which litellm knows by the bare name only, and asks a hub
        over the network for those of Llama.
        """
        return Plain(self.model_name).count_tokens(cast("Any", prompt))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the client out: its cache, breaker and limits are this process's."""
        return {name: value for name, value in self.__dict__.items() if name != "client"}

    def __repr__(self) -> str:
        given = {"policy": self.policy, "layers": self.layers, "base_url": self.base_url}
        more = "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)
        return f"{type(self).__name__}({self.model_name!r}, {self.default_options!r}{more})"
