"""Holds the arithmetic of prices to a naive one in fractions, to the cent and to every digit behind it."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, Rounded, Subnormal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from overcoat.accounting import Usage
from overcoat.pricing.rates import DISCOUNTED, STANDARD, Rates, Tier

_tokens = st.integers(0, 10**9)
_rates = st.decimals(min_value=0, max_value="0.01", places=12)
_perhaps = st.none() | _rates


@st.composite
def _tables(draw):
    starts = [0, *sorted(draw(st.sets(st.integers(1, 10**6), max_size=3)))]
    tiers = [Tier(start, *(draw(kind) for kind in (_rates, _rates, _perhaps, _perhaps, _perhaps))) for start in starts]
    return Rates(tuple(tiers), "test", draw(st.decimals(min_value=0, max_value=1, places=6)))


@st.composite
def _usages(draw):
    """A usage whose parts are parts: reads and writes share the input, reasoning is within the output."""
    total_in, total_out = draw(_tokens), draw(_tokens)
    read = draw(st.none() | st.integers(0, total_in))
    created = draw(st.none() | st.integers(0, total_in - (read or 0)))
    return Usage(total_in, total_out, total_in + total_out, read, created, draw(st.none() | st.integers(0, total_out)))


def priced(rates, usage):
    """Add up what each token costs, kind by kind, in fractions."""
    tier = [tier for tier in rates.tiers if tier.above == 0 or usage.input_tokens > tier.above][-1]
    read, created = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    reasoning = usage.reasoning_output_tokens or 0
    charges = [
        (usage.input_tokens - read - created, tier.input),
        (read, tier.input if tier.cache_read is None else tier.cache_read),
        (created, tier.input if tier.cache_creation is None else tier.cache_creation),
        (usage.output_tokens - reasoning, tier.output),
        (reasoning, tier.output if tier.reasoning is None else tier.reasoning),
    ]
    return Fraction(rates.per_request) + sum(tokens * Fraction(rate) for tokens, rate in charges)


def flat(**rates):
    return Rates((Tier(0, **{"input": Decimal("0.000001"), "output": Decimal("0.000004")} | rates),), "test")


@given(_tables(), _usages())
def test_costs_are_exact(rates, usage):
    """Not near: a ledger's sums reconcile because no call was rounded."""
    cost = rates.cost(usage)
    assert isinstance(cost, Decimal)
    assert Fraction(cost) == priced(rates, usage)


def test_sums_do_not_drift():
    """Ten thousand calls of one token at $0.15 a million; in floats this is 0.0014999999999999."""
    cost = flat(input=Decimal("0.00000015"), output=Decimal(0)).cost(Usage(1, 0))
    assert sum([cost] * 10_000) == Decimal("0.0015")


TIERED = Rates(
    (
        Tier(0, Decimal(1), Decimal(10), Decimal("0.1")),
        Tier(200, Decimal(2), Decimal(20), Decimal("0.2")),
        Tier(400, Decimal(3), Decimal(30), Decimal("0.3")),
    ),
    "test",
)


@pytest.mark.parametrize(
    ("tokens", "rate"), [(0, 1), (1, 1), (199, 1), (200, 1), (201, 2), (400, 2), (401, 3), (10**9, 3)]
)
def test_a_cliff_is_behind_its_number_and_prices_everything(tokens, rate):
    """What begins above 200k does not begin at 200k; beyond it, all tokens cost more, those of the answer too."""
    assert TIERED.cost(Usage(tokens, 1)) == tokens * rate + 10 * rate
    assert TIERED.cost(Usage(tokens, 1, cache_read_input_tokens=tokens)) == tokens * Decimal(rate) / 10 + 10 * rate


@given(_tables(), _usages(), st.integers(0, 10**9))
def test_the_answer_s_length_does_not_choose_the_tier(rates, usage, more):
    longer = Usage(usage.input_tokens, usage.output_tokens + more)
    tier = [tier for tier in rates.tiers if tier.above == 0 or usage.input_tokens > tier.above][-1]
    assert Fraction(rates.cost(longer)) - Fraction(rates.cost(Usage(usage.input_tokens, usage.output_tokens))) == (
        more * Fraction(tier.output)
    )


@pytest.mark.parametrize("usage", [Usage(), Usage(10), Usage(None, 10), Usage(total_tokens=20)])
def test_without_both_counts_there_is_no_price(usage):
    """A total cannot be priced: its two parts cost differently."""
    assert TIERED.cost(usage) is None


