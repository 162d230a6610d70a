"""Runs a Redis server for as long as a benchmark needs it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

PATIENCE = 10.0
"""Seconds for its start."""


@contextmanager
def redis_server() -> Generator[str | None]:
    """Run a server on a free port, with nothing on disk; yield its URL, or None where there is none to be run."""
    binary = shutil.which("redis-server")
    if binary is None:
        print("Redis is left out: there is no redis-server (Debian, Ubuntu: apt install redis-server)")
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with TemporaryDirectory() as folder:
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
        try:
            _await(server, port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def _await(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 0.1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return
