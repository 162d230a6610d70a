"""The README tells the truth: its code runs, and its transcript is what the demo prints."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from overcoat import Policy
from overcoat.cli import main
from overcoat.telemetry import names

from .real.parts import need

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


FENCES = re.findall(r"^```(.*?)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for language, text in FENCES if language == kind]


def test_the_code_runs(capsys, monkeypatch, tmp_path):
    """In one namespace, top to bottom, as a reader would type it; and what it prints is what is said to be printed."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    printed = capsys.readouterr().out
    (promised,) = re.findall(r"^# (Cache stands .*) \.\.\.$", README, re.MULTILINE)
    assert promised in printed
    assert "ok hit 0 0.0000036 0" in printed
    assert re.findall(r"^# (tenant:.*)$", README, re.MULTILINE) == re.findall(r"^tenant:.*$", printed, re.MULTILINE)
    ((command, table),) = re.findall(r"^\$ overcoat (costs .*)\n((?:[^`].+\n)+)", README, re.MULTILINE)
    namespace["books"].layers[-1].observer(None).flush()
    assert main(command.split()) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        line.split() for line in table.splitlines()
    ]


def test_the_policy_makes_sense(tmp_path):
    (text,) = blocks("yaml")
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    assert Policy.load(path).for_model("openai/gpt-4o-mini").value("deadline") == 15


def test_what_is_not_run_compiles():
    for block in blocks("python no-run"):
        compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_transcript_is_the_demo_s(demo_output):
    """Numbers differ from run to run; the lines do not."""
    (transcript,) = (block for block in blocks("") if "chat" in block)
    printed = {shape(line) for line in demo_output.splitlines()}
    for line in transcript.splitlines():
        assert shape(line) in printed, line


def test_the_searches_name_attributes_that_exist():
    known = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    for name in re.findall(r"`((?:overcoat|error)\.[a-z_.]+)=", README):
        assert name in known or name.startswith(names.TAG), name


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(link):
    if not link.startswith("https://"):
        assert (ROOT / link).exists()


@pytest.fixture(scope="module")
def demo_output():
    need("litellm")
    environment = {**os.environ, "COLUMNS": "120"}
    command = [sys.executable, "-m", "overcoat", "demo", "--no-otlp"]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def shape(line: str) -> str:
    """Leave out what differs between runs: times, and the blanks that align them."""
    return " ".join(re.sub(r"[\d.]+ m?s\b", "TIME", line).split())
