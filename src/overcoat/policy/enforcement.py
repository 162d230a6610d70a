"""Holds a policy to what its file enforces, against the environment, code and the file itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from overcoat.arithmetic.durations import seconds
from overcoat.classification import Kind
from overcoat.layers.retry import Retry
from overcoat.policy.derivation import ABSENT, Section, Settings, duration_text
from overcoat.policy.problems import Path, Problem, masked, written
from overcoat.policy.schema import ENABLED, Effective
from overcoat.policy.shape import is_duration, keys_of, paths_of
from overcoat.policy.tree import NONE, Node

_INFOS = paths_of(Effective)
_OFF = (None, ABSENT, False, (), NONE)
"""Values of what is not there, or not switched on."""

_OF_THE_FILE = ("cache", "trace", "meter", "fallbacks")
"""What a file says beside its policies, for all of them."""


class Held:
    """A policy that is held to the rules.

    Args:
        settings: What is effective.
        tree: The same, with its places.
        original: What would be effective by the file alone.
        rules: The file's `enforce`.
    """

    def __init__(self, settings: Section, tree: Node, original: Section | None, rules: Node) -> None:
        self._settings = settings
        self._tree = tree
        self._original = original
        self._rules = rules

    def violations(self, enforce: Section) -> Iterator[Problem]:
        """Yield what *enforce* does not allow."""
        for path, bound in _leaves(enforce.at(("max",))):
            for place, value in self._readings(path, with_defaults=True).items():
                if value is None or (value is not ABSENT and value > bound):
                    yield self._beyond(place, value, "max", path, bound)
        for path, bound in _leaves(enforce.at(("min",))):
            for place, value in self._readings(path).items():
                if value is not None and value is not ABSENT and value < bound:
                    yield self._beyond(place, value, "min", path, bound)
        for index, name in enumerate(enforce.at(("locked",))):
            if name == ENABLED:
                continue  # no value of a policy; it is for who reads the environment
            yield from self._changes(tuple(name.split(".")), self._rule("locked", index))
        for index, name in enumerate(enforce.at(("require",))):
            if self._settings.at(tuple(name.split("."))) in _OFF:
                yield self._problem(
                    (name,), f"required by enforce.require ({self._rule('require', index)}), and not there"
                )
        for index, name in enumerate(enforce.at(("forbid",))):
            path = tuple(name.split("."))
            if self._settings.at(path) not in _OFF:
                rule = f"forbidden by enforce.forbid ({self._rule('forbid', index)})"
                value = self._settings.at(path)
                said = "" if isinstance(value, (Section, tuple)) else f"{self._said(path, value)} "
                yield self._problem(path, f"{said}{rule}")

    def _said(self, place: Path, value: object) -> str:
        """Return *value* as the beginning of a sentence: nobody finds in the file what is not there."""
        default = ", the default," if self._tree.get(*place) is None else ""
        return f"{_shown(place, value)}{default} is"

    def _readings(self, path: Path, *, with_defaults: bool = False) -> Mapping[Path, Any]:
        """Return the value at *path*, and those that take its place for a class of errors.

        A ceiling on `retry.max_attempts` that did not hold for `retry.errors.timeout.max_attempts` would be none.
        """
        settings = self._settings
        found = _stated(settings, path)
        retry = cast("Settings | None", settings.at(("retry",)))
        layer = None if retry is None else cast("Retry", retry.make())
        # Else a class has no backoff of its own but what was stated.
        if with_defaults and layer is not None and layer.backoff is None and path[:2] == ("retry", "backoff"):
            for kind in Kind:
                if kind.retryable:
                    backoff = layer.on(kind)[1]
                    found.setdefault(
                        ("retry", "errors", kind.value, *path[1:]),
                        seconds(getattr(backoff, str(path[2])), str(path[2]), zero=True),
                    )
        return found

    def _changes(self, path: Path, rule: object) -> Iterator[Problem]:
        stated = _stated(self._settings, path)
        original = _stated(self._original, path) if self._original is not None else {}
        for place in {**original, **stated}:
            value, was = stated.get(place, ABSENT), original.get(place, ABSENT)
            if value != was:
                yield self._problem(
                    place,
                    f"locked at {_shown(place, was)} by enforce.locked ({rule}), but given as {_shown(place, value)}",
                )

    def _beyond(self, place: Path, value: Any, which: str, path: Path, bound: float) -> Problem:
        than, most = ("more", "most") if which == "max" else ("less", "least")
        rule = f"enforce.{which} ({self._rule(which, *path)})"
        given = f"there is none, and {rule} asks for at {most} {_shown(path, bound)}"
        if value is not None:
            given = f"{self._said(place, value)} {than} than the {_shown(path, bound)} of {rule}"
        return self._problem(place, given)

    def _rule(self, *path: str | int) -> object:
        return self._rules.nearest(path)[0].origin

    def _problem(self, place: Path, message: str) -> Problem:
        node, rest = self._tree.nearest(place)
        if node is self._tree and place[0] in _OF_THE_FILE:
            return Problem(self._rules.origin, written(place), message)
        return Problem(node.origin, written((*node.path, *rest)), message)


def _leaves(section: Section | None, path: Path = ()) -> Iterator[tuple[Path, float]]:
    """Yield each value that was given, with its path."""
    if section is None:
        return
    for name in sorted(section.model_fields_set):
        value, key = getattr(section, name), type(section).model_fields[name].alias or name
        if isinstance(value, Section):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _stated(settings: Section, path: Path) -> dict[Path, Any]:
    found: dict[Path, Any] = {path: settings.at(path)}
    errors = settings.at(("retry", "errors"))
    if path[0] == "retry" and len(path) > 1 and isinstance(errors, Mapping):
        for kind, override in cast("Mapping[str, Section]", errors).items():
            value = override.at(path[1:]) if path[1] in ("max_attempts", "backoff") else None
            if value is not None and value is not ABSENT:
                found[("retry", "errors", kind, *path[1:])] = value
    return found


def _shown(path: Path, value: Any) -> str:
    if value is None or value is ABSENT:
        return "none"
    if isinstance(value, Section):
        given = [f"{key}: {_shown((*path, key), value.at((key,)))}" for key in keys_of(type(value))]
        return f"{{{', '.join(given)}}}"
    if path[:2] == ("retry", "errors"):
        path = ("retry", *path[3:])  # what it takes the place of
    info = _INFOS.get(".".join(str(step) for step in path))
    if info is not None and is_duration(info):
        return duration_text(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_shown(path, each) for each in cast('tuple[object, ...]', value))}]"
    return str(value).lower() if isinstance(value, bool) else masked(repr(value))
