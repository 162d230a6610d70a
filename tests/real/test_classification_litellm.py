"""Holds `classify` to what litellm, db-ally and openai's SDK really raise when a provider fails, in all its ways."""

import asyncio
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from overcoat import classification
from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.classification import Failure, Kind, classify
from overcoat.testing import (
    Provider,
    Step,
    anthropic_error,
    content_filter_refused,
    context_length_exceeded,
    dropped,
    error,
    error_body_with_200,
    insufficient_quota,
    invalid_json,
    rate_limited,
    raw,
    slow,
)

from .parts import need

CHAT = [{"role": "user", "content": "Why?"}]
MODELS = {
    "openai": "openai/gpt-4o",
    "azure": "azure/gpt-4o",
    "anthropic": "anthropic/claude-sonnet-4-5",
    "gemini": "gemini/gemini-2.5-flash",
}
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NEVER = {"x-should-retry": "false"}
TOO_LONG = "prompt is too long: 210000 tokens > 200000 maximum"  # which has no code; litellm knows the text
INVALID_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
SPENT = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}
ANTHROPIC_SPENT = {
    "anthropic-ratelimit-tokens-remaining": "0",
    "anthropic-ratelimit-tokens-reset": "2026-11-23T12:00:05Z",
}


RETRYABLE = {"rate_limited", "overloaded", "server_error", "timeout", "connection", "bad_output"}


@dataclass(frozen=True)
class Scenario:
    """One way to fail, and what is to be found out about it."""

    name: str
    step: Step | None  # None: nobody listens
    kind: str
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    forbidden: bool = False
    seconds: float = 30
    has_request_id: bool = True
    provider: str = "openai"
    quota: ProviderQuota | None = None

    def failure(self, request_id: str | None) -> Failure:
        answered = self.status is not None and self.has_request_id
        return Failure(
            Kind(self.kind),
            self.status,
            self.code,
            self.retry_after,
            request_id if answered else None,
            self.kind in RETRYABLE and not self.forbidden,
            self.quota,
        )

    def __str__(self) -> str:
        return f"{self.provider}: {self.name}"


def anthropic_detail(code: str) -> Step:
    said = {"type": "rate_limit_error", "message": "No.", "details": {"error_code": code}}
    return raw(429, {"retry-after": "9"}, {"type": "error", "error": said})


def google(status: int, word: str, *details: Mapping[str, Any]) -> Step:
    said = {"code": status, "message": "No.", "status": word, "details": details}
    return raw(status, None, {"error": said})


def google_quota(period: str) -> Step:
    limit = {"quotaMetric": "requests", "quotaId": f"GenerateRequests{period}PerProjectPerModel-FreeTier"}
    failure = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [limit]}
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.8s"}
    return google(429, "RESOURCE_EXHAUSTED", failure, info)


OF_OPENAI = [
    Scenario("429", rate_limited(), "rate_limited", 429, "rate_limit_exceeded"),
    Scenario("429 seconds", rate_limited(7), "rate_limited", 429, "rate_limit_exceeded", 7),
    Scenario("429 ms", rate_limited(7, retry_after_ms=250), "rate_limited", 429, "rate_limit_exceeded", 0.25),
    Scenario("429 date", rate_limited(NOW + timedelta(seconds=30)), "rate_limited", 429, "rate_limit_exceeded", 30),
    Scenario(
        "429 reset",
        error(429, headers=SPENT),
        "rate_limited",
        429,
        "rate_limit_exceeded",
        360,
        quota=ProviderQuota(tokens_remaining=0, tokens_reset=360),
    ),
    Scenario("429 no", error(429, headers=NEVER), "rate_limited", 429, "rate_limit_exceeded", forbidden=True),
    Scenario("quota", insufficient_quota(), "quota_exhausted", 429, "insufficient_quota"),
    Scenario("400", error(400, "invalid_value"), "bad_request", 400, "invalid_value"),
    Scenario("400 context", context_length_exceeded(), "context_too_long", 400, "context_length_exceeded"),
    Scenario("400 filter", content_filter_refused(), "content_filtered", 400, "content_filter"),
    Scenario("401", error(401, "invalid_api_key"), "auth", 401, "invalid_api_key"),
    Scenario("402", error(402, "unpaid"), "quota_exhausted", 402, "unpaid"),
    Scenario("403", error(403, "unsupported_country"), "auth", 403, "unsupported_country"),
    Scenario("404", error(404, "model_not_found"), "bad_request", 404, "model_not_found"),
    Scenario("408", error(408, "late"), "timeout", 408, "late"),
    Scenario("409", error(409, "conflict"), "server_error", 409, "conflict"),
    Scenario("413", error(413, "tokens"), "context_too_long", 413, "tokens"),
    Scenario("422", error(422, "odd"), "bad_request", 422, "odd"),
    Scenario("500", error(500, "broken"), "server_error", 500, "broken"),
    Scenario("502 page", raw(502, {"content-type": "text/html"}, "<html>"), "server_error", 502),
    Scenario("503", error(503, "slow_down"), "overloaded", 503, "slow_down"),
    Scenario("504", error(504, "late"), "server_error", 504, "late"),
    Scenario("529", error(529, "busy"), "overloaded", 529, "busy"),
]

