"""What code says in place of a file: plain values as a file has them, layers, and what only code can give."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, cast

from overcoat.arithmetic.durations import Duration
from overcoat.layers.breaker import Breaker
from overcoat.layers.budget import Budget, Limit
from overcoat.layers.cache import Cache
from overcoat.layers.deadline import Deadline
from overcoat.layers.hedge import Hedge
from overcoat.layers.meter import Meter
from overcoat.layers.rate_limit import RateLimit
from overcoat.layers.retry import Retry, RetryBudget
from overcoat.layers.timeout import Timeout
from overcoat.layers.trace import Trace
from overcoat.layers.validate import Validate
from overcoat.policy.derivation import FOR_CODE_ONLY, TEXT_OR_OBJECT
from overcoat.policy.problems import CODE, Path, Problem, did_you_mean
from overcoat.policy.schema import Effective
from overcoat.policy.shape import keys_of
from overcoat.policy.tree import NONE, Node, merge

Values = Mapping[str, Any]
"""The fields of a layer by their names; those that are not there stay as the file has them."""


class Overrides(TypedDict, total=False):
    """What `wrap` takes beside the file: a layer replaces the file's as a whole, a mapping only what is in it.

    None, like the file's "none", takes a layer out. Budgets, breakers and limits can also be named. Each of `fallbacks`
    has `to` and, where the usual causes will not do, `when`; they replace the file's. So does `spending`, as a `Budget`
    or a list of names; its mapping has only what no file can give.
    """

    deadline: Duration | Deadline | None
    attempt_timeout: Duration | Timeout | None
    retry: Retry | Values | None
    budget: RetryBudget | Values | str | None
    spending: Budget | Values | Sequence[str] | None
    breaker: Breaker | Values | str | None
    limit: RateLimit | Values | str | None
    hedge: Hedge | Values | None
    validate: Validate | Values | None
    fallbacks: Sequence[Values]
    cache: Cache | Values | None
    trace: Trace | Values | None
    meter: Meter | Values


_MAKES: Mapping[str, type] = {
    "breaker": Breaker,
    "budget": RetryBudget,
    "cache": Cache,
    "limit": RateLimit,
    "meter": Meter,
    "retry": Retry,
    "spending": Budget,
    "trace": Trace,
    "validate": Validate,
}
"""What has fields that only code can give, by its key."""

_KEYS = tuple(keys_of(Effective))

_NAMED: Mapping[str, str] = {"budget": "budgets", "breaker": "breakers", "limit": "limits"}


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What code gave.

    Attributes:
        tree: The values that a file could have as well.
        for_code: Those that it could not, by layer and field.
        whole: The keys of those that replace the file's as a whole.
    """

    tree: Node
    for_code: Mapping[str, Mapping[str, Any]]
    whole: frozenset[str]

    def over(self, tree: Node) -> Node:
        """Return *tree*, what a file says, with this in its place."""
        return replace(tree, value=merge(tree.having(**dict.fromkeys(self.whole)), self.tree).value)


NOTHING = Given(Node({}, (), CODE, CODE), {}, frozenset())


def read_overrides(overrides: Overrides, document: Node, problems: list[Problem]) -> Given:
    """Return what *overrides* say; *document* has what they name."""
    entries: dict[str, Node] = {}
    for_code: dict[str, dict[str, Any]] = {}
    values = dict(overrides)
    retry = values.get("retry")
    if isinstance(retry, Retry) and retry.budget is not None:
        values.setdefault("budget", retry.budget)
    elif isinstance(retry, Mapping) and "budget" in retry:
        values.setdefault("budget", cast("Values", retry)["budget"])
    for key, value in values.items():
        if key not in _KEYS:
            problems.append(Problem(CODE, key, f"no layer{did_you_mean(key, _KEYS)}"))
            continue
        plain, for_code[key] = _split(_fields(value), _MAKES.get(key))
        if key == "spending":
            node = _spending(value, plain, document, problems)
            entries |= {} if node is None else {key: node}
            if isinstance(value, Budget):
                for_code[key] = {"budget": value}
        elif key in _NAMED and isinstance(value, str) and value != NONE:
            known = _named(document, _NAMED[key])
            if value in known:
                entries[key] = replace(known[value], key=CODE)
            else:
                problems.append(
                    Problem(CODE, key, f"there is no {value!r} in {_NAMED[key]}{did_you_mean(value, known)}")
                )
        else:
            entries[key] = _node(plain, (key,))
    whole = frozenset(key for key, value in overrides.items() if not isinstance(value, Mapping))
    return Given(Node(entries, (), CODE, CODE), for_code, whole)


def _named(document: Node, section: str) -> Mapping[str, Node]:
    node = document.get(section)
    return node.entries if node is not None else {}


def _fields(value: Any) -> Any:
    """Return a layer as the mapping of its fields."""
    if isinstance(value, (Deadline, Timeout)):
        return value.after
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def _split(value: Any, made: type | None) -> tuple[Any, dict[str, Any]]:
    if not isinstance(value, Mapping) or made is None:
        return cast("Any", value), {}
    given = cast("Values", value)
    for_code = {
        name: each
        for name, each in given.items()
        if name in FOR_CODE_ONLY.get(made, ())
        or (name in TEXT_OR_OBJECT.get(made, ()) and not isinstance(each, str) and each is not None)
    }
    rest = {name: each for name, each in given.items() if name not in for_code}
    for_code.pop("budget", None)  # a retry budget stands beside the retries, where a file can name it
    return rest, for_code


def _spending(value: Any, plain: Any, document: Node, problems: list[Problem]) -> Node | None:
    """Return the list of what is named or given; None where the file's stays."""
    known = _named(document, "spending")
    if value is None:
        return _node([], ("spending",))
    if isinstance(value, Budget):
        return _node(_terms_of(value), ("spending",))
    if isinstance(value, Mapping):
        said = [Problem(CODE, f"spending.{name}", f"only the file has it{_FOR_CODE}") for name in plain]
        problems.extend(said)
        return None
    names = [value] if isinstance(value, str) else list(cast("Sequence[str]", value))
    unknown = [name for name in names if name not in known]
    said = [
        Problem(CODE, "spending", f"there is no {name!r} in spending{did_you_mean(name, known)}") for name in unknown
    ]
    problems.extend(said)
    return Node([replace(known[name], key=CODE) for name in names if name in known], ("spending",), CODE, CODE)


_FOR_CODE = f"; code gives {', '.join(sorted((FOR_CODE_ONLY[Budget] | TEXT_OR_OBJECT[Budget]) - {'limits', 'name'}))}"


def _terms_of(budget: Budget) -> Sequence[Values]:
    """Return what a file would have for each limit of *budget*."""
    given, _ = _split(_fields(budget), Budget)
    own = [] if budget.limits and budget.usd is None and budget.tokens is None else [given]
    terms = [field.name for field in dataclasses.fields(Limit) if field.name != "name"]
    return own + [given | {name: getattr(limit, name) for name in terms} for limit in budget.limits]


def _node(value: Any, path: Path) -> Node:
    value = _fields(value)
    made: Any = NONE if value is None else value
    if isinstance(value, Mapping):
        made = {str(key): _node(each, (*path, str(key))) for key, each in cast("Values", value).items()}
    elif isinstance(value, (list, tuple)):
        made = [_node(each, (*path, index)) for index, each in enumerate(cast("list[Any]", value))]
    return Node(made, path, CODE, CODE)
