"""Holds the pause after a failure to costing one call each time, and to growing no further than it should."""

import pytest

from overcoat.errors import StoreUnavailable
from overcoat.stores.outage import Outage


def fail(outage, now):
    outage.leave(now, well=False, probe=outage.enter(now))


def test_one_failure_refuses_all_that_come_next():
    outage = Outage("it")
    fail(outage, 10)
    for now in (10, 10.1, 10.2499):
        for ask in (outage.check, outage.enter):
            with pytest.raises(StoreUnavailable, match=r"^it has just failed; it is left alone for a while$"):
                ask(now)


def test_after_the_pause_one_probes_and_the_others_are_refused():
    outage = Outage("it")
    fail(outage, 10)
    outage.check(10.25)
    assert outage.enter(10.25)
    with pytest.raises(StoreUnavailable):
        outage.enter(10.25)
    outage.leave(10.3, well=True, probe=True)
    assert not outage.enter(10.3)
    assert not outage.enter(10.3)


def test_each_failed_probe_doubles_the_pause_up_to_half_a_minute():
    outage, now, pauses = Outage("it"), 0.0, []
    fail(outage, now)
    for _ in range(10):
        until = outage._until
        pauses.append(until - now)
        now = until
        fail(outage, now)
    assert pauses == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_being_well_makes_the_next_pause_short_again():
    outage = Outage("it")
    fail(outage, 0)
    fail(outage, 1)
    outage.leave(10, well=True, probe=outage.enter(10))
    fail(outage, 20)
    outage.check(20.25)


def test_of_many_that_fail_together_the_first_counts():
    outage = Outage("it")
    probes = [outage.enter(0) for _ in range(100)]
    assert not any(probes)
    for index in range(100):
        outage.leave(index / 1000, well=False, probe=False)
    outage.check(0.25)


def test_a_probe_that_is_cancelled_leaves_its_turn_to_another():
    outage = Outage("it")
    fail(outage, 0)
    outage.leave(1, well=None, probe=outage.enter(1))
    assert outage.enter(1)


def test_what_was_under_way_before_does_not_end_the_pause():
    """A slow answer from before is no news of now."""
    outage = Outage("it")
    slow = outage.enter(0)
    fail(outage, 0)
    outage.leave(0.1, well=True, probe=slow)
    with pytest.raises(StoreUnavailable):
        outage.check(0.1)


def test_a_cancelled_call_is_no_failure():
    outage = Outage("it")
    outage.leave(0, well=None, probe=outage.enter(0))
    outage.check(0)
