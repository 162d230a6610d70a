"""Runs a real Postgres with a cluster of its own, as a user whom it accepts."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .redis_server import free_port

_DEBIAN = Path("/usr/lib/postgresql")  # where its packages have the programs, each version in a folder of its own
_ACCOUNT = "postgres"
_AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def find_programs() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`; None where there is none, or root has nobody to run them as."""
    if _AS_ROOT and shutil.which("setpriv") is None:
        return None
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


class Postgres:
    """A server that can be stopped and started again.

    Attributes:
        url: Of its database.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._port = free_port()
        self.url = f"postgresql://overcoat:secret@127.0.0.1:{self._port}/postgres"
        options = ["--auth=trust", "--username=overcoat", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", *options)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", "-o", settings)

    def stop(self) -> None:
        """End it at once, as a crash would, if it runs."""
        if (self._folder / "data" / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str | Path] = [self._programs / program, f"--pgdata={self._folder / 'data'}", *arguments]
        if _AS_ROOT:  # which Postgres refuses
            command = ["setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--init-groups", *command]
        # Not captured: the server inherits the output, and a pipe would wait for its end.
        with (self._folder / program).open("wb") as output:
            ended = subprocess.run(
                command, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd="/"
            )
        if ended.returncode:
            raise RuntimeError(f"{program} failed:\n{(self._folder / program).read_text(errors='replace')}")


@contextmanager
def running_postgres(programs: Path) -> Generator[Postgres]:
    """Run Postgres in a folder that is gone afterwards."""
    # Not pytest's folder, which only its own user may enter.
    with tempfile.TemporaryDirectory(prefix="overcoat-postgres-") as name:
        if _AS_ROOT:
            shutil.chown(name, _ACCOUNT, _ACCOUNT)
        server = Postgres(programs, Path(name))
        server.start()
        try:
            yield server
        finally:
            server.stop()
