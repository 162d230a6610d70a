"""How long to wait before the next attempt."""

from __future__ import annotations

_MAX_DOUBLINGS = 1000  # 2.0 ** 1024 overflows, and a cap was reached long before


def full_jitter(failures: int, *, base: float, cap: float, random: float) -> float:
    """Return a delay drawn evenly from 0 to `min(cap, base * 2 ** (failures - 1))`, in seconds.

    Full jitter spreads clients best for the load it causes (AWS Architecture Blog, "Exponential Backoff And Jitter").

    Args:
        failures: Attempts that have failed so far, at least 1.
        base: The widest first delay, in seconds.
        cap: The widest delay, in seconds.
        random: In [0, 1), uniformly distributed.
    """
    return random * min(cap, base * 2.0 ** min(failures - 1, _MAX_DOUBLINGS))


def after_server(delay: float, server: float, *, jitter: float, random: float) -> float:
    """Return *delay*, but no less than what the *server* asked for plus 0 to *jitter* seconds.

    The jitter is only ever added: those who were all told "in 10 s" must not come back together, nor early.
    """
    return max(delay, server + random * jitter)
