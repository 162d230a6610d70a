"""Holds `classify` to its table, with the real exceptions of SDKs and HTTP clients, and to never raising itself."""

import asyncio
import json
import math
import socket
import ssl
import types
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.classification import Failure, Kind, classify
from overcoat.errors import (
    AttemptTimeout,
    CircuitOpen,
    DeadlineExceeded,
    LLMConnectionError,
    LLMError,
    LLMStatusError,
    RateLimited,
)

from .real.parts import need

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
REQUEST = httpx.Request("POST", "https://api.example.com/v1/chat/completions")
RETRYABLE = {"rate_limited", "overloaded", "server_error", "timeout", "connection", "bad_output"}


def http_error(status, body=None, headers=None):
    """Return what httpx raises for a response."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = httpx.Response(status, headers=headers, content=content, request=REQUEST)
    return httpx.HTTPStatusError(f"status {status}", request=REQUEST, response=response)


def foreign(qualified_name, *bases, **attributes):
    """Return an instance of a class of a package that is not there, with these attributes."""
    module, _, name = qualified_name.rpartition(".")
    cls = type(name, bases or (Exception,), {"__module__": module})
    error = cls()
    vars(error).update(attributes)
    return error


def chained(*errors):
    """Return the first, with the second as its context, and so on."""
    for error, origin in pairwise(errors):
        error.__context__ = origin
    return errors[0]


# --- what the provider's response says ---


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "bad_output"),
        (301, "bad_request"),
        (400, "bad_request"),
        (401, "auth"),
        (402, "quota_exhausted"),
        (403, "auth"),
        (404, "bad_request"),
        (408, "timeout"),
        (409, "server_error"),
        (413, "context_too_long"),
        (418, "bad_request"),
        (422, "bad_request"),
        (429, "rate_limited"),
        (500, "server_error"),
        (502, "server_error"),
        (503, "overloaded"),
        (504, "server_error"),
        (520, "server_error"),
        (529, "overloaded"),
    ],
)
def test_a_status_without_a_code(status, kind):
    assert classify(http_error(status, b"<html>no</html>")) == Failure(Kind(kind), status, retryable=kind in RETRYABLE)
    assert Kind.of_status(status) == kind


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (429, {"type": "requests", "code": "rate_limit_exceeded"}, "rate_limited", "rate_limit_exceeded"),
        (429, {"type": "insufficient_quota", "code": None}, "quota_exhausted", "insufficient_quota"),
        (
            429,
            {"type": "insufficient_quota", "code": "credit_balance_exhausted"},
            "quota_exhausted",
            "credit_balance_exhausted",
        ),
        (429, {"code": "project_spend_limit_exceeded"}, "quota_exhausted", "project_spend_limit_exceeded"),
        (429, {"code": "organization_usage_limit_exceeded"}, "quota_exhausted", "organization_usage_limit_exceeded"),
        (429, {"type": "INSUFFICIENT QUOTA", "code": 429}, "rate_limited", None),
        (429, {"message": "insufficient_quota"}, "rate_limited", None),
        (429, {"code": "slow_down"}, "overloaded", "slow_down"),
        (413, {"type": "tokens", "code": "rate_limit_exceeded"}, "context_too_long", "rate_limit_exceeded"),
        (400, {"code": "context_length_exceeded"}, "context_too_long", "context_length_exceeded"),
        (
            400,
            {"code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}},
            "content_filtered",
            "content_filter",
        ),
        (400, {"code": "content_policy_violation"}, "content_filtered", "content_policy_violation"),
    ],
)
def test_codes_of_openai_and_azure(status, error, kind, code):
    failure = classify(http_error(status, {"error": error}))
    assert failure == Failure(Kind(kind), status, code, retryable=kind in RETRYABLE)


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (429, {"type": "rate_limit_error"}, "rate_limited", "rate_limit_error"),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}},
            "rate_limited",
            "ramp_limit_exceeded",
        ),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
            "quota_exhausted",
            "enforced_spend_limit_reached",
        ),
        (402, {"type": "billing_error"}, "quota_exhausted", "billing_error"),
        (400, {"type": "billing_error"}, "quota_exhausted", "billing_error"),
        (500, {"type": "overloaded_error"}, "overloaded", "overloaded_error"),
        (400, {"type": "invalid_request_error"}, "bad_request", "invalid_request_error"),
        (413, {"type": "request_too_large"}, "context_too_long", "request_too_large"),
    ],
)
def test_codes_of_anthropic(status, error, kind, code):
    failure = classify(http_error(status, {"type": "error", "error": error, "request_id": "req_1"}))
    assert failure == Failure(Kind(kind), status, code, retryable=kind in RETRYABLE)


def rpc(name, **fields):
    return {"@type": f"type.googleapis.com/google.rpc.{name}", **fields}


def quota(*ids):
    return rpc("QuotaFailure", violations=[{"quotaMetric": "requests", "quotaId": quota_id} for quota_id in ids])


PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: [body]], ids=["object", "list"])
@pytest.mark.parametrize(
    ("error", "kind", "code", "retry_after"),
    [
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, "rate_limited", "RESOURCE_EXHAUSTED", None),
        (
            {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [quota(PER_MINUTE), rpc("RetryInfo", retryDelay="45.8s")],
            },
            "rate_limited",
            "RESOURCE_EXHAUSTED",
            45.8,
        ),
        (
            {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [quota(PER_MINUTE, PER_DAY), rpc("RetryInfo", retryDelay="2s")],
            },
            "quota_exhausted",
            "RESOURCE_EXHAUSTED",
            2,
        ),
        (
            {"code": 400, "status": "INVALID_ARGUMENT", "details": [rpc("ErrorInfo", reason="API_KEY_INVALID")]},
            "auth",
            "API_KEY_INVALID",
            None,
        ),
        ({"code": 503, "status": "UNAVAILABLE"}, "overloaded", "UNAVAILABLE", None),
    ],
)
def test_codes_of_google(wrap, error, kind, code, retry_after):
    failure = classify(http_error(error["code"], wrap({"error": error})))
    assert failure == Failure(Kind(kind), error["code"], code, retry_after, retryable=kind in RETRYABLE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"insufficient_quota"',
        b'{"error": "insufficient_quota"}',
        b'{"error": {"code": ["insufficient_quota"]}}',
        b'{"error": {"details": [null, 1, {"violations": {"quotaId": "PerDay"}}]}}',
        b'{"error": {"code": "\xff"}}',
        b"[" * 50_000,
        json.dumps({"error": {"code": "insufficient_quota", "message": "x" * 70_000}}).encode(),
        json.dumps({"error": {"code": "insufficient quota"}}).encode(),
        json.dumps({"error": {"code": "x" * 129}}).encode(),
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_body_without_a_code_that_makes_sense_leaves_the_status(body):
    assert classify(http_error(429, body)) == Failure(Kind.RATE_LIMITED, 429, retryable=True)


def test_a_body_that_was_not_read_leaves_the_status():
    """The content of a streamed response is a property that raises."""
    response = httpx.Response(429, stream=httpx.ByteStream(b"{}"), request=REQUEST)
    error = httpx.HTTPStatusError("429", request=REQUEST, response=response)
    assert classify(error) == Failure(Kind.RATE_LIMITED, 429, retryable=True)


@pytest.mark.parametrize(
    ("header", "request_id"),
    [
        ({"x-request-id": "req_1"}, "req_1"),
        ({"request-id": "req_2"}, "req_2"),
        ({"apim-request-id": "3f"}, "3f"),
        ({"X-Request-ID": "req_1", "apim-request-id": "3f"}, "req_1"),
        ({"x-request-id": "x" * 129, "request-id": "req_2"}, "req_2"),
        ({"x-request-id": "a b"}, None),
        ({}, None),
    ],
)
def test_the_request_id(header, request_id):
    assert classify(http_error(500, headers=header)).request_id == request_id


@pytest.mark.parametrize(
    ("headers", "retry_after"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"x-ratelimit-remaining-tokens": "1", "x-ratelimit-reset-tokens": "6m0s"}, None),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-11-23T12:00:05Z"},
            5,
        ),
    ],
)
def test_the_delay_that_the_server_names(headers, retry_after):
    assert classify(http_error(429, headers=headers), now=NOW).retry_after == retry_after


def test_a_date_is_compared_with_the_clock():
    soon = datetime.now(UTC) + timedelta(hours=1)
    failure = classify(http_error(429, headers={"retry-after": soon.strftime("%a, %d %b %Y %H:%M:%S GMT")}))
    assert failure.retry_after == pytest.approx(3600, abs=60)


def test_the_server_can_forbid_a_repetition_but_not_order_one():
    assert not classify(http_error(500, headers={"x-should-retry": "false"})).retryable
    assert not classify(http_error(400, headers={"x-should-retry": "true"})).retryable
    assert classify(http_error(500, headers={"x-should-retry": "true"})).retryable


# --- SDKs, by the real ones ---


def raised(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, is what the test finds out
        call()
    return caught.value


def ask_openai(handler):
    openai = need("openai")
    client = openai.OpenAI(
        api_key="any",
        base_url="https://api.example.com/v1",
        max_retries=0,
        http_client=httpx.Client(transport=httpx.MockTransport(handler)),
    )
    with client:
        return raised(lambda: client.chat.completions.create(model="gpt-4o", messages=[]))


def ask_anthropic(handler):
    anthropic = need("anthropic")
    http = need("httpx2")
    client = anthropic.Anthropic(
        api_key="any", max_retries=0, http_client=http.Client(transport=http.MockTransport(handler))
    )
    with client:
        return raised(lambda: client.messages.create(model="claude", max_tokens=1, messages=[]))


def test_openai_refusal():
    body = {"error": {"message": "Slow", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    headers = {"retry-after-ms": "250", "x-request-id": "req_1"}
    error = ask_openai(lambda _: httpx.Response(429, json=body, headers=headers))
    assert classify(error) == Failure(Kind.RATE_LIMITED, 429, "rate_limit_exceeded", 0.25, "req_1", retryable=True)


def test_anthropic_refusal():
    http = need("httpx2")
    error = {"type": "rate_limit_error", "message": "Spent", "details": {"error_code": "enforced_spend_limit_reached"}}
    headers = {"retry-after": "9", "request-id": "req_1", "x-should-retry": "true"}
    failure = classify(
        ask_anthropic(lambda _: http.Response(429, json={"type": "error", "error": error}, headers=headers))
    )
    assert failure == Failure(Kind.QUOTA_EXHAUSTED, 429, "enforced_spend_limit_reached", 9, "req_1", retryable=False)


def fails_with(error):
    def handler(_):
        raise error

    return handler


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("ConnectError", "connection"),
        ("ConnectTimeout", "connection"),
        ("PoolTimeout", "connection"),
        ("ReadError", "connection"),
        ("ReadTimeout", "timeout"),
        ("WriteTimeout", "timeout"),
        ("RemoteProtocolError", "connection"),
        ("LocalProtocolError", "bad_request"),
        ("UnsupportedProtocol", "bad_request"),
        ("ProxyError", "connection"),
    ],
)
def test_transport_failures_bare_and_under_sdks(cause, kind):
    """An SDK calls a connection that took too long a timeout; but nothing was sent, so nothing can have been billed."""
    expected = Failure(Kind(kind), retryable=kind in RETRYABLE)
    bare = getattr(httpx, cause)("it broke")
    assert classify(bare) == expected
    assert classify(ask_openai(fails_with(bare))) == expected
    http = need("httpx2")
    assert classify(ask_anthropic(fails_with(getattr(http, cause)("it broke")))) == expected


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_sdk_failures_without_an_origin(sdk):
    """As they look after a trip through pickle, or from a test double."""
    package = need(sdk)
    request = httpx.Request("POST", "https://api.example.com")
    response = httpx.Response(200, request=request)
    assert classify(package.APIConnectionError(request=request)).kind == "connection"
    assert classify(package.APITimeoutError(request=request)).kind == "timeout"
    assert classify(package.APIResponseValidationError(response, None)).kind == "bad_output"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"code": "rate_limit_exceeded"}, "rate_limited", "rate_limit_exceeded"),
        ({"type": "insufficient_quota"}, "quota_exhausted", "insufficient_quota"),
        ({"type": "overloaded_error"}, "overloaded", "overloaded_error"),
        ({"type": "invalid_request_error"}, "bad_request", "invalid_request_error"),
        ({"code": "never_heard_of"}, "server_error", "never_heard_of"),
        (None, "server_error", None),
    ],
)
def test_an_error_in_the_middle_of_a_stream(body, kind, code):
    """It came with status 200: the code is all there is."""
    openai = need("openai")
    failure = classify(openai.APIError("the stream broke", REQUEST, body=body))
    assert failure == Failure(Kind(kind), None, code, retryable=kind in RETRYABLE)


def test_openai_structured_outputs():
    openai = need("openai")
    assert classify(openai.ContentFilterFinishReasonError()).kind == "content_filtered"
    cut_off = openai.LengthFinishReasonError(completion=types.SimpleNamespace(usage=None))
    assert classify(cut_off) == Failure(Kind.BAD_OUTPUT, retryable=True)


# --- everything else that is raised ---


def json_error():
    return raised(lambda: json.loads("{"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncio.CancelledError(), "cancelled"),
        (KeyboardInterrupt(), "cancelled"),
        (SystemExit(429), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (TimeoutError(), "timeout"),
        (AttemptTimeout(8), "timeout"),
        (DeadlineExceeded(15, 16), "deadline_exceeded"),
        (ConnectionResetError(), "connection"),
        (ConnectionRefusedError(), "connection"),
        (BrokenPipeError(), "connection"),
        (socket.gaierror(-2, "Name or service not known"), "connection"),
        (ssl.SSLEOFError(), "connection"),
        (OSError(113, "No route to host"), "connection"),
        (OSError("Multiple exceptions: ..."), "connection"),
        (FileNotFoundError(2, "no prompt.txt"), "unknown"),
        (PermissionError(13, "no"), "unknown"),
        (json_error(), "bad_output"),
        (ValueError("x"), "unknown"),
        (ExceptionGroup("both", [TimeoutError(), ValueError()]), "unknown"),
        (foreign("aiohttp.client_exceptions.ServerDisconnectedError", Exception), "unknown"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_exceptions_of_python_and_ours(error, kind):
    failure = classify(error)
    assert failure == Failure(Kind(kind), retryable=kind in RETRYABLE)


def test_aiohttp():
    aiohttp = need("aiohttp")
    assert classify(aiohttp.ServerDisconnectedError()).kind == "connection"
    assert classify(aiohttp.ClientPayloadError()).kind == "connection"
    assert classify(aiohttp.ConnectionTimeoutError()).kind == "connection"
    assert classify(aiohttp.SocketTimeoutError()).kind == "timeout"
    refused = aiohttp.ClientResponseError(None, (), status=429, headers={"Retry-After": "7"})
    assert classify(refused) == Failure(Kind.RATE_LIMITED, 429, retry_after=7, retryable=True)


def test_requests():
    requests = need("requests")
    assert classify(requests.ReadTimeout()).kind == "timeout"
    assert classify(requests.ConnectTimeout()).kind == "connection"
    assert classify(requests.JSONDecodeError("no", "{", 1)).kind == "bad_output"
    response = requests.Response()
    response.status_code = 429
    response.headers["Retry-After"] = "7"
    assert classify(requests.HTTPError(response=response)) == Failure(
        Kind.RATE_LIMITED, 429, retry_after=7, retryable=True
    )


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (LLMStatusError("overloaded", 529), "overloaded", 529),
        (LLMStatusError("?", 0), "unknown", None),
        (foreign("dbally.llms.clients.exceptions.LLMStatusError", status_code=401), "auth", 401),
        (foreign("dbally.llms.clients.exceptions.LLMConnectionError"), "connection", None),
        (foreign("dbally.llms.clients.exceptions.LLMResponseError"), "bad_output", None),
        (foreign("mistralai.models.SDKError", status_code="503"), "overloaded", 503),
        (foreign("google.genai.errors.APIError", code=429, status="RESOURCE_EXHAUSTED"), "rate_limited", 429),
        (foreign("some.client.Broken", status_code="broken"), "unknown", None),
        (foreign("some.client.Broken", status_code=1006), "unknown", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_clients_that_only_say_a_status(error, kind, status):
    failure = classify(error)
    assert (failure.kind, failure.status, failure.retryable) == (kind, status, kind in RETRYABLE)


def test_an_exception_can_say_what_it_is():
    class OutOfCoffee(Exception):
        kind = Kind.RATE_LIMITED
        retry_after = 240

    assert classify(OutOfCoffee()) == Failure(Kind.RATE_LIMITED, retry_after=240, retryable=True)
    assert classify(chained(LLMError("no"), CircuitOpen("gpt-4o", 5))) == Failure(Kind.REFUSED, retry_after=5)


@pytest.mark.parametrize("kind", ["rate_limited", 1, None, object()])
def test_a_kind_that_is_none_of_ours_says_nothing(kind):
    assert classify(foreign("some.client.Error", kind=kind)).kind == "unknown"


@pytest.mark.parametrize("retry_after", [-1, math.nan, math.inf, "soon", None, 10**400])
def test_a_delay_of_a_refusal_that_makes_no_sense_is_none(retry_after):
    error = RateLimited()
    error.retry_after = retry_after
    assert classify(error) == Failure(Kind.REFUSED)


# --- chains ---


def test_the_nearest_that_was_there_decides():
    """A fallback that fails after a first failure: what failed last is what failed."""
    assert classify(chained(LLMError("no"), httpx.ConnectError("no"), http_error(401))).kind == "connection"
    assert classify(chained(LLMError("no"), http_error(401), httpx.ConnectError("no"))).kind == "auth"


def test_causes_come_before_contexts():
    error = LLMError("no")
    error.__cause__, error.__context__ = http_error(401), http_error(500)
    assert classify(error).kind == "auth"


def test_a_response_outweighs_whatever_wrappers_say():
    wrapper = LLMStatusError("Internal", 500)
    origin = http_error(529, {"type": "error", "error": {"type": "overloaded_error"}}, {"retry-after": "3"})
    assert classify(chained(wrapper, origin)) == Failure(Kind.OVERLOADED, 529, "overloaded_error", 3, retryable=True)


def test_json_that_does_not_parse_outweighs_wrappers_but_not_a_response():
    assert classify(chained(LLMStatusError("Internal", 500), json_error())) == Failure(Kind.BAD_OUTPUT, retryable=True)
    assert classify(chained(json_error(), http_error(502, b"<html>"))).kind == "server_error"


def test_of_wrappers_the_nearest_to_the_origin_is_believed():
    timeout = foreign("openai.APITimeoutError", status_code=500)
    assert classify(chained(LLMConnectionError(), timeout)) == Failure(Kind.TIMEOUT, retryable=True)
    assert classify(chained(LLMStatusError("?", 500), foreign("x.Y", status_code=529))).status == 529


class _ApiError(Exception):
    pass


_ApiError.__module__, _ApiError.__name__ = "openai._exceptions", "APIError"


def litellm_error(name, *bases, **attributes):
    """Return an error of litellm's kind: its response is made up, its headers are real."""
    attributes.setdefault("response", types.SimpleNamespace(status_code=400, headers={}, content=b""))
    return foreign(f"litellm.exceptions.{name}", *bases, **attributes)


