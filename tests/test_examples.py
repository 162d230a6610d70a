"""Runs every example as a program of its own, as its reader would, with warnings as errors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .real.parts import need

EXAMPLES = Path(__file__).parents[1] / "examples"

SAID = {
    "custom_llm.py": [
        "12 tokens to send",
        "cache: miss; attempts: rate_limited, connection, ok; ",
        "cache: hit; attempts: none; billed $0, ",
        "cache: refused truncated; attempts: ok; ",
        "4 requests",
    ],
    "dbally/custom_llm.py": [
        "There are two: Solaris and The Cyberiad.",
        "Solaris Polish 1961",
        "6 requests for 5 calls: 0 from the cache, 1 retried; ",
        "Polish 3",
        "Ada has borrowed Flights and Solaris.",
        "0 requests for 5 calls: 5 from the cache, 0 retried; $0.000000 billed, ",
    ],
    "dbally/count_tokens.py": [
        "90 titles, ByCharacters: query_explanation. I was shown 0 rows.",
        "90 titles, ByTokens: nl_response. I was shown 90 rows.",
        "4 clay tablets, ByCharacters: nl_response. I was shown 4 rows.",
        "4 clay tablets, ByTokens: query_explanation. I was shown 0 rows.",
    ],
    "dbally/library.py": [
        "Solaris and The Cyberiad.",
        "Books: 6 calls, 0 of them hits; 8 requests",
        "Roadside Picnic and Solaris.",
        "Loans: 3 calls, 0 of them hits; 3 requests",
        "From 9 to 17.",
        "Hours: 3 calls, 0 of them hits; 3 requests",
        "Books: 6 calls, 5 of them hits; 1 requests",  # the answer that db-ally could not use is asked for anew
    ],
    "jaeger/traced.py": [  # with a real Jaeger in tests/real/test_example_jaeger.py
        "call openai/gpt-4o",
        "429 rate_limited",
        "4 calls, $0.3154 billed, $0.0002 saved",
        "Nothing listens for traces: see examples/jaeger/README.md",
    ],
    "ledger/tenants.py": [
        "WARNING the budget 'tag:tenant calendar day' of 'tenant:acme' has reached 50 %: $0.012 of $0.02 are spent",
        "acme: And then? the budget of 'tenant:acme' leaves no room: ",
        "acme: 5 calls, 2 requests; $0.012 billed, $0.006 saved by the cache",
        "globex: 1 calls, 1 requests; $0.006 billed, $0 saved by the cache",
    ],
}
NEEDED = {  # what else has to be installed, and the extra that has it
    "dbally/custom_llm.py": (["dbally", "litellm"], "dbally"),
    "dbally/count_tokens.py": (["dbally"], "dbally"),
    "dbally/library.py": (["dbally", "litellm"], "dbally"),
    "ledger/tenants.py": (["sqlalchemy"], "ledger"),
}


def run(*arguments):
    """Run without a collector, whatever listens on this machine: an example's traces are not a test's to send."""
    environment = os.environ | {f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")}
    command = [sys.executable, "-W", "error", *arguments]
    said = {"encoding": "utf-8", "env": environment | {"PYTHONIOENCODING": "utf-8"}}
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **said)


def test_every_example_is_tried():
    assert {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_it_does_what_it_says(name):
    """It ends well, says nothing on stderr, and prints these lines, in this order."""
    for module in NEEDED.get(name, ([], ""))[0]:
        need(module)
    ended = run(EXAMPLES / name)
    assert (ended.returncode, ended.stderr) == (0, "")
    rest = ended.stdout
    for line in SAID[name]:
        before, found, rest = rest.partition(line)
        assert found, f"{line!r} is not in {before!r}"


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [(name, module, extra) for name, (modules, extra) in NEEDED.items() for module in modules],
)
def test_it_says_what_is_missing(name, module, extra):
    """Instead of a traceback, also where the other part is there."""
    hidden = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    ended = run("-c", hidden, EXAMPLES / name)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert f"pip install 'overcoat[{extra}]'" in ended.stderr
