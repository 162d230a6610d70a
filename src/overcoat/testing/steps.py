"""What a scripted provider does with one request: answers, refusals and ways to break, as values.

Shapes and codes are those of OpenAI's API reference (chat completions, error codes, rate limits) and, where the name
says so, of Anthropic's Messages API. `raw` plays everything else.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal

from ._checks import require_count, require_seconds

__all__ = [
    "Received",
    "Step",
    "answer",
    "anthropic_answer",
    "anthropic_error",
    "content_filter_refused",
    "context_length_exceeded",
    "dropped",
    "empty_choices",
    "error",
    "error_body_with_200",
    "filtered",
    "insufficient_quota",
    "invalid_json",
    "rate_limited",
    "raw",
    "slow",
    "truncated",
]

# Type, code and message: litellm looks for OpenAI's own words before it looks at the status.
_OPENAI_DEFAULTS = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
}
_ERROR_STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it reached the provider.

    The repr leaves out what may hold a credential: the headers and the query (`?key=...`).

    Attributes:
        number: 1 for the first request since the provider started or was reset.
        method: The HTTP method.
        path: The path, without the query.
        query: What follows the question mark, undecoded; empty where there is none.
        headers: By lower-case name.
        body: The parsed JSON; the text itself where it is no JSON.
        model: The body's `model`, or the one that an Azure or Gemini path names; None where there is neither.
        at: Seconds on the monotonic clock.
    """

    number: int
    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: Any
    model: str | None
    at: float

    @property
    def request_id(self) -> str:
        """The answer's `x-request-id`."""
        return f"req_{self.number:032x}"


@dataclass(frozen=True, slots=True)
class Step:
    """What the provider does with one request; made by the functions of this module.

    Attributes:
        status: The HTTP status.
        body: Makes the answer's body from the request.
        headers: Added to, or put in place of, the content type, the content length and the request id.
        delay: Seconds between the request's arrival and the answer.
        connection: Whether it outlives the answer, or is closed in its place or halfway through its body.
    """

    status: int
    body: Callable[[Received], bytes] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay: float = 0.0
    connection: Literal["kept", "dropped", "dropped midway"] = "kept"

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError(f"status={self.status!r}; expected a final HTTP status, 200 to 599")
        require_seconds("delay", self.delay)


