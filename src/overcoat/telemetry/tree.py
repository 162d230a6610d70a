"""Finished calls in the terminal, each as a tree of its spans."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from threading import Lock
from typing import Any, TextIO, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext
from rich.console import Console
from rich.text import Text

from overcoat.telemetry import names

logger = logging.getLogger("overcoat")

Ids = tuple[int, int]  # trace id and span id

_SERVED = ("hit", "stale", "coalesced")
_KEPT_APART = {"bypass": "cache bypassed", "refused": "not kept"}
_GAVE_UP = {
    "attempts": "no attempts left",
    "deadline": "no time left to wait",
    "non_retryable": "not retried",
    "server_delay": "told to wait too long",
}
_ROLES = {"reask": "asked again", "fallback": "fallback", "hedge": "hedge"}
_BUDGET_RESULTS = {
    "refused": "refused by the budget",
    "uncounted": "not counted by the budget",
    "overrun": "more than was reserved of the budget",
}
_SOURCES = {
    "budget": "for the budget",
    "limiter": "for our own limit",
    "policy": "by the policy",
    "server": "as the server asked",
}

_LABEL, _TIME, _CACHE = 24, 7, 4  # columns at least, so that the lines of one tree stand under those of another
# For terminals that are not UTF-8, sign for sign, so that columns stay.
_ASCII = str.maketrans("✓✗↻→├└│", "+x@>|`|")


class TreeSpanProcessor(SpanProcessor):
    """Prints every call when it is over: its spans as a tree, those of other libraries that lie inside it included.

    It goes by spans alone, and ignores those outside of calls.

    Args:
        file: Where to; by default stderr. Colours are for terminals, and not where NO_COLOR is set.
        trace_url: Printed under each tree, with the trace's id in place of `{trace_id}`.
        max_spans: How many spans of calls that are not over are kept; beyond, the oldest call is left out.
    """

    def __init__(self, file: TextIO | None = None, *, trace_url: str | None = None, max_spans: int = 10_000) -> None:
        self._console = _Terminal(file=file or sys.stderr, highlight=False, soft_wrap=True)
        self._trace_url = trace_url
        self._max_spans = max_spans
        self._lock = Lock()
        self._trees: dict[Ids, _Tree] = {}  # by the call's own span, the oldest first
        self._owners: dict[Ids, Ids] = {}  # from each span in a tree to its call's
        self._held: list[ReadableSpan] | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - it is span.parent
        """Note that a call is not over before *span* is."""
        own = _ids(span.get_span_context())
        with self._lock:
            owner = self._owners.get(_ids(span.parent)) if span.parent else None
            if owner is None:
                if span.name != names.SPAN_CALL:
                    return
                owner = own
                self._trees[owner] = _Tree()
            self._owners[own] = owner
            self._trees[owner].open.add(own)
            if len(self._owners) > self._max_spans:
                self._forget(next(iter(self._trees)))
                logger.warning("a call is not printed: it has too many spans, or some that do not end")

    def on_end(self, span: ReadableSpan) -> None:
        """Print the call, if *span* was the last open part of it."""
        own = _ids(span.get_span_context())
        with self._lock:
            owner = self._owners.get(own)
            if owner is None:
                return
            tree = self._trees[owner]
            tree.open.remove(own)
            tree.ended.append(span)
            if tree.open:  # what a cancelled call began for others may outlive its own span
                return
            self._forget(owner)
            if self._held is None:
                self._print(tree.ended)
            else:
                self._held.extend(tree.ended)

    @contextmanager
    def together(self) -> Generator[None]:
        """Print the calls that end inside when it is left, and those that got one and the same answer as one line."""
        with self._lock:
            self._held = []
        try:
            yield
        finally:
            with self._lock:
                held, self._held = self._held, None
                if held:
                    self._print(held)

    def shutdown(self) -> None:
        """Forget the calls that are not over."""
        with self._lock:
            self._trees.clear()
            self._owners.clear()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - nothing takes time
        """Return True: the calls that are over have been printed."""
        return True

    def _forget(self, owner: Ids) -> None:
        tree = self._trees.pop(owner)
        for ids in (*tree.open, *(_ids(span.get_span_context()) for span in tree.ended)):
            del self._owners[ids]

    def _print(self, spans: Sequence[ReadableSpan]) -> None:
        console = self._console
        try:
            text = render(spans, width=console.width if console.is_terminal else None, trace_url=self._trace_url)
            if not console.encoding.startswith("utf"):
                text.plain = text.plain.translate(_ASCII)
            console.print(text)
        except BrokenPipeError:
            console.quiet = True  # who read this has gone, and will read no more
        except Exception:
            # As the SDK's own processors do: who ends a span is not to blame for what cannot be shown.
            logger.exception("a call could not be printed")


@dataclass(slots=True)
class _Tree:
    """A call that is not over: the spans that are open, and those that have ended."""

    open: set[Ids] = field(default_factory=set[Ids])
    ended: list[ReadableSpan] = field(default_factory=list[ReadableSpan])


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - the error that is being handled; rich would end the application


def render(spans: Iterable[ReadableSpan], *, width: int | None = None, trace_url: str | None = None) -> Text:
    """Return *spans* as trees, a line for each span, without a newline at the end.

    Args:
        spans: Ended ones, in any order. Those whose parent is not among them are roots. Calls in a row that got one and
            the same answer become one line.
        width: Columns; notes that do not fit stand on a line of their own. None has no limit.
        trace_url: Printed below, with the id of the first trace in place of `{trace_id}`.
    """
    roots = _forest(spans)
    known = {node.ids for root in roots for node in root.all()}
    rows: list[_Row] = []
    for answer, group in groupby(roots, key=lambda root: root.answer):
        same = list(group)
        if answer is None or len(same) == 1:
            for root in same:
                rows.extend(_rows(root))
        else:
            rows.append(_served(same, above=answer.made_by in known))
    lines = _lines(rows, width)
    if trace_url is not None and roots:
        lines.append(Text(trace_url.replace("{trace_id}", f"{roots[0].ids[0]:032x}"), "dim"))
    return Text("\n").join(lines)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What calls have in common that become one line."""

    made_by: Ids
    model: str
    result: str
    error: str | None


