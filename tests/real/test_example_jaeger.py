"""Runs examples/jaeger as its reader would, with a real Jaeger beside it and without."""

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "jaeger" / "traced.py"


def run(*arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | variables
    command = [sys.executable, "-W", "error", EXAMPLE, *arguments]
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_it_finds_in_jaeger_what_it_did(jaeger):
    said = run(jaeger.query, OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.otlp_grpc, PYTHONIOENCODING="utf-8")
    found = dict(re.findall(r"^([a-z ]+): (\d+)", said, re.MULTILINE))
    assert found == {
        "retried": "1",
        "expensive": "1",
        "answered by the cache": "1",
        "of one feature": "4",
        "failed": "0",
    }
    printed, searched = said.split("billed")
    assert set(re.findall(r"http\S+", searched)) <= set(re.findall(r"http\S+", printed)), "the links are the same"


def test_without_a_jaeger_it_says_where_to_get_one():
    said = run(OTEL_TRACES_EXPORTER="none", PYTHONIOENCODING="utf-8")
    assert "examples/jaeger/README.md" in said
