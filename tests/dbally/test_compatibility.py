"""The table of what becomes of each part of db-ally is complete, and a test that exists holds each of its lines."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = README.partition("<summary>Every public thing in db-ally")[2].partition("</details>")[0]
VERDICTS = {"works", "works better", "does not apply"}


def rows():
    lines = [line for line in TABLE.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def public(source):
    """Yield the public classes of a module, and their public methods and properties; functions it has none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            for part in node.body:
                if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) and not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}"


def test_every_public_name_of_db_ally_is_in_it():
    """By the source: what needs torch or LangSmith cannot be imported here."""
    spec = find_spec("dbally")
    if spec is None or spec.origin is None:
        pytest.skip("db-ally is not installed")
    modules = [path for package in ("llms", "audit") for path in Path(spec.origin).parent.glob(f"{package}/**/*.py")]
    assert len(modules) > 10
    theirs = {name for path in modules for name in public(path.read_text(encoding="utf-8"))}
    ours = [name for row in rows() for name in re.findall(r"`([\w.]+)`", row[0])]
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_line_names_a_test_that_exists(row):
    names, verdict, how, test = row
    assert names
    assert how
    assert verdict in VERDICTS
    path, _, function = test.strip("`").partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
