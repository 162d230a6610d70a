"""The command `overcoat`: its arguments, and its exit codes."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from overcoat._version import __version__

OK, FAILED, MISUSED = 0, 1, 2
"""Exit codes: all is well; what was asked for went wrong; the arguments make no sense (argparse's own)."""

_INTERRUPTED = 130  # by Ctrl-C, as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments*, by default those of the process, and return its exit code.

    Raises:
        SystemExit: The arguments make no sense, or ask for help or for the version.
    """
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help(sys.stderr)
        return MISUSED
    try:
        code: int = given.run(given)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("overcoat", description="Observability middleware for LLM clients.")
    parser.add_argument("--version", action="version", version=f"overcoat {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    _add_demo(commands.add_parser)
    _add_check(commands.add_parser)
    _add_explain(commands.add_parser)
    _add_schema(commands.add_parser)
    _add_costs(commands.add_parser)
    _add_cache(commands.add_parser)
    _add_dashboards(commands.add_parser)
    return parser


# A command is a function that adds its arguments, and one that imports what it needs when it runs.


def _add_demo(add: Callable[..., argparse.ArgumentParser]) -> None:
    demo = add(
        "demo",
        help="watch a stack survive a misbehaving provider (no key, no network)",
        description="Real litellm over HTTP, against a local provider that misbehaves by a script: each call as a tree "
        "of spans, also in Jaeger where one listens (the OTEL_EXPORTER_OTLP_* variables say where).",
    )
    demo.add_argument(
        "--model",
        metavar="NAME",
        help="ask a real provider instead, such as openai/gpt-4o-mini (costs "
        "a fraction of a cent; the key comes from the environment, as litellm has it)",
    )
    demo.add_argument("--no-otlp", action="store_true", help="do not export, even if something listens")
    demo.add_argument(
        "--jaeger",
        metavar="URL",
        default="http://localhost:16686",
        help="where Jaeger shows what was exported (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)


def _demo(given: argparse.Namespace) -> int:
    from overcoat.demo import run  # noqa: PLC0415

    try:
        well = run(given.model, otlp=not given.no_otlp, jaeger=given.jaeger)
    except ImportError as missing:  # litellm, which is an extra; the message says how to get it
        print(f"overcoat: {missing}", file=sys.stderr)
        return FAILED
    return OK if well else FAILED


def _add_check(add: Callable[..., argparse.ArgumentParser]) -> None:
    check = add(
        "check",
        help="find every mistake in a policy file",
        description="Print every mistake in a policy file, and in the OVERCOAT_* variables that lie over it, as "
        "file:line:column: path: what is wrong. The exit code is 0 where there is none, and 1 where there is.",
    )
    check.add_argument("file", metavar="FILE", help="a policy file, in YAML or TOML")
    check.add_argument("--format", choices=("text", "json"), default="text", help="json is for editors")
    check.set_defaults(run=_check)


def _check(given: argparse.Namespace) -> int:
    from overcoat.policy.commands import check  # noqa: PLC0415

    return check(given.file, given.format)


def _add_explain(add: Callable[..., argparse.ArgumentParser]) -> None:
    explain = add(
        "explain",
        help="say what a policy file will do",
        description="Print what holds for a model and where each value is from, what happens after a failure, and the "
        "most that one call can come to in requests, seconds and dollars, with its host's own retries.",
    )
    explain.add_argument("file", metavar="FILE", help="a policy file, in YAML or TOML")
    explain.add_argument("--model", metavar="NAME", help="the model, as the client names it, such as openai/gpt-4o")
    explain.add_argument(
        "--error", metavar="CLASS", help="what every attempt fails with: a class such as overloaded, or an HTTP status"
    )
    explain.add_argument(
        "--retry-after", type=float, metavar="SECONDS", help="what the server asks for after each of those failures"
    )
    explain.add_argument(
        "--host-retries", type=int, default=0, metavar="N", help="how often the caller's own code calls again"
    )
    explain.add_argument(
        "--max-requests", type=int, metavar="N", help="exit with 1 where one call can make more; for CI"
    )
    explain.add_argument(
        "--input-tokens", type=int, default=1000, metavar="N", help="of a request, for its price (default: 1000)"
    )
    explain.add_argument(
        "--output-tokens", type=int, default=1000, metavar="N", help="of an answer, for its price (default: 1000)"
    )
    explain.add_argument("--format", choices=("text", "json"), default="text", help="json is for programs")
    explain.set_defaults(run=_explain)


def _explain(given: argparse.Namespace) -> int:
    from overcoat.policy.explain_command import run_explain  # noqa: PLC0415

    return run_explain(
        given.file,
        given.model,
        given.error,
        given.host_retries,
        given.max_requests,
        given.format,
        retry_after=given.retry_after,
        input_tokens=given.input_tokens,
        output_tokens=given.output_tokens,
        width=shutil.get_terminal_size().columns,
    )


def _add_schema(add: Callable[..., argparse.ArgumentParser]) -> None:
    schema = add(
        "schema",
        help="print the JSON schema of policy files",
        description="Print the JSON schema of policy files, by which editors complete them: name it in the first line "
        "of a YAML file, as yaml-language-server: $schema=FILE, or of a TOML file, as #:schema FILE.",
    )
    schema.set_defaults(run=_schema)


def _schema(_: argparse.Namespace) -> int:
    from overcoat.policy.commands import print_schema  # noqa: PLC0415

    return print_schema()


def _add_costs(add: Callable[..., argparse.ArgumentParser]) -> None:
    costs = add(
        "costs",
        help="sum up what calls cost",
        description="Sum up the calls in a ledger, which Meter(ledger=...) writes: what providers bill, what the cache "
        "saved, and the part of the bill that was wasted on attempts without an answer.",
    )
    costs.add_argument(
        "ledger", metavar="LEDGER", nargs="?", help="its file or its URL (default: what OVERCOAT_LEDGER says)"
    )
    costs.add_argument(
        "--by",
        metavar="WHAT,...",
        default="model",
        help="model, provider, policy, day, hour, tag.NAME, client, service, outcome, cache, ... (default: model)",
    )
    costs.add_argument("--since", metavar="WHEN", help="a duration ago, such as 7d, or a date or time (UTC)")
    costs.add_argument("--until", metavar="WHEN", help="likewise; that moment is not included")
    costs.add_argument(
        "--format",
        choices=("table", "csv", "json", "focus"),
        default="table",
        help="csv and json have all digits; focus is CSV by FinOps' FOCUS 1.0, by day, model and --tags",
    )
    costs.add_argument(
        "--tags",
        metavar="NAME,...",
        default="tenant,feature",
        help="the tags in the rows of focus; one that differs with every call makes each a row (default: %(default)s)",
    )
    costs.add_argument("--plot", action="store_true", help="draw the bill over time under the table")
    costs.set_defaults(run=_costs)


def _costs(given: argparse.Namespace) -> int:
    try:
        from overcoat.ledger.commands import run_costs  # noqa: PLC0415
    except ImportError as missing:  # SQLAlchemy, which is an extra; the message says how to get it
        print(f"overcoat: {missing}", file=sys.stderr)
        return FAILED
    return run_costs(
        given.ledger,
        by=given.by,
        since=given.since,
        until=given.until,
        format=given.format,
        tags=given.tags,
        plot=given.plot,
        width=shutil.get_terminal_size().columns,
    )


def _add_cache(add: Callable[..., argparse.ArgumentParser]) -> None:
    cache = add(
        "cache",
        help="look into a cache's store, and tidy it up",
        description="Look into the store that a cache shares between processes, in a file (sqlite:///answers.db) or on "
        "a server (redis://host:6379/0), and remove some of it.",
    )
    commands = cache.add_subparsers(title="commands", metavar="COMMAND", required=True)
    stats = commands.add_parser("stats", help="say how much lies there, by namespace")
    stats.set_defaults(run=_cache("run_stats"))
    ls = commands.add_parser("ls", help="list the newest entries")
    ls.add_argument("--limit", type=int, default=50, metavar="N", help="how many (default: %(default)s)")
    ls.set_defaults(run=_cache("run_ls", "limit"))
    show = commands.add_parser("show", help="say what is known of an entry")
    show.add_argument("key", metavar="KEY", help="its key; enough of the beginning, as ls shows it, will do")
    show.add_argument("--content", action="store_true", help="print the answer too")
    show.set_defaults(run=_cache("run_show", "key", "content"))
    purge = commands.add_parser("purge", help="remove entries")
    purge.add_argument("--older-than", metavar="TIME", help="only what was made longer ago, such as 7d")
    purge.add_argument("--all", action="store_true", dest="everything", help="instead of a choice")
    purge.set_defaults(run=_cache("run_purge", "older_than", "everything"))
    for each in (stats, ls, show, purge):
        each.add_argument("store", metavar="STORE_URL", help="sqlite:///FILE, redis://..., rediss://... or unix://...")
        each.add_argument("--namespace", metavar="NAME", help="only of this one; by default of all")
        each.add_argument("--format", choices=("table", "json"), default="table", help="json is for programs")


def _cache(name: str, *arguments: str) -> Callable[[argparse.Namespace], int]:
    def run(given: argparse.Namespace) -> int:
        from overcoat.stores import commands  # noqa: PLC0415

        chosen = {argument: getattr(given, argument) for argument in ("namespace", "format", *arguments)}
        code: int = getattr(commands, name)(given.store, **chosen)
        return code

    return run


def _add_dashboards(add: Callable[..., argparse.ArgumentParser]) -> None:
    dashboards = add(
        "dashboards",
        help="write Grafana dashboards, Prometheus rules and Jaeger's menu",
        description="Write the dashboards for Grafana (import them), the rules for Prometheus (rule_files), and a "
        "configuration of Jaeger's UI, whose menu has the searches for failed, slow and expensive calls.",
    )
    export = dashboards.add_subparsers(title="commands", metavar="COMMAND", required=True).add_parser(
        "export", help="into a folder"
    )
    export.add_argument("folder", metavar="DIR", help="made where there is none")
    export.add_argument(
        "--service",
        metavar="NAME",
        default="overcoat-demo",
        help="the application's service.name (default: %(default)s)",
    )
    export.add_argument(
        "--grafana", metavar="URL", default="http://localhost:3000", help="for links from Jaeger (default: %(default)s)"
    )
    export.set_defaults(run=_export_dashboards)


def _export_dashboards(given: argparse.Namespace) -> int:
    from overcoat.dashboards import export  # noqa: PLC0415

    try:
        written = export(Path(given.folder), service=given.service, grafana=given.grafana)
    except OSError as error:
        print(f"overcoat: {error}", file=sys.stderr)
        return FAILED
    for path in written:
        print(path)
    return OK