@dataclass(slots=True)
class _Node:
    """A span, as far as it is shown, and what lies inside it."""

    ids: Ids
    name: str
    started: int
    ended: int
    attributes: Mapping[str, Any]
    failed: bool
    links: tuple[Ids, ...]
    children: list[_Node] = field(default_factory=list["_Node"])
    lookup: _Node | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.started) / 1e9

    @property
    def made_by(self) -> Ids | None:
        """The span that made the answer that this call was served."""
        return self.lookup.links[0] if self.lookup and self.lookup.links else None

    @property
    def answer(self) -> _Answer | None:
        """What it shares with others that were served alike; None for what has a tree of its own."""
        if self.made_by is None or self.children:
            return None
        of = self.attributes
        return _Answer(self.made_by, of[names.MODEL], of[names.CACHE_RESULT], of.get(names.ERROR_TYPE))

    def all(self) -> Iterator[_Node]:
        """Yield this one and all that lies inside it."""
        yield self
        for child in self.children:
            yield from child.all()


def _forest(spans: Iterable[ReadableSpan]) -> list[_Node]:
    """Return the roots; what a look-up that ended its call has to say stands in the call's own line."""
    nodes: dict[Ids, _Node] = {}
    parents: dict[Ids, Ids | None] = {}
    for span in spans:
        ids = _ids(span.get_span_context())
        parents[ids] = _ids(span.parent) if span.parent else None
        nodes[ids] = _Node(
            ids,
            span.name,
            span.start_time or 0,
            span.end_time or 0,
            span.attributes or {},
            not span.status.is_ok,
            tuple(_ids(link.context) for link in span.links),
        )
    roots: list[_Node] = []
    for node in sorted(nodes.values(), key=lambda node: (node.started, node.ended)):
        parent = nodes.get(cast("Ids", parents[node.ids]))
        if parent is None:
            roots.append(node)
        elif node.name == names.SPAN_CACHE and node.attributes.get(names.CACHE_RESULT) in _SERVED:
            parent.lookup = node
        else:
            parent.children.append(node)
    return roots


@dataclass(slots=True)
class _Row:
    """One line: what it is, how it ended, how long it took, three columns, and notes."""

    label: str
    mark: str
    seconds: float
    columns: tuple[str, str, str] = ("", "", "")  # cache, tokens, cost
    notes: tuple[str, ...] = ()
    guide: str = ""
    below: str = ""  # what goes on under it: the guide of a line that continues it