def test_a_response_that_litellm_made_up_is_no_response():
    error = litellm_error("APIError", _ApiError, status_code=500)
    assert classify(chained(error, httpx.ConnectError("no"))).kind == "connection"


def test_the_headers_that_litellm_kept_are_read():
    headers = httpx.Headers({"Retry-After": "7", "x-request-id": "req_1", "x-should-retry": "false"})
    error = litellm_error("RateLimitError", _ApiError, status_code=429, litellm_response_headers=headers)
    assert classify(error) == Failure(Kind.RATE_LIMITED, 429, None, 7, "req_1", retryable=False)


def test_the_body_that_litellm_kept_is_read():
    error = litellm_error("RateLimitError", _ApiError, status_code=429, body={"code": "insufficient_quota"})
    assert classify(error) == Failure(Kind.QUOTA_EXHAUSTED, None, "insufficient_quota")
    message = json.dumps({"error": {"status": "RESOURCE_EXHAUSTED", "details": [rpc("RetryInfo", retryDelay="4s")]}})
    origin = foreign("litellm.llms.vertex_ai.VertexAIError", status_code=429, message=message)
    error = chained(litellm_error("RateLimitError", _ApiError, status_code=429), origin)
    assert classify(error) == Failure(Kind.RATE_LIMITED, 429, "RESOURCE_EXHAUSTED", 4, retryable=True)


