"""Runs the server program of a real part for as long as a test needs it."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STOP_SECONDS = 10
_pause = threading.Event()  # never set: a wait on it is the pause between two looks at another process


def poll(look: Callable[[], T | None], *, seconds: float) -> T | None:
    """Repeat `look` until it returns something other than None, or until `seconds` have passed."""
    end = time.monotonic() + seconds
    while (found := look()) is None and time.monotonic() < end:
        _pause.wait(0.02)
    return found


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    ready: str,
    seconds: float = 30,
    environment: Mapping[str, str] | None = None,
) -> Generator[str]:
    """Run `command` with its output in the file `log`, and end it on leaving; *environment* is added to ours.

    Yields:
        What it had written when the text `ready` appeared: servers that choose their ports say there which.

    Raises:
        RuntimeError: it ended or was not ready within `seconds`; with all it wrote.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )

    def look() -> str | None:
        ended = process.poll() is not None  # asked before the log is read, so that its last words are in it
        written = log.read_text(errors="replace")
        if ended:
            raise RuntimeError(f"{command[0]} ended with status {process.returncode}:\n{written}")
        return written if ready in written else None

    try:
        written = poll(look, seconds=seconds)
        if written is None:
            raise RuntimeError(f"{command[0]} was not ready within {seconds} s:\n{log.read_text(errors='replace')}")
        yield written
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
