"""Validates a tree by its model, and says what is wrong in a file's terms and at a file's places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from overcoat.policy.derivation import FOR_CODE_ONLY, Section, Settings
from overcoat.policy.problems import Path, Problem, did_you_mean, masked
from overcoat.policy.shape import keys_at, section_of, type_at
from overcoat.policy.tree import NONE, Node

# How our layers begin their complaints, such as "Retry(max_attempts=0): expected ...".
_BY_A_LAYER = re.compile(r"\w+\((?:(\w+)=.*?)?\): (?:[\d.]+ )?(.*)", re.DOTALL)

_NO_NAME = "no name; names begin with a letter, have a-z, 0-9 and _ only, and are not none"
_MOST = 60  # characters of a value that are worth repeating


def validate(model: type[Section], tree: Node, problems: list[Problem], *, from_code: bool = False) -> Section | None:
    """Return the instance of *model* that *tree* makes, or None and a problem for each mistake.

    Args:
        model: What the tree should be.
        tree: What was written.
        problems: Where mistakes go.
        from_code: Whether durations may be numbers of seconds.
    """
    try:
        return model.model_validate(tree.plain(), context={"from_code": from_code})
    except ValidationError as errors:
        found = cast("list[Mapping[str, Any]]", errors.errors(include_url=False))
        problems.extend(_problem(model, tree, error) for error in found)
    return None


def _problem(model: type[Section], tree: Node, error: Mapping[str, Any]) -> Problem:
    path: Path = error["loc"]
    kind: str = error["type"]
    if path and path[-1] == "[key]":
        path = path[:-1]
        known = keys_at(model, path[:-1])
        node, _ = tree.nearest(path)
        return node.problem(_unknown(str(path[-1]), known) if known else _NO_NAME, at_key=True)
    if kind == "extra_forbidden":
        node, _ = tree.nearest(path)
        return node.problem(_extra(model, path), at_key=True)
    if kind == "missing":
        node, _ = tree.nearest(path[:-1])
        return node.problem(f"{path[-1]!r} is missing", at_key=True)
    message = _message(kind, error)
    if kind == "value_error" and (found := _BY_A_LAYER.fullmatch(message)):
        field, message = found[1], found[2]
        path = (*path, field) if field is not None else path
    return tree.nearest(path)[0].problem(message)


def _extra(model: type[Section], path: Path) -> str:
    section = section_of(type_at(model, path[:-1]))
    if section is not None and issubclass(section, Settings) and path[-1] in FOR_CODE_ONLY.get(section.makes, ()):
        return "only code can give it"
    return _unknown(str(path[-1]), keys_at(model, path[:-1]))


def _unknown(key: str, known: Sequence[str]) -> str:
    return f"unknown key{did_you_mean(key, known)}"


def _message(kind: str, error: Mapping[str, Any]) -> str:
    if kind == "value_error":
        return re.sub(r"\bNone\b", NONE, str(error["ctx"]["error"]))
    if kind == "string_pattern_mismatch":
        return _NO_NAME
    given = _given(error["input"])
    if kind == "literal_error" and len(words := _words(error["ctx"]["expected"])) > 1:
        return f"there is no {given}{did_you_mean(str(error['input']), words)}"
    if kind == "too_long":
        return f"expected at most {error['ctx']['max_length']} values"
    expected = error["ctx"]["expected"] if kind == "literal_error" else _EXPECTED.get(kind) or error["msg"]
    return f"expected {expected}, not {given}"


def _words(expected: str) -> list[str]:
    return re.findall(r"'([^']*)'", expected)


_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping of names",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "model_type": "a mapping",
    "string_too_short": "text",
    "string_type": "text",
    "too_short": "at least one",
    "tuple_type": "a list",
}


def _given(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if isinstance(value, bool):
        return str(value).lower()
    text = masked(repr(value))
    return text if len(text) <= _MOST else f"{text[:_MOST]}..."
