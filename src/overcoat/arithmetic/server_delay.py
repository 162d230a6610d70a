"""How long a provider asks us to wait, read from the headers of its refusal."""

from collections.abc import Mapping

from overcoat.arithmetic.header_values import duration, http_date, number, until
from overcoat.arithmetic.provider_quota import reported_limits


def server_delay(headers: Mapping[str, str], retry_delay: str | None, now: float) -> float | None:
    """Return the delay that the server named, in seconds, or None where it named none that makes sense.

    The first of these that can be read decides:

    1. `retry-after-ms` (OpenAI, Azure), in milliseconds;
    2. `retry-after`, in seconds or as an HTTP date (RFC 9110, section 10.2.3);
    3. *retry_delay*;
    4. the latest reset of a limit that has nothing left: `x-ratelimit-reset-*` (OpenAI: "6m0s", Azure: bare seconds)
       and `anthropic-ratelimit-*-reset` (RFC 3339). The reset of a limit that is not used up says nothing about when
       to come again.

    A moment that has passed is a delay of 0. Values that are negative, not finite or no such value at all are as good
    as absent: a header is the one input of a retry policy that nobody has checked.

    Args:
        headers: By lower-case name.
        retry_delay: Google's `google.rpc.RetryInfo.retryDelay` from the body, such as "45.8s".
        now: Unix seconds.
    """
    milliseconds = number(headers.get("retry-after-ms"))
    after = headers.get("retry-after")
    for delay in (
        None if milliseconds is None else milliseconds / 1000,
        number(after),
        until(http_date(after), now),
        duration(retry_delay),
        max((reset for _, left, reset in reported_limits(headers, now) if left == 0), default=None),
    ):
        if delay is not None:
            return delay
    return None
