"""Says what went wrong with an attempt: any exception, whoever raised it, becomes one of our few kinds of failure."""

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from overcoat.arithmetic.provider_quota import ProviderQuota, provider_quota
from overcoat.arithmetic.server_delay import server_delay

_T = TypeVar("_T")


class Kind(StrEnum):
    """The closed set of what can go wrong; what to do about each is policy, except that most must never be retried.

    An exception class that has a member of it as its attribute `kind` is of that kind: so our own errors say what they
    are, and so can those of any client.
    """

    RATE_LIMITED = "rate_limited"
    """429: come again, later. The provider is well."""
    OVERLOADED = "overloaded"
    """503, 529 and their like: come again, much later."""
    QUOTA_EXHAUSTED = "quota_exhausted"
    """402, or a 429 that says the money or the day's allowance is spent: waiting does not help, an operator does."""
    SERVER_ERROR = "server_error"
    """500, 502, 504 and other 5xx; 409, which a repetition resolves; an error with status 200 and no known code."""
    TIMEOUT = "timeout"
    """No answer in time, or 408. The provider may have done the work, and may bill it."""
    CONNECTION = "connection"
    """Refused, reset, not resolved, or not set up in time."""
    CONTEXT_TOO_LONG = "context_too_long"
    """The prompt does not fit the model, or 413."""
    CONTENT_FILTERED = "content_filtered"
    """The provider will not answer this."""
    AUTH = "auth"
    """401, 403."""
    BAD_REQUEST = "bad_request"
    """400, 404, 422 and other 4xx."""
    BAD_OUTPUT = "bad_output"
    """An answer came and is of no use: not JSON, not of the schema, cut off."""
    CANCELLED = "cancelled"
    """The caller's doing: `asyncio.CancelledError`, and whatever else is no `Exception`."""
    REFUSED = "refused"
    """Our own refusal: no budget, an open circuit, no slot, nothing cached."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """The call's own deadline has passed."""
    UNKNOWN = "unknown"
    """An exception that nobody knows, a bug for example."""

    @property
    def retryable(self) -> bool:
        """Whether a repetition can succeed at all."""
        return self in _RETRYABLE

    @classmethod
    def of_status(cls, status: int) -> "Kind":
        """Return the kind of an HTTP response with *status* where its body says nothing more precise."""
        if status >= 500:
            return cls.OVERLOADED if status in (503, 529) else cls.SERVER_ERROR
        # An SDK that raises for 2xx could not read the answer.
        return _STATUSES.get(status, cls.BAD_REQUEST if status >= 300 else cls.BAD_OUTPUT)


_RETRYABLE = frozenset(
    {Kind.RATE_LIMITED, Kind.OVERLOADED, Kind.SERVER_ERROR, Kind.TIMEOUT, Kind.CONNECTION, Kind.BAD_OUTPUT}
)