@pytest.mark.parametrize(
    ("rates", "usage", "cost"),
    [
        (flat(input=None), Usage(1, 1), None),
        (flat(output=None), Usage(1, 1), None),
        (flat(output=None), Usage(1, 0), Decimal("0.000001")),  # embeddings have no output, nor a price for it
        (flat(input=None), Usage(0, 1), Decimal("0.000004")),
        (flat(input=Decimal(0), output=Decimal(0)), Usage(1, 1), Decimal(0)),  # declared free, which is not unknown
    ],
)
def test_a_rate_that_is_not_known_makes_no_price_where_it_is_needed(rates, usage, cost):
    assert rates.cost(usage) == cost


def test_no_tokens_cost_what_the_request_does():
    assert Rates(TIERED.tiers, "test", Decimal("0.005")).cost(Usage(0, 0)) == Decimal("0.005")


@pytest.mark.parametrize("name", ["cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_output_tokens"])
def test_a_kind_without_a_price_costs_what_its_whole_does(name):
    assert flat().cost(Usage(100, 100, **{name: 60})) == flat().cost(Usage(100, 100))


def test_kinds_with_a_price():
    rates = flat(cache_read=Decimal("0.0000001"), cache_creation=Decimal("0.00000125"), reasoning=Decimal("0.000005"))
    usage = Usage(100, 50, 150, 60, 30, 20)
    #      10 plain input, 60 read, 30 written, 30 plain output, 20 of reasoning; dollars a million
    assert rates.cost(usage) * 10**6 == 10 * 1 + 60 * Decimal("0.1") + 30 * Decimal("1.25") + 30 * 4 + 20 * 5


@given(_tables(), _tokens, _tokens, _tokens)
def test_parts_larger_than_their_whole_count_as_all_of_it(rates, whole_in, whole_out, more):
    """Some clients count cached tokens beside the others; a price must not turn negative by that."""
    excess = Usage(whole_in, whole_out, None, whole_in + more, None, whole_out + more)
    assert rates.cost(excess) == rates.cost(Usage(whole_in, whole_out, None, whole_in, None, whole_out))


@given(_tables(), _tokens, _tokens, _tokens)
@example(flat(cache_read=Decimal(0), cache_creation=Decimal(0)), 100, 100, 100)
def test_no_usage_costs_less_than_nothing(rates, whole, read, created):
    """Reads and writes together are at most the input."""
    assume(read + created > whole)
    assert rates.cost(Usage(whole, 0, None, read, created)) >= 0


@pytest.mark.parametrize(
    "tiers",
    [
        (),
        (Tier(10, Decimal(1), Decimal(1)),),
        (Tier(0, Decimal(1), Decimal(1)), Tier(20, Decimal(3), Decimal(1)), Tier(10, Decimal(2), Decimal(1))),
        (Tier(0, Decimal(1), Decimal(1)), Tier(0, Decimal(2), Decimal(1))),
    ],
)
def test_tiers_that_break_the_contract_are_refused_where_they_are_written(tiers):
    """They go by `above`, ascending, the first from 0; a price source of one's own would learn it from an invoice."""
    with pytest.raises(ValueError, match="above"):
        Rates(tiers, "test")


@pytest.mark.parametrize("rate", [0.01, 1, "0.01", Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal(-1)])
@pytest.mark.parametrize("name", ["input", "output", "cache_read", "cache_creation", "reasoning", "per_request"])
def test_rates_that_are_no_dollars_are_refused_where_they_are_written(name, rate):
    """A float would raise in the middle of a call, after the answer was paid for; a NaN would spread to all sums."""
    with pytest.raises(ValueError, match=r"^expected a rate as a finite Decimal of 0 or more"):
        Rates(flat().tiers, "test", rate) if name == "per_request" else flat(**{name: rate})


@given(_tables(), _usages())
def test_costs_do_not_depend_on_the_caller_s_decimal_context(rates, usage):
    """An application may round to cents, or forbid rounding: the ledger's digits are not its business."""
    expected = repr(rates.cost(usage))
    with localcontext(Context(prec=4)):
        assert repr(rates.cost(usage)) == expected
    with localcontext(Context(prec=1, traps=[Inexact, Rounded, Subnormal])):
        assert repr(rates.cost(usage)) == expected


