"""`Policy`: a policy file, read, overlaid with the environment, and checked, ready to say what holds for a model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, Unpack

from overcoat.arithmetic.durations import Duration
from overcoat.errors import PolicyError
from overcoat.layer import PlacedLayer
from overcoat.policy.checks import DEFAULT, check
from overcoat.policy.derivation import Section
from overcoat.policy.effective import EffectivePolicy, Rule, digest_of, effective_tree
from overcoat.policy.enforcement import Held
from overcoat.policy.inheritance import resolve
from overcoat.policy.overlay import CONFIG, ENABLED, enabled, overlay
from overcoat.policy.overrides import NOTHING, Given, Overrides, read_overrides
from overcoat.policy.problems import Origin, Problem, refusal
from overcoat.policy.reading import read
from overcoat.policy.schema import ENABLED as SWITCH
from overcoat.policy.schema import Effective, File
from overcoat.policy.tree import Node
from overcoat.policy.validation import validate

if TYPE_CHECKING:
    from overcoat.policy.watching import PolicyWatch

logger = logging.getLogger("overcoat")


def path_of(path: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> str:
    """Return *path*, or what OVERCOAT_CONFIG says in its place.

    Raises:
        PolicyError: Neither is there.
    """
    if path is None and CONFIG not in environment:
        raise PolicyError(f"no policy file is given; name one, or set {CONFIG}")
    return os.fspath(path) if path is not None else environment[CONFIG]


class _Choice(NamedTuple):
    """What a rule of `models` chooses: a policy by its name, and a limit in place of the policy's."""

    policy: str
    limit: Node | None = None
    rule: Rule | None = None

    @classmethod
    def by(cls, rule: Node, matched: Rule | None = None) -> _Choice:
        """Return what *rule* chooses."""
        policy = rule.get("policy")
        return cls(DEFAULT if policy is None else str(policy.value), rule.get("limit"), matched)


