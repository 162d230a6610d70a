"""Derives what a file may say from the layers' own fields: one definition for code, file, JSON schema and reference."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    create_model,
    model_validator,
)

from overcoat.arithmetic.durations import Duration, seconds
from overcoat.classification import Kind
from overcoat.layers.breaker import Breaker
from overcoat.layers.budget import Budget, Limit
from overcoat.layers.cache import Cache
from overcoat.layers.fallback import CAUSES, Fallback
from overcoat.layers.meter import Meter
from overcoat.layers.rate_limit import RateLimit
from overcoat.layers.retry import Backoff, OnError, Retry, RetryBudget
from overcoat.layers.trace import Trace
from overcoat.layers.validate import Validate
from overcoat.policy.tree import NONE
from overcoat.shared import is_url

Setting = tuple[Any, Any]
"""What pydantic takes for a field: its type, and its `Field`."""

FOR_CODE_ONLY: Mapping[type, frozenset[str]] = {
    # What a file has by a name has that name.
    Breaker: frozenset({"name"}),
    RateLimit: frozenset({"name"}),
    RetryBudget: frozenset({"name"}),
    Budget: frozenset({"name", "limits", "on_alert", "prices"}),  # several limits are several names; prices are Meter's
    Cache: frozenset({"accept", "random"}),
    Fallback: frozenset({"to"}),  # clients; a file names models instead
    Retry: frozenset({"budget", "random"}),  # a file names one of its `budgets` instead
    Trace: frozenset({"redact", "tracer_provider", "meter_provider", "logger_provider"}),
    Validate: frozenset({"check"}),
}
"""Fields that no text can hold: functions, clients and providers. Every other field is in the file."""

TEXT_OR_OBJECT: Mapping[type, frozenset[str]] = {
    Budget: frozenset({"store"}),
    Cache: frozenset({"store"}),
    Meter: frozenset({"ledger", "prices"}),
}
"""Fields that a file has as text, and code may give as an object as well."""

# Names that are imported for type checkers only, in the modules of the layers or behind their types.
_CODE_TYPES: dict[str, Any] = dict.fromkeys(
    ("Ledger", "LoggerProvider", "MeterProvider", "Rates", "TracerProvider"), object
)

DURATION_PATTERN = r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"
NAME_PATTERN = r"^[a-z][a-z0-9_]*$"


def _duration(value: object, info: ValidationInfo) -> float:
    from_code = bool(info.context and info.context.get("from_code"))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not from_code:
        raise ValueError(f'a duration needs a unit; did you mean "{value:g}s"?')
    if not number and not isinstance(value, str):
        raise ValueError('expected a duration such as "30s"')
    try:
        return seconds(cast("Duration", value), "", zero=True)
    except ValueError as error:
        raise ValueError(str(error).removeprefix(": ")) from None


class _AsText:
    """What an editor is told of a duration; made anew each time, since pydantic 2.10 writes defaults into it."""

    def __get_pydantic_json_schema__(self, schema: object, handler: object) -> dict[str, Any]:
        return {"type": "string", "pattern": DURATION_PATTERN, "examples": ["500ms", "30s", "1m30s", "1h"]}


DurationText = Annotated[float, PlainValidator(_duration), _AsText()]
"""Seconds, written as text with units: "30" alone would be seconds to some readers and milliseconds to others."""


def _positive(value: float) -> float:
    if value == 0:
        raise ValueError("expected more than 0")
    return value


PositiveDuration = Annotated[DurationText, AfterValidator(_positive)]


def _no_keyword(value: str) -> str:
    if value == NONE:
        raise ValueError(f"{NONE!r} means that there is none, and can be no name")
    return value


def _window(value: object, info: ValidationInfo) -> object:
    from_code = bool(info.context and info.context.get("from_code"))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{value:g}s" if number and from_code else value


def _store(*schemes: str) -> Any:
    """Return the type of a store's URL with one of those *schemes*."""

    def check(value: str) -> str:
        # Without the value, which may have a password in it.
        if not value.startswith(schemes):
            raise ValueError(f"expected a URL that begins with {', '.join(schemes)}")
        if not is_url(value, schemes):
            raise ValueError("the host or the port of the URL cannot be read")
        return value

    schema: dict[str, Any] = {
        "pattern": f"^({'|'.join(schemes)})",
        "examples": ["sqlite:///overcoat.db", "redis://localhost:6379/0"],
    }
    return Annotated[str, AfterValidator(check), Field(json_schema_extra=schema)]


