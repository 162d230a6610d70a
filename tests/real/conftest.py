"""Starts the real servers that tests send to, each once per run and only when a test asks for it."""

import os
from collections.abc import Iterator

import pytest

from .jaeger_server import Jaeger, find_binary, running_jaeger

_REAL = os.environ.get("OVERCOAT_REAL", "")


@pytest.fixture(autouse=True)
def _own_environment(_own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep, from all that is hidden, what `parts.need` asks while a test runs: whether a missing part is a failure."""
    monkeypatch.setenv("OVERCOAT_REAL", _REAL)


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A running Jaeger; the tests share it, so each takes a service name of its own."""
    binary = find_binary()
    if binary is None:
        reason = "there is no Jaeger: build it with `make jaeger`, or name one in OVERCOAT_JAEGER"
        (pytest.fail if _REAL == "required" else pytest.skip)(reason)
    with running_jaeger(binary, tmp_path_factory.mktemp("jaeger")) as server:
        yield server
