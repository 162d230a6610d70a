"""Starts the real servers that tests send to, each once per run and only when a test asks for it."""

from collections.abc import Iterator

import pytest

from .jaeger_server import Jaeger, find_binary, running_jaeger
from .parts import missing


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A running Jaeger; the tests share it, so each takes a service name of its own."""
    binary = find_binary()
    if binary is None:
        reason = "there is no Jaeger: build it with `make jaeger`, or name one in JAEGER_BINARY"
        missing(reason)
    with running_jaeger(binary, tmp_path_factory.mktemp("jaeger")) as server:
        yield server
