"""Holds a price table to saying what it means: by pattern and by day, exactly, or by all its mistakes at once."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, localcontext
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import PolicyError, Usage
from overcoat.pricing.table import Table

TABLE = """\
    version: 1
    currency: USD
    prices:
      - match: azure/our-*
        until: "2026-07-01"
        input: 2.5
        output: 10
      - match: azure/our-*
        from: "2026-07-01"
        until: "2027-01-01"
        input: 2.25
        output: 9
        cache_read: 1.125
        cache_creation: 2.8125
        cache_creation_1h: 4.5
        reasoning: 11
        audio_input: 20
        audio_output: 40
        per_request: 0.005
        context_window: 128000
        max_output_tokens: 16384
        tiers:
          - {above: 1000, input: 4.5, output: 13.5}
          - {above: 2000, output: 20}
        services:
          batch: {input: 1.125, output: 4.5}
      - match: ollama/*
        input: 0
        output: 0
    """
IN_TOML = """\
    version = 1
    currency = "USD"

    [[prices]]
    match = "azure/our-*"
    until = "2026-07-01"
    input = 2.5
    output = 10

    [[prices]]
    match = "azure/our-*"
    from = "2026-07-01"
    until = "2027-01-01"
    input = 2.25
    output = 9
    cache_read = 1.125
    cache_creation = 2.8125
    cache_creation_1h = 4.5
    reasoning = 11
    audio_input = 20
    audio_output = 40
    per_request = 0.005
    context_window = 128000
    max_output_tokens = 16384
    tiers = [{above = 1000, input = 4.5, output = 13.5}, {above = 2000, output = 20}]
    services = {batch = {input = 1.125, output = 4.5}}

    [[prices]]
    match = "ollama/*"
    input = 0
    output = 0
    """


def at(day: str) -> float:
    return datetime.fromisoformat(f"{day}+00:00").timestamp()


SPRING, AUTUMN = at("2026-04-01T12:00"), at("2026-10-01T12:00")


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a table and reads it."""

    def write_and_read(text, name="prices.yaml"):
        path = tmp_path / name
        path.write_text(dedent(text))
        return Table.read(path)

    return write_and_read


@pytest.fixture
def problems(read, tmp_path):
    """Return a function that gives the mistakes in a table, without the directory that it is in."""

    def mistakes(text, name="prices.yaml"):
        with pytest.raises(PolicyError) as caught:
            read(text, name)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return mistakes


@pytest.fixture(params=[(TABLE, "prices.yaml"), (IN_TOML, "prices.toml")], ids=["yaml", "toml"])
def table(request, read):
    return read(*request.param)


class TestPrices:
    def test_the_first_that_matches_on_the_day(self, table):
        assert table("azure/our-gpt-4o", SPRING).cost(Usage(10**6, 10**6)) == Decimal("12.5")
        rates = table("azure/our-gpt-4o", AUTUMN)
        assert rates.cost(Usage(1000, 100)) == Decimal("0.00815")  # 0.00225 + 0.0009 + 0.005
        assert (rates.context_window, rates.max_output_tokens) == (128_000, 16_384)

    def test_every_kind_of_tokens(self, table):
        usage = Usage(1000, 100, None, 100, 200, 50, 80, 300, 20)
        by_kind = 400 * Decimal("2.25") + 100 * Decimal("1.125") + 120 * Decimal("2.8125") + 80 * Decimal("4.5")
        by_kind += 300 * 20 + 30 * 9 + 50 * 11 + 20 * 40
        assert table("azure/our-gpt-4o", AUTUMN).cost(usage) == by_kind / 10**6 + Decimal("0.005")

    def test_tiers_take_what_they_do_not_say_from_below(self, table):
        rates = table("azure/our-gpt-4o", AUTUMN)
        assert rates.cost(Usage(1001, 0)) == 1001 * Decimal("0.0000045") + Decimal("0.005")
        assert rates.cost(Usage(2001, 10)) == 2001 * Decimal("0.0000045") + Decimal("0.0002") + Decimal("0.005")
        assert rates.tiers[2].cache_read == Decimal("0.000001125")

    def test_services(self, table):
        rates = table("azure/our-gpt-4o", AUTUMN)
        assert rates.cost(Usage(1000, 100), "batch") == Decimal("0.006575")

    @pytest.mark.parametrize(
        ("moment", "rate"),
        [("2020-01-01T00:00", "2.5"), ("2026-06-30T23:59:59", "2.5"), ("2026-07-01T00:00", "2.255"),
         ("2026-12-31T23:59:59", "2.255"), ("2027-01-01T00:00", None)],
    )  # fmt: skip
    def test_a_price_holds_from_midnight_to_midnight_utc(self, table, moment, rate):
        rates = table("azure/our-gpt-4o", at(moment))
        million = rates and min(rates.tiers[0].input * 10**6 + rates.per_request, Decimal(10))
        assert million == (rate and Decimal(rate))

    def test_zero_is_a_declared_price(self, table):
        assert table("ollama/llama3", SPRING).cost(Usage(10**6, 10**6)) == 0

    @pytest.mark.parametrize("model", ["gpt-4o", "azure/", "AZURE/our-gpt-4o", "ollama", ""])
    def test_what_no_entry_matches_is_unknown(self, table, model):
        assert table(model, SPRING) is None

    def test_the_file_the_line_and_what_it_says_are_stamped(self, read):
        first, second = read(TABLE), read(TABLE.replace("2.25\n", "2.26\n"))
        assert first("azure/our-x", AUTUMN).source == f"prices.yaml:8 {first.digest}"
        assert first("ollama/x", AUTUMN).source == f"prices.yaml:27 {first.digest}"
        assert len(first.digest) == 8
        assert first.digest != second.digest
        assert first.digest == read(TABLE + "    # a comment\n").digest

    def test_it_reads_like_the_code_that_made_it(self, table):
        assert repr(table) == f"Table.read({table.path!r})"

    @given(st.decimals(Decimal("0.0001"), 1000, places=6), st.integers(0, 10**9))
    def test_what_is_written_is_what_is_charged(self, tmp_path_factory, rate, tokens):
        """To the last digit, whatever the application's decimal context is."""
        path = tmp_path_factory.mktemp("table") / "prices.yaml"
        path.write_text(f"version: 1\nprices: [{{match: m, input: {rate:f}, output: 1}}]\n")
        with localcontext(Context(prec=2, traps=[Inexact])):
            cost = Table.read(path)("m", 0.0).cost(Usage(tokens, 0))
        assert cost * 10**6 == rate * tokens


def entry(**keys: str) -> str:
    given = {"match": "m", "input": "1", "output": "1", **keys}
    return "version: 1\nprices:\n  - " + "\n    ".join(f"{key}: {value}" for key, value in given.items() if value)


class TestMistakes:
    def test_all_at_once_each_with_its_place(self, problems):
        assert problems(
            """\
            version: 1
            currency: EUR
            prices:
              - match: gpt-4o
                imput: 2.5
                output: -10
                from: July
              - match: gpt-4o-mini
                input: 0.0000006
                output: ten
                until: "2026-07-01"
                from: "2026-08-01"
                tiers:
                  - {above: 2000, input: 1}
                  - {above: 1000, input: 2}
                services:
                  batch: {input: 0.5}
            """
        ) == [
            "prices.yaml:2:11: currency: expected 'USD', not 'EUR'",
            "prices.yaml:4:5: prices[0]: 'input' is missing",
            "prices.yaml:5:5: prices[0].imput: unknown key, did you mean 'input'?",
            "prices.yaml:6:13: prices[0].output: -10 is less than 0",
            'prices.yaml:7:11: prices[0].from: expected a day in quotes, such as "2026-07-01"',
            "prices.yaml:9:12: prices[1].input: 6e-07 is dollars a token; expected dollars a million tokens",
            "prices.yaml:10:13: prices[1].output: expected a number, not 'ten'",
            (
                "prices.yaml:11:12: prices[1].until: 2026-07-01 is not after 2026-08-01, from which it holds "
                "(prices.yaml:12:11)"
            ),
            "prices.yaml:15:17: prices[1].tiers[1].above: 1000 is not more than the 2000 of the tier before it",
            "prices.yaml:17:7: prices[1].services.batch: 'output' is missing",
        ]

    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            (entry(input="1000001"), "prices.yaml:4:12: prices[0].input: 1e+06 is more than a dollar a token"),
            (entry(input="true"), "prices.yaml:4:12: prices[0].input: expected a number, not true"),
            (entry(per_request="-1"), "expected 0 to 1000000 dollars a request, not -1"),
            (entry(context_window="0"), "expected at least 1, not 0"),
            (entry(context_window="1.5"), "expected a whole number, not 1.5"),
            (entry(**{"from": "2026-07-01"}), "2026-07-01 is a date to readers of YAML 1.1"),
            (entry(**{"from": '"2026-02-30"'}), "expected a day in quotes"),
            (entry(**{"from": "July", "until": '"2026-07-01"'}), "prices[0].from: expected a day in quotes"),
            (entry(match='""'), "expected text, not ''"),
            (entry(tiers="[{above: 0, input: 1}]"), "prices[0].tiers[0].above: expected at least 1, not 0"),
            (entry(tiers="[{input: 1}]"), "prices[0].tiers[0]: 'above' is missing"),
            ("prices: []", "'version' is missing"),
            ("version: 1", "'prices' is missing"),
            ("version: 2\nprices: []", "version: expected 1, not 2"),
            ("version: 1\nprices: {}", "prices: expected a list, not a mapping"),
            ("version: 1\npreise: []", "unknown key, did you mean 'prices'?"),
            ("[", "expected the node content"),
            ("", "it is empty"),
        ],
    )  # fmt: skip
    def test_each(self, problems, text, mistake):
        assert any(mistake in problem for problem in problems(text)), problems(text)

    @pytest.mark.parametrize(
        ("first", "second", "reached"),
        [
            ({}, {}, False),
            ({"match": "'*'"}, {"match": "gpt-4o"}, False),
            ({"match": "gpt-*"}, {"match": "gpt-4o*"}, False),
            ({"match": "gpt-4o*"}, {"match": "gpt-*"}, True),
            ({"match": "gpt-?"}, {"match": "gpt-4"}, True),  # it is not; that takes more than a look
            ({"until": '"2026-07-01"'}, {"from": '"2026-07-01"'}, True),
            ({"until": '"2026-07-01"'}, {}, True),
            ({"until": '"2026-07-01"'}, {"until": '"2026-06-01"'}, False),
            ({"from": '"2026-07-01"'}, {}, True),
            ({"from": '"2026-07-01"'}, {"from": '"2026-08-01"'}, False),
        ],
    )
    def test_an_entry_that_would_never_be_reached(self, read, problems, first, second, reached):
        text = entry(**first) + "\n" + entry(**second).removeprefix("version: 1\nprices:\n") + "\n"
        if reached:
            assert len(read(text).entries) == 2
        else:
            (problem,) = problems(text)
            assert "never reached: " in problem
            assert "comes first and covers it" in problem

    @pytest.mark.parametrize(("name", "mistake"), [("none.yaml", "cannot be read"), ("prices.json", "expected a file")])
    def test_a_file_that_is_none(self, tmp_path, name, mistake):
        with pytest.raises(PolicyError, match=mistake):
            Table.read(tmp_path / name)

    @given(st.text(max_size=60))
    def test_any_text_is_a_table_or_is_refused(self, tmp_path_factory, text):
        path = tmp_path_factory.mktemp("table") / "prices.yaml"
        path.write_text("version: 1\nprices:\n" + text, encoding="utf-8", errors="surrogatepass")
        with suppress(PolicyError):
            Table.read(path)


def test_the_example_in_the_documentation_is_a_table(read):
    """It is what people start from."""
    from overcoat.pricing import table

    example = table.__doc__.partition("```yaml\n")[2].partition("```")[0]
    found = read(example)
    assert found("azure/our-gpt-4o", datetime(2026, 8, 1, tzinfo=UTC).timestamp()).cost(Usage(0, 10**6)) == 9
    assert found("ollama/llama3", 0.0).cost(Usage(1, 1)) == 0
