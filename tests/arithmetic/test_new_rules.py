"""State that is already there goes by other rules from now on: what was counted still counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.circuit import Circuit, CircuitRules
from overcoat.arithmetic.quota import Limits, Quota
from overcoat.arithmetic.retry_budget import RetryBalance

COUNTS = st.none() | st.integers(1, 5)
LIMITS = st.builds(Limits, COUNTS, COUNTS, st.sampled_from([1.0, 10.0]), COUNTS)
PAUSES = st.sampled_from([0.0, 0.05, 0.5, 1.0, 3.0, 10.0])
RULES = CircuitRules(0.5, 4, 60.0, 15.0, 1, 600.0)


@given(
    first=LIMITS,
    steps=st.lists(st.tuples(PAUSES, st.one_of(LIMITS, st.integers(0, 3), st.just("end"))), max_size=40),
)
def test_no_window_of_the_present_limits_is_exceeded(first, steps):
    """As far as it is remembered: by a longer window than before, what the shorter one forgot is not counted."""
    quota, limits, now = Quota(first), first, 0.0
    granted, running, since = [], [], 0.0
    for pause, step in steps:
        now += pause
        if isinstance(step, Limits):
            if step.window > limits.window:
                since = now - limits.window
            limits = step
            quota.follow(step)
        elif step == "end":
            if running:
                grant = running.pop()
                quota.settle(grant, grant.tokens)
        elif (grant := quota.take(now, step)) is not None:
            running.append(grant)
            granted.append((now, grant.tokens))
            # A hair is left to the rounding of times that are sums of pauses.
            inside = [tokens for at, tokens in granted if at > max(now - limits.window, since) + 1e-9]
            assert limits.requests is None or len(inside) <= limits.requests
            assert limits.tokens is None or sum(inside) <= limits.tokens
            assert limits.concurrency is None or len(running) <= limits.concurrency


def test_failures_that_were_counted_open_a_circuit_by_its_new_rules():
    circuit = Circuit(RULES)
    for now in range(2):
        circuit.record(circuit.admit(), "failure", now)
    circuit.follow(RULES.__class__(0.5, 3, 60.0, 7.0, 1, 600.0))
    assert circuit.state == "closed"  # an attempt decides, not a change of rules
    circuit.record(circuit.admit(), "failure", 2)
    assert circuit.state == "open"
    assert circuit.retry_after(2) == 7


def test_a_shorter_window_forgets_at_once():
    circuit = Circuit(RULES)
    for now in range(3):
        circuit.record(circuit.admit(), "failure", now)
    circuit.follow(CircuitRules(0.5, 4, 1.0, 15.0, 1, 600.0))
    circuit.record(circuit.admit(), "failure", 30)
    assert circuit.state == "closed"


def test_what_is_open_stays_so_as_long_as_it_was_to():
    circuit = Circuit(RULES)
    for now in range(4):
        circuit.record(circuit.admit(), "failure", now)
    circuit.follow(CircuitRules(0.5, 4, 60.0, 1.0, 1, 600.0))
    assert circuit.retry_after(4) == 14
    assert circuit.advance(17) is None
    assert circuit.advance(18).after == "half_open"


def test_what_was_withdrawn_counts_towards_a_new_budget():
    balance = RetryBalance(0.0, 3, 10.0)
    assert [balance.withdraw(0) for _ in range(4)] == [True, True, True, False]
    balance.follow(0.0, 4, 10.0)
    assert [balance.withdraw(1) for _ in range(2)] == [True, False]
    balance.follow(1.0, 4, 20.0)
    balance.deposit(2)
    assert balance.withdraw(2)
    assert not balance.withdraw(19)
    assert balance.withdraw(20.1)
