"""Reads TOML into a tree with places: tomllib judges and reads it, a locator finds where everything is."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from overcoat.policy.problems import Origin, Path, Problem, written
from overcoat.policy.tree import MAX_DEPTH, Node

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_QUOTED = r'"""(?:\\.|[^\\])*?"{3,5}|\'{3}.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\''
_STRING = re.compile(_QUOTED, re.DOTALL)
_PART = rf"(?:{_QUOTED}|[A-Za-z0-9_-]+)"
_KEY = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]+")
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TOO_LONG = re.compile(r"[\d_]{4300}")


class _Spot(NamedTuple):
    """Offsets into the text: where a key is, and where its value begins."""

    key: int
    value: int


class _Locator:
    """Walks over a document that tomllib has accepted, and notes where each value is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._tables: dict[Path, int] = {}
        self.spots: dict[Path, _Spot] = {}

    def locate(self) -> Mapping[Path, _Spot]:
        """Return the spots of all that is in the document."""
        here: Path = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                here = self._header()
            else:
                self._pair(here)
            self._skip(_BLANK)
        return self.spots

    def _header(self) -> Path:
        many = self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        self._skip(_BLANK)
        start = self._at
        keys = self._keys()
        self._skip(_BLANK)
        self._at += 2 if many else 1
        path = self._down((), keys[:-1], start)
        self._note((*path, keys[-1]), start, start)
        if not many:
            return self._down(path, keys[-1:], start)
        path = (*path, keys[-1])
        self._tables[path] = self._tables.get(path, -1) + 1
        self._note((*path, self._tables[path]), start, start)
        return (*path, self._tables[path])

    def _down(self, path: Path, keys: Sequence[str], at: int) -> Path:
        """Return the path of the table that *keys* lead to, where the last one of an array of tables is meant."""
        for key in keys:
            path = (*path, key)
            self._note(path, at, at)
            if path in self._tables:
                path = (*path, self._tables[path])
        return path

    def _pair(self, table: Path) -> None:
        start = self._at
        keys = self._keys()
        path = (*self._down(table, keys[:-1], start), keys[-1])
        self._skip(_BLANK)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path, start)

    def _value(self, path: Path, key: int) -> None:
        self._note(path, key, self._at)
        opening = self._text[self._at]
        if opening == "{":
            for _ in self._inside("}"):
                self._pair(path)
        elif opening == "[":
            for index in self._inside("]"):
                self._value((*path, index), self._at)
        else:
            self._skip(_STRING if opening in "\"'" else _SCALAR)

    def _inside(self, closing: str) -> Any:
        """Yield the index of each part up to *closing*, when it is reached."""
        self._at += 1
        self._skip(_BLANK)
        index = 0
        while self._text[self._at] != closing:
            yield index
            index += 1
            self._skip(_BLANK)
            if self._text[self._at] == ",":
                self._at += 1
                self._skip(_BLANK)
        self._at += 1

    def _keys(self) -> Sequence[str]:
        text = cast("re.Match[str]", _KEY.match(self._text, self._at)).group()
        self._at += len(text)
        keys: list[str] = []
        nested: Any = tomllib.loads(f"{text} = 0")
        while isinstance(nested, dict):
            ((key, nested),) = cast("dict[str, Any]", nested).items()
            keys.append(key)
        return keys

    def _note(self, path: Path, key: int, value: int) -> None:
        self.spots.setdefault(path, _Spot(key, value))

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._at = cast("re.Match[str]", pattern.match(self._text, self._at)).end()


class _Reading:
    def __init__(self, text: str, source: str, problems: list[Problem]) -> None:
        self._source = source
        self._problems = problems
        self._spots = _Locator(text).locate()
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def node(self, value: Any, path: Path) -> Node:
        spot = self._spots.get(path, _Spot(0, 0))
        origin, key = self._origin(spot.value), self._origin(spot.key)
        if len(path) > MAX_DEPTH:
            self._problems.append(Problem(origin, "", f"nested more than {MAX_DEPTH} levels deep"))
            value = ""
        elif isinstance(value, dict):
            entries = cast("dict[str, Any]", value)
            value = {name: self.node(child, (*path, name)) for name, child in entries.items()}
        elif isinstance(value, list):
            value = [self.node(child, (*path, index)) for index, child in enumerate(cast("Sequence[Any]", value))]
        elif not isinstance(value, (str, int, float)):
            self._problems.append(
                Problem(origin, written(path), "a date or a time of day has no meaning here; write it in quotes")
            )
            value = str(value)  # so that what is refused is not missed as well
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            self._problems.append(Problem(origin, written(path), "too long for a number"))
            value = 0
        return Node(value, path, origin, key)

    def _origin(self, offset: int) -> Origin:
        line = bisect_right(self._lines, offset)
        return Origin(self._source, line, offset - self._lines[line - 1] + 1)


def read_toml(text: str, source: str, problems: list[Problem]) -> Node | None:
    """Return the tree of *text*; where it is no TOML at all, None and a problem that says where it ceases to be.

    Args:
        text: The document.
        source: What its places are called, such as the file's name.
        problems: Where mistakes go.
    """
    try:
        values = tomllib.loads(text)
        if not values:
            problems.append(Problem(Origin(source, 1, 1), "", "it is empty; a policy begins with `version = 1`"))
            return None
        return _Reading(text.replace("\r\n", "\n"), source, problems).node(values, ())
    except tomllib.TOMLDecodeError as error:
        where = _WHERE.search(str(error))
        line, column = (int(where[1]), int(where[2])) if where and where[1] else (text.count("\n") + 1, 1)
        message = _WHERE.sub("", str(error)).replace("Cannot overwrite a value", "a key is given twice")
        problems.append(Problem(Origin(source, line, column), "", message))
    except ValueError:  # from Python's `int`, which gives no place
        number = cast("re.Match[str]", _TOO_LONG.search(text)).start()
        line, column = text.count("\n", 0, number) + 1, number - text.rfind("\n", 0, number)
        problems.append(Problem(Origin(source, line, column), "", "too long for a number"))
    except RecursionError:
        problems.append(Problem(Origin(source, 1, 1), "", "nested too deeply"))
    return None
