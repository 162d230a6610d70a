"""Reads the numbers, durations and moments that servers write into headers; whatever else they write is None."""

import math
import re
from datetime import UTC, datetime

_LONGEST = 64  # characters; no real value comes near it, and it keeps every number finite
_NUMBER = re.compile(r"\d+(?:\.\d*)?", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d*)?)(ms|us|ns|d|h|m|s)", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def number(text: str | None) -> float | None:
    """Return a number that is not negative, and finite."""
    # float() alone would take "nan", "-1", "1_000" and the digits of every script.
    return float(text) if text and len(text) <= _LONGEST and _NUMBER.fullmatch(text) else None


def duration(text: str | None) -> float | None:
    """Return the seconds of a duration with units, such as "6m0s" or "17ms"."""
    if not text or len(text) > _LONGEST or not _WHOLE.fullmatch(text):
        return None
    return sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))


def http_date(text: str | None) -> float | None:
    """Return the Unix time of an HTTP date (RFC 9110, section 5.6.7)."""
    if not text or len(text) > _LONGEST:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 5 ms, for a header that few servers send

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the second for an absurd time zone
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()  # "-0000" is UTC without a zone


def timestamp(text: str) -> float | None:
    """Return the Unix time of a moment by RFC 3339, which has no local times."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None


def until(moment: float | None, now: float) -> float | None:
    """Return the seconds from *now* until *moment*; 0 where it has passed."""
    return max(0.0, moment - now) if moment is not None and math.isfinite(now) else None
