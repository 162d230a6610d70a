"""How an answer lies in a store: checksummed msgpack with a version, strictly decoded; nothing is ever unpickled.

    "oc"  version: 1 byte  codec: 1 byte  CRC-32 of these two and of what follows: 4 bytes  the answer

Codec 0 is plain msgpack, codec 1 is msgpack compressed by zlib; zstd is faster, but only Python 3.14 has it, and
processes of different versions share entries. The checksum finds what a disk or a network has altered. It is none
against people, who can compute it too: who may write to the store may answer.
"""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib
from collections.abc import Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from overcoat.accounting import Usage
from overcoat.record import SpanIds

VERSION = 2

Unreadable = Literal["foreign", "version", "altered", "too_large", "wrong_key"]
"""Why there is no answer in a value: it is nothing of ours; it is of another version, perhaps of the process that comes
after this one, and to be left in place; it is truncated or changed, or was never well-formed; it decompresses to more
than any answer has; it is the answer to another request."""

_MAGIC = b"oc"
_HEAD = struct.Struct(">2sBBI")
_PLAIN, _ZLIB = 0, 1
_SEEDS = [zlib.crc32(bytes((VERSION, codec))) for codec in (_PLAIN, _ZLIB)]

_COMPRESSED_FROM = 4096
"""Bytes. Below, zlib takes 65 us to save less than a kilobyte."""

_LEVEL = 1
"""Of zlib: half of the size in 10 us for a kilobyte. Level 6 takes twice the time for a twentieth."""

_LARGEST = 16 * 2**20
"""Bytes of an answer before compression: longer than models can, and no harm where it is a bomb."""

_Scalar = str | int | float | bool | None
_Field = _Scalar | list[_Scalar] | dict[str, _Scalar]
_TraceId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_SpanId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{16}\Z")]
_counts = attrgetter(*(each.name for each in dataclasses.fields(Usage)))


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """A stored answer, and what the call that made it used and cost.

    Attributes:
        key: What it is the answer to.
        text: The answer.
        created: Unix time, seconds.
        fresh_until: Unix time, seconds. A store may keep it for longer, to be used while it is made anew or cannot be.
        model: Which one gave it, where that is known.
        fields: What the client wrote to the event.
        usage: As the provider reported it.
        cost: Dollars; None where the price was unknown.
        trace: The trace and the span that made it, as hexadecimal digits, where there were any.
    """

    key: str
    text: str
    created: float
    fresh_until: float
    model: str | None
    fields: dict[str, _Field]
    usage: Usage | None
    cost: Decimal | None
    trace: tuple[_TraceId, _SpanId] | None

    def __post_init__(self) -> None:
        """Check what the types do not say; msgspec calls this for what it decodes as well."""
        counts: tuple[int | None, ...] = _counts(self.usage) if self.usage is not None else ()
        if min(filter(None, counts), default=0) < 0:
            raise ValueError("a negative count of tokens cannot be stored")
        if self.cost is not None and not self.cost.is_finite():
            raise ValueError(f"a cost of {self.cost} cannot be stored")
        if not (math.isfinite(self.created) and math.isfinite(self.fresh_until)):
            raise ValueError("a time that is not finite cannot be stored")


_encoder = msgspec.msgpack.Encoder(decimal_format="string")
_decoder = msgspec.msgpack.Decoder(Answer, strict=True)
_SCALARS = frozenset(get_args(_Scalar))


def pack(
    text: str,
    *,
    key: str,
    created: float,
    fresh_until: float,
    fields: Mapping[str, Any],
    usage: Usage | None,
    cost: Decimal | None,
    span: SpanIds | None,
    model: str | None = None,
) -> bytes:
    """Encode an answer to the request of *key*.

    Raises:
        ValueError: The text or one of the event's *fields* would not come back as it was, or they are larger than 16
            MiB together.
    """
    if type(text) is not str:
        raise ValueError(f"the answer is of type {type(text).__qualname__}, which cannot be stored")
    for name, value in fields.items():
        if type(value) not in _SCALARS and (unfit := _unfit(value)) is not None:
            raise ValueError(f"the event's field {name!r} is of type {unfit}, which cannot be stored")
    trace = (f"{span[0]:032x}", f"{span[1]:016x}") if span else None
    answer = Answer(key, text, created, fresh_until, model, dict(fields), usage, cost, trace)
    try:
        body = _encoder.encode(answer)
    except OverflowError as error:
        raise ValueError("a number on the event has more than 64 bits, which cannot be stored") from error
    if len(body) > _LARGEST:
        raise ValueError(f"the answer takes {len(body)} bytes, which cannot be stored")
    if len(body) < _COMPRESSED_FROM:
        return _head(_PLAIN, body) + body
    body = zlib.compress(body, _LEVEL)
    return _head(_ZLIB, body) + body


def unpack(value: bytes, key: str) -> Answer | Unreadable:
    """Decode the answer to the request of *key*; where *value* holds none, return why."""
    opened = _open(value)
    if isinstance(opened, str):
        return opened
    codec, body = opened
    try:
        if codec == _ZLIB:
            body = _inflate(body)
        if len(body) > _LARGEST:
            return "too_large"
        answer = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, zlib.error):
        return "altered"  # msgspec has no errors of its own for two of these
    return answer if answer.key == key else "wrong_key"


def span_of(answer: Answer) -> SpanIds | None:
    """Return the span that made *answer*."""
    return (int(answer.trace[0], 16), int(answer.trace[1], 16)) if answer.trace else None


def _head(codec: int, body: bytes) -> bytes:
    return _HEAD.pack(_MAGIC, VERSION, codec, zlib.crc32(body, _SEEDS[codec]))


def _open(value: bytes) -> tuple[int, bytes] | Unreadable:
    """Return the codec and the answer as it is encoded; or what is wrong with *value*, as can be seen from outside."""
    if not value.startswith(_MAGIC):
        return "foreign"
    if len(value) < _HEAD.size:
        return "altered"
    version: int
    codec: int
    _, version, codec, checksum = _HEAD.unpack_from(value)
    if version != VERSION or codec > _ZLIB:
        return "version"
    body = value[_HEAD.size :]
    return (codec, body) if zlib.crc32(body, _SEEDS[codec]) == checksum else "altered"


def _inflate(body: bytes) -> bytes:
    """Return what *body* decompresses to, up to one byte more than is allowed.

    Raises:
        zlib.error: It is no compressed text, or there is more or less of it than one.
    """
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(body, _LARGEST + 1)
    if len(inflated) <= _LARGEST and (not inflater.eof or inflater.unused_data):
        raise zlib.error("cut off, or something follows")
    return inflated


def _unfit(value: object) -> str | None:
    """Return the name of the type that cannot be stored, in *value* which is no scalar; None where all can."""
    inner: list[object] = []
    if type(value) is list:
        inner = cast("list[object]", value)
    elif type(value) is dict:
        pairs = cast("dict[object, object]", value)
        inner = [*pairs.values()]
        if any(type(name) is not str for name in pairs):
            return "dict with keys that are no text"
    else:
        return type(value).__qualname__
    return next((type(item).__qualname__ for item in inner if type(item) not in _SCALARS), None)
