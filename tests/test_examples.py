"""Runs every example as a program of its own, as its reader would, with warnings as errors."""

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
    "dbally_sqlite.py": [
        "There are two: Solaris and The Cyberiad.",
        "Solaris Polish 1961",
        "6 requests for 5 calls: 0 from the cache, 1 retried; ",
        "Polish 3",
        "Ada has borrowed Flights and Solaris.",
        "0 requests for 5 calls: 5 from the cache, 0 retried; $0.000000 billed, ",
    ],
}
NEEDED = {"dbally_sqlite.py": ["dbally", "litellm"]}


def run(*arguments):
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_example_is_tried():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_it_does_what_it_says(name):
    """It ends well, says nothing on stderr, and prints these lines, in this order."""
    for module in NEEDED.get(name, ()):
        need(module)
    ended = run(EXAMPLES / name)
    assert (ended.returncode, ended.stderr) == (0, "")
    rest = ended.stdout
    for line in SAID[name]:
        before, found, rest = rest.partition(line)
        assert found, f"{line!r} is not in {before!r}"


@pytest.mark.parametrize(("name", "module"), [(name, module) for name, needed in NEEDED.items() for module in needed])
def test_it_says_what_is_missing(name, module):
    """Instead of a traceback, also where the other part is there."""
    hidden = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    ended = run("-c", hidden, EXAMPLES / name)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert "pip install 'overcoat[dbally]'" in ended.stderr
