"""Lays the environment over a file: OVERCOAT_POLICIES__FAST__DEADLINE=5s is what the file could say as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from overcoat.policy.problems import Origin, Path, Problem, did_you_mean, written
from overcoat.policy.schema import File
from overcoat.policy.shape import child_of, keys_at, section_of
from overcoat.policy.tree import Node, put
from overcoat.policy.yaml_reading import read_yaml

PREFIX = "OVERCOAT_"
CONFIG = "OVERCOAT_CONFIG"
"""Names the policy file where code names none."""
ENABLED = "OVERCOAT_ENABLED"
"""false turns every layer off: calls go to the client, and only their record is kept."""

LEDGER = "OVERCOAT_LEDGER"
"""Names the ledger that `overcoat costs` reads; no policy has to do with it."""

_NOT_FROM_HERE = {
    "version": "says what the file is",
    "enforce": "is what the environment must obey",
    "models": "is a list, which only the file has",
    "fallbacks": "is a list, which only the file has",
}


def overlay(tree: Node, environment: Mapping[str, str], problems: list[Problem]) -> Node:
    """Return *tree* with the values of OVERCOAT_* variables in place of its own, and a problem for each that has none.

    Names are matched without regard to case, and "__" separates keys. Values are written as in a YAML file.
    """
    seen: dict[Path, str] = {}
    for variable, text in sorted(environment.items()):
        if not variable.upper().startswith(PREFIX) or variable in (CONFIG, ENABLED, LEDGER):
            continue
        origin = Origin(f"env {variable}")
        path = tuple(variable[len(PREFIX) :].lower().split("__"))
        message = _mistake(tree, path)
        if message is None and path in seen:
            message = f"the same as {seen[path]}"
        if message is not None:
            problems.append(Problem(origin, written(path), message))
            continue
        seen[path] = variable
        node = _value(text, path, origin, problems)
        if node is not None:
            tree = put(tree, path, node)
    return tree


def enabled(environment: Mapping[str, str], problems: list[Problem]) -> bool:
    """Say whether layers do anything."""
    text = environment.get(ENABLED, "true")
    if text.lower() not in ("true", "false"):
        problems.append(Problem(Origin(f"env {ENABLED}"), "", f"expected true or false, not {text!r}"))
    return text.lower() != "false"


def _mistake(tree: Node, path: Path) -> str | None:
    """Say why there is no value at *path* that the environment may set; None where there is one."""
    if path[0] in _NOT_FROM_HERE:
        return f"{path[0]} {_NOT_FROM_HERE[path[0]]}"
    annotation: Any = File
    for index, step in enumerate(path):
        known = keys_at(File, path[:index])
        if not known and section_of(annotation) is None:
            # Names are the file's: one that is misspelt here would make another, that nothing refers to.
            node = tree.get(*path[:index])
            known = list(node.entries) if node is not None else []
        annotation = child_of(annotation, step)
        if step not in known or annotation is None:
            if index == 0:
                known = [*(key for key in known if key not in _NOT_FROM_HERE), "config", "enabled", "ledger"]
            return f"there is nothing of this name{_nearest(path, index, known)}"
    return "it needs a name and a setting, too" if len(path) == 1 and section_of(annotation) is None else None


def _nearest(path: Path, index: int, known: Sequence[str]) -> str:
    variables = {
        word: PREFIX + "__".join(map(str, (*path[:index], word, *path[index + 1 :]))).upper() for word in known
    }
    advice = did_you_mean(str(path[index]), known)
    for word, variable in variables.items():
        advice = advice.replace(f"did you mean {word!r}", f"did you mean {variable}")
    return advice


def _value(text: str, path: Path, origin: Origin, problems: list[Problem]) -> Node | None:
    found: list[Problem] = []
    node = read_yaml(text, origin.source, found)
    problems.extend(Problem(origin, written(path), each.message) for each in found)
    if node is None or found:
        return None
    return _moved(node, path, origin)


def _moved(node: Node, path: Path, origin: Origin) -> Node:
    """Return *node* as if it stood at *path*."""
    value: Any = node.value
    if node.entries:
        value = {key: _moved(child, (*path, key), origin) for key, child in node.entries.items()}
    elif node.items:
        value = [_moved(child, (*path, index), origin) for index, child in enumerate(node.items)]
    return Node(value, path, origin, origin)
