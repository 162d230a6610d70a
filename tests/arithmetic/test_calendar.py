"""Windows tile time, whatever the calendar and the clocks of a zone do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.calendar import SLICES, parse_window

# Those that skip or repeat midnight, move by half an hour, stand still, or left out a whole day.
ZONES = [
    "Europe/Warsaw",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Antarctica/Troll",
]
UNITS = ["day", "week", "month"]
LONGEST = {"day": 50, "week": 8 * 24, "month": 32 * 24}  # hours; Apia's days are longer for what it left out

moments = st.integers(0, 4_102_444_800_000)  # 1970 to 2100, in milliseconds
zones = st.sampled_from(ZONES)
spans = st.integers(60, 366 * 86_400)


def calendar(unit, zone=None):
    return parse_window(f"calendar {unit}", zone, "Test")


def at(*moment, zone="UTC"):
    return int(datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@given(moments, zones, st.sampled_from(UNITS))
def test_a_moment_lies_in_its_window(now, zone, unit):
    slot = calendar(unit, zone).at(now)
    assert slot.id == slot.oldest <= now < slot.ends
    assert slot.ends - slot.id <= LONGEST[unit] * 3_600_000


@given(moments, zones, st.sampled_from(UNITS))
def test_windows_follow_each_other_without_a_gap(now, zone, unit):
    slot = calendar(unit, zone).at(now)
    assert calendar(unit, zone).at(slot.id) == slot
    assert calendar(unit, zone).at(slot.ends - 1) == slot
    assert calendar(unit, zone).at(slot.ends).id == slot.ends
    assert calendar(unit, zone).leaves(slot.id) == slot.ends


@given(moments, zones)
def test_a_window_is_what_the_wall_says(now, zone):
    local = datetime.fromtimestamp(now / 1000, ZoneInfo(zone))
    days = [datetime.fromtimestamp(edge / 1000, ZoneInfo(zone)).date() for edge in calendar("day", zone).at(now)[::2]]
    assert days[0] == local.date() < days[1]
    (first, _, after) = calendar("month", zone).at(now)
    begins = datetime.fromtimestamp(first / 1000, ZoneInfo(zone))
    assert (begins.year, begins.month, begins.day) == (local.year, local.month, 1)
    assert datetime.fromtimestamp(after / 1000, ZoneInfo(zone)).day == 1
    week = datetime.fromtimestamp(calendar("week", zone).at(now).id / 1000, ZoneInfo(zone))
    assert timedelta(0) <= local.date() - week.date() < timedelta(7)
    assert week.weekday() == 0


@given(moments, zones, st.sampled_from(UNITS), st.lists(st.integers(-3 * 86_400_000, 3 * 86_400_000), max_size=9))
def test_what_is_remembered_of_the_last_moment_changes_nothing(now, zone, unit, steps):
    """Also where the clock goes back."""
    window = calendar(unit, zone)
    for step in steps:
        now = max(0, now + step)
        assert window.at(now) == calendar(unit, zone).at(now)


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ((2026, 3, 29), "Europe/Warsaw", 23),
        ((2026, 10, 25), "Europe/Warsaw", 25),
        ((2026, 6, 1), "Europe/Warsaw", 24),
        ((2018, 11, 4), "America/Sao_Paulo", 23),  # it began at 1 in the morning
        ((2018, 2, 17), "America/Sao_Paulo", 25),
        ((2026, 4, 24), "Africa/Cairo", 23),
        ((2026, 4, 5), "Australia/Lord_Howe", 24.5),
        ((2011, 12, 29), "Pacific/Apia", 24),  # after which came the 31st
    ],
)
def test_days_on_which_the_clocks_change(day, zone, hours):
    slot = calendar("day", zone).at(at(*day, 12, zone=zone))
    assert (slot.ends - slot.id) / 3_600_000 == hours


@pytest.mark.parametrize(
    ("unit", "now", "begins", "ends"),
    [
        ("month", (2024, 2, 29, 23, 59, 59), (2024, 2, 1), (2024, 3, 1)),
        ("month", (2023, 2, 28, 12), (2023, 2, 1), (2023, 3, 1)),
        ("month", (2026, 12, 31), (2026, 12, 1), (2027, 1, 1)),
        ("month", (2026, 1, 31), (2026, 1, 1), (2026, 2, 1)),
        ("week", (2027, 1, 1), (2026, 12, 28), (2027, 1, 4)),
        ("day", (2024, 2, 29), (2024, 2, 29), (2024, 3, 1)),
        ("hour", (2026, 5, 5, 7, 59, 59), (2026, 5, 5, 7), (2026, 5, 5, 8)),
        ("minute", (2026, 5, 5, 7, 59, 59), (2026, 5, 5, 7, 59), (2026, 5, 5, 8)),
    ],
)
def test_ends_of_months_leap_years_and_the_rest(unit, now, begins, ends):
    slot = calendar(unit).at(at(*now))
    assert (slot.id, slot.ends) == (at(*begins), at(*ends))


@given(spans, moments, st.integers(0, 4 * 86_400_000))
def test_a_sliding_window_counts_for_its_span_and_a_sixtieth_at_most(span, spent, later):
    window = parse_window(span, None, "Test")
    slice_ = window.at(spent).id
    leaves = window.leaves(slice_)
    length = -(-span * 1000 // SLICES)
    assert spent + span * 1000 <= leaves <= spent + span * 1000 + length + SLICES
    for now in (spent + later, leaves - 1, leaves):
        assert (window.at(now).oldest <= slice_) == (now < leaves)


@pytest.mark.parametrize("window", ["1d", "calendar month", "calendar hour", None])
@pytest.mark.parametrize("now", [-(10**18), -1, 0, 2**53, 10**18])
def test_clocks_that_are_wrong_do_no_harm(window, now):
    slot = parse_window(window, None, "Test").at(now)
    assert slot.oldest <= slot.id < slot.ends


def test_what_a_window_is_called():
    texts = ["1h30m", 90, "calendar day", None]
    assert [parse_window(text, None, "Test").text for text in texts] == ["1h30m", "90s", "calendar day", "ever"]
    assert calendar("day", "Europe/Warsaw").text == "calendar day Europe/Warsaw"
    assert calendar("day", "UTC").text == "calendar day"
    assert calendar("day").at(0) == (0, 0, 86_400_000)
    assert datetime.fromtimestamp(parse_window(None, None, "Test").at(0).ends / 1000 - 1, UTC).year > 9000
