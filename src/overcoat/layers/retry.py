"""`Retry`: sends a request again after a failure that may pass, no sooner than the server asked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast, get_args

import tenacity

from overcoat.arithmetic.backoff import after_server, full_jitter
from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.arithmetic.retry_budget import RetryBalance
from overcoat.chance import draw
from overcoat.classification import Failure, Kind
from overcoat.errors import Refused
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.record import Inference, Wait, WaitSource
from overcoat.shared import Per, check_store, remote_key, renew, scope_of, shared

if TYPE_CHECKING:
    from overcoat.stores.remote_balance import RemoteBalance

_COUNTED = "; the first attempt counts"


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Full jitter: each wait is drawn evenly from 0 to `min(cap, base * 2 ** (failures - 1))`.

    Attributes:
        base: Seconds, or text such as "500ms"; 0 waits for nothing but the server.
        cap: Seconds, or text such as "20s".
    """

    base: Duration = 0.5
    cap: Duration = 20.0

    def __post_init__(self) -> None:
        """Check both where they were written."""
        self.delay(1, random=0.0)

    def delay(self, failures: int, *, random: float) -> float:
        """Return the seconds to wait after so many *failures*; *random* is in [0, 1)."""
        base = seconds(self.base, "Backoff(base=...)", zero=True)
        return full_jitter(failures, base=base, cap=seconds(self.cap, "Backoff(cap=...)", zero=True), random=random)


@dataclass(frozen=True, kw_only=True)
class ServerDelay:
    """How a server's `Retry-After` and its like are followed: never undercut, and given up when too long.

    Attributes:
        max: Seconds, or text such as "30s"; a longer delay ends the call at once, and the error says so.
        jitter: At most so much is added to the server's delay, so that those who were told the same do not come
            back together.
    """

    max: Duration = 30.0
    jitter: Duration = 0.5

    def __post_init__(self) -> None:
        """Check both where they were written."""
        self.allows(self.floor(0.0, 0.0, random=0.0))

    def allows(self, asked: float) -> bool:
        """Say whether the *asked* seconds are worth waiting for."""
        return asked <= seconds(self.max, "ServerDelay(max=...)", zero=True)

    def floor(self, delay: float, asked: float, *, random: float) -> float:
        """Return *delay*, but no less than the *asked* seconds and some jitter; *random* is in [0, 1)."""
        jitter = seconds(self.jitter, "ServerDelay(jitter=...)", zero=True)
        return after_server(delay, asked, jitter=jitter, random=random)


@dataclass(frozen=True, kw_only=True)
class OnError:
    """What differs for one class of failures; None takes the policy's own.

    Attributes:
        max_attempts: Of one inference, the first included, when its last failure was of this class.
        backoff: The waits after such a failure.
    """

    max_attempts: int | None = None
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        """Check `max_attempts` where it was written."""
        if self.max_attempts is not None:
            check_count(self.max_attempts, "OnError.max_attempts", more=_COUNTED)


@dataclass(frozen=True, kw_only=True)
class RetryBudget:
    """How many retries all stacks of a process make together, so that they do not multiply a provider's trouble.

    Within *window* there are at most `ratio * first attempts + min_per_second * window` (Finagle's `RetryBudget`).

    Attributes:
        ratio: Retries that each first attempt allows, at least 0.
        min_per_second: Retries that are allowed without any, so that little traffic is retried as well; at least 0.
        window: Seconds, or text such as "10s"; what is not used within it expires.
        per: Whether each "model" has a budget, or all models of a "provider" share one.
        name: All stacks of a process with the same name share a budget, with the settings that were stacked last; None
            shares it by equal settings.
        store: A Redis server, such as "redis://host:6379/0", where all processes with the same name, or the same
            settings, share the budget; None keeps it in this process, as does a server that cannot be reached.
    """

    ratio: float = 0.2
    min_per_second: float = 1.0
    window: Duration = 10.0
    per: Per = "provider"
    name: str | None = None
    store: str | None = field(default=None, repr=False)  # it may have a password in it

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        for name in ("ratio", "min_per_second"):
            value: object = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
                raise ValueError(f"RetryBudget({name}={value!r}): expected a finite number of at least 0")
        if self.per not in get_args(Per):
            raise ValueError(f'RetryBudget(per={self.per!r}): expected "model" or "provider"')
        check_store(self.store, "RetryBudget")
        seconds(self.window, "RetryBudget(window=...)")

    def balance(self, client: Client) -> RetryBalance | RemoteBalance:
        """Return the balance that *client* shares with all that have the same settings and the same scope."""
        window = seconds(self.window, "RetryBudget(window=...)")
        settings = (self.ratio, self.min_per_second * window, window)
        scope = scope_of(client, self.per)
        balance = shared((RetryBalance, *settings), scope, lambda: RetryBalance(*settings), self.name)
        renew(balance.follow, *settings)
        if (url := self.store) is None:
            return balance
        from overcoat.stores.remote_balance import BalanceRules, RemoteBalance  # noqa: PLC0415 - redis, if asked for

        rules = BalanceRules(*settings)
        key = remote_key("retry_budget", self.name or rules, scope)
        remote = shared(rules, (scope, url), lambda: RemoteBalance(url, key, rules, balance), self.name)
        renew(remote.follow, rules)
        return remote


