"""Holds the reading of server delays to its order of precedence, and to sane numbers whatever a server sends."""

import math
import time
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.server_delay import server_delay

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC).timestamp()
PRECEDENCE = [  # the first that is there decides
    ("retry-after-ms", "1500", 1.5),
    ("retry-after", "2", 2.0),
    ("retryDelay", "45.8s", 45.8),
    ("x-ratelimit-reset-requests", "6m0s", 360.0),
]

seconds = st.floats(min_value=0, max_value=1e9, allow_nan=False)
names = st.sampled_from(
    [
        "retry-after-ms",
        "retry-after",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit--reset",
    ]
)
nonsense = (
    st.text()
    | st.floats().map(str)
    | st.integers().map(str)
    | st.datetimes().map(str)
    | st.from_regex(r"\d+(\.\d*)?(ms|s|m|h|d)*", fullmatch=False)
    | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+( .+)?")
    | st.sampled_from(["0", "-1", "nan", "inf", "1e3", "1_000", "１２", "9" * 1000, "\x00", ""])  # noqa: RUF001 - full-width digits: float() takes them
)


def read(headers, retry_delay=None, now=NOW):
    return server_delay(headers, retry_delay, now)


@pytest.mark.parametrize("first", range(len(PRECEDENCE)))
def test_precedence(first):
    present = {name: value for name, value, _ in PRECEDENCE[first:]}
    headers = {**present, "x-ratelimit-remaining-requests": "0"}
    assert read(headers, present.get("retryDelay")) == PRECEDENCE[first][2]


@pytest.mark.parametrize("bad", ["-1", "nan", "inf", "soon", "", "1e3", "1_000", "9" * 65, "１２"])  # noqa: RUF001 - full-width digits: float() takes them
def test_what_cannot_be_read_leaves_the_word_to_the_next(bad):
    assert read({"retry-after-ms": bad, "retry-after": "2"}) == 2
    assert read({"retry-after-ms": bad, "retry-after": bad}, "3s") == 3
    assert read({"retry-after-ms": bad, "retry-after": bad}, bad) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("7", 7),
        ("0.25", 0.25),
        ("7.", 7),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 12:00:30 -0000", 30),
        ("Mon, 23 Nov 2026 13:00:30 +0100", 30),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30),
        ("Mon, 23 Nov 2026 11:59:00 GMT", 0),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
        ("Mon, 23 Nov 2026 12:00:30 +2400", None),
        ("Mon, 23 Nov 2026 12:00:30 +9999999999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 251606951939),
    ],
)
def test_retry_after(value, expected):
    assert read({"retry-after": value}) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("6m0s", 360),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("1d2h", 93600),
        ("250us", 0.00025),
        ("5", 5),
        ("0", 0),
        ("6 m", None),
        ("m", None),
        ("-6m", None),
        ("2026-11-23T12:00:30Z", None),
    ],
)
def test_x_ratelimit_reset(value, expected):
    reset = {"x-ratelimit-reset-tokens": value}
    assert read({**reset, "x-ratelimit-remaining-tokens": "0"}) == pytest.approx(expected)
    assert read({**reset, "x-ratelimit-remaining-tokens": "1"}) is None
    assert read({**reset, "x-ratelimit-remaining-requests": "0"}) is None
    assert read(reset) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-23T12:00:30Z", 30),
        ("2026-11-23T13:00:30.500+01:00", 30.5),
        ("2026-11-23T11:00:00Z", 0),
        ("2026-11-23T12:00:30", None),
        ("0001-01-01T00:00:00+23:59", 0),
        ("30", None),
    ],
)
def test_anthropic_ratelimit_reset(value, expected):
    reset = {"anthropic-ratelimit-input-tokens-reset": value}
    assert read({**reset, "anthropic-ratelimit-input-tokens-remaining": "0"}) == expected
    assert read({**reset, "anthropic-ratelimit-input-tokens-remaining": "9"}) is None


def test_the_time_zone_of_the_machine_does_not_matter(monkeypatch):
    """An HTTP date with "-0000" has no time zone for Python, which then takes the machine's."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert read({"retry-after": "Mon, 23 Nov 2026 12:00:30 -0000"}) == 30
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("now", [math.inf, -math.inf, math.nan])
def test_without_a_clock_a_date_is_no_delay(now):
    assert read({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, now=now) is None
    assert read({"retry-after": "7"}, now=now) == 7


def test_the_last_of_several_spent_limits_decides():
    """A request needs all of them: coming back when the first is refilled is coming back too early."""
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "9s",
        "x-ratelimit-remaining-images": "3",
        "x-ratelimit-reset-images": "99s",
    }
    assert read(headers) == 9


@given(seconds)
def test_reads_back_seconds(value):
    assert read({"retry-after": f"{value:.9f}"}) == pytest.approx(value, abs=1e-6)
    assert read({"retry-after-ms": f"{value:.9f}"}) == pytest.approx(value / 1000, abs=1e-6)
    assert read({}, f"{value:.9f}s") == pytest.approx(value, abs=1e-6)


@given(
    st.integers(min_value=-(10**9), max_value=10**9),
    st.integers(min_value=-23, max_value=23).map(lambda hours: timezone(timedelta(hours=hours))),
)
def test_reads_back_moments(offset, zone):
    moment = datetime.fromtimestamp(NOW + offset, zone)
    spent = {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": moment.isoformat()}
    assert read({"retry-after": format_datetime(moment)}) == max(0, offset)
    assert read(spent) == max(0, offset)


@given(
    st.dictionaries(names, nonsense),
    st.none() | nonsense,
    st.floats() | st.floats(min_value=0, max_value=1e10),
)
def test_no_header_makes_a_delay_that_cannot_be_waited(headers, retry_delay, now):
    delay = read(headers, retry_delay, now)
    assert delay is None or (math.isfinite(delay) and delay >= 0)
