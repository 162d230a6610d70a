"""One structured line a call, through the standard library's logging, for those who read logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from overcoat.record import Call
from overcoat.telemetry import names

logger = logging.getLogger("overcoat.calls")
"""Its level is the switch: what is below INFO, as Python's own default is, gets no lines and costs nothing."""

_PREFIX = "overcoat."
_QUOTED = frozenset(' ="\\')


def log_call(call: Call, rolled_up: Mapping[str, Any]) -> None:
    """Log a finished *call*, at the level INFO: what its span has, by the same names, in logfmt.

    As attributes of the log record they are in `fields`, for formatters such as `JsonFormatter`.
    """
    fields = fields_of(call, rolled_up)
    line = " ".join(f"{name.removeprefix(_PREFIX)}={_value(value)}" for name, value in fields.items())
    logger.info("%s", line, extra={"fields": fields})


def fields_of(call: Call, rolled_up: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the line says of *call*: first what happened, then the ids that lead to its trace."""
    fields: dict[str, Any] = {names.MODEL: call.model or "unknown", **rolled_up}
    fields[names.DURATION] = round(call.duration or 0.0, 6)
    if (usage := call.usage) is not None:
        fields[names.INPUT_TOKENS], fields[names.OUTPUT_TOKENS] = usage.input_tokens, usage.output_tokens
    if call.policy is not None:
        fields[names.POLICY], fields[names.POLICY_DIGEST] = call.policy
    fields |= {names.TAG + name: value for name, value in call.tags.items()}
    if call.span is not None:
        trace_id, span_id = call.span
        fields["trace_id"], fields["span_id"] = f"{trace_id:032x}", f"{span_id:016x}"
    return {name: value for name, value in fields.items() if value is not None}


class JsonFormatter(logging.Formatter):
    """Formats any log record as one JSON object a line; of a call's, the fields are members of it.

    ```python
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    ```
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the object; times are RFC 3339 in UTC."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {
            "timestamp": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        if record.name == logger.name and isinstance(fields, Mapping):
            said |= fields
        else:
            said["message"] = record.getMessage()
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def _value(value: Any) -> str:
    """Write a value as logfmt has it: quoted where it would not be one word."""
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    if text and text.isprintable() and not _QUOTED & set(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())  # whatever might end a line is escaped
