"""The demo, run as a person would: it must tell its story, agree with the provider, and be clean."""

import os
import re
import subprocess
import sys

import pytest

from overcoat.testing import Provider, answer, error

from .real.parts import need


@pytest.fixture(scope="module", autouse=True)
def _litellm():
    need("litellm")


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Sessions that are left open would be seen here; Python itself shows neither these nor deprecations by default.
    command = [sys.executable, "-W", "default::ResourceWarning", "-m", "overcoat", "demo", *arguments]
    own = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(command, check=False, env=os.environ | own, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture(scope="module")
def shown():
    """What it prints to a pipe, with times made equal."""
    ended = demo("--no-otlp")
    assert (ended.returncode, ended.stderr) == (0, "")
    return re.sub(r" *[\d.]+ (ms|s) ", " TIME ", ended.stdout + " ")


@pytest.mark.parametrize(
    "expected",
    [
        "call openai/gpt-4o-mini  ✓ TIME  miss  812→96 tok  $0.000179\n└ chat TIME ",
        "call openai/gpt-4o-mini  ✓ TIME  hit   saved $0.000179  from trace ",
        "├ attempt 1            ✗ TIME  429 rate_limited\n  ├ backoff TIME  as the server asked\n  └ attempt 2 ",
        "\n49 calls                 ✓ TIME  coalesced               saved $0.0122\n",
        "1800→1 tok  $0.000271  ↻ 2 attempts  $0.000135 wasted\n",
        "├ attempt 1            ✗ TIME  timeout\n",
        "$0  quota_exhausted, not retried\n",
        "$0  rate_limited, no time left to wait\n",
        "not kept: truncated",
        "ended by length\ncall openai/gpt-4o-mini  ✓ TIME  miss  30→9 tok",
        "call openai/our-finetune ✓ TIME  miss  18→3 tok  price unknown\n",
        "The caller gets the LLMStatusError, with a note: gave up after 1 attempt",
    ],
)
def test_each_scene_shows_what_it_says(shown, expected):
    assert expected in shown


def test_the_sum_is_what_the_provider_counted(shown):
    sums = dict(
        re.findall(r"^(\w+) {2,}(.*)$", shown.partition("\ncalls ")[1] + shown.partition("\ncalls ")[2], re.MULTILINE)
    )
    assert sums["calls"] == "60, of which 58 were answered"
    sent, received = map(int, re.findall(r"\d+", sums["requests"]))
    assert sent == received == 13
    assert sums["tokens"] == "3,774 in, 519 out"
    assert sums["billed"] == "$0.000873"
    assert sums["wasted"].startswith("$0.000135 ")
    assert sums["saved"] == "$0.0124, by 50 answers from the cache"
    assert "1 of the calls" in sums["unknown"]


def test_a_pipe_gets_plain_text_that_fits_80_columns(shown):
    assert "\x1b" not in shown
    narration = [line for line in shown.splitlines() if not re.match(r"call |[└├│ ]|\d+ calls", line)]
    assert max(map(len, narration)) <= 80


def test_a_real_provider_is_asked_what_makes_sense_there():
    with Provider(lambda _: answer('{"city": "Paris"}')) as provider:
        ended = demo("--model", "openai/gpt-4o-mini", "--no-otlp", OPENAI_API_KEY="any", OPENAI_BASE_URL=provider.url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert len(provider) == 4
    assert "49 calls" in ended.stdout
    assert "requests  4 by the records\n" in ended.stdout


def test_a_provider_that_refuses_ends_it():
    with Provider(error(401)) as provider:
        ended = demo("--model", "openai/gpt-4o-mini", "--no-otlp", OPENAI_API_KEY="any", OPENAI_BASE_URL=provider.url)
        assert (ended.returncode, len(provider)) == (1, 1)
    assert "LLMStatusError" in ended.stdout
    assert "2. " not in ended.stdout
