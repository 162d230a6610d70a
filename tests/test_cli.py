"""The command line: what its arguments become, its exit codes, and what a person reads."""

import subprocess
import sys

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
