"""Holds the circuit breaker to a naive model, whatever happens in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from overcoat.arithmetic.circuit import Circuit, CircuitRules, Permit
from overcoat.arithmetic.window import SLICES

RULES = CircuitRules(
    failure_ratio=0.5, min_calls=4, window=100.0, open_for=10.0, half_open_calls=1, quota_open_for=600.0
)


def rules(**changes: Any) -> CircuitRules:
    return CircuitRules(**({name: getattr(RULES, name) for name in RULES.__slots__} | changes))


def report(circuit, *outcomes, now=0.0):
    """Send one after the other, and return the transitions that came of it."""
    return [circuit.record(circuit.admit(), outcome, now) for outcome in outcomes]


def opened(**changes):
    """A circuit that opened at 0."""
    circuit = Circuit(rules(**changes))
    circuit.record(circuit.admit(), "quota", 0.0)
    circuit._until = circuit._rules.open_for
    return circuit


class TestClosed:
    def test_it_opens_when_the_ratio_is_reached(self):
        circuit = Circuit(RULES)
        *before, last = report(circuit, "success", "success", "failure", "failure", now=3.0)
        assert before == [None, None, None]
        assert last == ("closed", "open", 3.0)
        assert circuit.admit() is None
        assert circuit.retry_after(5.0) == 8.0

    def test_not_before_there_are_enough_calls(self):
        circuit = Circuit(RULES)
        assert report(circuit, "failure", "failure", "failure") == [None] * 3
        assert report(circuit, "success") == [("closed", "open", 0.0)]

    def test_a_ratio_is_compared_exactly(self):
        """0.28 * 25 is 7.000000000000001, which 7 failures would miss."""
        circuit = Circuit(rules(failure_ratio=0.28, min_calls=25))
        assert report(circuit, *["success"] * 18, *["failure"] * 7)[-1] is not None

    def test_the_smallest_ratio_takes_one_failure_and_not_none(self):
        circuit = Circuit(rules(failure_ratio=5e-324, min_calls=1))
        assert report(circuit, *["success"] * 99, "failure") == [*[None] * 99, ("closed", "open", 0.0)]

    def test_what_is_older_than_the_window_does_not_count(self):
        circuit = Circuit(RULES)
        report(circuit, "failure", "failure", "failure", now=0.0)
        assert report(circuit, "failure", now=100.0) == [None]
        assert report(circuit, "failure", "failure", now=199.9) == [None, None]
        assert report(circuit, "failure", now=199.9) == [("closed", "open", 199.9)]

    def test_neither_counts_as_nothing(self):
        circuit = Circuit(RULES)
        report(circuit, *["neither"] * 1000, "failure", "failure", "failure")
        assert circuit.state == "closed"

    def test_an_exhausted_quota_opens_it_at_once(self):
        circuit = Circuit(RULES)
        assert report(circuit, "quota") == [("closed", "open", 0.0)]
        assert circuit.retry_after(0.0) == 600


class TestOpen:
    def test_it_becomes_half_open_in_time_and_not_before(self):
        circuit = opened()
        assert circuit.advance(9.999) is None
        assert circuit.admit() is None
        assert circuit.advance(10.0) == ("open", "half_open", 10.0)
        assert circuit.admit() is not None

    @pytest.mark.parametrize(("quota_open_for", "until"), [(600, 605), (2, 10)])
    def test_a_quota_prolongs_it_and_never_shortens_it(self, quota_open_for, until):
        circuit = Circuit(rules(quota_open_for=quota_open_for))
        late = circuit.admit()
        report(circuit, *["failure"] * 4)
        assert circuit.record(late, "quota", 5.0) is None
        assert circuit.retry_after(5.0) == until - 5


class TestHalfOpen:
    def test_one_success_closes_it(self):
        circuit = opened()
        circuit.advance(10.0)
        assert report(circuit, "success", now=11.0) == [("half_open", "closed", 11.0)]

    def test_a_failure_opens_it_again(self):
        circuit = opened()
        circuit.advance(10.0)
        assert report(circuit, "failure", now=11.0) == [("half_open", "open", 11.0)]
        assert circuit.retry_after(11.0) == 10

    def test_it_closes_with_an_empty_window(self):
        """Failures of before say nothing about after."""
        circuit = Circuit(RULES)
        report(circuit, *["failure"] * 4)
        circuit.advance(10.0)
        report(circuit, "success", now=10.0)
        assert report(circuit, "failure", "failure", "failure", now=10.0) == [None] * 3

    def test_so_many_at_once_and_so_many_successes(self):
        circuit = opened(half_open_calls=2)
        circuit.advance(10.0)
        probes = [circuit.admit(), circuit.admit()]
        assert circuit.admit() is None
        assert circuit.retry_after(10.0) == 0
        assert circuit.record(probes[0], "success", 11.0) is None
        assert circuit.record(probes[1], "success", 12.0) == ("half_open", "closed", 12.0)

    @pytest.mark.parametrize("times", [1, 100])
    def test_a_cancelled_probe_gives_its_place_back(self, times):
        circuit = opened()
        circuit.advance(10.0)
        report(circuit, *["neither"] * times)
        assert circuit.state == "half_open"
        assert circuit.admit() is not None

    @pytest.mark.parametrize("outcome", ["success", "failure", "neither"])
    def test_what_began_before_does_not_disturb_it(self, outcome):
        circuit = Circuit(RULES)
        late = circuit.admit()
        report(circuit, *["failure"] * 4)
        circuit.advance(10.0)
        probe = circuit.admit()
        assert circuit.record(late, outcome, 11.0) is None
        assert circuit.state == "half_open"
        assert circuit.admit() is None
        assert circuit.record(probe, "success", 12.0) == ("half_open", "closed", 12.0)

    def test_a_probe_of_an_earlier_time_counts_as_one_under_way_but_not_as_evidence(self):
        circuit = opened(half_open_calls=2)
        circuit.advance(10.0)
        hanging = circuit.admit()
        report(circuit, "failure", now=10.0)
        circuit.advance(20.0)
        assert circuit.admit() is not None
        assert circuit.admit() is None
        assert circuit.record(hanging, "failure", 21.0) is None
        assert circuit.state == "half_open"
        assert circuit.admit() is not None


class Model:
    """The same, in the plainest way: all outcomes are kept, and counted anew each time."""

    def __init__(self, rules):
        self.rules = rules
        self.state = "closed"
        self.era = 0
        self.until = 0.0
        self.outcomes = []
        self.passed = 0
        self.probes = 0

    def become(self, state):
        self.state, self.era, self.outcomes, self.passed = state, self.era + 1, [], 0

    def admit(self, now):
        if self.state == "open" and now >= self.until:
            self.become("half_open")
        if self.state == "open" or (self.state == "half_open" and self.probes >= self.rules.half_open_calls):
            return None
        self.probes += self.state == "half_open"
        return self.era, self.state == "half_open"

    def record(self, permit, outcome, now):
        era, probe = permit
        self.probes -= probe
        if outcome == "quota":
            self.open(now + self.rules.quota_open_for)
        elif outcome == "neither" or era != self.era:
            pass
        elif probe and outcome == "failure":
            self.open(now + self.rules.open_for)
        elif probe:
            self.passed += 1
            if self.passed == self.rules.half_open_calls:
                self.become("closed")
        else:
            self.outcomes.append((now, outcome))
            ended = self.within(now)
            if len(ended) >= self.rules.min_calls and ended.count("failure") / len(ended) >= self.rules.failure_ratio:
                self.open(now + self.rules.open_for)

    def open(self, until):
        if self.state == "open":
            self.until = max(self.until, until)
        else:
            self.until = until
            self.become("open")

    def within(self, now):
        """The outcomes of the window, those within a hundredth of it together."""
        groups = []
        for at, outcome in self.outcomes:
            if not groups or at >= groups[-1][0][0] + self.rules.window / SLICES:
                groups.append([])
            groups[-1].append((at, outcome))
        return [outcome for group in groups for _, outcome in group if group[-1][0] + self.rules.window > now]


class CircuitMachine(RuleBasedStateMachine):
    @initialize(ratio=st.sampled_from([0.1, 0.3, 0.5, 0.75, 1.0]), least=st.integers(1, 6), probes=st.integers(1, 3))
    def start(self, ratio, least, probes):
        self.rules = rules(failure_ratio=ratio, min_calls=least, half_open_calls=probes, quota_open_for=50.0)
        self.circuit = Circuit(self.rules)
        self.model = Model(self.rules)
        self.now = 0.0
        self.under_way = []

    @rule(seconds=st.sampled_from([0.25, 0.5, 1, 7, 10, 50, 99, 100]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def send(self):
        before = self.circuit.state
        transition = self.circuit.advance(self.now)
        permit, expected = self.circuit.admit(), self.model.admit(self.now)
        assert (permit is None) == (expected is None)
        self.check(transition, before)
        if permit is not None:
            self.under_way.append((permit, expected))

    @precondition(lambda self: self.under_way)
    @rule(
        which=st.integers(0, 99),
        outcome=st.sampled_from(["success", "failure", "failure", "neither", "success", "failure", "failure", "quota"]),
    )
    def end(self, which, outcome):
        permit, expected = self.under_way.pop(which % len(self.under_way))
        before = self.circuit.state
        transition = self.circuit.record(permit, outcome, self.now)
        self.model.record(expected, outcome, self.now)
        self.check(transition, before)

    def check(self, transition, before):
        """States agree, and each change is told, once."""
        assert self.circuit.state == self.model.state
        assert transition == (None if before == self.circuit.state else (before, self.circuit.state, self.now))
        assert self.circuit.retry_after(self.now) == (
            max(0.0, self.model.until - self.now) if self.model.state == "open" else 0.0
        )

    @invariant()
    def no_more_probes_than_allowed(self):
        assert sum(permit.probe for permit, _ in self.under_way) <= self.rules.half_open_calls

    @invariant()
    def it_never_stays_shut(self):
        """Where nothing is under way, a call is let through once the time is over."""
        if not self.under_way and self.circuit.state == "half_open":
            permit = self.circuit.admit()
            assert permit is not None
            self.circuit.record(permit, "neither", self.now)


TestCircuitMachine = CircuitMachine.TestCase
TestCircuitMachine.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([0, 0.25, 7, 10, 50, 99]),
            st.sampled_from(["send", "send", "success", "failure", "failure", "neither", "quota"]),
            st.integers(0, 9),
        ),
        max_size=80,
    ),
    probes=st.integers(1, 3),
)
def test_written_down_at_every_step_it_is_the_same(steps, probes):
    """As it is kept where several processes share it: probes under way are counted outside."""
    its = rules(half_open_calls=probes, min_calls=3)
    circuit, written, now = Circuit(its), Circuit(its).dump(), 0.0
    under_way: list[tuple[Permit, Permit]] = []
    for pause, action, which in steps:
        now += pause
        probing = sum(theirs.probe for _, theirs in under_way)
        loaded = Circuit.load(its, written, probing)
        if action == "send":
            mine, theirs = circuit.admit(), loaded.admit()
            if mine is None:
                assert circuit.advance(now) == loaded.advance(now)
                mine, theirs = circuit.admit(), loaded.admit()
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert (mine.era, mine.probe) == (theirs.era, theirs.probe)
                under_way.append((mine, theirs))
        elif under_way:
            mine, theirs = under_way.pop(which % len(under_way))
            loaded.probing -= theirs.probe
            assert circuit.record(mine, action, now) == loaded.judge(theirs, action, now)
        assert loaded.probing == circuit.probing
        assert loaded.retry_after(now) == circuit.retry_after(now)
        written = loaded.dump()
        assert written == circuit.dump()