@pytest.mark.parametrize(
    ("told", "kind", "status", "code"),
    [
        ("insufficient_quota", "quota_exhausted", None, "insufficient_quota"),
        ("rate_limit_exceeded", "rate_limited", None, "rate_limit_exceeded"),
        ("boom", "server_error", None, "boom"),
        ("429", "rate_limited", 429, None),
        (200, "server_error", 200, None),
        (None, "server_error", None, None),
    ],
)
def test_an_error_that_came_with_status_200(told, kind, status, code):
    """Then litellm puts the code in the place of the status."""
    failure = classify(litellm_error("APIError", _ApiError, status_code=told))
    assert failure == Failure(Kind(kind), status, code, retryable=kind in RETRYABLE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ContextWindowExceededError", "context_too_long"), ("ContentPolicyViolationError", "content_filtered")],
)
def test_litellm_is_believed_on_what_it_reads_in_texts_only_where_the_provider_says_no_more(name, kind):
    """Anthropic and Google have no code for it, and litellm keeps up with their texts."""
    bare = http_error(400, {"type": "error", "error": {"type": "invalid_request_error"}})
    assert classify(chained(LLMError("no"), litellm_error(name), bare)) == Failure(
        Kind(kind), 400, "invalid_request_error"
    )
    assert classify(litellm_error(name)).kind == kind
    assert classify(chained(litellm_error(name), http_error(500))).kind == "server_error"
    assert classify(chained(litellm_error("BudgetExceededError"), bare)).kind == "bad_request"


