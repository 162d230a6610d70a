"""Holds `classify` to what litellm, db-ally and openai's SDK really raise, for each way in which a provider can fail."""

import asyncio
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from overcoat import classification
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
SPENT = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}
ANTHROPIC_SPENT = {
    "anthropic-ratelimit-tokens-remaining": "0",
    "anthropic-ratelimit-tokens-reset": "2026-11-23T12:00:05Z",
}


@dataclass(frozen=True)
class Scenario:
    """One way to fail, and what is to be found out about it."""

    name: str
    provider: str
    step: Step | None  # None: nobody listens
    kind: str
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    retryable: bool = False
    timeout: float = 30
    has_request_id: bool | None = field(default=None, kw_only=True)

    def failure(self, request_id: str | None) -> Failure:
        with_id = self.status is not None if self.has_request_id is None else self.has_request_id
        return Failure(
            Kind(self.kind), self.status, self.code, self.retry_after, request_id if with_id else None, self.retryable
        )

    def __str__(self) -> str:
        return f"{self.provider}: {self.name}"


def anthropic_detail(status: int, kind: str, code: str, headers: Mapping[str, str] | None = None) -> Step:
    said = {"type": kind, "message": "No.", "details": {"error_code": code}}
    return raw(status, headers, {"type": "error", "error": said})


def google(status: int, word: str, *details: Mapping[str, Any]) -> Step:
    said = {"code": status, "message": "No.", "status": word, "details": details}
    return raw(status, None, {"error": said})


def quota(quota_id: str) -> Mapping[str, Any]:
    violation = {"quotaMetric": "generate_requests", "quotaId": f"{quota_id}PerProjectPerModel-FreeTier"}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "45.8s"}
INVALID_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


def of_openai(provider: str) -> list[Scenario]:
    """Return what OpenAI and Azure have in common; litellm maps the two differently."""
    return [
        Scenario(*scenario[:1], provider, *scenario[1:])
        for scenario in [
            ("429", rate_limited(), "rate_limited", 429, "rate_limit_exceeded", None, True),
            ("429 seconds", rate_limited(7), "rate_limited", 429, "rate_limit_exceeded", 7, True),
            (
                "429 milliseconds",
                rate_limited(7, retry_after_ms=250),
                "rate_limited",
                429,
                "rate_limit_exceeded",
                0.25,
                True,
            ),
            (
                "429 date",
                rate_limited(datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)),
                "rate_limited",
                429,
                "rate_limit_exceeded",
                30,
                True,
            ),
            ("429 reset", error(429, headers=SPENT), "rate_limited", 429, "rate_limit_exceeded", 360, True),
            (
                "429 forbidden",
                error(429, headers={"x-should-retry": "false"}),
                "rate_limited",
                429,
                "rate_limit_exceeded",
                None,
                False,
            ),
            ("quota", insufficient_quota(), "quota_exhausted", 429, "insufficient_quota"),
            ("400", error(400, "invalid_value"), "bad_request", 400, "invalid_value"),
            ("400 context", context_length_exceeded(), "context_too_long", 400, "context_length_exceeded"),
            ("400 filter", content_filter_refused(), "content_filtered", 400, "content_filter"),
            ("401", error(401, "invalid_api_key"), "auth", 401, "invalid_api_key"),
            ("402", error(402, "unpaid"), "quota_exhausted", 402, "unpaid"),
            ("403", error(403, "unsupported_country"), "auth", 403, "unsupported_country"),
            ("404", error(404, "model_not_found"), "bad_request", 404, "model_not_found"),
            ("408", error(408, "late"), "timeout", 408, "late", None, True),
            ("409", error(409, "conflict"), "server_error", 409, "conflict", None, True),
            ("413", error(413, "tokens"), "context_too_long", 413, "tokens"),
            ("422", error(422, "odd"), "bad_request", 422, "odd"),
            ("500", error(500, "broken"), "server_error", 500, "broken", None, True),
            ("502 page", raw(502, {"content-type": "text/html"}, "<html>"), "server_error", 502, None, None, True),
            ("503 slow down", error(503, "slow_down"), "overloaded", 503, "slow_down", None, True),
            ("504", error(504, "late"), "server_error", 504, "late", None, True),
            ("529", error(529, "busy"), "overloaded", 529, "busy", None, True),
            ("not JSON", invalid_json(), "bad_output", None, None, None, True),
            ("dropped", dropped(), "connection", None, None, None, True),
            ("dropped midway", dropped(midway=True), "connection", None, None, None, True),
            ("silence", slow(60), "timeout", None, None, None, True, 0.2),
            ("nobody listens", None, "connection", None, None, None, True),
        ]
    ]


