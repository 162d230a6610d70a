"""Writes the reference page of policy files, from the models by which they are read."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic.fields import FieldInfo

from overcoat.policy.derivation import Name, Section, duration_text
from overcoat.policy.schema import Bounds, File
from overcoat.policy.shape import annotation_of, is_duration, keys_of, section_of
from overcoat.policy.tree import NONE

_INTRODUCTION = """\
# Policy files

Generated from the layers' own fields (`python -m overcoat.policy.reference`); do not edit.

A policy file is YAML or TOML. `overcoat check FILE` lists every mistake in one, `overcoat schema` prints the JSON
schema by which editors complete it, and `wrap(client, "FILE")` builds the stack that it describes.
[production.yaml](production.yaml) is a whole one with comments, [production.toml](production.toml) is the same in TOML.

- Durations are text with units: `500ms`, `30s`, `1m30s`, `1h`, `7d`. Numbers are refused.
- Names of policies, budgets, spending, breakers and limits have `a-z`, `0-9` and `_`, and begin with a letter.
- `none` takes away what would be inherited. Keys that are not listed here are mistakes.
- An environment variable replaces one value: `OVERCOAT_POLICIES__FAST__RETRY__MAX_ATTEMPTS=2`. It is laid over the file
  before `extends` is resolved. What code passes to `wrap` comes before it; what is enforced holds against both.
- `OVERCOAT_CONFIG` names the file where code names none. `OVERCOAT_ENABLED=false` turns every layer off: calls go
  straight to the client, without spans and metrics, and only `capture()` still sees them.
- Functions, clients and providers are for code: `wrap(client, "FILE", validate={"check": function})`.
- `wrap(client, Policy.watch("FILE"))` follows the file when it changes. What is named (a breaker, a limit, a budget,
  spending) keeps its state by its name, whatever becomes of its settings; a file with mistakes changes nothing.
"""

_MANY = 30
"""Words that a cell of a table can list; there are more paths of a policy than that."""


def reference() -> str:
    """Return the page, in Markdown."""
    seen: dict[str, type[Section]] = {}
    _collect(File, seen)
    return "\n".join([_INTRODUCTION, *(line for section in seen.values() for line in _chapter(section))]) + "\n"


def _collect(section: type[Section], seen: dict[str, type[Section]]) -> None:
    """Note *section* and all that lie in it, in the order in which a reader meets them."""
    if section.__name__ in seen or section is Bounds:  # its shape is that of a policy
        return
    seen[section.__name__] = section
    for info in keys_of(section).values():
        for inner in _sections_in(annotation_of(info)):
            _collect(inner, seen)


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    section = section_of(annotation)
    if section is not None:
        yield section
        return
    for argument in get_args(annotation):
        yield from _sections_in(argument)


def _chapter(section: type[Section]) -> Iterator[str]:
    yield f"## {section.__name__}"
    yield ""
    yield " ".join(cast("str", section.__doc__).split())
    yield ""
    yield "| key | value | default | |"
    yield "|---|---|---|---|"
    for key, info in keys_of(section).items():
        description = str(info.description).replace("|", "\\|")
        yield f"| `{key}` | {_value(info)} | {_default(info)} | {description} |"
    yield ""


def _value(info: FieldInfo) -> str:
    text = "a duration" if is_duration(info) else _type(annotation_of(info))
    optional = get_origin(info.annotation) in (Union, types.UnionType)
    return f"{text}, or `{NONE}`" if optional else text


_WORDS = {bool: "`true` or `false`", float: "a number", int: "a whole number", str: "text"}
_PLURALS = {"a name": "names", "a number": "numbers", "text": "names"}


def _type(annotation: Any) -> str:
    section = section_of(annotation)
    if section is not None:
        own = f"[{section.__name__}](#{section.__name__.lower()})"
        return "as in [Policy](#policy), with what is named put in its place" if section is Bounds else own
    if annotation == Name:
        return "a name"
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return f"{_type(arguments[0])}, each with {_type(arguments[1])}"
    if get_origin(annotation) is tuple:
        item = _type(arguments[0])
        return f"a list of {_PLURALS.get(item, item)}"
    if get_origin(annotation) is Literal:
        words = ", ".join(f"`{word}`" for word in arguments)
        return words if len(arguments) <= _MANY else "paths such as `retry.max_attempts`"
    return _WORDS[annotation]


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value: Any = info.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, (Section, dict)):
        return ""
    if is_duration(info):
        return f"`{duration_text(value)}`"
    if isinstance(value, tuple):
        words = cast("tuple[object, ...]", value)
        return ", ".join(f"`{word}`" for word in words)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())