def _rows(node: _Node, parent: _Node | None = None, guide: str = "", indent: str = "") -> Iterator[_Row]:
    row = _row(node, parent)
    row.guide, row.below = guide, indent + ("│" if node.children else "")
    yield row
    for child in node.children:
        last = child is node.children[-1]
        yield from _rows(child, node, indent + ("└ " if last else "├ "), indent + ("  " if last else "│ "))


def _row(node: _Node, parent: _Node | None) -> _Row:
    if node.name == names.SPAN_CALL:
        return _call(node)
    if names.OPERATION_NAME in node.attributes:
        return _inference(node, parent)
    return _part(node)


def _call(call: _Node) -> _Row:
    """The roll-up, and the tokens of what lies inside it."""
    of = call.attributes
    result = of.get(names.CACHE_RESULT)
    notes: list[str] = []
    if (attempts := of.get(names.ATTEMPTS, 0)) > 1:
        notes.append(f"↻ {attempts} attempts")
    if wasted := of.get(names.COST_WASTED):
        notes.append(f"{dollars(wasted)} wasted")
    notes.extend(_error(of))
    notes.extend(_decisions(of))
    if call.links:
        notes.append(f"in the background, after {_trace(call.links[0])}")
    if result in _SERVED:
        tokens, cost = "", _saved([call])
        notes.extend(_origin(call))
    else:
        tokens, cost = _tokens(call.children), _price(of)
        reason = of.get(names.CACHE_REASON)
        result = _KEPT_APART.get(cast("str", result), result)
        result = f"{result}: {reason}" if result and reason else result
    columns = (result or "", tokens, cost)
    return _Row(f"call {of.get(names.MODEL, 'unknown')}", _mark(call), call.seconds, columns, tuple(notes))


def _served(calls: Sequence[_Node], *, above: bool) -> _Row:
    """Calls that got one answer: the time that the slowest took, and what they saved together."""
    of = calls[0].attributes
    notes = (*_error(of), *(() if above else _origin(calls[0])))
    columns = (of[names.CACHE_RESULT], "", _saved(calls))
    return _Row(f"{len(calls)} calls", _mark(calls[0]), max(call.seconds for call in calls), columns, notes)


def _inference(chat: _Node, parent: _Node | None) -> _Row:
    of = chat.attributes
    above: Mapping[str, Any] = parent.attributes if parent else {}
    notes: list[str] = []
    role: str | None = of.get(names.ROLE)
    if role is not None:
        notes.append(_ROLES.get(role, role))
    if of.get(names.OUTPUT_TYPE) == "json":
        notes.append("JSON mode")
    if read := of.get(names.CACHE_READ_INPUT_TOKENS):
        notes.append(f"{read} from the provider's cache")
    if reasoning := of.get(names.REASONING_OUTPUT_TOKENS):
        notes.append(f"{reasoning} for reasoning")
    notes.extend(f"ended by {reason}" for reason in of.get(names.FINISH_REASONS, ()) if reason != "stop")
    error = of.get(names.ERROR_TYPE)
    if error is not None and error != above.get(names.ERROR_TYPE):
        notes.append(error)
    # Without the model where it is the call's: the same word twice says no more.
    label = of[names.OPERATION_NAME] if of.get(names.REQUEST_MODEL) == above.get(names.MODEL) else chat.name
    tokens = _tokens([chat])
    columns = ("", tokens, _price(of) if tokens else "")
    return _Row(label, "✗" if chat.failed else "", chat.seconds, columns, tuple(notes))


def _part(node: _Node) -> _Row:
    """An attempt, a wait, or a span of another library."""
    of = node.attributes
    label, mark = node.name, "✗" if node.failed else ""
    notes: list[str] = []
    if (number := of.get(names.ATTEMPT_NUMBER)) is not None:
        label, mark = f"{label} {number}", mark or "✓"
    source: str | None = of.get(names.WAIT_SOURCE)
    if source is not None:
        notes.append(_SOURCES.get(source, source))
        asked = of.get(names.WAIT_ASKED)
        if asked is not None and node.seconds < 0.95 * asked:
            notes.append(f"cut short, of {_time(asked)}")
    if said := " ".join(str(of[name]) for name in (names.HTTP_STATUS, names.ERROR_TYPE) if name in of):
        notes.append(said)
    return _Row(label, mark, node.seconds, notes=tuple(notes))


def _mark(call: _Node) -> str:
    return "✓" if call.attributes.get(names.OUTCOME) == "ok" else "✗"


