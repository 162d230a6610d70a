"""Reads YAML into a tree with places, and refuses what readers of YAML 1.1 and 1.2 do not read alike."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import yaml

from overcoat.policy.problems import Origin, Path, Problem, written
from overcoat.policy.tree import MAX_DEPTH, MAX_DIGITS, Node

_MAX_NODES = 20_000  # what aliases multiply is counted as often as it appears

# The core schema of YAML 1.2, section 10.3.2, but for what a policy has no use for: other bases, infinities.
_CORE: tuple[tuple[str, Callable[[str], Any], re.Pattern[str]], ...] = (
    ("null", lambda text: None, re.compile(r"|~|null|Null|NULL")),  # noqa: ARG005 - they all say the same
    ("bool", lambda text: text.lower() == "true", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", int, re.compile(r"[-+]?[0-9]+")),
    ("float", float, re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")),
)
_OCTAL = re.compile(r"[-+]?0[0-9]+")
_YAML_1_1 = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Composes nodes, and never constructs an object; what no policy needs is refused before it is built."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = cast("Any", self).peek_event()
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the tag {event.tag!r} has no meaning here", problem_mark=event.start_mark
            )
        if self.depth == MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=event.start_mark
            )
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Reading:
    def __init__(self, source: str, problems: list[Problem]) -> None:
        self._source = source
        self._problems = problems
        self._open: set[int] = set()
        self._count = 0

    def node(self, node: Any, path: Path, key: Origin | None) -> Node | None:
        """Return the tree of *node*, with a problem for each part that must not be used; None for the part itself."""
        origin = self.origin(node)
        self._count += 1
        if self._count > _MAX_NODES:
            raise yaml.MarkedYAMLError(
                problem=f"more than {_MAX_NODES} values, counting each alias", problem_mark=node.start_mark
            )
        if id(node) in self._open:
            self._refuse(origin, path, "an alias that contains itself")
            return None
        self._open.add(id(node))
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            children = [self.node(child, (*path, index), None) for index, child in enumerate(cast("Any", node).value)]
            value = [child for child in children if child is not None]
        else:
            value = self._scalar(node, path, origin)
        self._open.discard(id(node))
        return None if value is None else Node(value, path, origin, key or origin)

    def _mapping(self, node: Any, path: Path) -> dict[str, Node]:
        seen: dict[str, Origin] = {}
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            origin = self.origin(key_node)
            name = self._key(key_node, path, origin)
            if name is None:
                continue
            if name in seen:
                self._refuse(origin, (*path, name), f"given twice, first on line {seen[name].line}")
                continue
            seen[name] = origin
            value = self.node(value_node, (*path, name), origin)
            if value is not None:
                entries[name] = value
        return entries

    def _key(self, node: Any, path: Path, origin: Origin) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._refuse(origin, path, "a key must be text")
            return None
        if node.tag == f"{_YAML_1_1}merge":
            self._refuse(origin, path, "merge keys (<<) are gone from YAML 1.2; policies inherit by `extends`")
            return None
        value = self._scalar(node, (*path, str(cast("Any", node).value)), origin, key=True)
        if value is None or isinstance(value, str):
            return value
        self._refuse(origin, path, f"the key {cast('Any', node).value} is no text")
        return None

    def _scalar(self, node: Any, path: Path, origin: Origin, *, key: bool = False) -> Any:
        text: str = node.value
        if node.style is not None:
            return text
        then = node.tag.removeprefix(_YAML_1_1)
        now, convert = next(((name, convert) for name, convert, form in _CORE if form.fullmatch(text)), ("str", str))
        if then != now:
            readings = f"{_reading(then, text)} to readers of YAML 1.1 and {_reading(now, text)} to those of 1.2"
            self._refuse(origin, path, f"{text} is {readings}; {'quote it' if key else _advice(then, text)}")
        elif now == "null":
            self._refuse(origin, path, "nothing is given; leave the key out, or write none")
        elif now == "int" and _OCTAL.fullmatch(text):
            self._refuse(origin, path, f"{text} is octal to readers of YAML 1.1; write it without the zero")
        elif now in ("int", "float") and len(text) > MAX_DIGITS:
            self._refuse(origin, path, "too long for a number")
        else:
            return convert(text)
        return text  # so that what is refused is not missed as well

    def _refuse(self, origin: Origin, path: Path, message: str) -> None:
        self._problems.append(Problem(origin, written(path), message))

    def origin(self, node: Any) -> Origin:
        return Origin(self._source, node.start_mark.line + 1, node.start_mark.column + 1)


_NAMES = {"bool": "a truth value", "int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}


def _reading(tag: str, text: str) -> str:
    if ":" in text and tag in ("int", "float"):
        value = 0.0
        for part in text.replace("_", "").split(":"):
            value = value * 60 + float(part)
        return f"the number {value:g}"
    return _NAMES.get(tag, "text" if tag == "str" else "a command")


def _advice(tag: str, text: str) -> str:
    if tag == "bool":
        return "write true or false, or quote it"
    return "a duration has units, such as 1m30s" if ":" in text else "quote it, or write it otherwise"


def read_yaml(text: str, source: str, problems: list[Problem]) -> Node | None:
    """Return the tree of *text*; where it is no YAML at all, None and a problem that says where it ceases to be.

    Args:
        text: The document.
        source: What its places are called, such as the file's name.
        problems: Where mistakes go.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
        if root is None:
            problems.append(Problem(Origin(source, 1, 1), "", "it is empty; a policy begins with `version: 1`"))
            return None
        return _Reading(source, problems).node(root, (), None)
    except yaml.MarkedYAMLError as error:
        mark = cast("Any", error.problem_mark or error.context_mark)
        what = f"{error.context}, {error.problem}" if error.context else str(error.problem)
        problems.append(Problem(Origin(source, mark.line + 1, mark.column + 1), "", what))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        problems.append(Problem(Origin(source, line, column), "", f"the character #x{error.character:04x} is not text"))
    return None
