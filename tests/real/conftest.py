"""Starts the real servers that tests send to, each once per run and only when a test asks for it."""

from collections.abc import Iterator

import pytest

from .jaeger_server import Jaeger, find_binary, running_jaeger
from .parts import missing
from .postgres_server import Postgres, find_programs, running_postgres
from .redis_server import find_binary as find_redis
from .redis_server import running_redis


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A running Jaeger; the tests share it, so each takes a service name of its own."""
    binary = find_binary()
    if binary is None:
        reason = "there is no Jaeger: build it with `make jaeger`, or name one in JAEGER_BINARY"
        missing(reason)
    with running_jaeger(binary, tmp_path_factory.mktemp("jaeger")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running Redis; the tests share it, so each takes keys of its own or empties it first."""
    binary = find_redis()
    if binary is None:
        missing("there is no redis-server (Debian, Ubuntu: apt install redis-server)")
    with running_redis(binary, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running Postgres; a test that stops it starts it again."""
    programs = find_programs()
    if programs is None:
        missing("there is no Postgres (Debian, Ubuntu: apt install postgresql), or root cannot run it without setpriv")
    with running_postgres(programs) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """The URL of a running Postgres; the tests share it, so each makes tables of its own or drops them first."""
    return postgres.url