def test_of_bodies_and_headers_too_the_nearest_to_the_origin_is_believed():
    wrapper = foreign("x.Y", status_code=429, body={"code": "outer"}, headers={"retry-after": "1"})
    origin = foreign("x.Y", status_code=429, body={"code": "inner"}, headers={"retry-after": "2"})
    assert classify(chained(wrapper, origin)) == Failure(Kind.RATE_LIMITED, 429, "inner", 2, retryable=True)


def test_the_http_error_whose_url_litellm_masks_holds_the_real_response():
    response = http_error(529, {"error": {"code": "busy"}}, {"retry-after": "7", "x-request-id": "req_1"}).response
    cls = type("MaskedHTTPStatusError", (httpx.HTTPStatusError,), {"__module__": "litellm.llms.custom_httpx"})
    masked = cls("masked", request=REQUEST, response=response)
    failure = classify(chained(litellm_error("InternalServerError", status_code=500), masked))
    assert failure == Failure(Kind.OVERLOADED, 529, "busy", 7, "req_1", retryable=True)


@pytest.mark.parametrize("status", [-1, 0, 99, 600, 1006, None, ""])
def test_a_number_that_is_no_status_is_none(status):
    """Also where a response has it: then there was no answer worth the name."""
    assert classify(foreign("x.Y", status_code=status)) == Failure(Kind.UNKNOWN)
    response = types.SimpleNamespace(status_code=status, headers={"retry-after": "7"}, content=b"")
    assert classify(foreign("x.Y", response=response)) == Failure(Kind.UNKNOWN)


