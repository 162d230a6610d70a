"""`Validate`: judges answers, and asks again where one is of no use."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, cast

from overcoat.arithmetic.counts import check_count
from overcoat.errors import AnswerRejected
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place

Check = Callable[[str], object]
"""From an answer to anything: it raises ValueError where the answer is of no use."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Validate(PlacedLayer):
    """Reject answers that are empty, that are no JSON in JSON mode, or that *check* refuses; ask again a few times.

    The model is shown its answer and told what is wrong with it. Each time is an inference with its own span and price;
    what the rejected answers cost is counted as wasted. Where none is accepted, the caller gets `AnswerRejected`, in
    which no part of an answer is quoted.

    Attributes:
        check: The caller's own judgement: raises `ValueError` where an answer is of no use. What it returns is ignored.
        max_reasks: How often to ask again, at the most.
    """

    place: ClassVar[Place] = Place.VALIDATE
    because: ClassVar[str] = "asking again is a new inference, with its own budget, retries and price"
    twice: ClassVar[str] = "the inferences that the two ask for would multiply"

    check: Check | None = field(default=None, hash=False)
    max_reasks: int = 1

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        if self.check is not None and not callable(self.check):  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(f"Validate(check={self.check!r}): expected a function of the answer")
        if inspect.iscoroutinefunction(self.check):  # it would judge nothing, and nobody would notice
            raise TypeError(f"Validate(check={self.check!r}): expected a plain function, not an `async def`")
        check_count(self.max_reasks, "Validate.max_reasks", least=0)

    def bind(self, client: Client) -> _Validating:  # noqa: ARG002 - the same for all clients
        """Return the function that judges answers."""
        return _Validating(self)


class _Validating:
    def __init__(self, settings: Validate) -> None:
        self._settings = settings

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        reply = await inner(request)
        for _ in range(self._settings.max_reasks):
            problem = self._problem_of(reply, json_mode=request.json_mode)
            if problem is None:
                return reply
            reply = await inner(request.replace(role="reask", conversation=_told(request, reply, problem)))
        problem = self._problem_of(reply, json_mode=request.json_mode)
        if problem is None:
            return reply
        raise AnswerRejected(problem.reason)

    def _problem_of(self, reply: Reply, *, json_mode: bool) -> _Problem | None:
        if not reply.text:
            return _Problem("it is empty")
        if json_mode:
            try:
                json.loads(reply.text)
            except ValueError as error:
                return _Problem("it is no JSON", str(error))
            except RecursionError:
                return _Problem("its JSON is nested too deeply")
        if self._settings.check is not None:
            try:
                self._settings.check(reply.text)
            except ValueError as error:
                return _Problem(f"the check raised {type(error).__qualname__}", str(error))
        return None


class _Problem(NamedTuple):
    """Why an answer is of no use: a *reason* for the record, and *details*, which may quote it, for the model only."""

    reason: str
    details: str = ""


def _told(request: Request, reply: Reply, problem: _Problem) -> list[dict[str, str]]:
    """Return the conversation with the answer and what is wrong with it, or the model would only say it again."""
    conversation = cast("list[dict[str, str]]", request.conversation)
    if not reply.text:
        return conversation  # there is nothing that one could reply to
    complaint = f"This answer cannot be used: {problem.reason}. {problem.details}".rstrip()
    return [
        *conversation,
        {"role": "assistant", "content": reply.text},
        {"role": "user", "content": f"{complaint}\nAnswer again, without an apology."},
    ]
