"""Instrumentations of others inside our clients: nothing is counted twice, and what they know is not lost.

Each in a process of its own, since they patch the SDK of all.
"""

import json
import os
import subprocess
import sys
from functools import cache

import pytest

from .beneath_worker import INSTRUMENTATIONS
from .parts import need

CHAT, CALL = "chat openai/gpt-4o-mini", "overcoat.call"
OURS = [("attempt", CHAT), ("attempt", CHAT), ("backoff", CHAT), (CHAT, CALL), (CALL, None)]
"""The tree of a call that was retried once: each span, and what it lies in."""


@cache
def emitted(instrumentations: str, client: str) -> dict:
    need("openai")
    if client == "litellm":
        need("litellm")
    for name in instrumentations.split(","):
        need(INSTRUMENTATIONS[name][0])
    command = [sys.executable, "-m", "tests.real.beneath_worker", instrumentations, client]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def spans(said: dict, by: str = "overcoat") -> list[tuple[str, str | None]]:
    return sorted(((span["name"], span["in"]) for span in said["spans"] if span["by"] == by), key=str)


ALL = "genai,openllmetry,httpx"
each_client = pytest.mark.parametrize("client", ["plain", "litellm"])


@pytest.mark.parametrize(
    ("instrumentations", "client"),
    [
        *((instrumentation, "plain") for instrumentation in (*INSTRUMENTATIONS, ALL)),
        *((instrumentation, "litellm") for instrumentation in ("genai", "openllmetry", "openinference", ALL)),
    ],
)
def test_tokens_durations_and_dollars_are_counted_once(instrumentations, client):
    said = emitted(instrumentations, client)
    assert said["tokens"] == {"input": 100, "output": 20}
    assert said["durations"] == 1
    assert said["dollars"] == pytest.approx(float(said["billed"]))
    assert spans(said) == sorted(OURS, key=str)
    with_tokens = [span["name"] for span in said["spans"] if any(n.startswith("gen_ai.") for n in span["tokens"])]
    assert with_tokens == [CHAT]


@pytest.mark.parametrize("instrumentations", ["genai", "openllmetry"])
@each_client
def test_those_that_can_leave_the_inference_to_us_do(instrumentations, client):
    assert {span["by"] for span in emitted(instrumentations, client)["spans"]} == {"overcoat"}


@each_client
def test_openinference_goes_on_by_names_of_its_own(client):
    """It has no switch that leaves HTTP alone. Its spans lie inside ours, and nothing of theirs is in our sums."""
    theirs = [span for span in emitted("openinference", client)["spans"] if span["by"] != "overcoat"]
    assert theirs
    for span in theirs:
        assert span["in"] in (CHAT, "attempt")
        assert all(name.startswith("llm.token_count.") for name in span["tokens"])


@pytest.mark.parametrize("instrumentations", ["httpx", ALL])
def test_http_lies_inside_our_spans(instrumentations):
    """The first attempt's span is made when it has failed; what was sent by then lies in the chat."""
    (scope,) = {span["by"] for span in emitted(instrumentations, "plain")["spans"]} - {"overcoat"}
    assert spans(emitted(instrumentations, "plain"), scope) == [("POST", "attempt"), ("POST", CHAT)]


def test_what_a_client_does_not_say_is_taken_from_beneath():
    """And so its price is right: the part of the prompt that the provider had cached is cheaper."""
    alone, told = emitted("httpx", "plain"), emitted("genai", "plain")
    assert (float(alone["billed"]), alone["upper_bound"]) == (27e-6, True)
    assert (float(told["billed"]), told["upper_bound"]) == (22.5e-6, False)
    failed, answered = told["attempts"]
    assert answered == {
        "error": None,
        "response_id": "chatcmpl-00000000000000000000000000002",
        "response_model": "gpt-4o-mini",
        "finish_reason": "stop",
        "cached": 60,
    }
    assert (failed["error"], failed["response_id"], failed["cached"]) == ("overloaded", None, None)


def test_a_client_that_says_nothing_at_all_is_told_for():
    """Its caller's event included."""
    said = emitted("genai", "silent")
    assert said["tokens"] == {"input": 100, "output": 20}
    assert float(said["billed"]) == 22.5e-6
    assert said["event"] == [100, 20]


def test_what_a_client_says_itself_holds():
    said = emitted("genai", "litellm")
    assert float(said["billed"]) == 22.5e-6
    assert said["attempts"][1]["cached"] == 60
