"""Whose the calls of a block are, and what became of them: `tags` and `capture`, which follow the context."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from overcoat.accounting import NOTHING, Cost, Usage
from overcoat.record import Call, total_usage

_NO_TAGS: Mapping[str, str] = {}
_tags: ContextVar[Mapping[str, str]] = ContextVar("overcoat.tags", default=_NO_TAGS)
_captures: ContextVar[tuple[list[Call], ...]] = ContextVar("overcoat.captures", default=())

current_tags = _tags.get
current_captures = _captures.get


@contextmanager
def tags(**values: str) -> Generator[None]:
    """Attribute every call made inside to *values*, such as `tenant="acme"`; inner tags add to and replace outer ones.

    They follow the context into tasks started inside. They are never put into OpenTelemetry's baggage, which
    propagators send to the provider.

    Raises:
        TypeError: A value is not a string.
    """
    for name, value in values.items():
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
            raise TypeError(f"tags({name}={value!r}): a tag's value must be a str, not {type(value).__name__}")
    token = _tags.set({**_tags.get(), **values})
    try:
        yield
    finally:
        _tags.reset(token)


class Calls(list[Call]):
    """The records of calls, in the order in which they ended."""

    @property
    def cost(self) -> Cost:
        """Dollars of all of them together; a column is None where that of any call is."""
        return sum((call.cost for call in self), NOTHING)

    @property
    def usage(self) -> Usage | None:
        """Tokens that providers charged for all of them together; None where none were reported."""
        return total_usage([attempt for call in self for attempt in call.attempts])


@contextmanager
def capture() -> Generator[Calls]:
    """Collect the record of every call that ends inside, those of tasks started inside included, as they end."""
    calls = Calls()
    token = _captures.set((*_captures.get(), calls))
    try:
        yield calls
    finally:
        _captures.reset(token)
