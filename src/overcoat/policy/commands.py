"""What `overcoat check` and `overcoat schema` do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from overcoat.errors import PolicyError
from overcoat.policy.checks import warnings
from overcoat.policy.loading import Policy
from overcoat.policy.problems import Problem, in_order
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
    `file`, `line` and `column` (from 1; null outside of files), `path`, `severity` and `message`. Where there is no
    mistake, there may be warnings: "file:line:column: warning: path: what is seldom meant".

    Args:
        path: Of the file.
        format: "text" or "json".
        environment: By default that of the process.

    Returns:
        0 where there is no mistake, else 1.
    """
    mistakes: Sequence[Problem] = ()
    unusual: Sequence[Problem] = ()
    try:
        unusual = in_order(warnings(Policy.load(Path(path), environment=environment).document))
    except PolicyError as error:
        mistakes = error.problems
    if format == "json":
        listed = [*(_object(each, "error") for each in mistakes), *(_object(each, "warning") for each in unusual)]
        sys.stdout.write(json.dumps(listed, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{each}\n" for each in mistakes)
        sys.stdout.writelines(f"{each.origin}: warning: {each.path}: {each.message}\n" for each in unusual)
    return FAILED if mistakes else OK


def print_schema() -> int:
    """Print the JSON schema of policy files; return the exit code."""
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
    return OK


def _object(problem: Problem, severity: str) -> dict[str, object]:
    origin = problem.origin
    return {
        "file": origin.source,
        "line": origin.line,
        "column": origin.column,
        "path": problem.path,
        "severity": severity,
        "message": problem.message,
    }
