"""Reads a policy file: from bytes that may be anything to a tree, or to problems that say where and what."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from overcoat.policy.problems import Origin, Problem
from overcoat.policy.toml_reading import read_toml
from overcoat.policy.tree import Node
from overcoat.policy.yaml_reading import read_yaml

MAX_BYTES = 256 * 1024
"""A policy is a page or two; what is larger is another file, and would be read for minutes."""

_READERS: dict[str, Callable[[str, str, list[Problem]], Node | None]] = {
    ".toml": read_toml,
    ".yaml": read_yaml,
    ".yml": read_yaml,
}


def read(path: str | os.PathLike[str], problems: list[Problem]) -> Node | None:
    """Return the tree of the file at *path*; None where there is none to be had, and a problem that says why.

    Args:
        path: Of a file whose name ends in .yaml, .yml or .toml.
        problems: Where mistakes go.
    """
    source = os.fspath(path)
    reader = _READERS.get(Path(source).suffix.lower())
    if reader is None:
        problems.append(Problem(Origin(source), "", "expected a file whose name ends in .yaml, .yml or .toml"))
        return None
    try:
        if not _ends(source):
            problems.append(Problem(Origin(source), "", "cannot be read: it is no regular file"))
            return None
        with Path(source).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        problems.append(Problem(Origin(source), "", f"cannot be read: {reason}"))
        return None
    if len(content) > MAX_BYTES:
        problems.append(Problem(Origin(source), "", f"larger than {MAX_BYTES // 1024} KiB; this is no policy"))
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        problems.append(
            Problem(Origin(source, line, column), "", f"the byte 0x{content[error.start]:02x} is not UTF-8 text")
        )
        return None
    return reader(text, source, problems)


def _ends(path: str) -> bool:
    """Say whether reading *path* ever does: a pipe waits for its other end. A folder cannot be opened at all."""
    mode = Path(path).stat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)
