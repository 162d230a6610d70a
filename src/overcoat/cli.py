"""The command `overcoat`: its arguments, and its exit codes."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence

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
