"""What holds for one model: the values, where each is from, and the layers that they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, cast

from overcoat.client import stack
from overcoat.layer import Client, PlacedLayer
from overcoat.layers.budget import Budget, Limit
from overcoat.layers.deadline import Deadline
from overcoat.layers.fallback import Fallback
from overcoat.layers.meter import Meter
from overcoat.layers.timeout import Timeout
from overcoat.llm import LiteLLMClient
from overcoat.policy.derivation import ABSENT, Section, Settings
from overcoat.policy.fallbacks import Fallbacks
from overcoat.policy.problems import DEFAULT, did_you_mean, written
from overcoat.policy.schema import Effective
from overcoat.policy.shape import paths_of
from overcoat.policy.tree import NONE, Node

TERMS = frozenset(each.name for each in fields(Limit)) - {"name"}
"""What each limit has for itself; all else those of one policy have in common, since they are reserved together."""

_DIGITS = 12
_NAMED = {"budget": "budgets", "breaker": "breakers", "limit": "limits"}


def effective_tree(document: Node, policy: str, limit: Node | None, model: str | None) -> Node:
    """Return what *document*, whose policies are complete, says for *model* by *policy*, with names put in their place.

    Args:
        document: The file with what lies over it.
        policy: The policy's name; "default" need not be in the file.
        limit: Where a rule names a limit of its own.
        model: The model's name; None for the policy as such.
    """
    chosen = document.get("policies", policy)
    entries = dict(chosen.entries) if chosen is not None else {}
    entries.pop("extends", None)
    if limit is not None:
        entries["limit"] = limit
    for key, section in _NAMED.items():
        if key in entries and entries[key].value != NONE:
            reference = entries.pop(key)
            named = document.get(section, str(reference.value))
            if named is not None:  # else it is reported as what it is
                entries[key] = replace(named, key=reference.origin)
    spending = entries.pop("spending", None)
    if spending is not None and spending.items:
        limits = [
            replace(limit, key=name.origin)
            for name in spending.items
            if (limit := document.get("spending", str(name.value))) is not None
        ]
        entries["spending"] = replace(spending, value=limits)
    entries |= {key: node for key in ("cache", "trace", "meter") if (node := document.get(key)) is not None}
    fallbacks = document.get("fallbacks")
    if model is not None and fallbacks is not None:
        rules = [rule for each in fallbacks.items if (rule := _fallback(each, model)) is not None]
        entries["fallbacks"] = replace(fallbacks, value=rules)
    root = chosen or document
    return Node(entries, root.path, root.origin, root.key)


def _fallback(rule: Node, model: str) -> Node | None:
    """Return what *rule* has for *model*, or None: a model is not asked in place of itself."""
    if not fnmatchcase(model, str(rule.entries["from"].value)):
        return None
    to = rule.entries["to"]
    others = [target for target in to.items if target.value != model]
    return rule.having(**{"from": None}, to=replace(to, value=others)) if others else None


def digest_of(settings: Section) -> str:
    """Return 12 hexadecimal digits of what *settings* say: "60s" and "1m" are the same, functions are not in it."""
    canonical = json.dumps(settings.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of `models` that chose a policy.

    Attributes:
        index: In the list, from 0.
        match: Which models it is for.
        origin: Where that was written.
    """

    index: int
    match: str
    origin: str


