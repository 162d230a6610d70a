"""`python benchmarks [--check]`: all that needs no peers."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run each in a process of its own, so that neither finds what the other left behind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    options = ["--check"] if parser.parse_args().check else []
    return max(
        subprocess.run([sys.executable, Path(__file__).with_name(name), *options], check=False).returncode  # noqa: S603 - our own
        for name in ("overhead.py", "concurrency.py", "caches.py", "money.py", "retries.py", "export.py")
    )


if __name__ == "__main__":
    sys.exit(main())
