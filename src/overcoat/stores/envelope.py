"""How an answer lies in a store: msgpack with a version, strictly decoded; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any, get_args

import msgspec

from overcoat.record import SpanIds, Usage

VERSION = 1

_Scalar = str | int | float | bool | None
_TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_SpanId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
_counts = attrgetter(*(field.name for field in dataclasses.fields(Usage)))


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A stored answer, and what the call that made it used and cost.

    Attributes:
        version: Of this layout; another one is not read.
        text: The answer.
        created: Unix time, seconds.
        fields: What the client wrote to the event.
        usage: As the provider reported it.
        cost: Dollars; None where the price was unknown.
        trace: The trace and the span that made it, as hexadecimal digits, where there were any.
    """

    version: int
    text: str
    created: float
    fields: dict[str, _Scalar]
    usage: Usage | None
    cost: Decimal | None
    trace: tuple[_TraceId, _SpanId] | None

    def __post_init__(self) -> None:
        """Check what the types do not say; msgspec calls this for what it decodes as well."""
        if self.usage is not None and any(count is not None and count < 0 for count in _counts(self.usage)):
            raise ValueError("a negative count of tokens cannot be stored")
        if self.cost is not None and not self.cost.is_finite():
            raise ValueError(f"a cost of {self.cost} cannot be stored")


_encoder = msgspec.msgpack.Encoder(decimal_format="string")
_decoder = msgspec.msgpack.Decoder(Answer, strict=True)
_FIELD_TYPES = get_args(_Scalar)


def pack(
    text: str,
    *,
    created: float,
    fields: Mapping[str, Any],
    usage: Usage | None,
    cost: Decimal | None,
    span: SpanIds | None,
) -> bytes:
    """Encode an answer.

    Raises:
        ValueError: The text or one of the event's *fields* would not come back as it was.
    """
    if type(text) is not str:
        raise ValueError(f"the answer is of type {type(text).__qualname__}, which cannot be stored")
    for name, value in fields.items():
        if type(value) not in _FIELD_TYPES:
            raise ValueError(
                f"the event's field {name!r} is of type {type(value).__qualname__}, which cannot be stored"
            )
    trace = (f"{span[0]:032x}", f"{span[1]:016x}") if span else None
    try:
        return _encoder.encode(Answer(VERSION, text, created, dict(fields), usage, cost, trace))
    except OverflowError as error:
        raise ValueError("a number on the event has more than 64 bits, which cannot be stored") from error


def unpack(value: bytes) -> Answer | None:
    """Decode an answer; None where *value* is not one, or one of another version."""
    try:
        answer = _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # of which msgspec makes no errors of its own
        return None
    return answer if answer.version == VERSION else None


def span_of(answer: Answer) -> SpanIds | None:
    """Return the span that made *answer*."""
    return (int(answer.trace[0], 16), int(answer.trace[1], 16)) if answer.trace else None
