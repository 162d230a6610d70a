"""`python benchmarks`: all that needs no peers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run each in a process of its own, with the arguments given, so that neither finds what the other left behind."""
    here = Path(__file__).parent
    return max(
        subprocess.run([sys.executable, here / name, *sys.argv[1:]], check=False).returncode  # noqa: S603 - our own
        for name in ("overhead.py", "concurrency.py")
    )


if __name__ == "__main__":
    sys.exit(main())
