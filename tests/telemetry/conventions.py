"""The semantic conventions 1.41 as data: which attributes a span or a metric has, how required, of which type."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

FOLDER = Path(__file__).parents[3] / "shared" / "semconv-1.41"

present = pytest.mark.skipif(not FOLDER.exists(), reason="the conventions as data are not beside this checkout")


class Wanted(NamedTuple):
    """An attribute in its place: the level is "required", "conditionally_required", "recommended" or "opt_in"."""

    level: str
    for_sampling: bool


@cache
def _documents() -> list[Any]:
    return [group for path in FOLDER.rglob("*.yaml") for group in yaml.safe_load(path.read_text())["groups"]]


@cache
def group(name: str) -> dict[str, Any]:
    (found,) = (each for each in _documents() if each["id"] == name)
    return found


@cache
def attributes(name: str) -> dict[str, Wanted]:
    """The attributes of a group, with those that it extends; what it says itself overrides them."""
    own = group(name)
    found = dict(attributes(own["extends"])) if "extends" in own else {}
    for each in own.get("attributes", ()):
        known = found.get(each["ref"], Wanted("recommended", for_sampling=False))
        level = each.get("requirement_level", known.level)
        if isinstance(level, dict):
            (level,) = level
        found[each["ref"]] = Wanted(level, each.get("sampling_relevant", known.for_sampling))
    return found


@cache
def types() -> dict[str, Any]:
    """The type of each attribute of the registries: its name, or the values of an enumeration."""
    found: dict[str, Any] = {}
    for each in _documents():
        if each["id"].startswith("registry."):
            for attribute in each["attributes"]:
                kind = attribute["type"]
                values = {member["value"] for member in kind["members"]} if isinstance(kind, dict) else kind
                found[attribute["id"]] = values
    return found


_KINDS = {"string": str, "int": int, "double": float, "boolean": bool}


def fits(name: str, value: Any) -> bool:
    """Whether *value* is of the type that the registry has for the attribute; enumerations of texts are open."""
    kind = types()[name]
    if isinstance(kind, set):
        return isinstance(value, str)
    if kind.endswith("[]"):
        return isinstance(value, tuple) and all(type(each) is _KINDS[kind[:-2]] for each in value)
    return kind not in _KINDS or type(value) is _KINDS[kind]  # else "any" or a template