OF_ANTHROPIC = [
    Scenario(*scenario[:1], "anthropic", *scenario[1:])
    for scenario in [
        ("429", anthropic_error(429), "rate_limited", 429, "rate_limit_error", None, True),
        ("429 reset", anthropic_error(429, None, ANTHROPIC_SPENT), "rate_limited", 429, "rate_limit_error", 5, True),
        (
            "429 ramp",
            anthropic_detail(429, "rate_limit_error", "ramp_limit_exceeded", {"retry-after": "9"}),
            "rate_limited",
            429,
            "ramp_limit_exceeded",
            9,
            True,
        ),
        (
            "429 spend",
            anthropic_detail(429, "rate_limit_error", "enforced_spend_limit_reached"),
            "quota_exhausted",
            429,
            "enforced_spend_limit_reached",
        ),
        ("400", anthropic_error(400), "bad_request", 400, "invalid_request_error"),
        (
            "400 context",
            anthropic_error(400, "prompt is too long: 210000 tokens > 200000 maximum"),
            "context_too_long",
            400,
            "invalid_request_error",
        ),
        ("401", anthropic_error(401), "auth", 401, "authentication_error"),
        ("402", anthropic_error(402), "quota_exhausted", 402, "billing_error"),
        ("403", anthropic_error(403), "auth", 403, "permission_error"),
        ("404", anthropic_error(404), "bad_request", 404, "not_found_error"),
        ("413", anthropic_error(413), "context_too_long", 413, "request_too_large"),
        ("500", anthropic_error(500), "server_error", 500, "api_error", None, True),
        ("504", anthropic_error(504), "server_error", 504, "timeout_error", None, True),
        ("529", anthropic_error(529, None, {"retry-after": "3"}), "overloaded", 529, "overloaded_error", 3, True),
        ("not JSON", invalid_json(), "bad_output", None, None, None, True),
        ("dropped", dropped(), "connection", None, None, None, True),
        ("silence", slow(60), "timeout", None, None, None, True, 0.2),
        ("nobody listens", None, "connection", None, None, None, True),
    ]
]

OF_GOOGLE = [
    Scenario(*scenario[:1], "gemini", *scenario[1:])
    for scenario in [
        (
            "429 per minute",
            google(429, "RESOURCE_EXHAUSTED", quota("GenerateRequestsPerMinute"), RETRY_INFO),
            "rate_limited",
            429,
            "RESOURCE_EXHAUSTED",
            45.8,
            True,
        ),
        (
            "429 per day",
            google(429, "RESOURCE_EXHAUSTED", quota("GenerateRequestsPerDay"), RETRY_INFO),
            "quota_exhausted",
            429,
            "RESOURCE_EXHAUSTED",
            45.8,
        ),
        ("400", google(400, "INVALID_ARGUMENT"), "bad_request", 400, "INVALID_ARGUMENT"),
        ("400 key", google(400, "INVALID_ARGUMENT", INVALID_KEY), "auth", 400, "API_KEY_INVALID"),
        ("403", google(403, "PERMISSION_DENIED"), "auth", 403, "PERMISSION_DENIED"),
        ("404", google(404, "NOT_FOUND"), "bad_request", 404, "NOT_FOUND"),
        ("500", google(500, "INTERNAL"), "server_error", 500, "INTERNAL", None, True),
        ("503", google(503, "UNAVAILABLE"), "overloaded", 503, "UNAVAILABLE", None, True),
        ("504", google(504, "DEADLINE_EXCEEDED"), "server_error", 504, "DEADLINE_EXCEEDED", None, True),
        ("not JSON", invalid_json(), "bad_output", None, None, None, True),
        ("dropped", dropped(), "connection", None, None, None, True),
        ("silence", slow(60), "timeout", None, None, None, True, 0.2),
        ("nobody listens", None, "connection", None, None, None, True),
    ]
]

