"""Prompts as db-ally writes them: chats with placeholders, whose turns are checked when they are made."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeAlias, TypeVar, cast

from overcoat.errors import PromptTemplateError

ChatFormat: TypeAlias = list[dict[str, str]]
"""A conversation, oldest message first: `[{"role": "system", "content": "..."}, {"role": "user", ...}, ...]`."""


@dataclass(frozen=True, slots=True)
class FewShotExample:
    """A question and the answer that the model is to learn from."""

    question: str
    answer: str

    def __str__(self) -> str:
        return f"{self.question} -> {self.answer}"


class PromptFormat:
    """What a template is filled in with: each attribute of a subclass fills the placeholder of its name.

    Attributes:
        examples: Few-shot examples; they become messages after the first one, or fill `{examples}` where the template
            has it.
    """

    def __init__(self, examples: Sequence[FewShotExample] | None = None) -> None:
        self.examples = list(examples or ())


PromptFormatT = TypeVar("PromptFormatT", bound=PromptFormat)


class PromptTemplate(Generic[PromptFormatT]):  # noqa: PLW1641 - no hash, as in db-ally: the chat may change
    """A conversation with `{placeholders}`, in the order of turns that db-ally demands.

    That is: a system message, then user and assistant in turn. As in db-ally, the places count rather than the turns:
    a chat without a system message is one that starts with the assistant. It may end on either, and a system message
    alone is refused (db-ally fails on it with an `UnboundLocalError`).

    The methods return a changed copy, of the same class.

    Attributes:
        chat: The messages.
        json_mode: Whether the answer must be JSON.
        response_parser: What the caller applies to the answer; nothing here calls it.

    Raises:
        TypeError: *chat* is not a list of dicts with a role and a content.
        PromptTemplateError: *chat* is empty, or its roles are out of turn.
    """

    def __init__(
        self,
        chat: ChatFormat,
        *,
        json_mode: bool = False,
        response_parser: Callable[[str], Any] = lambda response: response,
    ) -> None:
        self.chat = _check_turns(chat)
        self.json_mode = json_mode
        self.response_parser = response_parser

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptTemplate) and self.chat == other.chat

    def __repr__(self) -> str:
        return f"{type(self).__name__}(chat={self.chat!r}, json_mode={self.json_mode!r})"

    def format_prompt(self, prompt_format: PromptFormatT) -> Self:
        """Return the prompt with its placeholders, and those of the examples, filled in by `str.format`.

        db-ally looks for `{examples}` at the start of a message only, cannot join its own examples, and marks messages
        with a key `is_example` that strict providers refuse; here it may stand anywhere, and messages are role and
        content.

        Raises:
            TypeError: *prompt_format* has no attributes.
            PromptTemplateError: A message has a placeholder that *prompt_format* does not fill, or a stray brace.
        """
        if not hasattr(prompt_format, "__dict__"):
            raise TypeError(f"format_prompt(prompt_format={prompt_format!r:.80}): expected a PromptFormat")
        values = dict(vars(prompt_format))
        examples = values.get("examples") or ()
        chat = self.chat
        if any("{examples}" in message["content"] for message in chat):
            values["examples"] = "\n".join(map(str, examples))
        else:
            turns = ((("user", example.question), ("assistant", example.answer)) for example in examples)
            shots = [{"role": role, "content": content} for turn in turns for role, content in turn]
            chat = [chat[0], *shots, *chat[1:]]
        return self._with([_filled(index, message, values) for index, message in enumerate(chat)])

    def set_system_message(self, content: str) -> Self:
        """Return the prompt with *content* as its system message, in the place of the one that it had.

        db-ally puts it before the old one or before the assistant's turn, and so refuses its own result every time.

        Raises:
            PromptTemplateError: The chat starts with the assistant, whom a system message would put out of turn.
        """
        rest = self.chat[1:] if self.chat[0]["role"] == "system" else self.chat
        return self._with([{"role": "system", "content": content}, *rest])

    def add_user_message(self, content: str) -> Self:
        """Return the prompt with one more turn of the user.

        Raises:
            PromptTemplateError: It is not the user's turn.
        """
        return self._with([*self.chat, {"role": "user", "content": content}])

    def add_assistant_message(self, content: str) -> Self:
        """Return the prompt with one more turn of the assistant.

        Raises:
            PromptTemplateError: It is not the assistant's turn.
        """
        return self._with([*self.chat, {"role": "assistant", "content": content}])

    def _with(self, chat: ChatFormat) -> Self:
        # A copy, and not `type(self)(chat=...)`: a subclass may be made in another way, and have attributes of its own.
        prompt = copy.copy(self)
        prompt.chat = _check_turns(chat)
        return prompt


def check_chat(name: str, chat: object) -> None:
    """Refuse what is not a conversation; a content may also be a list of parts, or None beside a tool call.

    Raises:
        TypeError: *chat*, the argument called *name*, is not a list of dicts with a role and a content.
    """
    if not isinstance(chat, list):
        raise TypeError(f"{name}={chat!r:.80}: expected a list of dicts with 'role' and 'content'")
    for index, message in enumerate(cast("list[object]", chat)):
        fields = cast("dict[str, object]", message) if isinstance(message, dict) else {}
        if not isinstance(fields.get("role"), str) or not isinstance(fields.get("content", 0), str | list | None):
            raise TypeError(f"{name}[{index}]={message!r:.80}: expected a dict with a 'role' and a 'content'")


def _check_turns(chat: ChatFormat) -> ChatFormat:
    check_chat("chat", chat)
    for index, message in enumerate(chat):
        role = message["role"]
        expected = "user" if index % 2 else "assistant"
        if role == "system" and index:
            raise PromptTemplateError(f"chat[{index}] is from 'system': only the first message may be")
        if role not in ("system", expected):
            hint = "; put a system message before it" if index == 0 and role == "user" else ""
            raise PromptTemplateError(
                f"chat[{index}] is from {role!r}, where it is the turn of {expected!r}: first the system, then user "
                f"and assistant in turn{hint}"
            )
    if not chat or (len(chat) == 1 and chat[0]["role"] == "system"):
        raise PromptTemplateError(f"chat={chat!r:.80}: expected a turn of the user or the assistant")
    return chat


def _filled(index: int, message: dict[str, str], values: dict[str, Any]) -> dict[str, str]:
    try:
        content = message["content"].format(**values)
    except (LookupError, ValueError, AttributeError) as exc:
        raise PromptTemplateError(
            f"chat[{index}]={message['content']!r:.80}: cannot be filled in with {sorted(values)}: {exc!r}"
        ) from exc
    return {"role": message["role"], "content": content}
