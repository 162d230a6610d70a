"""What can be raised: our own errors, and those of the how-to for those who have no db-ally.

    Exception
    ├ OvercoatError                     ours, outside LLMError: db-ally repeats every LLMError at once
    │ ├ PolicyError                     (ValueError) a policy or an argument makes no sense
    │ ├ StackOrderError                 (ValueError) layers stand in a harmful order
    │ ├ AttemptTimeout                  (TimeoutError) one attempt took too long; it may be repeated
    │ ├ AnswerRejected                  no answer was what was asked for
    │ ├ StoreUnavailable                a store of answers, limits or budgets cannot answer now
    │ ├ LedgerError                     a ledger cannot be opened, read or written
    │ └ Refused                         the call was not sent, or not sent again; nothing below is to blame
    │   ├ DeadlineExceeded              (TimeoutError) the whole call took too long
    │   ├ RequestsExceeded              the calls of a block have sent all the requests that they may
    │   ├ CircuitOpen                   the provider has failed too often
    │   ├ RateLimited                   no slot within our own limits
    │   ├ BudgetExceeded                no money left
    │   ├ BudgetUnchecked               nobody knows whether there is any
    │   ├ UnknownPrice                  nobody knows what it would cost
    │   └ NotCached                     only a stored answer would do, and there is none
    ├ LLMError                          the client's, in db-ally's shapes
    │ ├ LLMConnectionError
    │ ├ LLMStatusError
    │ └ LLMResponseError
    └ PromptTemplateError

All of them survive pickle and copy. `classify` turns any exception, of these or of anybody else, into a `Failure` of
one `Kind`; a class of your own that has a `kind` says itself what it is.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from overcoat.classification import Failure, Kind, classify

__all__ = [
    "AnswerRejected",
    "AttemptTimeout",
    "BudgetExceeded",
    "BudgetUnchecked",
    "CircuitOpen",
    "DeadlineExceeded",
    "Failure",
    "Kind",
    "LLMConnectionError",
    "LLMError",
    "LLMResponseError",
    "LLMStatusError",
    "LedgerError",
    "NotCached",
    "OvercoatError",
    "PolicyError",
    "PromptTemplateError",
    "RateLimited",
    "Refused",
    "RequestsExceeded",
    "StackOrderError",
    "StoreUnavailable",
    "UnknownPrice",
    "classify",
]


class _Portable:
    """For exceptions: makes pickle and copy restore what the exception has become.

    By default both call the class again with `args`, the message; that fails where the constructor takes anything else.
    """

    args: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[_Portable], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> _Portable:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(attributes)
    return error


class OvercoatError(_Portable, Exception):
    """The root of all that is our own doing: refusals and mistakes, never what a provider said."""


class PolicyError(OvercoatError, ValueError):
    """A policy, a configuration or an argument that makes no sense; the message says which value and why.

    Attributes:
        problems: Each mistake with its place, where they were found in a file or in the environment.
    """

    def __init__(self, message: str, problems: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class StackOrderError(OvercoatError, ValueError):
    """Layers stand in a harmful order; the message names them, the harm and the right order."""


class AttemptTimeout(OvercoatError, TimeoutError):
    """One attempt got no answer in time. The provider may have done the work, and may bill it.

    Attributes:
        timeout: Seconds that the attempt had.
    """

    kind: ClassVar[Kind] = Kind.TIMEOUT

    def __init__(self, timeout: float) -> None:
        super().__init__(f"no answer within {timeout:g} s")
        self.timeout = timeout


class AnswerRejected(OvercoatError):
    """The model's answers were not what was asked for, also when it was asked again.

    Attributes:
        reason: Why, without the answer itself.
    """

    kind: ClassVar[Kind] = Kind.BAD_OUTPUT

    def __init__(self, reason: str) -> None:
        super().__init__(f"the answer was rejected: {reason}")
        self.reason = reason


class StoreUnavailable(OvercoatError):
    """A store cannot answer now: it is down, hangs, is locked, full or broken. The cause says which.

    Where a store's server is down, this comes at once for most calls, without asking it again.
    """


class LedgerError(OvercoatError):
    """A ledger cannot be used; the message says which and why, without a password."""


class Refused(OvercoatError):
    """The call was not sent, or not sent again, by a decision of ours.

    `cause` names the decision, on spans and metrics and in what a `Fallback` is for.
    """

    kind: ClassVar[Kind] = Kind.REFUSED
    cause: ClassVar[str] = "refused"


class DeadlineExceeded(Refused, TimeoutError):
    """The call as a whole, with its attempts, its queueing and its waits, has used up its time.

    Attributes:
        deadline: Seconds that the call had.
        elapsed: Seconds that it took.
    """

    kind: ClassVar[Kind] = Kind.DEADLINE_EXCEEDED
    cause: ClassVar[str] = Kind.DEADLINE_EXCEEDED.value

    def __init__(self, deadline: float, elapsed: float) -> None:
        super().__init__(f"the deadline of {deadline:g} s is exceeded: {round(elapsed, 3):g} s have passed")
        self.deadline = deadline
        self.elapsed = elapsed


class RequestsExceeded(Refused):
    """The calls of a block have made all the requests that they may make together.

    Attributes:
        most: How many that is.
    """

    cause: ClassVar[str] = "requests_exceeded"

    def __init__(self, most: int) -> None:
        super().__init__(f"the {most} requests that may be made together are spent")
        self.most = most


class CircuitOpen(Refused):
    """The provider has failed too often of late, and is left alone for a while.

    Attributes:
        key: What the circuit stands for, such as a model or a provider.
        retry_after: Seconds until a call is let through to see how it is; None where it takes an operator.
    """

    cause: ClassVar[str] = "breaker_open"

    def __init__(self, key: str, retry_after: float | None = None) -> None:
        if retry_after is None:
            state = "open until an operator closes it"
        elif retry_after > 0:
            state = f"open for {round(retry_after, 3):g} s more"
        else:
            state = "half open, and its probes are under way"
        super().__init__(f"the circuit of {key!r} is {state}")
        self.key = key
        self.retry_after = retry_after


class RateLimited(Refused):
    """Our own limit on requests, tokens or concurrency leaves no slot within the wait that is allowed.

    Attributes:
        retry_after: Seconds until there is a slot; None where that depends on other calls.
    """

    cause: ClassVar[str] = "limit_reached"

    def __init__(self, retry_after: float | None = None) -> None:
        when = "" if retry_after is None else f"; the next is free in {round(retry_after, 3):g} s"
        super().__init__(f"our own rate limit leaves no slot in time{when}")
        self.retry_after = retry_after


class BudgetExceeded(Refused):
    """What the call may cost at most does not fit into what is left of a budget.

    Amounts are US dollars (`Decimal`), or tokens (`int`) where these are limited.

    Attributes:
        scope: Whose budget it is, such as "tenant:acme".
        limit: How much there is in its window.
        spent: How much is settled.
        reserved: How much is set aside for calls that are under way.
        resets_at: When there is room again, if all that is reserved is spent; None where there never is.
        needed: What the call may use at most.
    """

    cause: ClassVar[str] = "budget_exceeded"

    def __init__(
        self,
        scope: str,
        limit: Decimal | int,
        spent: Decimal | int,
        reserved: Decimal | int,
        resets_at: datetime | None = None,
        needed: Decimal | int | None = None,
    ) -> None:
        reset = "" if resets_at is None else f", resets at {resets_at.isoformat()}"
        more = "" if needed is None else f"; the call may use {amount_text(needed)}"
        super().__init__(
            f"the budget of {scope!r} leaves no room: {amount_text(spent)} spent, {amount_text(reserved)} reserved of "
            f"{amount_text(limit)}{more}{reset}"
        )
        self.scope = scope
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.resets_at = resets_at
        self.needed = needed


def amount_text(amount: Decimal | int) -> str:
    """Return an amount of a budget as people write it: $10, $0.80, $0.0081, 900 tokens."""
    if not isinstance(amount, Decimal):
        return f"{amount} tokens"
    whole, _, fraction = f"{amount:f}".partition(".")
    fraction = fraction.rstrip("0")
    return f"${whole}.{fraction:0<2}" if fraction else f"${whole}"


class BudgetUnchecked(Refused):
    """Whether the call fits into a budget cannot be said, and the policy lets nothing pass that is not counted.

    Attributes:
        budget: Its name.
        reason: "no_bound" where nothing bounds what the call may use, "no_tag" where it does not say whose budget it
            is, "store_failed" where the store of the budget does not answer.
    """

    cause: ClassVar[str] = "budget_unchecked"

    def __init__(self, budget: str, reason: str, details: str) -> None:
        super().__init__(f"the budget {budget!r} cannot be checked: {details}")
        self.budget = budget
        self.reason = reason


class UnknownPrice(Refused):
    """No source of prices knows what the model costs, and the policy allows no call without a price.

    Attributes:
        model: As the client names it; None where it does not say.
    """

    cause: ClassVar[str] = "unknown_price"

    def __init__(self, model: str | None) -> None:
        super().__init__(f"the model {model!r} has no price; declare one in a price table, Meter(prices=...)")
        self.model = model


class NotCached(Refused):
    """The policy allows stored answers only, and there is none for this request.

    Attributes:
        key: The cache key; None where the request has none, and passes the cache by.
    """

    cause: ClassVar[str] = "not_cached"

    def __init__(self, key: str | None) -> None:
        nothing = "the request passes the cache by" if key is None else f"there is no stored answer under {key!r}"
        super().__init__(f"{nothing}, and the policy allows no other")
        self.key = key


class LLMError(_Portable, Exception):
    """The root of what an LLM client raises.

    Attributes:
        message: What the client says.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class LLMConnectionError(LLMError):
    """The client could not reach the API."""

    def __init__(self, message: str = "Connection error.") -> None:
        super().__init__(message)


class LLMStatusError(LLMError):
    """The API answered with a status of 4xx or 5xx.

    Attributes:
        status_code: The HTTP status.
    """

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


class LLMResponseError(LLMError):
    """The API answered something that does not have the shape of an answer."""

    def __init__(self, message: str = "Data returned by API invalid for expected schema.") -> None:
        super().__init__(message)


class PromptTemplateError(_Portable, Exception):
    """A prompt template is no sequence of messages that a chat model takes."""


# Tracebacks say `overcoat.DeadlineExceeded`, which is also how people import it.
for _value in list(globals().values()):
    if isinstance(_value, type) and issubclass(_value, Exception):
        _value.__module__ = "overcoat"