# An SDK sees no error in these, and returns them.
UNDER_LITELLM = [
    Scenario(
        "error with 200", "openai", error_body_with_200(), "server_error", 502, None, None, True, has_request_id=False
    ),
    Scenario(
        "code with 200",
        "openai",
        raw(200, None, {"error": {"message": "No.", "code": "insufficient_quota"}}),
        "quota_exhausted",
        None,
        "insufficient_quota",
    ),
    Scenario(
        "error with 200",
        "anthropic",
        raw(200, None, {"type": "error", "error": {"type": "overloaded_error", "message": "No."}}),
        "server_error",
        200,
        retryable=True,
    ),
]

SCENARIOS = [*of_openai("openai"), *of_openai("azure"), *OF_ANTHROPIC, *OF_GOOGLE]


async def call_litellm(model: str, url: str, timeout: float) -> object:
    return await need("litellm").acompletion(
        model, CHAT, base_url=url, api_key="any", api_version="2024-10-21", max_retries=0, timeout=timeout
    )


async def call_dbally(model: str, url: str, timeout: float) -> object:
    dbally = need("dbally.llms.clients.litellm")

    @dataclass
    class OneRequest(dbally.LiteLLMOptions):
        max_retries: int = 0
        timeout: float = 30

    client = dbally.LiteLLMClient(model, base_url=url, api_key="any", api_version="2024-10-21")
    return await client.call(
        CHAT, OneRequest(timeout=timeout), need("dbally.audit.events").LLMEvent(prompt=CHAT, type="test")
    )


async def call_openai(model: str, url: str, timeout: float) -> object:
    openai = need("openai")
    settings: dict[str, Any] = {"api_key": "any", "max_retries": 0, "timeout": timeout}
    if model.startswith("azure/"):
        client = openai.AsyncAzureOpenAI(azure_endpoint=url, api_version="2024-10-21", **settings)
    else:
        client = openai.AsyncOpenAI(base_url=url, **settings)
    async with client:
        return await client.chat.completions.create(model=model.partition("/")[2], messages=CHAT)


CASES = [
    pytest.param(call, scenario, id=f"{name} {scenario}")
    for name, call, scenarios in [
        ("litellm", call_litellm, [*SCENARIOS, *UNDER_LITELLM]),
        ("dbally", call_dbally, [*SCENARIOS, *UNDER_LITELLM]),
        ("sdk", call_openai, [*of_openai("openai"), *of_openai("azure")]),
    ]
    for scenario in scenarios
]


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(need("litellm"), "suppress_debug_info", True)  # else it prints advice
        yield


@pytest.fixture
def closed_port():
    """A port where nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def fail(call, scenario, provider, closed_port):
    """Return what the call raises, what was being handled when it began, and which requests arrived."""
    provider.reset()
    if scenario.step is not None:
        provider.script(scenario.step)
    root = provider.url.removesuffix("/v1") if scenario.step is not None else f"http://127.0.0.1:{closed_port}"
    url = f"{root}/v1" if scenario.provider == "openai" else root

    async def run():
        ambient = sys.exception()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one it is, is what classify finds out
            await call(MODELS[scenario.provider], url, scenario.timeout)
        return caught.value, ambient

    return *asyncio.run(run()), provider.requests


@pytest.mark.parametrize(("call", "scenario"), CASES)
def test_a_failure(call, scenario, provider, closed_port):
    caught, ambient, requests = fail(call, scenario, provider, closed_port)
    assert ambient is None
    assert len(requests) == (scenario.step is not None)
    expected = scenario.failure(requests[0].request_id if requests else None)
    assert classify(caught, now=NOW.timestamp()) == expected


@pytest.mark.parametrize(("call", "scenario"), CASES)
def test_a_failure_while_another_is_handled(call, scenario, provider, closed_port):
    """Python chains the one that is being handled below the new one; the deepest status is then the wrong one."""
    request = httpx.Request("POST", "https://elsewhere.example.com")
    decoy = httpx.HTTPStatusError("no", request=request, response=httpx.Response(401, request=request))
    try:
        raise decoy
    except httpx.HTTPStatusError:
        caught, ambient, requests = fail(call, scenario, provider, closed_port)
    assert ambient is decoy
    expected = scenario.failure(requests[0].request_id if requests else None)
    assert classify(caught, ambient=ambient, now=NOW.timestamp()) == expected


def test_there_are_enough_scenarios_of_each_provider():
    counts = {name: sum(scenario.provider == name for scenario in SCENARIOS) for name in MODELS}
    assert min(counts.values()) >= 13
    assert len({str(scenario) for scenario in SCENARIOS}) == len(SCENARIOS)


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