_STATUSES = {
    401: Kind.AUTH,
    402: Kind.QUOTA_EXHAUSTED,
    403: Kind.AUTH,
    408: Kind.TIMEOUT,
    409: Kind.SERVER_ERROR,
    413: Kind.CONTEXT_TOO_LONG,
    429: Kind.RATE_LIMITED,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What `classify` found out about one exception.

    Attributes:
        kind: What went wrong.
        status: The HTTP status that the provider sent; None where it sent none, whatever a library made up.
        code: The provider's own word for it, the most precise that it gave: error code, else reason, type or status.
        retry_after: Seconds that the provider, or a limiter of ours, wants us to wait. Finite and never negative.
        request_id: The provider's name for the request, for a support ticket.
        retryable: Whether a repetition can succeed: what the kind allows and the provider did not forbid.
        quota: What the provider said is left of its limits; None where it said nothing.
    """

    kind: Kind
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    request_id: str | None = None
    retryable: bool = False
    quota: ProviderQuota | None = None


# Codes that say more than the status they come with. They are compared whole and case-sensitively: Scaleway words its
# passing limits "INSUFFICIENT QUOTA".
_CODES = {
    "insufficient_quota": Kind.QUOTA_EXHAUSTED,  # OpenAI's type for all of its billing limits
    "credit_balance_exhausted": Kind.QUOTA_EXHAUSTED,  # OpenAI
    "billing_error": Kind.QUOTA_EXHAUSTED,  # Anthropic
    "overloaded_error": Kind.OVERLOADED,  # Anthropic, also in the middle of a stream with status 200
    "slow_down": Kind.OVERLOADED,  # OpenAI
    "context_length_exceeded": Kind.CONTEXT_TOO_LONG,  # OpenAI, with 400
    "request_too_large": Kind.CONTEXT_TOO_LONG,  # Anthropic
    "content_filter": Kind.CONTENT_FILTERED,  # Azure, with 400
    "content_policy_violation": Kind.CONTENT_FILTERED,  # OpenAI, with 400
    "API_KEY_INVALID": Kind.AUTH,  # Google, with 400
}
# OpenAI: organization_spend_limit_exceeded, project_..., organization_usage_limit_exceeded.
# Anthropic: enforced_spend_limit_reached, contract_..., linked_organization_...
_SPENT = ("_spend_limit_exceeded", "_usage_limit_exceeded", "_spend_limit_reached")

# Codes that stand in for the status where an error came without one: in a stream, or with status 200.
_CODES_WITHOUT_STATUS = {
    "rate_limit_exceeded": Kind.RATE_LIMITED,
    "rate_limit_error": Kind.RATE_LIMITED,
    "ramp_limit_exceeded": Kind.RATE_LIMITED,
    "RESOURCE_EXHAUSTED": Kind.RATE_LIMITED,
    "UNAVAILABLE": Kind.OVERLOADED,
    "timeout_error": Kind.TIMEOUT,
    "authentication_error": Kind.AUTH,
    "invalid_api_key": Kind.AUTH,
    "permission_error": Kind.AUTH,
    "invalid_request_error": Kind.BAD_REQUEST,
    "not_found_error": Kind.BAD_REQUEST,
    "INVALID_ARGUMENT": Kind.BAD_REQUEST,
}

# Classes are known by the root of their module and their name, so that none of these packages is imported, and a
# package may move its classes between its modules.
_Names = list[tuple[str, str]]
_Wrappers = list[tuple[BaseException, _Names]]
_HTTP_CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2")  # the second ones are what newer SDKs bring

# What only the one who had the connection raises: it is the origin of what stands above it in the chain.
_TRANSPORT = {
    (client, name): kind
    for client in ("httpx", "httpx2", "httpcore", "httpcore2")  # the second ones are what newer SDKs bring
    for name, kind in {
        "TimeoutException": Kind.TIMEOUT,
        "ConnectTimeout": Kind.CONNECTION,  # nothing was sent yet, so nothing can have been billed
        "PoolTimeout": Kind.CONNECTION,
        "NetworkError": Kind.CONNECTION,
        "ProtocolError": Kind.CONNECTION,
        "LocalProtocolError": Kind.BAD_REQUEST,  # a header or a URL that is none
        "UnsupportedProtocol": Kind.BAD_REQUEST,
    }.items()
} | {
    ("httpx", "TransportError"): Kind.CONNECTION,
    ("httpx2", "TransportError"): Kind.CONNECTION,
    ("aiohttp", "ServerTimeoutError"): Kind.TIMEOUT,
    ("aiohttp", "ConnectionTimeoutError"): Kind.CONNECTION,
    ("aiohttp", "ClientConnectionError"): Kind.CONNECTION,
    ("aiohttp", "ClientPayloadError"): Kind.CONNECTION,
    ("requests", "Timeout"): Kind.TIMEOUT,
    ("requests", "ConnectionError"): Kind.CONNECTION,
    ("builtins", "TimeoutError"): Kind.TIMEOUT,  # asyncio's and socket's are the same class
    ("builtins", "ConnectionError"): Kind.CONNECTION,
    ("socket", "gaierror"): Kind.CONNECTION,
    ("ssl", "SSLError"): Kind.CONNECTION,
}

# What wrappers are called. They guess: litellm by the text of the message, db-ally by the class that litellm chose. So
# they are believed where nobody nearer to the provider speaks.
_WRAPPERS = {
    ("openai", "APIConnectionError"): Kind.CONNECTION,
    ("openai", "APITimeoutError"): Kind.TIMEOUT,
    ("openai", "APIResponseValidationError"): Kind.BAD_OUTPUT,  # with litellm's JSONSchemaValidationError
    ("openai", "LengthFinishReasonError"): Kind.BAD_OUTPUT,
    ("openai", "ContentFilterFinishReasonError"): Kind.CONTENT_FILTERED,
    ("anthropic", "APIConnectionError"): Kind.CONNECTION,
    ("anthropic", "APITimeoutError"): Kind.TIMEOUT,
    ("anthropic", "APIResponseValidationError"): Kind.BAD_OUTPUT,
    ("litellm", "ContextWindowExceededError"): Kind.CONTEXT_TOO_LONG,
    ("litellm", "ContentPolicyViolationError"): Kind.CONTENT_FILTERED,
    ("litellm", "BudgetExceededError"): Kind.QUOTA_EXHAUSTED,
    ("dbally", "LLMConnectionError"): Kind.CONNECTION,
    ("dbally", "LLMResponseError"): Kind.BAD_OUTPUT,
    ("overcoat", "LLMConnectionError"): Kind.CONNECTION,
    ("overcoat", "LLMResponseError"): Kind.BAD_OUTPUT,
}

_WORD = re.compile(r"[!-~]{1,128}")  # an identifier, which may become a label; not a sentence, not a page
_DICT: type[dict[Any, Any]] = dict
_LIST: type[list[Any]] = list
_MATCH: type[re.Match[str]] = re.Match
_LONGEST_BODY = 65_536  # characters or bytes; the errors of providers have hundreds


def classify(error: BaseException, *, ambient: BaseException | None = None, now: float | None = None) -> Failure:
    """Say what kind of failure *error* is, by its structure; texts meant for people are never matched.

    Libraries wrap and translate: db-ally reports a refused connection as status 500, litellm Anthropic's 529 as 500,
    and its own responses are made up. So the chain of `__cause__`, else `__context__`, is followed down from *error*,
    and the first in it that was there decides: an error that knows its `kind`, an HTTP response as an SDK or HTTP
    client has it, or a failure of the transport. Only where there is none, the wrappers are believed, the one nearest
    to the origin most. One thing they are believed always: litellm reads the texts of providers that have no code for
    it, so a bare 400 is what litellm says where it says that the context was too long or the content filtered.

    It never raises, whatever *error* and its attributes are.

    Args:
        error: What an attempt raised.
        ambient: What was being handled when the attempt began (`sys.exception()` then). Python chains it below whatever
            the attempt raises, but it is not the attempt's doing: the chain ends before it.
        now: Unix seconds, for delays that the provider gives as a date; `time.time()` by default.
    """
    if not issubclass(type(error), Exception):  # isinstance would ask the object, too
        return Failure(Kind.CANCELLED)
    now = time.time() if now is None else now
    wrappers: _Wrappers = []
    for member in _chain(error, ambient):
        names = _names(member)
        if (kind := _attribute(member, "kind", Kind)) is not None:
            return Failure(kind, retry_after=_seconds(member), retryable=kind.retryable)
        if (status := _response_status(member, names)) is not None:
            return _by_response(member, status, wrappers, now)
        if (kind := _by_transport(names)) is not None:
            return Failure(kind, retryable=kind.retryable)
        wrappers.append((member, names))
    if any(("json", "JSONDecodeError") in names for _, names in wrappers):
        return Failure(Kind.BAD_OUTPUT, retryable=True)
    return _by_hearsay(wrappers, now)


def reported_quota(headers: object) -> ProviderQuota | None:
    """Return what a client's *headers* of an answer say is left of the provider's limits, whatever they are."""
    return provider_quota(_headers(headers), time.time())


def _chain(error: BaseException, ambient: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and what it came from, each once: chains can be circular."""
    seen: set[int] = set()
    member: BaseException | None = error
    while member is not None and id(member) not in seen:
        yield member
        seen.add(id(member))
        cause = _attribute(member, "__cause__", BaseException)
        member = cause if cause is not None else _attribute(member, "__context__", BaseException)
        if member is ambient:
            return


def _by_response(error: BaseException, status: int, wrappers: _Wrappers, now: float) -> Failure:
    body = _error_object(error)
    codes = _codes(body)
    kind = _by_code(codes, body) or Kind.of_status(status)
    if kind is Kind.BAD_REQUEST:
        told = {_known(names, _WRAPPERS) for _, names in wrappers}
        kind = next((better for better in (Kind.CONTEXT_TOO_LONG, Kind.CONTENT_FILTERED) if better in told), kind)
    headers = _headers(_attribute(_attribute(error, "response", object), "headers", object))
    return _failure(kind, status, codes, headers=headers, body=body, now=now)


def _by_transport(names: _Names) -> Kind | None:
    # A bare OSError is the network's ("Multiple exceptions: ...", no route to host); the file system's have classes.
    return Kind.CONNECTION if names[0] == ("builtins", "OSError") else _known(names, _TRANSPORT)


def _by_hearsay(wrappers: _Wrappers, now: float) -> Failure:
    hint: Kind | None = None
    status: int | None = None
    body: dict[Any, Any] = {}
    headers: dict[str, str] = {}
    codes: list[str] = []
    from_provider = False
    for member, names in wrappers:  # the nearest to the origin comes last and has the last word
        hint = _known(names, _WRAPPERS) or hint
        told = [_attribute(member, name, object) for name in ("status_code", "status", "code")]
        status = next((number for number in map(_status, told) if number is not None), status)
        body = _error_object(member) or body
        for name in ("headers", "litellm_response_headers"):
            headers = _headers(_attribute(member, name, object)) or headers
        if _status(told[0]) is None:  # litellm puts the code of an error that came with 200 where its status belongs
            codes = _words(told[0]) or codes
        from_provider |= ("openai", "APIError") in names or ("anthropic", "APIError") in names
    codes = _codes(body) + codes
    if (kind := _by_code(codes, body) or hint) is not None:
        status = None  # the wrapper made it up: litellm calls a refused connection 500
    elif status is not None and status >= 400:
        kind = Kind.of_status(status)
    else:
        known = (_CODES_WITHOUT_STATUS[code] for code in codes if code in _CODES_WITHOUT_STATUS)
        kind = next(known, Kind.SERVER_ERROR if from_provider else Kind.UNKNOWN)
    return _failure(kind, status, codes, headers=headers, body=body, now=now)


def _by_code(codes: list[str], body: dict[Any, Any]) -> Kind | None:
    if any(code.endswith(_SPENT) for code in codes) or _spent_for_today(body):
        return Kind.QUOTA_EXHAUSTED
    return next((_CODES[code] for code in codes if code in _CODES), None)


def _failure(
    kind: Kind, status: int | None, codes: list[str], *, headers: dict[str, str], body: dict[Any, Any], now: float
) -> Failure:
    retry_delays = _words(*(entry.get("retryDelay") for entry in _details(body)))
    request_ids = _words(*(headers.get(name) for name in ("x-request-id", "request-id", "apim-request-id")))
    return Failure(
        kind,
        status,
        codes[0] if codes else None,
        server_delay(headers, retry_delays[0] if retry_delays else None, now),
        request_ids[0] if request_ids else None,
        # "true" is not listened to: it makes no bad request good.
        kind.retryable and headers.get("x-should-retry") != "false",
        provider_quota(headers, now),
    )


def _names(error: BaseException) -> _Names:
    return [
        ((_attribute(cls, "__module__", str) or "").partition(".")[0], _attribute(cls, "__name__", str) or "")
        for cls in type(error).__mro__
    ]


def _known(names: _Names, kinds: dict[tuple[str, str], Kind]) -> Kind | None:
    return next((kinds[name] for name in names if name in kinds), None)


def _response_status(error: BaseException, names: _Names) -> int | None:
    """Return the status of the response that *error* holds, unless litellm made it up."""
    if any(root == "litellm" for root, _ in names) and ("httpx", "HTTPStatusError") not in names:
        return None
    return _status(_attribute(_attribute(error, "response", object), "status_code", object))


def _status(value: Any) -> int | None:
    number = _probe(lambda: int(value), int)
    return number if number is not None and 100 <= number <= 599 else None


def _seconds(error: BaseException) -> float | None:
    """Return the `retry_after` of *error*, if that is a number of seconds."""
    value: Any = _attribute(error, "retry_after", object)
    number = _probe(lambda: float(value), float)
    return number if number is not None and 0 <= number < math.inf else None


def _headers(headers: Any) -> dict[str, str]:
    """Return *headers* by lower-case name; those that are no text are left out."""
    pairs = _mapping(headers).items()
    return _probe(lambda: {k.lower(): v for k, v in pairs if isinstance(k, str) and isinstance(v, str)}, _DICT) or {}


def _error_object(error: BaseException) -> dict[Any, Any]:
    """Return the provider's error: from the `body` as an SDK parsed it, the response, or a message that is JSON."""
    response = _attribute(error, "response", object)
    return (
        _unwrapped(_attribute(error, "body", object))
        or _unwrapped(_attribute(response, "content", bytes))
        or _unwrapped(_attribute(error, "message", str))
    )


def _unwrapped(body: Any) -> dict[Any, Any]:
    # Cut off is not JSON any more, which is what a body of that length is worth.
    parsed = _probe(lambda: json.loads(body[:_LONGEST_BODY]) if isinstance(body, (bytes, str)) else body, object)
    listed = _list(parsed)  # as Google's streaming endpoints wrap even errors
    found = _mapping(listed[0] if listed else parsed)
    return _mapping(found.get("error")) or found


def _codes(body: dict[Any, Any]) -> list[str]:
    """Return what the provider calls its error, the most precise first."""
    details = _details(body)
    return _words(
        body.get("code"),
        *(entry.get("error_code") for entry in details),  # Anthropic
        *(entry.get("reason") for entry in details),  # google.rpc.ErrorInfo
        body.get("type"),
        body.get("status"),  # Google's code is a number, and its status the word for it
    )


def _spent_for_today(body: dict[Any, Any]) -> bool:
    """Whether it is a `google.rpc.QuotaFailure` of a limit per day; those per minute are rate limits."""
    limits = [_mapping(each) for entry in _details(body) for each in _list(entry.get("violations"))]
    return any("PerDay" in word for limit in limits for word in _words(limit.get("quotaId")))


def _details(body: dict[Any, Any]) -> list[dict[Any, Any]]:
    """Return the `details`: a list of objects with Google, a single one with Anthropic."""
    details = body.get("details")
    return [_mapping(entry) for entry in _list(details) or [details]]


def _words(*values: Any) -> list[str]:
    found = (_probe(partial(_WORD.fullmatch, value), _MATCH) for value in values)
    return [match[0] for match in found if match is not None]


def _list(value: Any) -> list[Any]:
    """Return a plain copy of *value*, empty if it is no list."""
    return _probe(partial(_LIST.copy, value), _LIST) or []


def _mapping(value: Any) -> dict[Any, Any]:
    """Return a plain copy of *value*, empty if it is no mapping."""
    return _probe(lambda: {**value}, _DICT) or {}


def _attribute(holder: Any, name: str, kind: type[_T]) -> _T | None:
    return _probe(lambda: getattr(holder, name, None), kind)


def _probe(look: Callable[[], object], kind: type[_T]) -> _T | None:
    try:
        found = look()
        return found if isinstance(found, kind) else None
    except Exception:  # noqa: BLE001 - what is looked at is foreign: httpx's properties raise, and a proxy's may do anything
        return None
