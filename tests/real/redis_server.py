"""Runs a real Redis on a socket of its own, with nothing on disk."""

import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .process import running


def find_binary() -> str | None:
    """Return the path of the server program; None where there is none."""
    return shutil.which("redis-server")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_redis(binary: str, folder: Path, port: int | None = None) -> Generator[str]:
    """Run Redis; yield its URL. A *port* is for tests that stop a server and start it again."""
    port = port or free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running(command, folder / f"redis-{port}.log", ready="Ready to accept connections"):
        yield f"redis://127.0.0.1:{port}/0"