_ON_ERROR: Mapping[str, OnError] = {
    "overloaded": OnError(backoff=Backoff(base=2.0, cap=60.0)),
    "timeout": OnError(max_attempts=2),  # each one may have been billed
    "bad_output": OnError(max_attempts=2, backoff=Backoff(base=0.0)),
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Retry(PlacedLayer):
    """Retry failures of transport and provider; never what cannot succeed, such as an exhausted quota or a bad request.

    Which failures those are is in the table of `overcoat.errors`. The caller gets the last real error, its type
    unchanged, with a note that says why there was no further attempt, and the records of all attempts as `.attempts`.

    Attributes:
        max_attempts: Of one inference, the first included.
        backoff: The waits between them, whatever the failure, unless `errors` says otherwise for its class. None
            takes what suits each: a base of 0.5 s, of 2 s for an overloaded provider, and no wait after bad output.
        server_delay: What becomes of a delay that the server asks for.
        errors: What differs by class of failure ("rate_limited", "overloaded", "server_error", "timeout",
            "connection", "bad_output"). Where it does not say, there are at most two attempts after a timeout, which
            may have been billed, and after bad output.
        budget: How many retries there may be over all calls; None is no limit.
        random: Draws from [0, 1), for the jitter.
    """

    place: ClassVar[Place] = Place.RETRY
    because: ClassVar[str] = "its waits and repetitions must lie inside what is counted, cached and bounded once"
    twice: ClassVar[str] = "the attempts of the two would multiply"

    max_attempts: int = 3
    backoff: Backoff | None = None
    server_delay: ServerDelay = field(default_factory=ServerDelay)
    errors: Mapping[str, OnError] = field(default_factory=dict[str, OnError], hash=False)
    budget: RetryBudget | None = None
    random: Callable[[], float] = field(default=draw, repr=False)

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        check_count(self.max_attempts, "Retry.max_attempts", more=_COUNTED)
        kinds = [kind.value for kind in Kind]
        for name in self.errors:
            if name not in kinds:
                raise ValueError(f"Retry(errors={{{name!r}: ...}}): expected one of {', '.join(kinds)}")

    def on(self, kind: Kind) -> tuple[int, Backoff]:
        """Return how many attempts there are at the most, and the waits, when the last failure was of *kind*."""
        own, usual = self.errors.get(kind.value, OnError()), _ON_ERROR.get(kind.value, OnError())
        attempts = own.max_attempts or min(self.max_attempts, usual.max_attempts or self.max_attempts)
        return attempts, own.backoff or self.backoff or usual.backoff or Backoff()

    def bind(self, client: Client) -> _Retrying:
        """Return the function that retries calls to *client*."""
        return _Retrying(self, self.budget.balance(client) if self.budget is not None else None)


class _Retrying:
    def __init__(self, policy: Retry, balance: RetryBalance | RemoteBalance | None) -> None:
        self._policy = policy
        self._balance = balance

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        if self._balance is not None and request.role != "hedge":  # whose first attempt is one more of the same
            self._balance.deposit(cast("Inference", request.inference).started)  # as good as now, and known already
        # The first attempt runs bare, and tenacity is entered only on failure: it costs 80 times what this does.
        try:
            return await inner(request)
        except Exception as error:  # noqa: BLE001 - judged below, outside: an attempt begun in an except block would be blamed for what is handled there
            repetition = _Repetition(self._policy, self._balance, request, inner, error)
        return await repetition.run()


class _Repetition:
    """The further attempts of one inference, whose first one *failed*."""

    def __init__(
        self,
        policy: Retry,
        balance: RetryBalance | RemoteBalance | None,
        request: Request,
        inner: Handler,
        failed: Exception,
    ) -> None:
        self._policy = policy
        self._balance = balance
        self._request = request
        self._inner = inner
        self._replay: Exception | None = failed
        self._last = failed
        self._source: WaitSource = "policy"
        self._inference = cast("Inference", request.inference)  # the recorder of inferences is always outside
        self._gave_up: str | None = None
        self._delay = 0.0

    async def run(self) -> Reply:
        retrying = tenacity.AsyncRetrying(
            retry=self._may_retry, wait=lambda _: self._delay, sleep=self._sleep, reraise=True
        )
        try:
            return await retrying(self._attempt)
        except Exception as error:
            self._explain(error)
            raise
        finally:
            del self._replay, self._last  # errors refer to frames, and those to this: a cycle

    async def _attempt(self) -> Reply:
        if (replay := self._replay) is not None:
            self._replay = None
            try:
                raise replay
            finally:
                del replay
        try:
            return await self._inner(self._request)
        except Refused as refusal:
            self._gave_up = refusal.cause
        except Exception as error:
            self._last = error
            raise
        raise self._last  # it says what is wrong with the provider; that we then refused is in the note

    async def _may_retry(self, state: tenacity.RetryCallState) -> bool:
        # All is decided here, since of tenacity's hooks this is the first that may wait, as for a budget in a store.
        failure = self._failure(state)
        if failure is None or self._gave_up is not None:
            return False
        if not failure.retryable:
            self._gave_up = "non_retryable"
            return False
        policy = self._policy
        most, backoff = policy.on(failure.kind)
        delay = backoff.delay(state.attempt_number, random=policy.random())
        self._source = "policy"
        if failure.retry_after is not None:
            floored = policy.server_delay.floor(delay, failure.retry_after, random=policy.random())
            self._source = "server" if floored > delay else "policy"
            delay = floored
        self._delay = delay
        self._gave_up = await self._reason(state.attempt_number, most, failure, delay)
        return self._gave_up is None

    async def _reason(self, attempts: int, most: int, failure: Failure, delay: float) -> str | None:
        policy, deadline = self._policy, self._request.deadline
        now = self._request.call.clock()
        if attempts >= most:
            return "attempts"
        if failure.retry_after is not None and not policy.server_delay.allows(failure.retry_after):
            return "server_delay"
        if deadline is not None and now + delay >= deadline:
            return "deadline"
        return None if await self._affordable(now) else "budget"

    async def _affordable(self, now: float) -> bool:
        balance = self._balance
        if balance is None or isinstance(balance, RetryBalance):
            return balance is None or balance.withdraw(now)
        granted = await balance.withdraw(now)
        if balance.alone:
            self._request.call.degraded += ("retry",)
        return granted

    async def _sleep(self, delay: float) -> None:
        clock = self._request.call.clock
        number = len(self._inference.attempts) + 1
        wait = Wait("backoff", self._source, delay, number, clock())
        self._inference.waits.append(wait)
        try:
            await asyncio.sleep(delay)
        finally:
            wait.ended = clock()

    def _failure(self, state: tenacity.RetryCallState) -> Failure | None:
        error = state.outcome.exception() if state.outcome else None
        # Anything but an Exception is a cancellation of some kind, and always passes.
        return self._request.call.classify(error) if isinstance(error, Exception) else None

    def _explain(self, error: Exception) -> None:
        inference, reason = self._inference, self._gave_up or "non_retryable"
        inference.gave_up = reason
        if not inference.attempts:
            return  # refused before anything was sent; there is nothing to tell
        failure = self._request.call.classify(error)
        details = f", the server asked for {failure.retry_after:g} s" if failure.retry_after is not None else ""
        count = len(inference.attempts)
        note = (
            f"overcoat: gave up after {count} {'attempt' if count == 1 else 'attempts'}"
            f" ({failure.kind.value}; {_REASONS.get(reason, reason)}{details})"
        )
        # Not by `add_note` and `setattr`, which a frozen exception refuses: its own error would be lost for that.
        vars(error).update(__notes__=[*getattr(error, "__notes__", ()), note], attempts=tuple(inference.attempts))


_REASONS = {
    "attempts": "no attempts left",
    "breaker_open": "the circuit is open",
    "budget": "the retry budget is spent",
    "deadline": "the next attempt would begin after the deadline",
    "limit_reached": "no slot within our own limit",
    "non_retryable": "never retried",
    "server_delay": "longer than server_delay.max",
}
