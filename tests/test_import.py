"""Holds `import overcoat` to what it promises: the OpenTelemetry API, tenacity and little of its own time."""

import json
import os
import subprocess
import sys

# What overcoat stands on; what these import is not its doing, and differs between versions.
FOUNDATION = "import asyncio, opentelemetry.trace, opentelemetry.metrics, tenacity"

# The SDK and its kin share the package `opentelemetry` with the API, so its name alone does not tell them apart.
LISTING = """
import json, sys
known = set(sys.modules)
{statement}
print(json.dumps(sorted(
    ".".join(name.split(".")[:2]) if name.startswith("opentelemetry.") else name.split(".")[0]
    for name in set(sys.modules) - known
)))
"""

TIMING = f"""
{FOUNDATION}
import time
start = time.process_time()
import overcoat
print(time.process_time() - start)
"""


def run(program: str) -> str:
    """Return what the program prints in an interpreter of its own, untouched by the tests' instruments."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONDONTWRITEBYTECODE" and not name.startswith("COVERAGE_")
    }
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def third_party(statement: str) -> set[str]:
    """Return the packages outside the standard library that the statement imports."""
    imported = set(json.loads(run(LISTING.format(statement=statement))))
    return imported - sys.stdlib_module_names


def test_import_brings_in_the_otel_api_and_tenacity_only() -> None:
    """What else it can use (litellm, pydantic, the SDK and its exporters, prices, redis, ...) loads on first use."""
    api = third_party("import opentelemetry.baggage, opentelemetry.context, opentelemetry.propagate")
    assert third_party("import overcoat") - api <= third_party(FOUNDATION) | {"overcoat"}


def test_import_costs_20_ms_at_most_beyond_its_foundation() -> None:
    """CPU time, and the best of several runs: both leave out what else the machine does meanwhile."""
    best = float("inf")
    for _ in range(10):
        best = min(best, float(run(TIMING)))
        if best <= 0.020:
            break
    assert best <= 0.020