def answer(
    text: str | None = "Hello!",
    *,
    prompt_tokens: int = 12,
    completion_tokens: int = 5,
    cached_tokens: int = 0,
    reasoning_tokens: int = 0,
    finish_reason: str = "stop",
    model: str | None = None,
    delay: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> Step:
    """A chat completion.

    Args:
        text: The message's content; None is JSON's null.
        prompt_tokens: All input tokens, the cached ones included.
        completion_tokens: All output tokens, the reasoning ones included.
        cached_tokens: Input tokens that the provider read from its own cache.
        reasoning_tokens: Output tokens that were spent on reasoning.
        finish_reason: Of the only choice.
        model: The model that says it answered; by default the one that was asked.
        delay: Seconds until the answer.
        headers: To be added, such as `{"x-ratelimit-remaining-requests": "3"}`.

    Raises:
        ValueError: If a count is negative, or a part is larger than its whole.
    """
    usage = _usage(prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens)
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    return Step(200, lambda received: _completion(received, [choice], usage, model), dict(headers or {}), delay)


def truncated(text: str = "The answer is", *, prompt_tokens: int = 12, completion_tokens: int = 5) -> Step:
    """An answer that ran into the limit on its length: finish reason `length`."""
    return answer(text, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, finish_reason="length")


def filtered(*, prompt_tokens: int = 12, completion_tokens: int = 0) -> Step:
    """An answer that the provider's filter withheld: 200, no content, finish reason `content_filter`."""
    return answer(
        None, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, finish_reason="content_filter"
    )


def empty_choices(*, prompt_tokens: int = 12) -> Step:
    """A chat completion with a usage and not one choice."""
    usage = _usage(prompt_tokens, 0, 0, 0)
    return Step(200, lambda received: _completion(received, [], usage, None))


def error(
    status: int,
    code: str | None = None,
    type: str | None = None,  # noqa: A002 - the field's name in the body that it fills
    message: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Step:
    """A refusal in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

    Args:
        status: One of 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504 and 529.
        code: By default what OpenAI sends with that status, and null where it has no word for it; so with `type`.
        type: The class of the error, such as `server_error`.
        message: By default OpenAI's, or one that names the status.
        headers: To be added, such as `{"x-should-retry": "false"}`.

    Raises:
        ValueError: If it is another status.
    """
    if status not in _ERROR_STATUSES:
        raise ValueError(f"status={status!r}; expected one of {_listed(_ERROR_STATUSES)} (`raw` plays any other)")
    by_default = (None if status < 500 else "server_error", None, f"The scripted provider refused with {status}.")
    default_type, default_code, default_message = _OPENAI_DEFAULTS.get(status, by_default)
    body = {
        "message": message or default_message,
        "type": type or default_type,
        "param": None,
        "code": code or default_code,
    }
    return raw(status, headers, {"error": body})


def rate_limited(
    retry_after: float | datetime | None = None,
    *,
    retry_after_ms: int | None = None,
    x_ratelimit: Mapping[str, str] | None = None,
) -> Step:
    """A 429 that a later attempt may get past.

    Args:
        retry_after: The `retry-after` header: seconds, or an aware datetime for the header's other form, a date.
        retry_after_ms: OpenAI's `retry-after-ms` header, in milliseconds.
        x_ratelimit: The `x-ratelimit-*` headers by the rest of their name: `{"remaining-tokens": "0",
            "reset-tokens": "6m0s"}`.

    Raises:
        ValueError: If a wait is negative, or a datetime has no time zone.
    """
    headers = {f"x-ratelimit-{name}": value for name, value in (x_ratelimit or {}).items()}
    if isinstance(retry_after, datetime):
        if retry_after.utcoffset() is None:
            raise ValueError(f"retry_after={retry_after!r}; expected a datetime with a time zone")
        headers["retry-after"] = format_datetime(retry_after.astimezone(UTC), usegmt=True)
    elif retry_after is not None:
        headers["retry-after"] = f"{require_seconds('retry_after', retry_after):.15g}"
    if retry_after_ms is not None:
        headers["retry-after-ms"] = str(require_count("retry_after_ms", retry_after_ms))
    return error(429, headers=headers)


def insufficient_quota() -> Step:
    """A 429 that no attempt gets past: the account has run out of credit."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return error(429, "insufficient_quota", "insufficient_quota", message)


def context_length_exceeded() -> Step:
    """A 400: the prompt is longer than the model's context window."""
    message = "This model's maximum context length is 8192 tokens. Please reduce the length of the messages."
    return error(400, "context_length_exceeded", message=message)


def content_filter_refused() -> Step:
    """A 400 by which Azure OpenAI refuses the prompt itself, in Azure's shape; `filtered` withholds the answer."""
    body = {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
    return raw(400, None, {"error": body})


def error_body_with_200() -> Step:
    """An error that says 200, as gateways send it whose upstream failed after the status was out."""
    return raw(
        200, None, {"error": {"message": "Upstream failed.", "type": "server_error", "param": None, "code": 502}}
    )


def invalid_json() -> Step:
    """A 200 that says it is JSON and stops in the middle of it, at the length it announced."""
    return raw(200, None, b'{"id": "chatcmpl-1", "object": "chat.comp')


def slow(seconds: float, then: Step | None = None) -> Step:
    """The step `then` (by default a plain answer), that many seconds later."""
    require_seconds("seconds", seconds)
    step = answer() if then is None else require_step("then", then)
    return replace(step, delay=step.delay + seconds)


def dropped(*, midway: bool = False) -> Step:
    """The connection is closed in place of an answer, or `midway` through the body of one."""
    return replace(answer(), connection="dropped midway" if midway else "dropped")


def raw(
    status: int = 200, headers: Mapping[str, str] | None = None, body: bytes | str | Mapping[str, Any] = b""
) -> Step:
    """Any answer at all: another provider's error, a gateway's HTML page, server-sent events.

    Args:
        status: 200 to 599.
        headers: `content-type` is `application/json` unless it is among them.
        body: As it is sent; a mapping is sent as JSON.
    """
    content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return Step(status, lambda _: content, {name.lower(): value for name, value in (headers or {}).items()})


def anthropic_answer(
    text: str = "Hello!",
    *,
    input_tokens: int = 12,
    output_tokens: int = 5,
    cache_read_input_tokens: int = 0,
    cache_creation_input_tokens: int = 0,
    stop_reason: str = "end_turn",
    delay: float = 0.0,
    headers: Mapping[str, str] | None = None,
) -> Step:
    """A message in the shape of Anthropic's `/v1/messages`, whose `input_tokens` leave the cached ones out."""
    usage = {
        "input_tokens": require_count("input_tokens", input_tokens),
        "output_tokens": require_count("output_tokens", output_tokens),
        "cache_read_input_tokens": require_count("cache_read_input_tokens", cache_read_input_tokens),
        "cache_creation_input_tokens": require_count("cache_creation_input_tokens", cache_creation_input_tokens),
    }

    def message(received: Received) -> bytes:
        return _json(
            {
                "id": f"msg_{received.number:024x}",
                "type": "message",
                "role": "assistant",
                "model": received.model,
                "content": [{"type": "text", "text": text}],
                "stop_reason": stop_reason,
                "stop_sequence": None,
                "usage": usage,
            }
        )

    return Step(200, message, dict(headers or {}), delay)


def anthropic_error(status: int, message: str | None = None, headers: Mapping[str, str] | None = None) -> Step:
    """A refusal in Anthropic's shape, of the type that belongs to the status: 529 is `overloaded_error`.

    Raises:
        ValueError: If Anthropic has no type for that status.
    """
    if status not in _ANTHROPIC_TYPES:
        raise ValueError(f"status={status!r}; expected one of {_listed(_ANTHROPIC_TYPES)} (`raw` plays any other)")
    body = {"type": _ANTHROPIC_TYPES[status], "message": message or f"The scripted provider refused with {status}."}
    return raw(status, headers, {"type": "error", "error": body})


def require_step(name: str, value: object) -> Step:
    """Return the value if it is a step, or say under which name it should have been one."""
    if not isinstance(value, Step):
        raise TypeError(f"{name}={value!r}; expected a step, such as answer('Hello!') or rate_limited(1.0)")
    return value


def _completion(received: Received, choices: list[dict[str, Any]], usage: dict[str, Any], model: str | None) -> bytes:
    return _json(
        {
            "id": f"chatcmpl-{received.number:029x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model or received.model or "scripted",
            "choices": choices,
            "usage": usage,
            "system_fingerprint": None,
        }
    )


def _usage(prompt: int, completion: int, cached: int, reasoning: int) -> dict[str, Any]:
    require_count("prompt_tokens", prompt)
    require_count("completion_tokens", completion)
    require_count("cached_tokens", cached, at_most=("prompt_tokens", prompt))
    require_count("reasoning_tokens", reasoning, at_most=("completion_tokens", completion))
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if cached:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def _listed(statuses: Mapping[int, str] | tuple[int, ...]) -> str:
    return ", ".join(map(str, statuses))
