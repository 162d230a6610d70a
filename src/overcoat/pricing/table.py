"""The user's own table of prices: a YAML or TOML file, by patterns of models and by dates, checked before it is used.

```yaml
version: 1
currency: USD                     # nothing else; dollars a million tokens, except `per_request`
prices:
  - match: azure/our-gpt-4o       # as the client names it, with * ? [...] as shells have them
    from: "2026-07-01"            # the first day, UTC
    until: "2027-01-01"           # the first day on which it no longer holds
    input: 2.25
    output: 9
    cache_read: 1.125
    tiers:
      - {above: 200000, input: 4.5, output: 13.5}
    services:
      batch: {input: 1.125, output: 4.5}
  - match: ollama/*
    input: 0                      # declared free; what no entry matches is unknown, or priced by the next source
    output: 0
```
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, PlainValidator, create_model

from overcoat.arithmetic.dollars import EXACT
from overcoat.policy.derivation import Section, Text, optional
from overcoat.policy.problems import Problem, refusal
from overcoat.policy.reading import read
from overcoat.policy.tree import Node
from overcoat.policy.validation import validate
from overcoat.pricing.rates import KINDS, Rates, Tier

_MILLION = Decimal(1_000_000)
_LEAST = 0.0001
_MOST = 1_000_000


def _rate(value: float) -> float:
    if value < 0:
        raise ValueError(f"{value:g} is less than 0")
    if 0 < value < _LEAST:
        raise ValueError(f"{value:g} is dollars a token; expected dollars a million tokens")
    if value > _MOST:
        raise ValueError(f"{value:g} is more than a dollar a token")
    return value


def _fee(value: float) -> float:
    if not 0 <= value <= _MOST:
        raise ValueError(f"expected 0 to {_MOST} dollars a request, not {value:g}")
    return value


def _count(value: int) -> int:
    if value < 1:
        raise ValueError(f"expected at least 1, not {value}")
    return value


def _day(value: object) -> date:
    try:
        return date.fromisoformat(cast("str", value))
    except (TypeError, ValueError):
        raise ValueError('expected a day in quotes, such as "2026-07-01"') from None


_Rate = Annotated[float, AfterValidator(_rate)]
_Count = Annotated[int, AfterValidator(_count)]
_Day = Annotated[date, PlainValidator(_day)]
_OPTIONAL: dict[str, Any] = dict.fromkeys(KINDS, (optional(_Rate), None))
_RATES: dict[str, Any] = {**_OPTIONAL, "input": (_Rate, ...), "output": (_Rate, ...)}


def _model(name: str, **fields: Any) -> type[Section]:
    return create_model(name, __base__=Section, **fields)


def _several(item: Any) -> Any:
    return Annotated[tuple[item, ...], Field(strict=False)]


_Tier = _model("Tier", above=(_Count, ...), **_OPTIONAL)
_TIERS: dict[str, Any] = {"tiers": (_several(_Tier), ())}
_Service: Any = _model("Service", **_RATES, **_TIERS)
_Entry = _model(
    "Price",
    match=(Text, ...),
    since=(optional(_Day), Field(default=None, alias="from")),
    until=(optional(_Day), None),
    **_RATES,
    **_TIERS,
    services=(dict[Text, _Service], Field(default_factory=dict)),
    per_request=(Annotated[float, AfterValidator(_fee)], 0.0),
    context_window=(optional(_Count), None),
    max_output_tokens=(optional(_Count), None),
)
_File = _model("Prices", version=(Literal[1], ...), currency=(Literal["USD"], "USD"), prices=(_several(_Entry), ...))


@dataclass(frozen=True, slots=True)
class _Dated:
    """What one entry says: for which models, from when until when, in Unix time."""

    match: str
    since: float
    until: float
    rates: Rates

    def covers(self, other: _Dated) -> bool:
        """Say whether *other* is never reached behind this, as far as that can be seen from what "*" stands for."""
        literal = self.match == other.match or (
            not any(special in self.match for special in "?[") and "[" not in other.match
        )
        return (
            literal and fnmatchcase(other.match, self.match) and self.since <= other.since and other.until <= self.until
        )


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """A price source made from a file, whose first entry that matches a model on a day prices it.

    Attributes:
        path: Of the file.
        digest: Of what it says; it is in the source of each price, with the line of the entry.
    """

    path: str
    digest: str
    entries: tuple[_Dated, ...]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Table:
        """Read the table at *path*.

        Raises:
            PolicyError: There is no such file, or it makes no sense. Its `problems` are all mistakes, each with its
                place; its text lists them, one a line.
        """
        problems: list[Problem] = []
        tree = read(path, problems)
        refused = {problem.origin for problem in problems}
        found: list[Problem] = []
        file = validate(_File, tree, found) if tree is not None else None
        digest = ""
        entries: tuple[_Dated, ...] = ()
        if tree is not None:
            found.extend(_check(tree))
        if tree is not None and file is not None and not found:
            digest = hashlib.sha256(json.dumps(tree.plain(), sort_keys=True).encode()).hexdigest()[:8]
            listed = cast("Sequence[Any]", file.at(("prices",)))
            nodes = tree.entries["prices"].items
            entries = tuple(
                _dated(entry, f"{Path(path).name}:{node.origin.line} {digest}")
                for entry, node in zip(listed, nodes, strict=True)
            )
            found.extend(_unreached(entries, nodes))
        problems.extend(problem for problem in found if problem.origin not in refused)
        if problems:
            raise refusal(problems)
        return cls(os.fspath(path), digest, entries)

    def __call__(self, model: str, now: float) -> Rates | None:
        """Return what *model* costs at *now*, in Unix time; None where no entry says so."""
        for entry in self.entries:
            if entry.since <= now < entry.until and fnmatchcase(model, entry.match):
                return entry.rates
        return None

    def __repr__(self) -> str:
        return f"Table.read({self.path!r})"


def _dated(entry: Any, source: str) -> _Dated:
    since = _midnight(entry.since) if entry.since is not None else float("-inf")
    until = _midnight(entry.until) if entry.until is not None else float("inf")
    rates = Rates(
        _tiers(entry),
        source,
        EXACT.create_decimal(repr(entry.per_request)),
        {name: _tiers(service) for name, service in entry.services.items()},
        entry.context_window,
        entry.max_output_tokens,
    )
    return _Dated(entry.match, since, until, rates)


def _tiers(section: Any) -> tuple[Tier, ...]:
    """Return the tiers of an entry or a service; what a higher one does not say is as in the one below."""
    known = _rates(section)
    tiers = [Tier(0, **known)]
    for tier in section.tiers:
        known |= {kind: rate for kind, rate in _rates(tier).items() if rate is not None}
        tiers.append(Tier(tier.above, **known))
    return tuple(tiers)


def _rates(section: Any) -> dict[str, Any]:
    written = ((kind, getattr(section, kind)) for kind in KINDS)
    return {
        kind: None if rate is None else EXACT.divide(EXACT.create_decimal(repr(rate)), _MILLION)
        for kind, rate in written
    }


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _check(tree: Node) -> Iterator[Problem]:
    """Yield what no value shows alone: days and tiers in the wrong order."""
    listed = tree.get("prices")
    for entry in listed.items if listed is not None else ():
        since, until = entry.get("from"), entry.get("until")
        if since is not None and until is not None and _later(since.value, until.value):
            yield until.problem(f"{until.value} is not after {since.value}, from which it holds ({since.origin})")
        services = entry.get("services")
        for section in (entry, *(services.entries.values() if services is not None else ())):
            yield from _ascending(section)


def _later(since: object, until: object) -> bool:
    try:
        return _day(since) >= _day(until)
    except ValueError:
        return False  # reported as what it is, by the model


def _ascending(section: Node) -> Iterator[Problem]:
    tiers = section.get("tiers")
    before = 0
    for tier in tiers.items if tiers is not None else ():
        above = tier.get("above")
        if above is None or type(above.value) is not int:
            continue
        if 0 < above.value <= before:
            yield above.problem(f"{above.value} is not more than the {before} of the tier before it")
        before = above.value


def _unreached(entries: Sequence[_Dated], nodes: Sequence[Node]) -> Iterator[Problem]:
    for index, entry in enumerate(entries):
        for earlier, node in zip(entries[:index], nodes, strict=False):
            if earlier.covers(entry):
                match, other = nodes[index].entries["match"], node.entries["match"]
                yield match.problem(f"never reached: {other.value!r} ({other.origin}) comes first and covers it")
                break