# --- what was being handled before ---


def test_what_was_being_handled_is_not_to_blame():
    """Whoever calls from an except block has Python chain that block's error below ours."""
    try:
        raise http_error(429, {"error": {"code": "insufficient_quota"}})
    except httpx.HTTPStatusError as error:
        ambient = error
        bug = raised(lambda: {}["x"])
        lost = raised(lose_connection)

    assert classify(bug).kind == "quota_exhausted"
    assert classify(bug, ambient=ambient).kind == "unknown"
    assert classify(lost, ambient=ambient) == Failure(Kind.CONNECTION, retryable=True)
    assert classify(ambient, ambient=ambient).kind == "quota_exhausted"


def lose_connection():
    try:
        raise ConnectionResetError  # noqa: TRY301 - an inner function would be nothing but this line
    except ConnectionResetError as cause:
        raise LLMStatusError("Internal", 500) from cause


def test_an_ambient_error_elsewhere_changes_nothing():
    assert classify(http_error(429), ambient=http_error(401)).kind == "rate_limited"


def test_circular_chains_end():
    first, second = LLMError("first"), LLMError("second")
    first.__cause__, second.__cause__ = second, first
    assert classify(first).kind == "unknown"
    second.__cause__ = None
    first.__cause__ = None
    first.__context__, second.__context__ = second, second
    assert classify(first).kind == "unknown"


