"""Finds what no value shows alone: names of nothing, rules without effect, values that exclude each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

from pydantic.fields import FieldInfo

from overcoat.arithmetic.durations import seconds
from overcoat.classification import Kind
from overcoat.layers.breaker import Breaker
from overcoat.layers.budget import Budget
from overcoat.layers.fallback import CAUSES, Fallback, takes_more
from overcoat.policy.derivation import duration_text, settings_of
from overcoat.policy.effective import TERMS
from overcoat.policy.problems import Path, Problem, did_you_mean
from overcoat.policy.schema import MOST_RULES
from overcoat.policy.shape import is_duration, keys_of
from overcoat.policy.tree import NONE, Node

MOST_ATTEMPTS = 10
"""More than that repeats a failure that does not pass (Spring AI's default is the highest among those surveyed)."""

DEFAULT = "default"
"""The policy of what no rule matches, and of a rule that names none."""

_NAMED = {"budget": "budgets", "breaker": "breakers", "limit": "limits"}


def check(tree: Node) -> Iterator[Problem]:
    """Yield what is wrong in *tree*, whose policies are complete; values that make no sense alone are passed over."""
    policies = _entries(tree, "policies")
    for policy in policies.values():
        yield from _references(tree, policy, _NAMED)
        yield from _spending(tree, policy)
        yield from _times(tree, policy)
        yield from _attempts(policy)
    yield from _rules(tree)
    yield from _without_rule(tree)
    yield from _fallbacks(tree)


def warnings(tree: Node) -> Iterator[Problem]:
    """Yield what is allowed in *tree*, whose policies are complete and make sense, and seldom meant."""
    for policy in _entries(tree, "policies").values():
        breaker, timeout = policy.get("breaker"), policy.get("attempt_timeout")
        if breaker is not None and breaker.text is not None and (timeout is None or timeout.text is None):
            yield breaker.problem(
                "a breaker without an attempt_timeout: while a probe hangs, its circuit stays half open"
            )
    for rule in _fallback_rules(tree):
        for target in rule.targets if Kind.CONTEXT_TOO_LONG in rule.when else ():
            if not takes_more(target.text, rule.source.text):
                yield target.problem(
                    f"it takes no longer prompts than {rule.source.text}, and is not asked for context_too_long"
                )


def _references(tree: Node, node: Node, sections: Mapping[str, str]) -> Iterator[Problem]:
    for key, section in sections.items():
        reference = node.get(key)
        name = reference.text if reference is not None else None
        if reference is not None and name is not None and name not in _entries(tree, section):
            yield reference.problem(f"there is no {name!r} in {section}{did_you_mean(name, _entries(tree, section))}")


def _spending(tree: Node, policy: Node) -> Iterator[Problem]:
    listed, known = policy.get("spending"), _entries(tree, "spending")
    names = [each for each in (listed.items if listed is not None else ()) if each.text is not None]
    seen: list[Node] = []
    for name in names:
        text = str(name.text)
        if text not in known:
            yield name.problem(f"there is no {text!r} in spending{did_you_mean(text, known)}")
        elif any(text == before.text for before in seen):
            yield name.problem(f"{text!r} is in the list already")
        elif seen:
            yield from _agreement(name, known[text], known[str(seen[0].text)])
        if text in known:
            seen.append(name)


def _agreement(name: Node, limit: Node, first: Node) -> Iterator[Problem]:
    for key, info in keys_of(settings_of(Budget)).items():
        if key not in TERMS and _setting(limit, key, info) != _setting(first, key, info):
            yield name.problem(
                f"it has another {key} than {first.path[-1]!r} ({first.origin}), with which it is reserved"
            )


def _setting(limit: Node, key: str, info: FieldInfo) -> Any:
    node = limit.get(key)
    if node is None:
        return info.default
    if node.value == NONE:
        return None
    return _seconds(node) if is_duration(info) else node.plain()


def _times(tree: Node, policy: Node) -> Iterator[Problem]:
    deadline, attempt = policy.get("deadline"), policy.get("attempt_timeout")
    yield from _no_more(attempt, deadline, "the deadline", "the attempt would never be timed")
    yield from _no_more(policy.get("hedge", "after"), deadline, "the deadline", "there would never be a hedge")
    for path in _backoffs(policy):
        base, cap = policy.get(*path, "base"), policy.get(*path, "cap")
        yield from _no_more(base, cap, "the cap", "every wait would be drawn from the cap alone")
    name = policy.get("breaker")
    breaker = _entries(tree, "breakers").get(str(name.text)) if name is not None else None
    timeout = _seconds(attempt)
    if breaker is None or timeout is None or attempt is None:
        return
    window = breaker.get("window")
    width = _seconds(window) if window is not None else seconds(Breaker().window, "window")
    if width is not None and width < 2 * timeout:
        yield (window or breaker).problem(
            f"a window of {duration_text(width)} is shorter than two attempts of {duration_text(timeout)} "
            f"({attempt.origin}), and would forget failures before the breaker has seen enough of them"
        )


def _no_more(less: Node | None, more: Node | None, what: str, harm: str) -> Iterator[Problem]:
    low, high = _seconds(less), _seconds(more)
    if less is not None and more is not None and low is not None and high is not None and low > high:
        yield less.problem(f"{less.value} is more than {what} of {more.value} ({more.origin}); {harm}")


def _backoffs(policy: Node) -> Iterator[Path]:
    yield "retry", "backoff"
    errors = policy.get("retry", "errors")
    for kind in errors.entries if errors is not None else ():
        yield "retry", "errors", kind, "backoff"


def _attempts(policy: Node) -> Iterator[Problem]:
    for path in _backoffs(policy):
        attempts = policy.get(*path[:-1], "max_attempts")
        if attempts is not None and type(attempts.value) is int and attempts.value > MOST_ATTEMPTS:
            yield attempts.problem(f"{attempts.value} attempts are more than {MOST_ATTEMPTS}, which help nobody")


def _rules(tree: Node) -> Iterator[Problem]:
    models = tree.get("models")
    before: list[Node] = []
    for rule in models.items[:MOST_RULES] if models is not None else ():
        yield from _references(tree, rule, {"policy": "policies", "limit": "limits"})
        match = rule.get("match")
        if match is None or match.text is None:
            continue
        for earlier in before:
            if _covers(str(earlier.text), match.text):
                reason = f"{earlier.text!r} ({earlier.origin}) comes first and matches all that {match.text!r} does"
                yield match.problem(f"never reached: {reason}")
                break
        before.append(match)


def _without_rule(tree: Node) -> Iterator[Problem]:
    """Yield what would get the policy "default" in a file that has others only."""
    policies, models = _entries(tree, "policies"), tree.get("models")
    if not policies or DEFAULT in policies:
        return
    rules = models.items if models is not None else ()
    for rule in rules:
        if rule.get("policy") is None:
            yield rule.problem(f"it names no policy, and there is no {DEFAULT!r}{did_you_mean(DEFAULT, policies)}")
    matches = [match.text for rule in rules if (match := rule.get("match")) is not None and match.text is not None]
    for target in (target for rule in _fallback_rules(tree) for target in rule.targets):
        if not any(fnmatchcase(str(target.text), match) for match in matches):
            yield target.problem(f"no rule of models matches it, and there is no policy {DEFAULT!r}")


def _covers(wide: str, narrow: str) -> bool:
    """Say whether *wide* matches all that *narrow* does, as far as that can be seen from what wildcards stand for."""
    if wide in (narrow, "*"):
        return True
    if "[" in narrow:
        return False  # what a class stands for is not one text
    return all(
        fnmatchcase(narrow.replace("?", "\0").replace("*", some), wide)
        for some in ("", "\0", "\0" * len(wide) + "\0\0")
    )


def _fallbacks(tree: Node) -> Iterator[Problem]:
    rules = list(_fallback_rules(tree))
    targets = {str(target.text): target for rule in rules for target in rule.targets}
    for rule in rules:
        for target in rule.targets:
            if target.text == rule.source.text:
                yield target.problem(f"{target.text!r} would be asked in place of itself")
    seen: set[frozenset[str]] = set()
    for cause in CAUSES:
        some = [rule for rule in rules if cause in rule.when]
        graph = {name: [target for rule in some for target in rule.leads(name)] for name in targets}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            cycle: list[str] = error.args[1][::-1]  # each falls back to the next
            if frozenset(cycle) not in seen:
                seen.add(frozenset(cycle))
                yield targets[cycle[0]].problem(f"a cycle for {cause}: {' falls back to '.join(cycle)}")


class _FallbackRule(NamedTuple):
    source: Node
    targets: Sequence[Node]
    when: Collection[str]

    def leads(self, model: str) -> Sequence[str]:
        """Return who is asked in place of *model*; a rule that names it leads on to the others by itself."""
        names = [str(target.text) for target in self.targets]
        return names if model not in names and fnmatchcase(model, str(self.source.text)) else []


def _fallback_rules(tree: Node) -> Iterator[_FallbackRule]:
    listed = tree.get("fallbacks")
    for rule in listed.items[:MOST_RULES] if listed is not None else ():
        source, to, when = rule.get("from"), rule.get("to"), rule.get("when")
        if source is not None and source.text is not None and to is not None:
            causes = [cause.value for cause in when.items] if when is not None else Fallback.when
            yield _FallbackRule(source, [target for target in to.items if target.text is not None], causes)


def _entries(tree: Node, section: str) -> Mapping[str, Node]:
    node = tree.get(section)
    return node.entries if node is not None else {}


def _seconds(node: Node | None) -> float | None:
    if node is None or not isinstance(node.value, str):
        return None
    try:
        return seconds(node.value, "", zero=True)
    except ValueError:
        return None  # reported as what it is, by the model
