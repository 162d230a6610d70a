"""The conventions' log events of an inference: that it failed, and, where contents are captured, what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry import _logs

from overcoat._version import __version__
from overcoat.telemetry import names

if TYPE_CHECKING:
    from overcoat.telemetry.content import Contents, Message


class Events:
    """Emits events in the current context, so that they belong to the span there.

    Args:
        provider: Where they go; None is the global one, also where that is set later.
        contents: What makes texts fit for export; None where none are to be.
    """

    def __init__(self, provider: _logs.LoggerProvider | None, contents: Contents | None) -> None:
        self._logger = _logs.get_logger("overcoat", __version__, provider, names.SCHEMA_URL)
        self._contents = contents

    def failed(self, error: BaseException, known: Mapping[str, Any]) -> None:
        """Tell of the exception that ended an inference, and what is *known* of that.

        The exception's text only where contents are captured, since it may echo them. No stack trace: its place is the
        application's own log.
        """
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        attributes = {**known, names.EXCEPTION_TYPE: name}
        if self._contents is not None:
            attributes[names.EXCEPTION_MESSAGE] = self._contents.clean(str(error))
        self._logger.emit(
            event_name=names.EVENT_EXCEPTION, severity_number=_logs.SeverityNumber.WARN, attributes=attributes
        )

    def said(self, attributes: Mapping[str, Any], asked: Sequence[Message], answered: Sequence[Message] | None) -> None:
        """Tell what an inference was, by its span's *attributes*, and what was said in it."""
        details: dict[str, Any] = {**attributes, names.INPUT_MESSAGES: asked}
        if answered is not None:
            details[names.OUTPUT_MESSAGES] = answered
        self._logger.emit(event_name=names.EVENT_DETAILS, attributes=details)