# --- whatever comes ---


class Hostile:
    """Raises whatever is asked of it."""

    def _refuse(self, *_):
        raise RuntimeError("no")

    __bool__ = __len__ = __iter__ = __int__ = __float__ = __index__ = __str__ = __repr__ = __eq__ = _refuse
    __getitem__ = __call__ = __hash__ = __contains__ = keys = items = copy = _refuse

    def __getattr__(self, name):
        raise RuntimeError(name)

    __class__ = property(_refuse)


class HostileError(Exception):
    """Raises whatever is asked of it, its chain included."""

    def _refuse(self):
        raise RuntimeError("no")

    __cause__ = __context__ = __class__ = property(_refuse)
    response = body = kind = headers = status_code = message = property(_refuse)

    def __bool__(self):
        raise RuntimeError("no")


class HostileExit(BaseException):
    """One of those that are no `Exception`."""

    __class__ = HostileError.__dict__["__class__"]


def test_hostile_errors():
    assert classify(HostileError()) == Failure(Kind.UNKNOWN)
    assert classify(HostileExit()) == Failure(Kind.CANCELLED)


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=90, max_value=610)
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(["429", "insufficient_quota", "-1", "1e999", "nan", "9" * 5000, '{"error": {}}', b"[[", "{"])
    | st.sampled_from([Kind.TIMEOUT, Kind, object(), Exception, 10**400, 1j])
    | st.builds(Hostile)
)
keys = st.sampled_from(
    [
        "error",
        "code",
        "type",
        "status",
        "details",
        "error_code",
        "reason",
        "retryDelay",
        "violations",
        "quotaId",
        "retry-after",
        "Retry-After-Ms",
        "x-should-retry",
        "x-request-id",
        "x-ratelimit-reset-a",
        "x-ratelimit-remaining-a",
    ]
)
nested = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
statuses = st.integers(min_value=90, max_value=610)
codes = st.sampled_from(["insufficient_quota", "RESOURCE_EXHAUSTED", "a_spend_limit_reached", "content_filter", "429"])
bodies = st.dictionaries(keys, codes | nested, max_size=4)
responses = st.builds(
    types.SimpleNamespace,
    status_code=statuses | plain,
    headers=st.dictionaries(keys, st.sampled_from(["0", "7", "false", "1m"]) | plain) | plain,
    content=st.dictionaries(keys, codes | st.integers()).map(lambda body: json.dumps(body).encode()) | plain,
)
values = {
    "kind": plain,
    "response": responses | nested,
    "status_code": statuses | codes | plain,
    "status": statuses | codes | plain,
    "code": statuses | codes | plain,
    "headers": nested,
    "litellm_response_headers": st.dictionaries(keys, st.sampled_from(["0", "7", "false", "1m"]) | plain),
    "body": bodies | bodies.map(lambda body: {"error": body}) | nested,
    "message": st.dictionaries(keys, codes).map(json.dumps) | plain,
    "retry_after": plain,
}
modules = st.sampled_from(["litellm", "openai", "httpx", "dbally.llms", "", "overcoat"]) | nested
class_names = st.sampled_from(
    ["APIError", "Timeout", "HTTPStatusError", "LLMStatusError", "ContextWindowExceededError", "OSError"]
)