class TestServices:
    """A service of another price: a batch, flexible or preferred processing."""

    RATES = Rates(
        flat().tiers,
        "test",
        Decimal(0),
        {
            "batch": (Tier(0, Decimal("0.0000005"), Decimal("0.000002")),),
            "priority": (Tier(0, Decimal(1), Decimal(2)),),
        },
    )

    def test_has_rates_of_its_own(self):
        assert self.RATES.cost(Usage(100, 100), "batch") * 2 == self.RATES.cost(Usage(100, 100))
        assert self.RATES.cost(Usage(100, 100), "priority") == 300

    @pytest.mark.parametrize("service", [None, *STANDARD])
    def test_the_standard_one_has_many_names(self, service):
        assert self.RATES.cost(Usage(100, 100), service) == flat().cost(Usage(100, 100))
        assert not self.RATES.may_be_less(Usage(100, 100), service)

    @pytest.mark.parametrize("service", DISCOUNTED)
    def test_one_that_is_sold_for_less_costs_no_more_than_the_standard(self, service):
        """And is marked: nobody here knows how much less."""
        assert flat().cost(Usage(100, 100), service) == flat().cost(Usage(100, 100))
        assert flat().may_be_less(Usage(100, 100), service)
        assert not self.RATES.may_be_less(Usage(100, 100), "batch")

    @pytest.mark.parametrize("service", ["ultra", "", "BATCH"])
    def test_any_other_is_unknown(self, service):
        assert self.RATES.cost(Usage(100, 100), service) is None

    def test_its_tiers_are_checked(self):
        with pytest.raises(ValueError, match="above"):
            Rates(flat().tiers, "test", Decimal(0), {"batch": ()})


class TestUpperBound:
    """What a client hides may be cheaper than what it says."""

    CACHED = flat(cache_read=Decimal("0.0000001"))

    @pytest.mark.parametrize(
        ("rates", "usage", "bound"),
        [
            (CACHED, Usage(100, 10), True),
            (CACHED, Usage(100, 10, cache_read_input_tokens=0), False),
            (CACHED, Usage(100, 10, cache_read_input_tokens=50), False),
            (CACHED, Usage(0, 10), False),
            (flat(), Usage(100, 10), False),
            (flat(cache_read=Decimal("0.000001")), Usage(100, 10), False),
            (flat(cache_read=Decimal("0.0000001"), input=None), Usage(100, 10), False),
            (TIERED, Usage(500, 1), True),
        ],
    )
    def test_where_cached_tokens_are_cheaper_and_not_reported(self, rates, usage, bound):
        assert rates.may_be_less(usage) is bound

    @given(_tables(), _usages(), st.integers(0, 10**9))
    def test_it_is_one(self, rates, usage, cached):
        """Had the client said how much was read from the cache, it would have cost no more."""
        read = min(cached, usage.input_tokens)
        hidden, shown = (
            Usage(usage.input_tokens, usage.output_tokens),
            Usage(usage.input_tokens, usage.output_tokens, cache_read_input_tokens=read),
        )
        if rates.may_be_less(hidden):
            assert rates.cost(shown) <= rates.cost(hidden)


@given(_tokens, _tokens, st.integers(0, 100), st.integers(0, 100))
def test_sound_and_what_is_kept_for_an_hour_are_parts_as_well(whole_in, whole_out, hour, sound):
    rates = flat(
        cache_creation=Decimal(2), cache_creation_1h=Decimal(3), audio_input=Decimal(5), audio_output=Decimal(7)
    )
    created = min(2 * hour, whole_in)
    longer, heard, spoken = min(hour, created), min(sound, whole_in - created), min(sound, whole_out)
    usage = Usage(whole_in, whole_out, None, None, created, None, longer, heard, spoken)
    plain = (whole_in - created - heard) * Decimal("0.000001") + (whole_out - spoken) * Decimal("0.000004")
    assert rates.cost(usage) == plain + (created - longer) * 2 + longer * 3 + heard * 5 + spoken * 7
    dearer = Usage(whole_in, whole_out, None, None, created, None, 10**9)
    assert rates.cost(dearer) == (whole_in - created) * Decimal("0.000001") + created * 3 + whole_out * Decimal(
        "0.000004"
    )
    without = flat(cache_creation=Decimal(2))
    assert without.cost(usage) == without.cost(Usage(whole_in, whole_out, None, None, created))