def _error(of: Mapping[str, Any]) -> Iterator[str]:
    if (error := of.get(names.ERROR_TYPE)) is not None:
        gave_up = of.get(names.GAVE_UP)
        yield error if gave_up is None else f"{error}, {_GAVE_UP.get(gave_up, gave_up)}"


def _decisions(of: Mapping[str, Any]) -> Iterator[str]:
    """What budgets, breakers and shared state made of a call, where that is out of the ordinary."""
    if (result := of.get(names.BUDGET_RESULT)) in _BUDGET_RESULTS:
        yield f"{_BUDGET_RESULTS[result]} {of[names.BUDGET_NAME]!r}"
    if (state := of.get(names.CIRCUIT_STATE)) is not None:
        yield f"its circuit is now {state.replace('_', ' ')}"
    if (degraded := of.get(names.DEGRADED)) is not None:
        yield f"shared store away: {degraded.replace(',', ', ')}"


def _origin(call: _Node) -> Iterator[str]:
    if call.made_by is not None:
        yield f"from {_trace(call.made_by)}"
    age = call.lookup.attributes.get(names.CACHE_AGE, 0.0) if call.lookup else 0.0
    if age >= 1:
        yield f"{_time(age)} old"


def _trace(ids: Ids) -> str:
    return f"trace {ids[0]:032x}"[:14]  # its beginning does for the eye


def _tokens(inferences: Iterable[_Node]) -> str:
    """Sum what is known of their tokens; empty where nothing is."""
    given = [node.attributes for node in inferences]
    sums = [
        str(sum(known)) if (known := [of[name] for of in given if name in of]) else "?"
        for name in (names.INPUT_TOKENS, names.OUTPUT_TOKENS)
    ]
    return "" if sums == ["?", "?"] else f"{'→'.join(sums)} tok"


def _price(of: Mapping[str, Any]) -> str:
    cost = of.get(names.COST)
    return "price unknown" if cost is None else dollars(cost)


def _saved(calls: Sequence[_Node]) -> str:
    if calls[0].failed:
        return ""
    saved = [call.attributes.get(names.COST_SAVED) for call in calls]
    return "saving unknown" if None in saved else f"saved {dollars(sum(cast('list[float]', saved)))}"


def dollars(amount: float | Decimal) -> str:
    """Return *amount* with three digits that say something and no exponent: single calls cost fractions of a cent."""
    if amount == 0:
        return "$0"
    leading = int(f"{amount:e}".partition("e")[2])
    return f"${amount:.{max(2, 2 - leading)}f}"


def _time(seconds: float) -> str:
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _lines(rows: Sequence[_Row], width: int | None) -> list[Text]:
    """Lay out rows under each other, columns as wide as what stands in them."""
    label = max([_LABEL, *(len(row.guide + row.label) for row in rows)])
    widths = [max([least, *(len(row.columns[i]) for row in rows)]) for i, least in enumerate((_CACHE, 0, 0))]
    lines: list[Text] = []
    for row in rows:
        line = Text()
        line.append(row.guide, "dim").append(row.label, "" if row.guide else "bold")
        line.append(" " * (label - len(line)) + " ")
        line.append(row.mark or " ", "red" if row.mark == "✗" else "green").append(" ")
        line.append(_time(row.seconds).rjust(_TIME), "" if not row.guide else "dim")
        details = len(line) + 2
        if any(row.columns):
            for column, wide, style in zip(row.columns, widths, _styles(row), strict=True):
                if wide:
                    line.append("  ").append(column, style).append(" " * (wide - len(column)))
        for note in row.notes:
            if width is not None and len(line.plain.rstrip()) + 2 + len(note) > width:
                line.rstrip()
                lines.append(line)
                line = Text().append(row.below, "dim")
                line.append(" " * (details - 2 - len(line)))
            line.append("  ").append(note, "red" if row.mark == "✗" else "dim")
        line.rstrip()
        lines.append(line)
    return lines


def _styles(row: _Row) -> tuple[str, str, str]:
    cache, _, cost = row.columns
    return (
        "green" if cache in _SERVED else "dim",
        "",
        "yellow" if cost == "price unknown" else "green" if cost.startswith("saved") else "",
    )


def _ids(context: SpanContext | None) -> Ids:
    # The SDK says that it may be None; it is not, of a span that was started.
    return (0, 0) if context is None else (context.trace_id, context.span_id)
