"""What stores have failed at, for metrics: most of it happens when the record of the call is closed already."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

StoreOperation = Literal["read", "write", "delete", "lease", "release"]

store_failures: dict[tuple[Any, ...], Any] = defaultdict(int)
"""How often stores failed, in this process, by the operation alone, as the keys of a metric's sums are."""
