"""What can be raised: our own errors, and those of the how-to for those who have no db-ally.

    Exception
    ├ OvercoatError                     ours, outside LLMError: db-ally repeats every LLMError at once
    │ ├ PolicyError                     (ValueError) a policy or an argument makes no sense
    │ ├ StackOrderError                 (ValueError) layers stand in a harmful order
    │ ├ AttemptTimeout                  (TimeoutError) one attempt took too long; it may be repeated
    │ ├ AnswerRejected                  no answer was what was asked for
    │ └ Refused                         the call was not sent, or not sent again; nothing below is to blame
    │   ├ DeadlineExceeded              (TimeoutError) the whole call took too long
    │   ├ CircuitOpen                   the provider has failed too often
    │   ├ RateLimited                   no slot within our own limits
    │   ├ BudgetExceeded                no money left
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
    "CircuitOpen",
    "DeadlineExceeded",
    "Failure",
    "Kind",
    "LLMConnectionError",
    "LLMError",
    "LLMResponseError",
    "LLMStatusError",
    "NotCached",
    "OvercoatError",
    "PolicyError",
    "PromptTemplateError",
    "RateLimited",
    "Refused",
    "StackOrderError",
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

    Attributes:
        scope: Whose budget it is, such as "tenant:acme".
        limit: US dollars in its window.
        spent: US dollars settled.
        reserved: US dollars set aside for calls that are under way.
        resets_at: When the next window begins; None for a budget without windows.
    """

    cause: ClassVar[str] = "budget_exceeded"

    def __init__(
        self, scope: str, limit: Decimal, spent: Decimal, reserved: Decimal, resets_at: datetime | None = None
    ) -> None:
        reset = "" if resets_at is None else f", resets at {resets_at.isoformat()}"
        super().__init__(f"the budget of {scope!r} is used up: ${spent} spent, ${reserved} reserved of ${limit}{reset}")
        self.scope = scope
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.resets_at = resets_at


class NotCached(Refused):
    """The policy allows stored answers only, and there is none for this request.

    Attributes:
        key: The cache key.
    """

    cause: ClassVar[str] = "not_cached"

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no stored answer under {key!r}, and the policy allows no other")
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
