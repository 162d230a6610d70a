"""What `overcoat explain` prints: an explanation as text for a terminal, or as JSON for programs."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import Literal, TextIO

from overcoat.errors import PolicyError
from overcoat.policy.explaining import Explanation, OnFailure, explain
from overcoat.policy.loading import Policy
from overcoat.policy.worst_case import Figure, Range, duration, money

OK, FAILED, MISUSED = 0, 1, 2

_ORIGIN = 26
"""Columns for where a value was written; what is longer, such as a variable's name, has a line of its own."""

_TIED = "\N{NO-BREAK SPACE}"

_ENDINGS: Mapping[str, str] = {
    "attempts": "no attempts left",
    "breaker_open": "the circuit opens",
    "budget": "the retry budget is spent",
    "deadline": "the deadline comes first",
    "limit_reached": "no slot within our own limit",
    "non_retryable": "never retried",
    "server_delay": "the server asks for too long a delay",
}
_BREAKER = {
    "failure": "each counts as a failure",
    "quota": "opens at once: the quota is exhausted",
    "neither": "each counts as neither failure nor success",
}


def run_explain(
    path: str | os.PathLike[str],
    model: str | None,
    error: str | None = None,
    host_retries: int = 0,
    max_requests: int | None = None,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option's name
    out: TextIO | None = None,
    *,
    retry_after: float | None = None,
    input_tokens: int = 1000,
    output_tokens: int = 1000,
    width: int = 80,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Print what a policy file will do to a model's calls; return the exit code.

    What is wrong goes to standard error, so that what is printed stays JSON where that was asked for.

    Args:
        path: Of the file.
        model: As the client names it.
        error: A class of failures or an HTTP status.
        host_retries: How often the caller's own code calls again.
        max_requests: That one call may make, with the host's retries; None is no limit.
        format: "text" or "json".
        out: By default standard output.
        retry_after: Seconds that the server asks for after each failure.
        input_tokens: Of every request, for its price.
        output_tokens: Of every request, for its price.
        width: Of the text, in columns.
        environment: By default that of the process.

    Returns:
        0; 1 where the file has mistakes or there can be more than *max_requests*; 2 where an argument makes no sense.
    """
    try:
        policy = Policy.load(path, environment=environment)
        explanation = explain(
            policy.for_model(model),
            error=error,
            retry_after=retry_after,
            host_retries=host_retries,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
    except PolicyError as mistakes:
        print(mistakes, file=sys.stderr)
        return FAILED
    except ValueError as misuse:
        print(f"overcoat explain: {misuse}", file=sys.stderr)
        return MISUSED
    shown = (
        json.dumps(explanation.as_json(), indent=2, allow_nan=False) + "\n"
        if format == "json"
        else render(explanation, width)
    )
    (out or sys.stdout).write(shown)
    if max_requests is not None and explanation.requests > max_requests:
        print(f"overcoat explain: {explanation.requests} requests are more than {max_requests}", file=sys.stderr)
        return FAILED
    return OK


def render(explanation: Explanation, width: int = 80) -> str:
    """Return *explanation* as plain text of lines that are no longer than *width*, where their words allow it."""
    sections = [_header(explanation), _values(explanation, width)]
    if explanation.failure is not None:
        sections.append(_schedule(explanation.failure, width))
    sections += [_worst(explanation, width), _multiplied(explanation)]
    return "\n".join("".join(f"{line}\n" for line in section) for section in sections)


def _header(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.model or 'a client without a model name'}"
    yield f"  policy  {explanation.policy}"
    if explanation.rule is not None:
        yield f"  rule    {explanation.rule.match}  ({_short(explanation.rule.origin)})"
    yield f"  digest  {explanation.digest}"
    if not explanation.enabled:
        yield "  OVERCOAT_ENABLED=false: every layer is off, and calls go straight to their clients"


def _values(explanation: Explanation, width: int) -> Iterator[str]:
    yield "EFFECTIVE POLICY, outermost layer first"
    rows: list[tuple[str, str, str]] = []
    for layer, group in groupby(explanation.settings, key=lambda setting: setting.layer):
        settings = list(group)
        if len(settings) == 1 and "." not in settings[0].path:
            rows.append((f"  {layer}", settings[0].value, _short(settings[0].origin)))
            continue
        rows.append((f"  {layer}", "", ""))
        for each in settings:
            within = each.path.partition(".")[2] if layer != "Fallback" else each.path.removeprefix("fallbacks")
            rows.append((f"    {within}", each.value, _short(each.origin)))
    first = max(len(name) for name, _, _ in rows)
    last = max(len(origin) for _, _, origin in rows if len(origin) <= _ORIGIN)
    room = max(width - first - last - 4, 12)
    for name, value, origin in rows:
        lines = textwrap.wrap(value, room, break_long_words=False, break_on_hyphens=False) or [""]
        beside = len(lines[0]) <= room and len(origin) <= last
        yield f"{name:{first}}  {lines[0]:{room}}  {origin if beside else ''}".rstrip()
        yield from (f"{'':{first}}  {line}" for line in lines[1:])
        if not beside:
            yield " " * min(first + room + 4, width - len(origin)) + origin


def _schedule(failure: OnFailure, width: int) -> Iterator[str]:
    yield f"ATTEMPTS OF THE FIRST INFERENCE, when each fails as {failure.kind.value}"
    rows = [("attempt", "waits before it", "is sent after", "and then")]
    for each in failure.attempts:
        then = "retried" if each.retried else f"gives up: {_ENDINGS[each.ended_by[0]]}"
        rows.append((f"{each.number:7}", _range(each.wait) if each.number > 1 else "", _range(each.start), then))
    yield from _table(rows)
    possible = {ending for each in failure.attempts if each.retried for ending in each.ended_by}
    notes = {
        "may end sooner": "; ".join(text for ending, text in _ENDINGS.items() if ending in possible),
        "server's delay": failure.server_delay,
        "breaker": _BREAKER[failure.breaker] if failure.breaker is not None else "none",
        "fallback": ", then ".join(failure.fallbacks) or "none: the caller gets the error",
    }
    for name, text in notes.items():
        if text:
            yield from _wrapped(text, width, f"  {name:14}  ")


def _worst(explanation: Explanation, width: int) -> Iterator[str]:
    worst = explanation.worst
    yield "WORST CASE OF ONE CALL, whatever fails"
    yield from _wrapped(f"dollars are for {explanation.assumption}", width, "  ")
    if worst.models[1:] or worst.requests.value != worst.models[0].requests.value:
        for index, each in enumerate(worst.models):
            yield f"  {'then ' if index else ''}{each.model or 'its model'}"
            yield from _figures(each.requests, each.seconds, each.dollars, width)
        yield "  in all"
    yield from _figures(worst.requests, worst.seconds, worst.dollars, width)


def _figures(requests: Figure[int], seconds: Figure[float], dollars: Figure[Decimal], width: int) -> Iterator[str]:
    for name, value, formula in (
        ("requests", str(requests.value), requests.formula),
        ("seconds ", duration(seconds.value), seconds.formula),
        ("dollars ", money(dollars.value), dollars.formula),
    ):
        yield from _wrapped(formula, width, f"    {name}  {value:>12}  ")


def _multiplied(explanation: Explanation) -> Iterator[str]:
    yield "MULTIPLIED BY WHAT IS AROUND"
    rows = [("", "", "requests", "seconds", "dollars", "because of")]
    rows += [
        (each.name, f"x {each.factor}", str(each.requests), duration(each.seconds), money(each.dollars), each.why)
        for each in explanation.around
    ]
    yield from _table(rows, numbers=slice(2, 5))


def _table(rows: Sequence[Sequence[str]], numbers: slice = slice(0)) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = range(len(widths))[numbers]
    for row in rows:
        cells = [
            cell.rjust(widths[index]) if index in right else cell.ljust(widths[index]) for index, cell in enumerate(row)
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _wrapped(text: str, width: int, before: str) -> Iterator[str]:
    """Yield *text* in lines, the first behind *before*, the others below its beginning; a term is not broken."""
    parts = text.replace(" ", _TIED) if " x " in text else text
    for line in textwrap.wrap(
        parts.replace(f"{_TIED}+{_TIED}", f"{_TIED}+ ").replace(f";{_TIED}", "; "),
        max(width, len(before) + 20),
        initial_indent=before,
        subsequent_indent=" " * len(before),
        break_long_words=False,
        break_on_hyphens=False,
    ):
        yield line.replace(_TIED, " ")


def _range(seconds: Range) -> str:
    if seconds.least == seconds.most:
        return duration(seconds.least)
    if seconds.most is None:
        return f"{duration(seconds.least)} or later"
    return f"{duration(seconds.least)} to {duration(seconds.most)}"


def _short(origin: str) -> str:
    """Return *origin* without the folder of its file: a line has no room for it, and the reader named the file."""
    return Path(origin).name if os.sep in origin else origin
