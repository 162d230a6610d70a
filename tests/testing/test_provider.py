"""The provider as its clients see it: the openai SDK, real litellm, and httpx for what they hide."""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from overcoat.testing import (
    Provider,
    Received,
    Step,
    answer,
    anthropic_answer,
    anthropic_error,
    content_filter_refused,
    context_length_exceeded,
    dropped,
    empty_choices,
    error,
    error_body_with_200,
    filtered,
    insufficient_quota,
    invalid_json,
    rate_limited,
    raw,
    slow,
    truncated,
)

MESSAGES: Any = [{"role": "user", "content": "Say hello."}]


def post(provider: Provider, **body: Any) -> httpx.Response:
    return httpx.post(f"{provider.url}/chat/completions", json={"model": "gpt-4o", "messages": MESSAGES, **body})


def ask_openai(provider: Provider, model: str = "gpt-4o", timeout: float = 10) -> Any:
    async def ask() -> Any:
        async with openai.AsyncOpenAI(
            base_url=provider.url, api_key="sk-secret", max_retries=0, timeout=timeout
        ) as client:
            return await client.chat.completions.create(model=model, messages=MESSAGES)

    return asyncio.run(ask())


def ask_litellm(provider: Provider, model: str = "openai/gpt-4o", **settings: Any) -> Any:
    import litellm

    async def ask() -> Any:
        try:
            return await litellm.acompletion(
                model=model,
                messages=MESSAGES,
                api_key="sk-secret",
                max_retries=0,
                **{"base_url": provider.url, **settings},
            )
        finally:
            # litellm keeps its clients for the process; they belong to the loop that ends here.
            await litellm.close_litellm_async_clients()

    return asyncio.run(ask())


def test_openai_reads_an_answer_whole(provider: Provider) -> None:
    provider.script(
        answer(
            "Hi.", prompt_tokens=20, completion_tokens=9, cached_tokens=8, reasoning_tokens=4, model="gpt-4o-2024-08-06"
        )
    )
    completion = ask_openai(provider)
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "gpt-4o-2024-08-06"
    assert abs(completion.created - time.time()) < 60
    assert completion.choices[0].message.content == "Hi."
    assert completion.choices[0].finish_reason == "stop"
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (20, 9, 29)
    assert usage.prompt_tokens_details.cached_tokens == 8
    assert usage.completion_tokens_details.reasoning_tokens == 4
    assert completion._request_id == provider.requests[0].request_id


def test_litellm_reads_an_answer_whole(provider: Provider) -> None:
    """The usage details too, and the price's model is the one that was asked for."""
    provider.script(answer("Hi.", prompt_tokens=20, completion_tokens=9, cached_tokens=8, reasoning_tokens=4))
    completion = ask_litellm(provider)
    assert completion.choices[0].message.content == "Hi."
    assert completion.usage.prompt_tokens == 20
    assert completion.usage.prompt_tokens_details.cached_tokens == 8
    assert completion.usage.completion_tokens_details.reasoning_tokens == 4
    assert provider.requests[0].model == "gpt-4o"
    assert len(provider) == 1