_SHARED = ("sqlite:///", "redis://", "rediss://", "unix://")

_WINDOWS: dict[str, Any] = {"examples": ["1h", "7d", "calendar day", "calendar month"]}
WindowText = Annotated[str, BeforeValidator(_window), Field(json_schema_extra=_WINDOWS)]
"""A duration, or a piece of the calendar: `Budget` itself knows which there are."""

Dollars = Annotated[float, BeforeValidator(lambda value: float(value) if isinstance(value, Decimal) else value)]

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN), AfterValidator(_no_keyword)]
Text = Annotated[str, StringConstraints(min_length=1)]
# By these names, which are also those of environment variables, classes of errors are told apart.
RetryableKind: Any = Literal[tuple(kind.value for kind in Kind if kind.retryable)]
Cause: Any = Literal[tuple(CAUSES)]


class Section(BaseModel):
    """A mapping of the file: exactly these keys, and never changed once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def at(self, path: Sequence[str | int]) -> Any:
        """Return the value under *path*, in a file's keys; `ABSENT` where the section that it is in is not there."""
        value: Any = self
        for step in path:
            if isinstance(value, Section):
                names = {info.alias or name: name for name, info in type(value).model_fields.items()}
                value = getattr(value, names[str(step)])
            elif isinstance(value, Mapping):
                value = cast("Mapping[str, Any]", value).get(str(step), ABSENT)
            else:
                return ABSENT
        return value


ABSENT = object()
"""What is in a section that is not there."""


class Settings(Section):
    """A mapping whose keys are the fields of a layer, or of a part of one."""

    makes: ClassVar[type]

    @model_validator(mode="after")
    def _makes_sense(self) -> Settings:
        """Let the layer judge its values, so that there is one place that does."""
        self.make()
        return self

    def make(self, **for_code: Any) -> Any:
        """Return the layer with the given values, and with those that only code can give."""
        names = {field.name for field in dataclasses.fields(self.makes)} & self.model_fields_set
        return self.makes(**{name: _made(getattr(self, name)) for name in names} | for_code)


