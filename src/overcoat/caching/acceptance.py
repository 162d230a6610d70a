"""Which answers may be given to others: what is filtered, empty, cut off or no JSON is of use to nobody else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from overcoat.layer import Reply, Request
from overcoat.options import option
from overcoat.record import RefusedReason

logger = logging.getLogger("overcoat")

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

# Why an answer ended, in lower case: OpenAI's words, which litellm has for all, and those of Anthropic, Bedrock and
# Gemini.
_CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"})
_FILTERED = frozenset(
    {
        *("content_filter", "content_filtered", "guardrail_intervened", "refusal"),
        *("blocklist", "prohibited_content", "recitation", "safety", "spii"),
    }
)


def reason_to_refuse(reply: Reply, request: Request, accept: Callable[[str], object] | None) -> RefusedReason | None:
    """Say why the answer to *request* must not be given to anyone else; None where it may.

    Args:
        reply: The answer.
        request: What it is the answer to.
        accept: The caller's own judgement, of what is of use otherwise; where it fails, the answer is not.
    """
    attempt = reply.attempt
    ended = attempt.finish_reason if attempt else None
    ended = ended.lower() if isinstance(ended, str) else None
    output_tokens = attempt.usage.output_tokens if attempt and attempt.usage else None
    if ended in _FILTERED:
        return "filtered"
    if not reply.text:
        return "empty"
    if ended in _CUT_OFF or (output_tokens is not None and _at_limit(request.options, output_tokens)):
        return "truncated"
    if request.json_mode and not _is_json(reply.text):
        return "no_json"
    return None if accept is None or _accepts(accept, reply.text) else "rejected"


def _at_limit(options: Any, output_tokens: int) -> bool:
    # For clients that do not say why the model stopped, such as db-ally's own.
    limits = [option(options, name) for name in _LIMITS]
    return any(type(limit) is int and output_tokens >= limit for limit in limits)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):  # the latter where it is nested a thousand times
        return False
    return True


def _accepts(accept: Callable[[str], object], text: str) -> bool:
    try:
        return bool(accept(text))
    except Exception as error:  # noqa: BLE001 - the user's, and the caller has paid for the answer
        kind = type(error).__qualname__  # and not its text, which may quote the answer
        logger.warning("accept=%r raised %s; the answer is not kept", accept, kind)
        return False