@pytest.mark.parametrize(
    ("step", "raised", "code"),
    [
        (error(400), openai.BadRequestError, None),
        (error(401), openai.AuthenticationError, "invalid_api_key"),
        (error(402), openai.APIStatusError, None),
        (error(403), openai.PermissionDeniedError, None),
        (error(404), openai.NotFoundError, "model_not_found"),
        (error(408), openai.APIStatusError, None),
        (error(409), openai.ConflictError, None),
        (error(413), openai.APIStatusError, None),
        (error(422), openai.UnprocessableEntityError, None),
        (rate_limited(), openai.RateLimitError, "rate_limit_exceeded"),
        (insufficient_quota(), openai.RateLimitError, "insufficient_quota"),
        (error(500), openai.InternalServerError, None),
        (error(502), openai.InternalServerError, None),
        (error(503, code="overloaded", type="overloaded"), openai.InternalServerError, "overloaded"),
        (error(504), openai.InternalServerError, None),
        (error(529), openai.InternalServerError, None),
        (context_length_exceeded(), openai.BadRequestError, "context_length_exceeded"),
        (content_filter_refused(), openai.BadRequestError, "content_filter"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Step) else None,
)
def test_openai_raises_what_the_status_means(
    provider: Provider, step: Step, raised: type[openai.APIStatusError], code: str | None
) -> None:
    provider.script(step)
    with pytest.raises(raised) as caught:
        ask_openai(provider)
    assert caught.value.status_code == step.status
    assert caught.value.code == code
    assert len(provider) == 1


@pytest.mark.parametrize(
    ("step", "raised"),
    [
        (error(400), "BadRequestError"),
        (error(401), "AuthenticationError"),
        (error(404), "NotFoundError"),
        (error(408), "Timeout"),
        (rate_limited(retry_after=2), "RateLimitError"),
        (insufficient_quota(), "RateLimitError"),
        (error(500), "InternalServerError"),
        (error(503), "ServiceUnavailableError"),
        (context_length_exceeded(), "ContextWindowExceededError"),
        (error(400, "content_policy_violation"), "ContentPolicyViolationError"),
        (dropped(), "InternalServerError"),
        (slow(60), "Timeout"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Step) else value,
)
def test_litellm_raises_what_the_answer_means(provider: Provider, step: Step, raised: str) -> None:
    """One request each: with `max_retries=0` neither litellm nor the SDK below it tries again."""
    import litellm

    provider.script(step)
    with pytest.raises(getattr(litellm, raised)):
        ask_litellm(provider, timeout=0.2 if step.delay else 10)
    assert len(provider) == 1


def test_litellm_reaches_anthropics_path(provider: Provider) -> None:
    import litellm

    provider.script(anthropic_answer("Bonjour.", input_tokens=7, cache_read_input_tokens=2), anthropic_error(529))
    base = {"base_url": provider.url.removesuffix("/v1")}
    completion = ask_litellm(provider, "anthropic/claude-3-5-haiku-20241022", **base)
    assert completion.choices[0].message.content == "Bonjour."
    assert completion.usage.prompt_tokens == 9
    with pytest.raises(litellm.InternalServerError, match="overloaded_error"):
        ask_litellm(provider, "anthropic/claude-3-5-haiku-20241022", **base)
    assert [request.path for request in provider.requests] == ["/v1/messages"] * 2


def test_litellm_reaches_azures_path(provider: Provider) -> None:
    """There the model is in the path, and Azure's own refusal is understood."""
    import litellm

    provider.script(content_filter_refused(), model="gpt-4o")
    with pytest.raises(litellm.ContentPolicyViolationError):
        ask_litellm(provider, "azure/gpt-4o", base_url=provider.url.removesuffix("/v1"), api_version="2024-10-21")
    (request,) = provider.requests
    assert request.path == "/openai/deployments/gpt-4o/chat/completions"
    assert request.query == "api-version=2024-10-21"


def test_waits_are_announced_in_every_form(provider: Provider) -> None:
    when = datetime(2031, 5, 6, 9, 8, 7, tzinfo=UTC)
    provider.script(
        rate_limited(1.0),
        rate_limited(retry_after=0.25),
        rate_limited(retry_after=when.astimezone()),
        rate_limited(retry_after_ms=1500),
        rate_limited(x_ratelimit={"remaining-tokens": "0", "reset-tokens": "6m0s"}),
        error(503, headers={"X-Should-Retry": "false"}),
    )
    headers = [post(provider).headers for _ in range(6)]
    assert [dict(each).get("retry-after") for each in headers] == [
        "1",
        "0.25",
        "Tue, 06 May 2031 09:08:07 GMT",
        None,
        None,
        None,
    ]
    assert headers[3]["retry-after-ms"] == "1500"
    assert headers[4]["x-ratelimit-remaining-tokens"] == "0"
    assert headers[4]["x-ratelimit-reset-tokens"] == "6m0s"
    assert headers[5]["x-should-retry"] == "false"


def test_answers_that_are_none(provider: Provider) -> None:
    """All of them say 200."""
    provider.script(truncated(), filtered(), empty_choices(), error_body_with_200(), invalid_json())
    responses = [post(provider) for _ in range(5)]
    assert [response.status_code for response in responses] == [200] * 5
    cut, withheld, empty, failed = (response.json() for response in responses[:4])
    assert cut["choices"][0]["finish_reason"] == "length"
    assert withheld["choices"][0] | {"logprobs": None} == {
        "index": 0,
        "message": {"role": "assistant", "content": None, "refusal": None},
        "logprobs": None,
        "finish_reason": "content_filter",
    }
    assert empty["choices"] == []
    assert empty["usage"]["total_tokens"] == 12
    assert failed["error"]["code"] == 502
    with pytest.raises(ValueError, match="Unterminated string"):
        responses[4].json()


def test_a_connection_is_dropped_before_or_within_the_answer(provider: Provider) -> None:
    """And the next request finds the provider in health."""
    provider.script(dropped(), dropped(midway=True), answer("Back."))
    with pytest.raises(httpx.RemoteProtocolError, match="disconnected without sending"):
        post(provider)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        post(provider)
    assert post(provider).json()["choices"][0]["message"]["content"] == "Back."


@pytest.mark.parametrize("step", [dropped(), dropped(midway=True)])
def test_openai_sees_a_dropped_connection_as_one(provider: Provider, step: Step) -> None:
    provider.script(step)
    with pytest.raises(openai.APIConnectionError):
        ask_openai(provider)
    assert len(provider) == 1


def test_a_slow_answer_is_a_timeout_and_a_less_slow_one_is_an_answer(provider: Provider) -> None:
    provider.script(slow(60), slow(0.01, then=error(503)))
    with pytest.raises(openai.APITimeoutError):
        ask_openai(provider, timeout=0.05)
    began = time.monotonic()
    assert post(provider).status_code == 503
    assert time.monotonic() - began >= 0.01


def test_raw_plays_any_other_shape(provider: Provider) -> None:
    """The default content type is JSON; bytes, text and mappings are all bodies."""
    provider.script(
        raw(429, {"Retry-After": "3"}, {"error": {"status": "RESOURCE_EXHAUSTED"}}),
        raw(502, {"content-type": "text/html"}, "<h1>Bad Gateway</h1>"),
        raw(body=b"\x00\xff"),
    )
    quota, gateway, odd = (post(provider) for _ in range(3))
    assert (quota.status_code, quota.headers["retry-after"]) == (429, "3")
    assert quota.json() == {"error": {"status": "RESOURCE_EXHAUSTED"}}
    assert quota.headers["content-type"] == "application/json"
    assert (gateway.headers["content-type"], gateway.text) == ("text/html", "<h1>Bad Gateway</h1>")
    assert odd.content == b"\x00\xff"


def test_a_models_script_comes_before_the_common_one(provider: Provider) -> None:
    provider.script(answer("common"))
    provider.script(answer("mini"), answer("mini again"), model="gpt-4o-mini")
    assert provider.pending == 3
    asked = ["gpt-4o-mini", "gpt-4o", "gpt-4o", "gpt-4o-mini", "gpt-4o-mini"]
    texts = [post(provider, model=model).json()["choices"][0]["message"]["content"] for model in asked]
    assert texts == ["mini", "common", "Hello!", "mini again", "Hello!"]
    assert provider.pending == 0


def test_the_default_is_a_step_or_a_function_of_the_request(provider: Provider) -> None:
    def every_second(received: Received) -> Step:
        return error(503) if received.number % 2 else answer(f"{received.model} after {len(provider)}")

    provider.default = every_second
    assert [post(provider).status_code for _ in range(4)] == [503, 200, 503, 200]
    provider.default = error(500)
    assert post(provider).status_code == 500


def test_a_default_that_is_none_drops_the_connection_and_says_why(
    provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    provider.default = lambda received: "hello"  # type: ignore[assignment,return-value] - the mistake
    with pytest.raises(httpx.RemoteProtocolError):
        post(provider)
    provider.close()  # the thread has written its traceback
    assert "TypeError: default(...)='hello'; expected a step" in capsys.readouterr().err


def test_the_plain_answers_usage_follows_from_the_prompt(provider: Provider) -> None:
    def tokens(prompt: str) -> int:
        return post(provider, messages=[{"role": "user", "content": prompt}]).json()["usage"]["prompt_tokens"]

    assert tokens("a" * 40) == tokens("b" * 40)
    assert tokens("a" * 80) == tokens("a" * 40) + 10


def test_what_arrives_is_kept_and_no_key_is_shown(provider: Provider) -> None:
    httpx.post(
        f"{provider.url}/models/gemini-pro:generateContent?key=in-the-query",
        content=b"no json",
        headers={"Authorization": "Bearer sk-secret", "X-Api-Key": "sk-ant"},
    )
    post(provider)
    first, second = provider.requests
    assert (first.number, first.method, first.path) == (1, "POST", "/v1/models/gemini-pro:generateContent")
    assert (first.query, first.body, first.model) == ("key=in-the-query", "no json", "gemini-pro")
    assert first.headers["authorization"] == "Bearer sk-secret"
    assert second.body["messages"] == MESSAGES
    assert second.at >= first.at
    for secret in ("sk-secret", "sk-ant", "in-the-query"):
        assert secret not in repr(provider.requests)


def test_a_request_that_names_no_model_has_none(provider: Provider) -> None:
    httpx.post(provider.url, json=[1, 2])
    post(provider, model=None)
    assert [request.model for request in provider.requests] == [None, None]


def test_reset_forgets_requests_and_scripts(provider: Provider) -> None:
    provider.script(error(500), error(500))
    post(provider)
    provider.reset()
    assert (len(provider), provider.pending, bool(provider)) == (0, 0, True)
    assert post(provider).status_code == 200
    assert provider.requests[0].number == 1


def test_connections_are_kept_alive(provider: Provider) -> None:
    """Refusals do not close them either."""
    provider.script(error(500), rate_limited())
    connections: set[Any] = set()
    with httpx.Client(base_url=provider.url) as client:
        for _ in range(4):
            response = client.post("/chat/completions", json={})
            connections.add(response.extensions["network_stream"].get_extra_info("socket"))
    assert len(connections) == 1


def test_a_body_of_unknown_length_is_refused(provider: Provider) -> None:
    response = httpx.post(provider.url, content=iter([b"{}"]))
    assert response.status_code == 411
    assert len(provider) == 0


def test_a_thousand_requests_at_once(provider: Provider) -> None:
    """All of them are in the provider's hands together: none is answered before the last has arrived."""
    everyone = threading.Barrier(1000)

    def together(received: Received) -> Step:
        everyone.wait(60)
        return answer(str(received.body["n"]))

    provider.default = together

    async def send(n: int) -> str:
        # Bare streams: httpx alone would take 20 seconds for this.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"n": n}).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        return json.loads(content)["choices"][0]["message"]["content"]

    async def main() -> list[str]:
        return await asyncio.gather(*map(send, range(1000)))

    port = _port(provider)
    assert asyncio.run(main()) == [str(n) for n in range(1000)]
    assert sorted(request.number for request in provider.requests) == list(range(1, 1001))


def test_closing_waits_for_no_slow_answer_and_leaves_no_thread() -> None:
    before = threading.active_count()
    arrived = threading.Event()

    def never(received: Received) -> Step:
        arrived.set()
        return slow(3600)

    def ask() -> None:
        with pytest.raises(httpx.RemoteProtocolError, match="disconnected"):
            post(provider)
        seen.append("disconnected")

    seen: list[str] = []
    with Provider(never) as provider, socket.create_connection(("127.0.0.1", _port(provider))) as idle:
        asker = threading.Thread(target=ask)
        asker.start()
        assert arrived.wait(10)
        began = time.monotonic()
        provider.close()
        assert time.monotonic() - began < 5
        assert idle.recv(1) == b""
        asker.join(10)
    assert seen == ["disconnected"]
    assert threading.active_count() == before


def test_a_client_that_hangs_up_makes_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    """Reset in the middle of its request, as a cancelled client does it."""
    with Provider() as provider:
        client = socket.create_connection(("127.0.0.1", _port(provider)))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert post(provider).status_code == 200
    assert capfd.readouterr().err == ""


def test_it_runs_once_at_a_time_and_again_after_closing() -> None:
    provider = Provider()
    with pytest.raises(RuntimeError, match="no URL before start"):
        _ = provider.url
    with provider:
        with pytest.raises(RuntimeError, match=r"running already, at http://127\.0\.0\.1"):
            provider.start()
        assert post(provider).status_code == 200
    provider.close()
    with provider:
        assert post(provider).status_code == 200
    assert len(provider) == 2


@pytest.mark.parametrize(
    ("mistake", "raised", "message"),
    [
        (lambda: answer(delay=-1), ValueError, "delay=-1; expected seconds: a finite number, 0 or more"),
        (lambda: slow(float("nan")), ValueError, "seconds=nan; expected seconds"),
        (lambda: slow(1, then="x"), TypeError, "then='x'; expected a step"),  # type: ignore[arg-type] - the mistake
        (lambda: answer(prompt_tokens=-1), ValueError, "prompt_tokens=-1; expected 0 or more"),
        (lambda: answer(cached_tokens=13), ValueError, "cached_tokens=13; expected 0 to prompt_tokens=12"),
        (lambda: answer(reasoning_tokens=6), ValueError, "reasoning_tokens=6; expected 0 to completion_tokens=5"),
        (lambda: error(418), ValueError, r"status=418; expected one of 400, .* 529 \(`raw` plays any other\)"),
        (lambda: raw(100), ValueError, "status=100; expected a final HTTP status, 200 to 599"),
        (lambda: anthropic_error(502), ValueError, "status=502; expected one of 400"),
        (lambda: rate_limited(-1.0), ValueError, r"retry_after=-1\.0; expected seconds"),
        (lambda: rate_limited(retry_after_ms=-1), ValueError, "retry_after_ms=-1; expected 0 or more"),
        (
            lambda: rate_limited(datetime.now(UTC).replace(tzinfo=None) + timedelta(1)),
            ValueError,
            "expected a datetime with a time zone",
        ),
        (lambda: Provider().script(answer(), "x"), TypeError, r"steps\[1\]='x'; expected a step"),  # type: ignore[arg-type] - the mistake
    ],
)
def test_mistakes_are_named(mistake: Callable[[], object], raised: type[Exception], message: str) -> None:
    with pytest.raises(raised, match=message):
        mistake()


def test_a_script_with_a_mistake_in_it_is_not_half_taken() -> None:
    provider = Provider()
    with pytest.raises(TypeError):
        provider.script(answer(), None)  # type: ignore[arg-type] - the mistake
    assert provider.pending == 0


def test_the_fixture_is_a_plugins(tmp_path: Path) -> None:
    """As a user enables it."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["overcoat.testing.fixtures"]')
    (tmp_path / "test_it.py").write_text("def test_it(provider): assert provider.url and len(provider) == 0")
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path], check=True)


def test_importing_it_imports_no_test_framework_and_no_client() -> None:
    """Users import it where pytest is not installed, and `overcoat demo` must start at once."""
    heavy = {"pytest", "litellm", "httpx", "openai", "opentelemetry.sdk"}
    code = f"import sys, overcoat.testing; print(sorted({heavy!r} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"


def test_the_public_names_are_sorted_and_exist() -> None:
    import overcoat.testing as package

    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


def _port(provider: Provider) -> int:
    return httpx.URL(provider.url).port or 0