OF_ANTHROPIC = [
    Scenario("429", anthropic_error(429), "rate_limited", 429, "rate_limit_error"),
    Scenario(
        "429 reset",
        anthropic_error(429, None, ANTHROPIC_SPENT),
        "rate_limited",
        429,
        "rate_limit_error",
        5,
        quota=ProviderQuota(tokens_remaining=0, tokens_reset=5),
    ),
    Scenario("429 ramp", anthropic_detail("ramp_limit_exceeded"), "rate_limited", 429, "ramp_limit_exceeded", 9),
    Scenario(
        "429 spend",
        anthropic_detail("enforced_spend_limit_reached"),
        "quota_exhausted",
        429,
        "enforced_spend_limit_reached",
        9,
    ),
    Scenario("400", anthropic_error(400), "bad_request", 400, "invalid_request_error"),
    Scenario("400 context", anthropic_error(400, TOO_LONG), "context_too_long", 400, "invalid_request_error"),
    Scenario("401", anthropic_error(401), "auth", 401, "authentication_error"),
    Scenario("402", anthropic_error(402), "quota_exhausted", 402, "billing_error"),
    Scenario("403", anthropic_error(403), "auth", 403, "permission_error"),
    Scenario("404", anthropic_error(404), "bad_request", 404, "not_found_error"),
    Scenario("413", anthropic_error(413), "context_too_long", 413, "request_too_large"),
    Scenario("500", anthropic_error(500), "server_error", 500, "api_error"),
    Scenario("504", anthropic_error(504), "server_error", 504, "timeout_error"),
    Scenario("529", anthropic_error(529, None, {"retry-after": "3"}), "overloaded", 529, "overloaded_error", 3),
]

OF_GOOGLE = [
    Scenario("429 minute", google_quota("PerMinute"), "rate_limited", 429, "RESOURCE_EXHAUSTED", 45.8),
    Scenario("429 day", google_quota("PerDay"), "quota_exhausted", 429, "RESOURCE_EXHAUSTED", 45.8),
    Scenario("400", google(400, "INVALID_ARGUMENT"), "bad_request", 400, "INVALID_ARGUMENT"),
    Scenario("400 key", google(400, "INVALID_ARGUMENT", INVALID_KEY), "auth", 400, "API_KEY_INVALID"),
    Scenario("403", google(403, "PERMISSION_DENIED"), "auth", 403, "PERMISSION_DENIED"),
    Scenario("404", google(404, "NOT_FOUND"), "bad_request", 404, "NOT_FOUND"),
    Scenario("500", google(500, "INTERNAL"), "server_error", 500, "INTERNAL"),
    Scenario("503", google(503, "UNAVAILABLE"), "overloaded", 503, "UNAVAILABLE"),
    Scenario("504", google(504, "DEADLINE_EXCEEDED"), "server_error", 504, "DEADLINE_EXCEEDED"),
]

OF_ALL = [
    Scenario("not JSON", invalid_json(), "bad_output"),
    Scenario("dropped", dropped(), "connection"),
    Scenario("dropped midway", dropped(midway=True), "connection"),
    Scenario("silence", slow(60), "timeout", seconds=0.2),
    Scenario("nobody listens", None, "connection"),
]

# In these an SDK sees no error at all.
UNDER_LITELLM = [
    Scenario("502 with 200", error_body_with_200(), "server_error", 502, has_request_id=False),
    Scenario(
        "quota with 200",
        raw(200, None, {"error": {"message": "No.", "code": "insufficient_quota"}}),
        "quota_exhausted",
        None,
        "insufficient_quota",
    ),
    Scenario(
        "overload with 200",
        raw(200, None, {"type": "error", "error": {"type": "overloaded_error", "message": "No."}}),
        "server_error",  # what is left of the type is text
        200,
        provider="anthropic",
    ),
]


def of(provider: str, scenarios: list[Scenario]) -> list[Scenario]:
    return [replace(scenario, provider=provider) for scenario in [*scenarios, *OF_ALL]]