def _made(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.make()
    return (
        {key: _made(each) for key, each in cast("dict[str, Any]", value).items()} if isinstance(value, dict) else value
    )


def _none(value: object) -> object:
    return None if value == NONE else value


def optional(annotation: Any) -> Any:
    """Return the type of a value that may also be the text "none"."""
    return Annotated[annotation | None, BeforeValidator(_none)]


_TYPES: dict[Any, Any] = {
    **{kind: kind for kind in (bool, float, int, str)},
    Duration: DurationText,
    tuple[float, float]: Annotated[tuple[float, float], Field(strict=False)],
    float | Decimal: Dollars,
    tuple[str, ...]: Annotated[tuple[Cause, ...], Field(strict=False)],
}
"""What a file has for each type of a field."""

_OWN_TYPES: Mapping[tuple[type, str], Any] = {
    (Budget, "store"): optional(_store(*_SHARED)),
    (Budget, "window"): optional(WindowText),
    (Cache, "store"): _store("memory://", *_SHARED),
    (Meter, "ledger"): optional(Text),
    (Meter, "prices"): Text,
    (Trace, "metric_tags"): Annotated[tuple[Text, ...], Field(strict=False)],
}
"""What it has for fields whose type does not say enough."""

_OWN_DESCRIPTIONS: Mapping[tuple[type, str], str] = {
    (
        Budget,
        "store",
    ): "Where the sums lie, such as `redis://host:6379/0` or `sqlite:///path`; `none` is this process's memory.",
    (Budget, "window"): "`1d` is the last so much time, at every moment; `calendar minute`, `calendar hour`, `calendar "
    "day`, `calendar week` and `calendar month` are those of the clock; `none` is all of time.",
    (Cache, "store"): "Where answers lie: `memory://`, `sqlite:///path` or `redis://host:6379/0`.",
    (Meter, "ledger"): "Where each call is written when it has ended: the URL of a database, such as "
    "`sqlite:///costs.db` or `postgresql://USER@HOST/DATABASE`.",
    (Meter, "prices"): "The path of a price table, which is asked before genai-prices and litellm's map.",
}
"""How those are described that code can give in more ways than a file."""


@cache
def settings_of(made: type) -> type[Settings]:
    """Return the model of *made*'s fields: the same names, types, defaults and descriptions."""
    extra = _ALSO.get(made, {})
    model = create_model(
        made.__name__, __base__=Settings, __doc__=summary_of(made), **cast("Any", {**fields_of(made), **extra})
    )
    model.makes = made
    return model


@cache
def fields_of(made: type) -> Mapping[str, Setting]:
    """Return what a model has for each field of *made*.

    Raises:
        TypeError: A field is of a type that no file has; it must be added to `FOR_CODE_ONLY`.
    """
    hints = get_type_hints(made, localns=_CODE_TYPES)
    described = descriptions_of(made)
    if made is Budget:
        described = {**described, **descriptions_of(Limit)}  # to which its own refer
    fields: dict[str, Setting] = {}
    required = {each.name for each in dataclasses.fields(made) if _is_required(each)}
    for each in dataclasses.fields(made):
        if each.name in FOR_CODE_ONLY.get(made, ()):
            continue
        hint: Any = hints[each.name]
        own = _OWN_TYPES.get((made, each.name))
        annotation = _file_type(hint, f"{made.__name__}.{each.name}") if own is None else own
        info: dict[str, Any] = {"description": _OWN_DESCRIPTIONS.get((made, each.name), described[each.name])}
        if own is not None and not isinstance(each.default, str) and each.default != ():
            info["default"] = None
        elif hint == Duration and each.default is not dataclasses.MISSING:
            info["json_schema_extra"] = {"default": duration_text(seconds(each.default, each.name, zero=True))}
            info["default"] = seconds(each.default, each.name, zero=True)
        elif each.default is not dataclasses.MISSING:
            info["default"] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            model = settings_of(cast("type", hint)) if dataclasses.is_dataclass(hint) else None
            info["default_factory"] = model or each.default_factory
        if not required - {each.name}:
            annotation = Annotated[annotation, AfterValidator(_judgement_of(made, each.name))]
        fields[each.name] = (annotation, Field(**info))
    return fields


def _judgement_of(made: type, name: str) -> Callable[[Any], Any]:
    """Return what lets *made* judge one value alone, so that a mistake beside it does not hide what is wrong there."""

    def judge(value: Any) -> Any:
        try:
            made(**{name: _made(value)})
        except ValueError as error:
            if str(error).startswith(f"{made.__name__}({name}="):  # else it is about what is not there
                raise
        return value

    return judge


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _file_type(hint: Any, name: str) -> Any:
    arguments = get_args(hint)
    if hint in _TYPES:
        return _TYPES[hint]
    if get_origin(hint) is Literal:
        return hint
    if dataclasses.is_dataclass(hint):
        return settings_of(cast("type", hint))
    if get_origin(hint) in (Union, types.UnionType) and type(None) in arguments:
        rest = [argument for argument in arguments if argument is not type(None)]
        return optional(_file_type(Union[tuple(rest)], name))  # noqa: UP007 - built from parts
    raise TypeError(f"{name}: a policy file has nothing for {hint!r}; name it in FOR_CODE_ONLY, or map its type")


def summary_of(made: type) -> str:
    """Return the first paragraph of the docstring, on one line."""
    return _for_a_file(" ".join(cast("str", inspect.getdoc(made)).split("\n\n", 1)[0].split()))


@cache
def descriptions_of(made: type) -> Mapping[str, str]:
    """Return the text of each field under "Attributes:" in the docstring, on one line."""
    _, _, listed = cast("str", inspect.getdoc(made)).partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", listed, re.MULTILINE)
    return {name: _for_a_file(" ".join(text.split())) for name, text in found}


def _for_a_file(text: str) -> str:
    """Return a description as a file's reader needs it: there, durations are never numbers, and None has a name."""
    text = re.sub(
        r"\b([Ss])econds, or text such as", lambda found: f"{'A' if found[1] == 'S' else 'a'} duration such as", text
    )
    return re.sub(r"\bNone\b", f"`{NONE}`", text)


def duration_text(value: float) -> str:
    """Return *value*, in seconds, as a file has it: "1m30s" for 90."""
    milliseconds = round(value * 1000)
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


_ALSO: Mapping[type, Mapping[str, Setting]] = {
    Backoff: {"kind": (Literal["full_jitter"], Field(default="full_jitter", description="How each wait is drawn."))},
}
"""What a file says and code need not: there is one kind of backoff, and a reader should not have to know that."""

_ON_ERROR: Any = settings_of(OnError)
_TYPES[Mapping[str, OnError]] = dict[RetryableKind, _ON_ERROR]