@dataclass(frozen=True)
class Policy:
    """What a policy file says, with the environment laid over it. It never changes; a file that did is loaded anew.

    Attributes:
        path: Of the file.
        enabled: Whether layers do anything: OVERCOAT_ENABLED, by default true.
        document: The file with the environment over it; its policies are complete.
        original: The same without the environment.
        enforced: What the file enforces; None where it enforces nothing.
    """

    path: str
    enabled: bool
    document: Node = field(repr=False)
    original: Node = field(repr=False)
    enforced: Section | None = field(repr=False)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, *, environment: Mapping[str, str] | None = None
    ) -> Policy:
        """Read a file and what the environment says in place of its values.

        Args:
            path: Of a YAML or TOML file; None takes it from OVERCOAT_CONFIG.
            environment: By default that of the process.

        Raises:
            PolicyError: There is no such file, or it makes no sense. Its `problems` are all mistakes, each with its
                place; its text lists them, one a line.
        """
        environment = os.environ if environment is None else environment
        problems: list[Problem] = []
        source = path_of(path, environment)
        tree = read(source, problems)
        if tree is None:
            raise refusal(problems)
        refused = {problem.origin for problem in problems}
        found: list[Problem] = []
        document = resolve(overlay(tree, environment, found), found)
        file = validate(File, document, found)
        found.extend(check(document))
        policy = cls(
            source,
            enabled(environment, found),
            document,
            resolve(tree, []),
            None if file is None else file.at(("enforce",)),
        )
        if not problems and not found:
            found.extend(policy._violations())
        problems.extend(problem for problem in found if problem.origin not in refused)
        if problems:
            raise refusal(problems)
        if not policy.enabled:
            logger.warning("%s=false: every layer is off, and calls go straight to their clients", ENABLED)
        return policy

    @classmethod
    def watch(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        every: Duration = 1.0,
        environment: Mapping[str, str] | None = None,
    ) -> PolicyWatch:
        """Read a file as `load` does, and again whenever it changes; `wrap` takes what is returned.

        Args:
            path: Of a YAML or TOML file; None takes it from OVERCOAT_CONFIG.
            every: How often to look, at the most: seconds, or text such as "1s". For as long it must also have been
                left alone.
            environment: By default that of the process, each time as it is then.

        Raises:
            PolicyError: There is no such file, or it makes no sense. Later mistakes are logged.
        """
        from overcoat.policy.watching import PolicyWatch  # noqa: PLC0415 - which needs this module

        return PolicyWatch(path, every, environment)

    def for_model(self, model: str | None, **overrides: Unpack[Overrides]) -> EffectivePolicy:
        """Return what holds for *model*: the first rule of `models` that matches it, else the policy "default".

        Args:
            model: As the client names it, such as "openai/gpt-4o"; None is matched by "*" only.
            **overrides: What code says in place of the file; see `Overrides`.

        Raises:
            PolicyError: No rule matches, an override makes no sense, or it loosens what the file enforces.
        """
        problems: list[Problem] = []
        given = read_overrides(overrides, self.document, problems)
        choice = self._choose(model)
        effective = self._effective(choice, model, given, problems) if not problems else None
        if effective is None or problems:
            raise refusal(problems)

        def inner_of(target: str) -> Sequence[PlacedLayer]:
            return self.for_model(target, **overrides).inner()

        settings, tree = effective
        return EffectivePolicy(
            name=choice.policy,
            model=model,
            rule=choice.rule,
            source=os.path.abspath(self.path),  # noqa: PTH100 - resolving it would tell the versions of a symlink apart
            digest=digest_of(settings),
            enabled=self.enabled,
            enforces=self.enforced is not None,
            settings=settings,
            tree=tree,
            for_code=given.for_code,
            inner_of=inner_of,
        )

    def _choose(self, model: str | None) -> _Choice:
        rules = self.document.get("models")
        for index, rule in enumerate(rules.items if rules is not None else ()):
            match = rule.entries["match"]
            if fnmatchcase(model or "", str(match.value)):
                return _Choice.by(rule, Rule(index, str(match.value), str(match.origin)))
        policies = self.document.get("policies")
        if policies is not None and policies.entries and DEFAULT not in policies.entries:
            origin = rules.key if rules is not None else Origin(self.path)
            raise refusal([Problem(origin, "models", f"no rule matches {model!r}, and there is no policy {DEFAULT!r}")])
        return _Choice(DEFAULT)

    def _effective(
        self, choice: _Choice, model: str | None, given: Given, problems: list[Problem]
    ) -> tuple[Section, Node] | None:
        tree = given.over(effective_tree(self.document, choice.policy, choice.limit, model))
        settings = validate(Effective, tree, problems, from_code=given is not NOTHING)
        if settings is None:
            return None
        rules = self.document.get("enforce")
        if self.enforced is not None and rules is not None:
            by_the_file = validate(Effective, effective_tree(self.original, choice.policy, choice.limit, model), [])
            problems.extend(Held(settings, tree, by_the_file, rules).violations(self.enforced))
        return settings, tree

    def _violations(self) -> Sequence[Problem]:
        """Return what the file and the environment say against `enforce`, for every policy and every rule."""
        problems: list[Problem] = []
        if self.enforced is None:
            return problems
        if not self.enabled and SWITCH in self.enforced.at(("locked",)):
            problems.append(Problem(Origin(f"env {ENABLED}"), SWITCH, "locked by enforce.locked"))
        rules, policies = self.document.get("models"), self.document.get("policies")
        choices = [_Choice.by(rule) for rule in (rules.items if rules is not None else ())]
        used = {choice.policy for choice in choices}
        choices.extend(_Choice(name) for name in (policies.entries if policies else (DEFAULT,)) if name not in used)
        for choice in choices:
            self._effective(choice, None, NOTHING, problems)
        return problems
