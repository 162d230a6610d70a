"""Makes the JSON files beside it: `python dashboards/generate.py`, or with `--check` only says which are stale."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

import queries as q
from panels import DATASOURCE, graph, heat, number, rows
from searches import ui

FOLDER = Path(__file__).parent
_TAG = "overcoat"


def overview() -> Iterator[Any]:
    """Answer: is all well, and if not, where to look."""
    calls, failed = q.chosen(q.CALLS), q.chosen(q.CALLS, 'overcoat_outcome="error"')
    yield number("Calls", q.total(calls), "short", "Calls by the application, whatever came of them.", decimals=0)
    yield number("Failed", q.share(q.total(failed), q.total(calls)), "percentunit", "Calls that ended with an error.")
    yield number("p95", q.quantile(0.95, q.DURATION, window=q.RANGE), "s", "Inferences, with their retries and waits.")
    yield number("Billed", q.total(q.chosen(q.BILLED)), "currencyUSD", "What providers charge.")
    yield number("Saved", q.total(q.chosen(q.SAVED)), "currencyUSD", "What the cache's answers would have cost.")
    yield number("Wasted", q.total(q.chosen(q.WASTED)), "currencyUSD", "The part of the bill that bought no answer.")
    yield graph(
        "Calls by outcome",
        {"{{overcoat_outcome}}": q.rate(calls, "overcoat_outcome")},
        "reqps",
        "Refused are calls that a budget, a limit, an open breaker or the deadline kept from being sent.",
        stacked=True,
    )
    yield graph(
        "Duration of inferences",
        {f"p{int(100 * share)}": q.quantile(share, q.DURATION) for share in (0.5, 0.95, 0.99)},
        "s",
        "As the caller sees it: retries and waits included. A point is an exemplar: it leads to its trace.",
        exemplars=True,
    )
    yield heat(
        "Where durations lie",
        f"sum by (le) (increase({q.chosen(q.DURATION + '_bucket')}[{q.RATE}]))",
        "s",
        "A second band is a second kind of answer: another model, a queue, a retry.",
    )
    tokens = q.chosen(q.TOKENS + "_sum")
    yield graph(
        "Tokens",
        {"{{gen_ai_token_type}}": q.rate(tokens, "gen_ai_token_type")},
        "short",
        "Tokens a second that providers charged for.",
        stacked=True,
    )
    yield graph(
        "Dollars an hour",
        {"{{overcoat_model}}": f"3600 * {q.rate(q.chosen(q.BILLED), q.MODEL)}"},
        "currencyUSD",
        "What is being billed, by model.",
        stacked=True,
    )
    yield graph(
        "Answers from the cache",
        {"{{overcoat_cache_result}}": q.rate(q.of_service(q.CACHE), "overcoat_cache_result")},
        "reqps",
        "What the cache did.",
        stacked=True,
    )


def reliability() -> Iterator[Any]:
    """Answer: what fails, how often it is tried again, and what that costs in time."""
    attempts = q.chosen(q.ATTEMPTS)
    failed = q.chosen(q.ATTEMPTS, 'error_type!=""')
    calls = q.chosen(q.CALLS)
    yield number("Attempts a call", q.share(q.total(attempts), q.total(calls)), "short", "1 is a calm day.", decimals=2)
    yield number("Failed attempts", q.share(q.total(failed), q.total(attempts)), "percentunit", "Of all attempts.")
    yield number("Given up", q.total(q.chosen(q.GIVE_UPS)), "short", "Inferences that were not tried again.")
    yield number("Waited", q.total(q.chosen(q.WAITED)), "s", "Backoff, servers' delays and our own queue together.")
    yield number(
        "Circuits opened",
        q.total(f'{q.TURNS}{{job=~"$service",overcoat_breaker_state="open"}}'),
        "short",
        "How often a breaker cut a provider off.",
    )
    yield number("Refused", q.total(q.chosen(q.CALLS, 'overcoat_outcome="refused"')), "short", "Calls not sent.")
    yield graph(
        "Attempts by how they ended",
        {"{{error_type}}": q.rate(attempts, "error_type")},
        "reqps",
        "By class of failure; without a name are those that succeeded.",
        stacked=True,
    )
    yield graph(
        "Why no further attempt was made",
        {"{{overcoat_gave_up}}": q.rate(q.chosen(q.GIVE_UPS), "overcoat_gave_up")},
        "reqps",
        "Out of attempts, a failure that must not be repeated, a spent retry budget, a delay beyond the deadline, ...",
        stacked=True,
    )
    yield graph(
        "Time waited, by whose idea it was",
        {"{{overcoat_wait_source}}": q.rate(q.chosen(q.WAITED), "overcoat_wait_source")},
        "s",
        "Seconds of waiting a second: our policy's backoff, the server's delay, our own limiter's queue.",
        stacked=True,
    )
    yield graph(
        "Attempts a call",
        {"{{overcoat_model}}": q.share(q.rate(attempts, q.MODEL), q.rate(calls, q.MODEL))},
        "short",
        "How much the application's load is multiplied.",
    )
    yield graph(
        "Inferences beside the first",
        {
            "{{overcoat_inference_role}}": q.rate(
                q.chosen(q.INFERENCES, 'overcoat_inference_role!="primary"'), "overcoat_inference_role"
            )
        },
        "reqps",
        "Re-asks after a refused answer, fallbacks to other models, and hedges.",
        stacked=True,
    )
    yield graph(
        "The provider's own latency",
        {"{{overcoat_model}}": q.share(q.rate(q.chosen(q.ATTEMPT_TIME), q.MODEL), q.rate(attempts, q.MODEL))},
        "s",
        "Seconds an attempt takes on average, without our own waits and retries.",
    )
    yield graph(
        "Turns of breakers",
        {
            "{{overcoat_breaker_circuit}} {{overcoat_breaker_state}}": q.rate(
                f'{q.TURNS}{{job=~"$service"}}', "overcoat_breaker_circuit, overcoat_breaker_state"
            )
        },
        "short",
        "Circuits that opened, were probed and closed.",
    )


def cost() -> Iterator[Any]:
    """Answer: what it costs, what was saved, what was wasted, and on which models."""
    billed, saved, wasted = (q.chosen(name) for name in (q.BILLED, q.SAVED, q.WASTED))
    calls = q.chosen(q.CALLS)
    yield number("Billed", q.total(billed), "currencyUSD", "What providers charge.")
    yield number("Saved", q.total(saved), "currencyUSD", "What the cache's answers would have cost.")
    yield number("Wasted", q.total(wasted), "currencyUSD", "The part of the bill that bought no answer.")
    yield number("A thousand calls", f"1000 * {q.share(q.total(billed), q.total(calls))}", "currencyUSD", "On average.")
    yield number("A month, at this rate", f"30 * 86400 * sum(rate({billed}[{q.RANGE}]))", "currencyUSD", "30 days.")
    yield number("Unknown prices", q.total(q.chosen(q.UNPRICED)), "short", "Calls that are in no sum of dollars.")
    yield graph(
        "Dollars an hour",
        {"{{overcoat_model}}": f"3600 * {q.rate(billed, q.MODEL)}"},
        "currencyUSD",
        "By model.",
        stacked=True,
        width=12,
    )
    yield graph(
        "Billed, saved, wasted",
        {
            name: f"3600 * {q.rate(series)}"
            for name, series in {"billed": billed, "saved": saved, "wasted": wasted}.items()
        },
        "currencyUSD",
        "Dollars an hour. What is wasted is a part of what is billed.",
        width=12,
    )
    tokens = q.TOKENS + "_sum"
    yield graph(
        "Input tokens",
        {"{{gen_ai_request_model}}": q.rate(q.chosen(tokens, 'gen_ai_token_type="input"'), q.REQUEST_MODEL)},
        "short",
        "A second, by model.",
        stacked=True,
    )
    yield graph(
        "Output tokens",
        {"{{gen_ai_request_model}}": q.rate(q.chosen(tokens, 'gen_ai_token_type="output"'), q.REQUEST_MODEL)},
        "short",
        "A second, by model.",
        stacked=True,
    )
    yield graph(
        "Tokens of an inference",
        {
            f"p{int(100 * share)} {kind}": q.quantile(share, q.TOKENS, more=f'gen_ai_token_type="{kind}"')
            for kind in ("input", "output")
            for share in (0.5, 0.95)
        },
        "short",
        "Half of all inferences, and all but the largest twentieth, stay below.",
    )


def cache_and_budgets() -> Iterator[Any]:
    """Answer: what the cache saves and why it does not save more, and how much of each budget is left."""
    results = q.of_service(q.CACHE)
    served = q.of_service(q.CACHE, 'overcoat_cache_result=~"hit|stale|coalesced"')
    budget, by = "{{overcoat_budget_name}}", "overcoat_budget_name, overcoat_budget_window"
    used = f"max by ({by}) ({q.of_service(q.BUDGET_USED)})"
    limit = f"max by ({by}) ({q.of_service(q.BUDGET_LIMIT)})"
    yield number("Hit ratio", q.share(q.total(served), q.total(results)), "percentunit", "Stale and shared ones too.")
    yield number("Saved", q.total(q.chosen(q.SAVED)), "currencyUSD", "What the cache's answers would have cost.")
    yield number("Store failures", q.total(q.of_service(q.STORE_FAILURES)), "short", "The calls went through.")
    yield number("Fullest budget", f"max({q.share(used, limit)})", "percentunit", "Used, of its window's limit.")
    yield number("Refused", q.total(q.of_service(q.BUDGET_REFUSALS)), "short", "Inferences that budgets refused.")
    yield number("Overrun", q.total(q.of_service(q.BUDGET_OVERRUN)), "currencyUSD", "Beyond what had been reserved.")
    yield graph(
        "What the cache did",
        {"{{overcoat_cache_result}}": q.rate(results, "overcoat_cache_result")},
        "reqps",
        "Refused are answers that the caller got, and that were not kept.",
        stacked=True,
    )
    yield graph(
        "Why it did not help",
        {
            "{{overcoat_cache_result}}: {{overcoat_cache_reason}}": q.rate(
                q.of_service(q.CACHE, 'overcoat_cache_reason!=""'), "overcoat_cache_result, overcoat_cache_reason"
            )
        },
        "reqps",
        "Requests that were passed by, entries that were not taken, and answers that were not kept.",
        stacked=True,
    )
    yield graph(
        "Store failures",
        {
            "{{overcoat_cache_store_operation}}": q.rate(
                q.of_service(q.STORE_FAILURES), "overcoat_cache_store_operation"
            )
        },
        "short",
        "What a cache's store could not do, a second.",
    )
    yield graph(
        "Budgets",
        {f"{budget} of {{{{overcoat_budget_window}}}}": q.share(used, limit)},
        "percentunit",
        "How much of the limit is used: of tenants and models, the fullest.",
        width=12,
    )
    yield graph(
        "Refused by budgets",
        {
            f"{budget}: {{{{overcoat_budget_reason}}}}": q.rate(
                q.of_service(q.BUDGET_REFUSALS), "overcoat_budget_name, overcoat_budget_reason"
            )
        },
        "reqps",
        "Inferences that were not sent.",
        stacked=True,
        width=12,
    )


def models_table() -> Iterator[Any]:
    """Answer: which model to look at, in one row each."""
    calls, failed = q.chosen(q.CALLS), q.chosen(q.CALLS, 'overcoat_outcome="error"')
    columns = {
        "Calls": (q.total(calls, q.MODEL), "short"),
        "Failed": (q.share(q.total(failed, q.MODEL), q.total(calls, q.MODEL)), "percentunit"),
        "Attempts": (q.total(q.chosen(q.ATTEMPTS), q.MODEL), "short"),
        "Waited": (q.total(q.chosen(q.WAITED), q.MODEL), "s"),
        "Billed": (q.total(q.chosen(q.BILLED), q.MODEL), "currencyUSD"),
        "Saved": (q.total(q.chosen(q.SAVED), q.MODEL), "currencyUSD"),
        "Wasted": (q.total(q.chosen(q.WASTED), q.MODEL), "currencyUSD"),
    }
    yield rows("Models", q.MODEL, columns, "Over the whole range.")


BOARDS = {
    "overview": ("overcoat: overview", overview),
    "reliability": ("overcoat: reliability", reliability),
    "cost": ("overcoat: cost", cost),
    "cache-and-budgets": ("overcoat: cache and budgets", cache_and_budgets),
    "models": ("overcoat: models", models_table),
}


def build(name: str) -> str:
    """Return the JSON of the dashboard *name*, as it lies in the folder."""
    title, panels = BOARDS[name]
    board = (
        dashboard.Dashboard(title)
        .uid(f"overcoat-{name}")
        .description(f"{panels.__doc__} Made by dashboards/generate.py of overcoat.")
        .tags([_TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("overcoat")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([_TAG])
            .as_dropdown(as_dropdown=True)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_choice("service", "Service", f"label_values({q.CALLS}, job)"))
        .with_variable(_choice("model", "Model", f'label_values({q.CALLS}{{job=~"$service"}}, {q.MODEL})'))
    )
    for number_of, panel in enumerate(panels(), 1):
        board = board.with_panel(panel.id(number_of))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(DATASOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
    )


def generated() -> dict[Path, str]:
    """Return the text of every file that is made here, by its path."""
    made = {FOLDER / "grafana" / f"{name}.json": build(name) for name in BOARDS}
    return made | {FOLDER / "jaeger" / "ui.json": json.dumps(ui(), indent=2) + "\n"}


def main(arguments: list[str]) -> int:
    """Write the files, or compare them with what lies there; return the exit code."""
    check = "--check" in arguments
    stale = {path: text for path, text in generated().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if check:
            print(f"{path.name} is stale: run python dashboards/generate.py", file=sys.stderr)
        else:
            path.write_text(text)
            print(path.name)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
