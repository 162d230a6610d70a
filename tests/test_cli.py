"""The command line: what its arguments become, its exit codes, and what a person reads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import overcoat
from overcoat.cli import main


class Demo:
    """Takes the demo's place: it keeps the arguments, and ends as it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, bool, str]] = []
        self.ends: bool | BaseException = True

    def run(self, model: str | None, *, otlp: bool, jaeger: str) -> bool:
        self.calls.append((model, otlp, jaeger))
        if isinstance(self.ends, BaseException):
            raise self.ends
        return self.ends


@pytest.fixture
def demo(monkeypatch):
    replaced = Demo()
    monkeypatch.setattr("overcoat.demo.run", replaced.run)
    return replaced


def test_it_is_a_module_too():
    command = [sys.executable, "-m", "overcoat", "--version"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown == f"overcoat {overcoat.__version__}\n"


def test_without_a_command_it_explains_itself(capsys):
    assert main([]) == 2
    shown = capsys.readouterr()
    assert "demo" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [["dmeo"], ["demo", "--modle", "x"], ["demo", "--model"]])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (None, True, "http://localhost:16686")),
        (["--model", "openai/gpt-4o"], ("openai/gpt-4o", True, "http://localhost:16686")),
        (["--no-otlp", "--jaeger", "https://jaeger/ui"], (None, False, "https://jaeger/ui")),
    ],
)
def test_the_demo_gets_its_arguments(demo, arguments, expected):
    assert main(["demo", *arguments]) == 0
    assert demo.calls == [expected]


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (False, 1, ""),
        (KeyboardInterrupt(), 130, ""),
        (ImportError("LiteLLM models need litellm"), 1, "overcoat: LiteLLM models need litellm\n"),
    ],
)
def test_the_exit_code_says_how_it_ended(demo, capsys, ends, code, said):
    demo.ends = ends
    assert main(["demo"]) == code
    assert capsys.readouterr().err == said


def test_the_arguments_are_read_without_what_the_commands_need():
    """So that `--version` and completions answer at once."""
    program = "import sys, overcoat.cli; sys.exit(any(name in sys.modules for name in ('rich', 'litellm', 'pydantic')))"
    subprocess.run([sys.executable, "-c", program], check=True)


PRODUCTION = str(Path(__file__).parent.parent / "examples" / "policies" / "production.yaml")


class TestPolicies:
    def test_check_says_nothing_of_a_file_without_mistakes(self, capsys):
        assert main(["check", PRODUCTION]) == 0
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("output", ["text", "json"])
    def test_check_says_where_the_mistakes_are(self, tmp_path, capsys, output):
        path = tmp_path / "policy.yaml"
        path.write_text("version: 1\npolicies:\n  default:\n    retry: {max_atempts: 2}\n", encoding="utf-8")
        assert main(["check", str(path), "--format", output]) == 1
        shown = capsys.readouterr().out
        assert "did you mean 'max_attempts'?" in shown
        assert f"{path}:4:13: " in shown if output == "text" else json.loads(shown)[0]["line"] == 4

    def test_schema_is_json(self, capsys):
        assert main(["schema"]) == 0
        assert json.loads(capsys.readouterr().out)["properties"]["policies"]

    def test_explain_passes_its_arguments_on(self, capsys):
        arguments = ["explain", PRODUCTION, "--model", "openai/gpt-4o-mini", "--error", "429", "--retry-after", "2"]
        assert main([*arguments, "--format", "json"]) == 0
        explained = json.loads(capsys.readouterr().out)
        assert explained["policy"] == "interactive"
        assert main([*arguments, "--max-requests", "1"]) == 1
        assert main([*arguments, "--host-retries", "-1"]) == 2
