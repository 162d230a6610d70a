"""What `overcoat check` and `overcoat schema` do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from overcoat.errors import PolicyError
from overcoat.policy.loading import Policy
from overcoat.policy.problems import Problem
from overcoat.policy.schema import schema

OK, FAILED = 0, 1


def check(
    path: str | os.PathLike[str],
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
    *,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Print every mistake in a policy file, and in the OVERCOAT_* variables that lie over it; return the exit code.

    As text, a mistake is a line: "file:line:column: path: what is wrong". As JSON, it is an object in a list, with
    `file`, `line` and `column` (from 1; null outside of files), `path` and `message`.

    Args:
        path: Of the file.
        format: "text" or "json".
        environment: By default that of the process.

    Returns:
        0 where there is no mistake, else 1.
    """
    problems = _problems(path, environment)
    if format == "json":
        sys.stdout.write(json.dumps([_object(problem) for problem in problems], indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{problem}\n" for problem in problems)
    return FAILED if problems else OK


def print_schema() -> int:
    """Print the JSON schema of policy files; return the exit code."""
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
    return OK


def _problems(path: str | os.PathLike[str], environment: Mapping[str, str] | None) -> Sequence[Problem]:
    try:
        Policy.load(Path(path), environment=environment)
    except PolicyError as error:
        return error.problems
    return ()


def _object(problem: Problem) -> dict[str, object]:
    origin = problem.origin
    return {
        "file": origin.source,
        "line": origin.line,
        "column": origin.column,
        "path": problem.path,
        "message": problem.message,
    }