@dataclass(frozen=True)
class EffectivePolicy:
    """All that a policy says for one model.

    Attributes:
        name: The policy's, in the file.
        model: The model's; None for a client that does not say.
        rule: Of `models`, that chose the policy; None where none matched.
        source: The file's absolute path: what it names is told apart by that from what others name so.
        digest: 12 hexadecimal digits of the values, the same wherever the same holds. It is on every call span.
        enabled: Whether layers do anything; see OVERCOAT_ENABLED.
        enforces: Whether the file enforces anything.
        settings: The values, as the schema has them; durations are seconds.
        tree: The values that were given, with their places.
        for_code: Those that only code can give, by layer and field.
        inner_of: The layers that another model has as a fallback of this one, by its name.
    """

    name: str
    model: str | None
    rule: Rule | None
    source: str
    digest: str
    enabled: bool
    enforces: bool
    settings: Section = field(repr=False)  # a store's URL may have a password
    tree: Node = field(repr=False)
    for_code: Mapping[str, Mapping[str, Any]] = field(repr=False)
    inner_of: Callable[[str], Sequence[PlacedLayer]] = field(repr=False)

    def value(self, path: str) -> Any:
        """Return the value at *path*, such as "retry.max_attempts"; durations are seconds, and None is "none".

        Raises:
            KeyError: There can be nothing at *path*.
        """
        value = self.settings.at(_checked(path))
        return None if value is ABSENT else value

    def origin(self, path: str) -> str:
        """Return where the value at *path* was written: "file:line:column", "env NAME", "code" or "default".

        Raises:
            KeyError: There can be nothing at *path*.
        """
        node = self.tree.get(*_checked(path))
        return str(DEFAULT if node is None else node.origin)

    def layers(self, client_for: Callable[[str], Client] | None = None) -> tuple[PlacedLayer, ...]:
        """Return the layers, outermost first; none at all where overcoat is switched off.

        Args:
            client_for: Makes the clients of fallbacks from the models' names, by default `LiteLLMClient`.
        """
        if not self.enabled:
            return ()
        settings = self.settings
        deadline = settings.at(("deadline",))
        layers = [
            self._made("trace"),
            None if deadline is None else Deadline(deadline),
            self._made("cache"),
            self._made("validate"),
            self._fallbacks(client_for or LiteLLMClient),
        ]
        return (*(layer for layer in layers if layer is not None), *self.inner())

    def inner(self) -> Sequence[PlacedLayer]:
        """Return the layers that a fallback's target has of its own, by its own rule."""
        timeout = self.settings.at(("attempt_timeout",))
        budget = self._named("budget")
        layers = [
            self._made("hedge"),
            self._spending(),
            self._made("retry", budget=budget) if budget is not None else self._made("retry"),
            self._named("breaker"),
            self._named("limit"),
            None if timeout is None else Timeout(timeout),
            self._made("meter"),
        ]
        return [layer for layer in layers if layer is not None]

    def _made(self, key: str, **more: Any) -> Any:
        section = cast("Settings | None", self.settings.at((key,)))
        return None if section is None else section.make(**self.for_code.get(key, {}), **more)

    def _named(self, key: str) -> Any:
        """Return the layer with the file's name for it, by which its state survives new settings."""
        node = self.tree.get(key)
        if node is None or node.path[0] != _NAMED[key]:  # it was made up by code
            return self._made(key)
        # Processes that share a store may have the file elsewhere; in this one, other files have the same names.
        remote = self.settings.at((key, "store")) not in (None, ABSENT)
        return self._made(key, name=written(node.path) if remote else f"{self.source}: {written(node.path)}")

    def _spending(self) -> Budget | None:
        for_code = dict(self.for_code.get("spending", {}))
        if (given := for_code.pop("budget", None)) is not None:
            return cast("Budget", given)
        sections = cast("Sequence[Settings]", self.settings.at(("spending",)))
        if not sections:
            return None
        nodes = self.tree.entries["spending"].items
        limits = [
            Limit(**{name: getattr(section, name) for name in TERMS}, name=str(node.path[-1]))
            for section, node in zip(sections, nodes, strict=True)
        ]
        common: dict[str, Any] = {"prices": cast("Meter", self._made("meter")).prices}
        common |= {name: getattr(sections[0], name) for name in sections[0].model_fields_set - TERMS}
        return Budget(limits=limits, **(common | for_code))

    def _fallbacks(self, client_for: Callable[[str], Client]) -> PlacedLayer | None:
        rules = [
            Fallback([stack(client_for(name), *self.inner_of(name)) for name in rule.at(("to",))], rule.at(("when",)))
            for rule in cast("Sequence[Section]", self.settings.at(("fallbacks",)))
        ]
        return None if not rules else rules[0] if len(rules) == 1 else Fallbacks(tuple(rules))


def _checked(path: str) -> tuple[str, ...]:
    steps = tuple(path.split("."))
    known = paths_of(Effective)
    if path not in known and not (steps[:2] == ("retry", "errors") and len(steps) > 2):
        raise KeyError(f"a policy has no {path!r}{did_you_mean(path, known)}")
    return steps
