"""Shows that mypy and pyright, both strict, accept what a user types, and refuse just what must not be typed."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MARK = re.compile(r"  # type: ignore\[(?P<code>[a-z-]+)\].*")
RULES = {  # what pyright calls mypy's errors
    "arg-type": "reportArgumentType",
    "call-arg": "reportCallIssue",
    "override": "reportIncompatibleVariableOverride",
    "type-var": "reportArgumentType",
}

Errors = dict[int, str]
"""The errors' codes, joined where there are several, by line from 1."""


def ran(*arguments: str | Path) -> str:
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr
    return ended.stdout


def mypy(path: Path) -> Errors:
    found = map(json.loads, ran("mypy", "--strict", "--output", "json", path).splitlines())
    own = (error for error in found if error["severity"] == "error" and Path(error["file"]).name == path.name)
    return joined((error["line"], error["code"]) for error in own)


def pyright(path: Path) -> Errors:
    found = json.loads(ran("pyright", "--pythonpath", sys.executable, "--outputjson", path))["generalDiagnostics"]
    return joined((error["range"]["start"]["line"] + 1, error.get("rule", error["message"])) for error in found)


def joined(errors: Iterable[tuple[int, str]]) -> Errors:
    by_line: dict[int, list[str]] = {}
    for line, code in errors:
        by_line.setdefault(line, []).append(code)
    return {line: " ".join(sorted(codes)) for line, codes in by_line.items()}


without_dbally = pytest.mark.skipif(find_spec("dbally") is None, reason="dbally is not installed")


@pytest.mark.parametrize("check", [mypy, pyright])
@pytest.mark.parametrize("name", ["api.py", pytest.param("api_dbally.py", marks=without_dbally)])
def test_all_but_the_marked_lines_are_accepted(tmp_path: Path, name: str, check: Callable[[Path], Errors]) -> None:
    """Of a copy without the marks, exactly the lines that had one are refused, for the reason that the mark gives."""
    source = (HERE / name).read_text().splitlines()
    marks = {number: mark["code"] for number, line in enumerate(source, 1) if (mark := MARK.search(line))}
    copy = tmp_path / name
    copy.write_text("\n".join(MARK.sub("", line) for line in source))
    assert check(copy) == {number: code if check is mypy else RULES[code] for number, code in marks.items()}
