"""How long a provider asks us to wait, read from the headers of its refusal."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

_LONGEST = 64  # characters; no real value comes near it, and it keeps every number finite
_NUMBER = re.compile(r"\d+(?:\.\d*)?", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d*)?)(ms|us|ns|d|h|m|s)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def server_delay(headers: Mapping[str, str], retry_delay: str | None, now: float) -> float | None:
    """Return the delay that the server named, in seconds, or None where it named none that makes sense.

    The first of these that can be read decides:

    1. `retry-after-ms` (OpenAI, Azure), in milliseconds;
    2. `retry-after`, in seconds or as an HTTP date (RFC 9110, section 10.2.3);
    3. *retry_delay*;
    4. the latest reset of a limit that has nothing left: `x-ratelimit-reset-*` (OpenAI: "6m0s", Azure: bare seconds)
       and `anthropic-ratelimit-*-reset` (RFC 3339). The reset of a limit that is not used up says nothing about when
       to come again.

    A moment that has passed is a delay of 0. Values that are negative, not finite or no such value at all are as good
    as absent: a header is the one input of a retry policy that nobody has checked.

    Args:
        headers: By lower-case name.
        retry_delay: Google's `google.rpc.RetryInfo.retryDelay` from the body, such as "45.8s".
        now: Unix seconds.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    after = headers.get("retry-after")
    for delay in (
        None if milliseconds is None else milliseconds / 1000,
        _number(after),
        _until(_http_date(after), now),
        _duration(retry_delay),
        max(_resets(headers, now), default=None),
    ):
        if delay is not None:
            return delay
    return None


def _resets(headers: Mapping[str, str], now: float) -> Iterator[float]:
    for name, value in headers.items():
        if name.startswith("x-ratelimit-reset-"):
            remaining = name.replace("reset", "remaining", 1)
            delay = _number(value) if _NUMBER.fullmatch(value) else _duration(value)
        elif name.startswith("anthropic-ratelimit-") and name.endswith("-reset"):
            remaining = name.removesuffix("reset") + "remaining"
            delay = _until(_timestamp(value), now)
        else:
            continue
        if delay is not None and _number(headers.get(remaining)) == 0:
            yield delay


def _number(text: str | None) -> float | None:
    # float() alone would take "nan", "-1", "1_000" and the digits of every script.
    return float(text) if text and len(text) <= _LONGEST and _NUMBER.fullmatch(text) else None


def _duration(text: str | None) -> float | None:
    if not text or len(text) > _LONGEST or not _WHOLE.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _http_date(text: str | None) -> float | None:
    if not text or len(text) > _LONGEST:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 5 ms, for a header that few servers send

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second for an absurd time zone
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()  # "-0000" is UTC without a zone


def _timestamp(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None  # RFC 3339 has no local times


def _until(moment: float | None, now: float) -> float | None:
    return max(0.0, moment - now) if moment is not None and math.isfinite(now) else None