@st.composite
def exceptions(draw):
    """An exception whose class and attributes are anything."""
    base = draw(st.sampled_from([Exception, Exception, OSError, ValueError, HostileError]))
    error = type(draw(class_names), (base,), {"__module__": draw(modules)})()
    if base is not HostileError:
        vars(error).update(draw(st.fixed_dictionaries({}, optional=values)))
    return error


@given(st.lists(exceptions(), min_size=1, max_size=4), st.floats() | st.none())
def test_it_never_raises_and_always_makes_sense(errors, now):
    for error, origin in pairwise(errors):
        if not issubclass(type(error), HostileError):
            BaseException.__context__.__set__(error, origin)

    failure = classify(errors[0], now=now)

    assert type(failure) is Failure
    assert type(failure.kind) is Kind
    assert failure.status is None or 100 <= failure.status <= 599
    assert failure.code is None or (type(failure.code) is str and 1 <= len(failure.code) <= 128)
    assert failure.request_id is None or (type(failure.request_id) is str and len(failure.request_id) <= 128)
    assert failure.retry_after is None or (math.isfinite(failure.retry_after) and failure.retry_after >= 0)
    assert failure.retryable in ({False, True} if failure.kind.value in RETRYABLE else {False})


@given(st.integers(min_value=100, max_value=599), st.dictionaries(st.text(), st.text()), st.binary())
def test_any_response_keeps_its_status(status, headers, content):
    response = types.SimpleNamespace(status_code=status, headers=headers, content=content)
    failure = classify(foreign("some.client.Refused", response=response))
    assert failure.status == status


@given(st.lists(st.builds(LLMError, st.text()), max_size=5), st.integers(min_value=400, max_value=599))
def test_wrapping_changes_nothing(wrappers, status):
    error = http_error(status, headers={"retry-after": "3"})
    assert classify(chained(*wrappers, error)) == classify(error)


def test_a_failure_is_a_value():
    failure = Failure(Kind.TIMEOUT)
    assert failure == Failure(Kind.TIMEOUT, None, None, None, None, retryable=False)
    assert hash(failure) == hash(Failure(Kind.TIMEOUT))
    with pytest.raises(AttributeError):
        failure.kind = Kind.AUTH


def test_the_kinds_are_the_words_of_the_policy():
    """Configuration files and metric labels spell them so."""
    assert {kind.value for kind in Kind} == {
        *RETRYABLE,
        "quota_exhausted",
        "context_too_long",
        "content_filtered",
        "auth",
        "bad_request",
        "cancelled",
        "refused",
        "deadline_exceeded",
        "unknown",
    }
    assert {kind.value for kind in Kind if kind.retryable} == RETRYABLE
