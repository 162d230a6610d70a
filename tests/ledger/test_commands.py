"""Holds `overcoat costs` to what a person and a program read of it."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from overcoat import Lookup
from overcoat.cli import main
from overcoat.ledger import Ledger
from overcoat.ledger.commands import run_costs
from overcoat.ledger.focus import COLUMNS

from .calls import NOON, attempt, call

NOW = datetime.fromtimestamp(NOON, UTC)
DAY = 86_400


@pytest.fixture
def path(tmp_path):
    """The path of a ledger with five calls."""
    path = tmp_path / "costs.db"
    upper = attempt("claude-sonnet-4-5", "0.25")
    upper.upper_bound = True
    with Ledger(path) as ledger:
        for made in (
            call(attempt(cost="0.000001500000"), at=NOON - 1, tenant="acme"),
            call(attempt(cost=None), at=NOON - 2, tenant="acme"),
            call(attempt(cost="150", error_type="timeout"), upper, at=NOON - 3 * DAY, tenant="\x1b[31mevil"),
            call(cache=Lookup("hit", 0.0, 0.0, cost=Decimal("0.5")), at=NOON - 3 * DAY - 1, tenant="[red]acme"),
            call(attempt("mine", None, usage=None), model="mine", at=NOON - 9 * DAY),
        ):
            ledger.add(*made)
    return str(path)


def shown(capsys, *arguments, **options):
    assert run_costs(*arguments, now=NOW, **options) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


class TestTable:
    def test_by_model(self, path, capsys):
        lines = [re.split(r"  +", line.strip()) for line in shown(capsys, path).splitlines()]
        assert lines == [
            ["model", "calls", "attempts", "tokens in", "tokens out", "billed", "saved", "wasted"],
            ["openai/gpt-4o", "4", "3", "3,000", "300", "$150.00", "$0.500000", "$150.00", "+ 1 call of unknown price"],
            [
                *("claude-sonnet-4-5", "0", "1", "1,000", "100", "$0.250000", "$0", "$0"),
                "at most: of 1 call nobody said what was cached",
            ],
            ["mine", "1", "1", "-", "-", "-", "$0", "$0", "+ 1 call of unknown price"],
            [
                *("all", "5", "5", "4,000", "400", "$150.25", "$0.500000", "$150.00"),
                "+ 2 calls of unknown price; at most: of 1 call nobody said what was cached",
            ],
        ]

    def test_what_a_user_wrote_is_shown_and_not_obeyed(self, path, capsys):
        table = shown(capsys, path, by="tag.tenant")
        assert "\x1b" not in table
        assert "\ufffd[31mevil" in table
        assert "[red]acme" in table

    def test_all_together(self, path, capsys):
        (line,) = [
            line.split() for line in shown(capsys, path, by="", since="2d").splitlines() if line.startswith("all")
        ]
        assert line[:8] == ["all", "2", "2", "2,000", "200", "$0.000002", "$0", "$0"]

    def test_no_calls(self, path, capsys):
        assert shown(capsys, path, since="0s", plot=True) == "no calls\n"


class TestPlot:
    def test_days(self, path, capsys):
        """Those without calls too; the part that was wasted is lighter."""
        lines = shown(capsys, path, plot=True, since="4d", width=40).splitlines()[-4:]
        assert [line.split("  ")[0] for line in lines] == [f"2026-11-{day}" for day in (20, 21, 22, 23)]
        assert lines[0].endswith("░ $150.25")
        assert lines[1] == "2026-11-21  $0"
        assert max(map(len, lines)) <= 40

    def test_hours(self, path, capsys):
        assert (
            shown(capsys, path, plot=True, since="1d", width=40).splitlines()[-1]
            == f"2026-11-23T11:00Z  {'█' * 11} $0.000002"
        )

    def test_nothing_billed(self, path, capsys):
        assert shown(capsys, path, plot=True, until="8d", width=40).splitlines()[-1] == "2026-11-14T12:00Z  $0"

    def test_a_terminal_of_ascii(self, path, capsys, monkeypatch):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
        assert run_costs(path, plot=True, now=NOW) == 0
        sys.stdout.seek(0)
        assert "---- $150.25" in sys.stdout.read()


class TestPrograms:
    def test_json_has_all_digits(self, path, capsys):
        found = json.loads(shown(capsys, path, by="model,tag.tenant", since="2026-11-23", until="0s", format="json"))
        assert found["by"] == ["model", "tag.tenant"]
        assert (found["since"], found["until"]) == ("2026-11-23T00:00:00Z", "2026-11-23T12:00:00Z")
        (row,) = found["rows"]
        assert row["by"] == {"model": "openai/gpt-4o", "tag.tenant": "acme"}
        assert (row["billed"], row["unpriced"], row["calls"]) == ("0.0000015", 1, 2)
        assert found["total"] == {**row, "by": {}}

    def test_csv(self, path, capsys):
        rows = list(csv.DictReader(io.StringIO(shown(capsys, path, by="day,model", format="csv"))))
        assert [row["day"] for row in rows] == ["2026-11-14", "2026-11-20", "2026-11-20", "2026-11-23"]
        assert rows[0]["billed"] == ""
        assert rows[-1]["billed"] == "0.0000015"

    def test_focus(self, path, capsys):
        rows = list(csv.DictReader(io.StringIO(shown(capsys, path, format="focus", since="1d"))))
        assert tuple(rows[0]) == COLUMNS
        assert rows[0]["ChargePeriodStart"] == "2026-11-23T00:00:00Z"
        assert rows[0]["BilledCost"] == "0.0000015"
        assert rows[0]["Tags"] == '{"tenant": "acme"}'

    def test_focus_by_other_tags(self, path, capsys):
        assert main(["costs", path, "--format", "focus", "--tags", ""]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert {row["Tags"] for row in rows} == {"{}"}
        assert main(["costs", path, "--format", "focus"]) == 0
        assert capsys.readouterr().out == shown(capsys, path, format="focus")


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            ({"by": "modle"}, 2, "costs cannot be grouped by 'modle'"),
            ({"tags": "a, a"}, 2, "costs are grouped by 'tag.a' twice"),
            ({"since": "yesterday"}, 2, "--since: 'yesterday' is neither a duration, such as 7d or 12h, nor a date"),
            ({"until": "99999999999d"}, 2, "--until: '99999999999d' is neither"),
            ({"ledger": None}, 2, "which ledger?"),
            ({"ledger": "none.db"}, 1, "there is no file"),
            ({"ledger": "mysql://u:secret@h/d"}, 1, "a ledger cannot be kept in mysql"),
        ],
    )
    def test_they_are_told(self, path, capsys, tmp_path, monkeypatch, options, code, message):
        monkeypatch.chdir(tmp_path)
        assert run_costs(**{"ledger": path, "environment": {}, **options}) == code
        captured = capsys.readouterr()
        assert captured.err.startswith(f"overcoat: {message}")
        assert captured.out == ""
        assert not (tmp_path / "none.db").exists()


class TestCommand:
    def test_its_arguments(self, path, capsys):
        assert (
            main(["costs", path, "--by", "", "--since", "2026-11-23", "--until", "2026-11-24", "--format", "json"]) == 0
        )
        assert json.loads(capsys.readouterr().out)["total"]["calls"] == 2

    def test_the_ledger_may_be_named_by_the_environment(self, path, capsys, monkeypatch):
        monkeypatch.setenv("OVERCOAT_LEDGER", f"sqlite:///{path}")
        assert main(["costs", "--plot"]) == 0
        assert "all" in capsys.readouterr().out

    def test_what_is_missing_is_named(self, path, capsys, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("overcoat.ledger")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "sqlalchemy", None)
        assert main(["costs", path]) == 1
        assert "pip install 'overcoat[ledger]'" in capsys.readouterr().err