OPENAI_AND_AZURE = [*of("openai", OF_OPENAI), *of("azure", OF_OPENAI)]
SCENARIOS = [*OPENAI_AND_AZURE, *of("anthropic", OF_ANTHROPIC), *of("gemini", OF_GOOGLE), *UNDER_LITELLM]


async def call_litellm(model: str, url: str, seconds: float) -> object:
    return await need("litellm").acompletion(
        model, CHAT, base_url=url, api_key="any", api_version="2024-10-21", max_retries=0, timeout=seconds
    )


async def call_dbally(model: str, url: str, seconds: float) -> object:
    dbally = need("dbally.llms.clients.litellm")

    @dataclass
    class OneRequest(dbally.LiteLLMOptions):
        max_retries: int = 0
        timeout: float = 30

    client = dbally.LiteLLMClient(model, base_url=url, api_key="any", api_version="2024-10-21")
    return await client.call(
        CHAT, OneRequest(timeout=seconds), need("dbally.audit.events").LLMEvent(prompt=CHAT, type="test")
    )


async def call_openai(model: str, url: str, seconds: float) -> object:
    openai = need("openai")
    settings: dict[str, Any] = {"api_key": "any", "max_retries": 0, "timeout": seconds}
    if model.startswith("azure/"):
        client = openai.AsyncAzureOpenAI(azure_endpoint=url, api_version="2024-10-21", **settings)
    else:
        client = openai.AsyncOpenAI(base_url=url, **settings)
    async with client:
        return await client.chat.completions.create(model=model.partition("/")[2], messages=CHAT)


CASES = [
    pytest.param(call, scenario, id=f"{name} {scenario}")
    for name, call, scenarios in [
        ("litellm", call_litellm, SCENARIOS),
        ("dbally", call_dbally, SCENARIOS),
        ("sdk", call_openai, OPENAI_AND_AZURE),
    ]
    for scenario in scenarios
]


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


@pytest.fixture(scope="module")
def runner():
    """One event loop for all: litellm keeps connections for each, and leaves them open when the loop is gone."""
    litellm = need("litellm")
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as running:
        patch.setattr(litellm, "suppress_debug_info", True)  # else it prints advice
        yield running
        running.run(litellm.close_litellm_async_clients())


@pytest.fixture
def closed_port():
    """A port where nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def fail(call, scenario, runner, provider, closed_port):
    """Return what the call raises, what was being handled when it began, and which requests arrived."""
    provider.reset()
    if scenario.step is not None:
        provider.script(scenario.step)
    root = provider.url.removesuffix("/v1") if scenario.step is not None else f"http://127.0.0.1:{closed_port}"
    url = f"{root}/v1" if scenario.provider == "openai" else root

    async def run():
        ambient = sys.exception()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, is what classify finds out
            await call(MODELS[scenario.provider], url, scenario.seconds)
        return caught.value, ambient

    return *runner.run(run()), provider.requests


@pytest.mark.parametrize(("call", "scenario"), CASES)
def test_a_failure(call, scenario, runner, provider, closed_port):
    caught, ambient, requests = fail(call, scenario, runner, provider, closed_port)
    assert ambient is None
    assert len(requests) == (scenario.step is not None)
    expected = scenario.failure(requests[0].request_id if requests else None)
    assert classify(caught, now=NOW.timestamp()) == expected


@pytest.mark.parametrize(("call", "scenario"), CASES)
def test_a_failure_while_another_is_handled(call, scenario, runner, provider, closed_port):
    """Python chains the one that is being handled below the new one; the deepest status is then the wrong one."""
    request = httpx.Request("POST", "https://elsewhere.example.com")
    decoy = httpx.HTTPStatusError("no", request=request, response=httpx.Response(401, request=request))
    try:
        raise decoy
    except httpx.HTTPStatusError:
        caught, ambient, requests = fail(call, scenario, runner, provider, closed_port)
    assert ambient is decoy
    expected = scenario.failure(requests[0].request_id if requests else None)
    assert classify(caught, ambient=ambient, now=NOW.timestamp()) == expected


PARTS_OF_THE_TEST = ("litellm", "openai", "dbally")
HOMES = {"dbally": "dbally.llms.clients.exceptions", "litellm": "litellm.exceptions", "overcoat": "overcoat.errors"}


@pytest.mark.parametrize(("root", "name"), sorted({*classification._TRANSPORT, *classification._WRAPPERS}))
def test_the_classes_that_are_known_by_name_exist(root, name):
    """Where a package renames one, nothing else breaks that would be noticed."""
    home = HOMES.get(root, root)
    module = need(home) if root in PARTS_OF_THE_TEST else pytest.importorskip(home)
    cls = getattr(module, name)
    assert (cls.__module__.partition(".")[0], cls.__name__) == (root, name)
    assert issubclass(cls, BaseException)
