"""What may be set for a call, where "not given" is something else than None."""

import builtins
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Final, Literal, Self, TypeVar, final


@final
class NotGiven:
    """The type of `NOT_GIVEN`: the option was left out, and a wider scope's default or the provider's holds."""

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "NOT_GIVEN"

    def __reduce__(self) -> str:
        return "NOT_GIVEN"  # copies and pickles are the sentinel itself


NOT_GIVEN: Final = NotGiven()


@dataclass
class LLMOptions:
    """The base of a client's options: a dataclass, whose fields default to `NOT_GIVEN`.

    Attributes:
        _not_given: What the client's SDK takes for an option that is not set; a subclass says so where it is not None.
    """

    _not_given: ClassVar[Any] = None

    def __or__(self, other: "LLMOptions") -> Self:
        """Return these options with those put over them that *other* gives; None is given.

        The result is of the more derived of the two classes, so that no field of either is lost; db-ally's is of the
        left one always. Where neither derives from the other it is of the left one, and fields that only the right one
        has are dropped, as in db-ally.
        """
        if not isinstance(other, LLMOptions):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are typed
            return NotImplemented
        given = _given(self) | _given(other)
        result = other if isinstance(other, type(self)) else self
        return replace(result, **{field.name: given[field.name] for field in fields(result) if field.name in given})

    def dict(self) -> builtins.dict[str, Any]:
        """Return the options by name, with the SDK's own sentinel for those that are None or not given."""
        return {
            field.name: self._not_given if value is None or isinstance(value, NotGiven) else value
            for field in fields(self)
            for value in (getattr(self, field.name),)
        }


LLMClientOptions = TypeVar("LLMClientOptions", bound=LLMOptions)


def _given(options: LLMOptions) -> dict[str, Any]:
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value for name, value in values.items() if not isinstance(value, NotGiven)}
