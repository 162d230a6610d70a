"""A scripted `LLMClient`, by db-ally's interface and without a network."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from ._checks import require_count, require_seconds

__all__ = ["Answer", "ScriptExhaustedError", "ScriptedCall", "ScriptedClient"]


class Answer:
    """An answer with what belongs to it.

    Args:
        text: What `call` returns.
        prompt_tokens: Written to the event, with `total_tokens`, where it is given.
        completion_tokens: Likewise.
        delay: Seconds until the answer, by `asyncio.sleep`.
        event_fields: Written to the event as they are, last: they win.

    Raises:
        ValueError: If a count or the delay is negative.
    """

    __slots__ = ("delay", "event_fields", "text")

    def __init__(
        self,
        text: str,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        delay: float = 0.0,
        **event_fields: object,
    ) -> None:
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        given = {name: require_count(name, count) for name, count in usage.items() if count is not None}
        if given:
            given["total_tokens"] = sum(given.values())
        self.text = text
        self.delay = require_seconds("delay", delay)
        self.event_fields = {**given, **event_fields}

    def __repr__(self) -> str:
        fields = "".join(f", {name}={value!r}" for name, value in self.event_fields.items())
        return f"Answer({self.text!r}, delay={self.delay!r}{fields})"


class ScriptedCall(NamedTuple):
    """The arguments of one `call`, the very objects."""

    conversation: Any
    options: Any
    event: Any
    json_mode: bool


class ScriptExhaustedError(AssertionError):
    """More calls arrived than the script has steps."""


_Outcome: TypeAlias = str | Answer | BaseException | type[BaseException]
_Step: TypeAlias = _Outcome | Callable[[Any, Any], _Outcome | Awaitable[_Outcome]]


class ScriptedClient:
    """Answers, raises and waits, one step a call.

    A step is a text, an `Answer`, an exception to raise (an instance, or a class for a new one each time), or a
    function of the conversation and the options that makes one of them; an async one can wait for what the test likes.

    Args:
        steps: At least one.
        model_name: As db-ally's clients have it.
        then: What follows the last step: it again, or `ScriptExhaustedError`.

    Raises:
        TypeError: If a step is none.
        ValueError: If there is no step, or `then` is neither.

    Attributes:
        calls: The arguments of each call, in order of arrival.
        in_flight: Calls that have begun and not ended.
        most_in_flight: The most that ever were.
        cancelled: Calls that were cancelled while they waited.
    """

    def __init__(
        self, *steps: _Step, model_name: str = "scripted", then: Literal["repeat", "raise"] = "repeat"
    ) -> None:
        if not steps:
            raise ValueError("steps=(); expected at least one answer, exception or function")
        for place, step in enumerate(steps):
            if not (isinstance(step, str | Answer | BaseException) or callable(step)):
                raise TypeError(f"steps[{place}]={step!r}; expected a str, an Answer, an exception or a function")
        if then not in ("repeat", "raise"):
            raise ValueError(f"then={then!r}; expected 'repeat' or 'raise'")
        self.model_name = model_name
        self.calls: list[ScriptedCall] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.cancelled = 0
        self._steps = steps
        self._then = then

    async def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> str:
        """Take the next step.

        Raises:
            ScriptExhaustedError: If there is none.
        """
        self.calls.append(ScriptedCall(conversation, options, event, json_mode))
        if len(self.calls) > len(self._steps) and self._then == "raise":
            raise ScriptExhaustedError(f"Call {len(self.calls)} came to a script of {len(self._steps)} steps.")
        step = self._steps[min(len(self.calls), len(self._steps)) - 1]
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await _play(step, conversation, options, event)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1


async def _play(step: _Step, conversation: Any, options: Any, event: Any) -> str:
    outcome = step(conversation, options) if callable(step) and not isinstance(step, type) else step
    if inspect.isawaitable(outcome):
        outcome = await outcome
    if isinstance(outcome, str):
        return outcome
    if not isinstance(outcome, Answer):
        raise cast("BaseException", outcome)  # or its class, which checkers mix up with functions
    await asyncio.sleep(outcome.delay)
    for name, value in outcome.event_fields.items():
        setattr(event, name, value)
    return outcome.text
