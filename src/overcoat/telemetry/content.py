"""Prompts and answers in the shapes of the semantic conventions 1.41, for those who switched their capture on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

from overcoat.telemetry.redaction import Redactor, redact

logger = logging.getLogger("overcoat")

Capture = Literal["none", "spans", "events", "spans and events"]
"""Where contents go: to attributes of the `chat` span, to log events, to both, or nowhere."""

VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
# The values of OpenTelemetry's own instrumentations; true is what Microsoft.Extensions.AI takes.
_BY_VARIABLE: Mapping[str, Capture] = {
    "": "none",
    "false": "none",
    "no_content": "none",
    "true": "spans",
    "span_only": "spans",
    "event_only": "events",
    "span_and_event": "spans and events",
}
_FINISH_REASONS = {"tool_calls": "tool_call", "function_call": "tool_call"}  # the conventions' word

Message = dict[str, Any]


def capture_by_environment() -> Capture:
    """Return what the standard variable says; a value that nobody knows switches nothing on."""
    value = os.environ.get(VARIABLE, "").strip()
    known = _BY_VARIABLE.get(value.lower())
    if known is None:
        expected = ", ".join(name.upper() for name in _BY_VARIABLE if name)
        logger.warning("%s=%r: expected one of %s; no contents are captured", VARIABLE, value, expected)
    return known or "none"


class Contents(NamedTuple):
    """How contents are made fit for export: each text is redacted, then cut.

    Attributes:
        redactor: What takes out secrets. Where it fails, the text is left out.
        limit: Characters of a part that are kept.
    """

    redactor: Redactor = redact
    limit: int = 8192

    def input_messages(self, conversation: Sequence[Mapping[str, Any]]) -> list[Message]:
        """Return `gen_ai.input.messages` of a conversation, system messages included."""
        return [self._message(message) for message in conversation]

    def output_messages(self, text: str | None, finish_reason: str | None) -> list[Message]:
        """Return `gen_ai.output.messages` of an answer."""
        parts = [] if text is None else [self._text(text)]
        reason = _FINISH_REASONS.get(finish_reason or "stop", finish_reason or "stop")
        return [{"role": "assistant", "parts": parts, "finish_reason": reason}]

    def _message(self, message: Mapping[str, Any]) -> Message:
        role, content = str(message["role"]), message["content"]
        if role == "tool":
            response = content if isinstance(content, str) else str(content)
            part = {"type": "tool_call_response", "response": self.clean(response)}
            if message.get("tool_call_id"):
                part["id"] = str(message["tool_call_id"])
            return {"role": role, "parts": [part]}
        parts = [*self._parts(content), *self._tool_calls(message.get("tool_calls"))]
        named = {"name": str(message["name"])} if message.get("name") else {}
        return {"role": role, "parts": parts, **named}

    def _parts(self, content: Any) -> Iterator[Message]:
        if isinstance(content, str):
            yield self._text(content)
        for part in _list(content):
            yield self._part(_mapping(part))

    def _part(self, part: Mapping[str, Any]) -> Message:
        kind = str(part.get("type", "unknown"))
        if isinstance(part.get("text"), str):
            return self._text(part["text"])
        url = _mapping(part.get("image_url")).get("url", part.get("image_url"))
        if not isinstance(url, str):
            return {"type": kind}  # that there was one; the conventions allow any type
        if url.startswith("data:"):  # its bytes are of no use to a reader, and more than a backend takes
            mime = url.removeprefix("data:").partition(",")[0].partition(";")[0]
            return {"type": "blob", "modality": "image", "mime_type": mime, "content": ""}
        return {"type": "uri", "modality": "image", "uri": self.clean(url)}

    def _tool_calls(self, calls: Any) -> Iterator[Message]:
        for call in map(_mapping, _list(calls)):
            function = _mapping(call.get("function"))
            part: Message = {"type": "tool_call", "name": str(function.get("name", "unknown"))}
            if call.get("id"):
                part["id"] = str(call["id"])
            if isinstance(function.get("arguments"), str):
                part["arguments"] = self.clean(function["arguments"])
            yield part

    def _text(self, text: str) -> Message:
        return {"type": "text", "content": self.clean(text)}

    def clean(self, text: str) -> str:
        """Return what of *text* may be exported."""
        try:
            cleaned = self.redactor(text)
            kept = cleaned[: self.limit]
        except Exception:  # it may be the user's own: what it could not clean must not be seen
            logger.exception("the redactor %r failed; the text is left out", self.redactor)
            return "[redaction failed]"
        if len(cleaned) > self.limit:
            kept = f"{kept}… ({len(cleaned) - self.limit} characters more)"
        # A model may answer with half of a surrogate pair, for which an exporter would drop the whole batch.
        return kept if kept.isascii() else kept.encode(errors="replace").decode()


# What clients are given is typed by nobody; what has another shape is as good as absent.


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()
