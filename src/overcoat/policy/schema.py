"""What a policy file may say: its sections, made up of the layers' fields."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import Field, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from overcoat.layers.breaker import Breaker
from overcoat.layers.budget import Budget
from overcoat.layers.cache import Cache
from overcoat.layers.deadline import Deadline
from overcoat.layers.fallback import Fallback
from overcoat.layers.hedge import Hedge
from overcoat.layers.meter import Meter
from overcoat.layers.rate_limit import RateLimit
from overcoat.layers.retry import Retry, RetryBudget
from overcoat.layers.timeout import Timeout
from overcoat.layers.trace import Trace
from overcoat.layers.validate import Validate
from overcoat.policy.derivation import (
    DurationText,
    Name,
    PositiveDuration,
    Section,
    Setting,
    Text,
    descriptions_of,
    fields_of,
    optional,
    settings_of,
    summary_of,
)
from overcoat.policy.shape import annotation_of, is_duration, paths_of, section_of
from overcoat.policy.tree import NONE


def _reference(section: str, what: str) -> Setting:
    return optional(Name), Field(default=None, description=f"{what}, by its name in `{section}`.")


def _section(made: type) -> Setting:
    return optional(settings_of(made)), Field(default=None, description=summary_of(made))


def _after(made: type) -> Setting:
    return optional(PositiveDuration), Field(
        default=None, description=f"{summary_of(made)} {descriptions_of(made)['after']}"
    )


MOST_RULES = 200
"""In a list of rules: each is compared with all others, and nobody could say any more which one holds."""


def _list_of(item: Any, most: int | None = None) -> Any:
    return Annotated[tuple[item, ...], Field(strict=False, max_length=most)]


def _model(name: str, doc: str, **fields: Setting) -> type[Section]:
    return create_model(name, __base__=Section, __doc__=doc, **cast("Any", fields))


_OF_A_POLICY: dict[str, Setting] = {
    "deadline": _after(Deadline),
    "attempt_timeout": _after(Timeout),
    "retry": _section(Retry),
    "hedge": _section(Hedge),
    # Not `validate`, which pydantic's own class has as well.
    "validation": (
        optional(settings_of(Validate)),
        Field(default=None, alias="validate", description=summary_of(Validate)),
    ),
}

PolicySection = _model(
    "Policy",
    "What happens to a call: only the layers that are named here, and Trace and Meter, which are always there.",
    extends=(optional(Name), Field(default=None, description="The policy that this one differs from, by its name.")),
    **_OF_A_POLICY,
    budget=_reference("budgets", "The retry budget"),
    spending=(
        optional(_list_of(Name)),
        Field(default=None, description="What may be spent, by the names in `spending`; all of them hold."),
    ),
    breaker=_reference("breakers", "The breaker"),
    limit=_reference("limits", "The rate limit"),
)

Rule = _model(
    "Rule",
    "Which policy a model has.",
    match=(
        Text,
        Field(description="The client's `model_name`, with `*`, `?` and `[...]` as shells have them; case matters."),
    ),
    policy=(Name, Field(default="default", description="The policy, by its name in `policies`.")),
    limit=(
        optional(Name),
        Field(default=None, description="The rate limit, by its name in `limits`, in place of the policy's."),
    ),
)

_FALLBACK: dict[str, Setting] = {
    "to": (
        Annotated[tuple[Text, ...], Field(strict=False, min_length=1)],
        Field(description="The models to ask instead, in this order, each by the layers of its own rule in `models`."),
    ),
    "when": fields_of(Fallback)["when"],
}

FallbackSection = _model(
    "FallbackRule",
    summary_of(Fallback),
    source=(Text, Field(alias="from", description="Whose calls: a model, with wildcards as in `models`.")),
    **_FALLBACK,
)

_TRACE: Setting = (
    optional(settings_of(Trace)),
    Field(default_factory=settings_of(Trace), description=summary_of(Trace)),
)

_METER: Setting = (settings_of(Meter), Field(default_factory=settings_of(Meter), description=summary_of(Meter)))

EffectiveFallback = _model("EffectiveFallback", summary_of(Fallback), **_FALLBACK)

Effective = _model(
    "Effective",
    "All that holds for one model, with what was named put in its place.",
    **_OF_A_POLICY,
    budget=_section(RetryBudget),
    spending=(_list_of(settings_of(Budget)), Field(default=(), description="What may be spent.")),
    breaker=_section(Breaker),
    limit=_section(RateLimit),
    fallbacks=(
        _list_of(EffectiveFallback),
        Field(default=(), description="What is asked instead."),
    ),
    cache=_section(Cache),
    trace=_TRACE,
    meter=_METER,
)


def _bounds_of(section: type[Section]) -> type[Section]:
    """Return *section* with what can be more or less, all of it optional: what `enforce.max` and `enforce.min` say."""
    fields: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        inner = section_of(annotation_of(info))
        if inner is not None:
            annotation: Any = _bounds_of(inner)
            if not annotation.model_fields:
                continue
        elif is_duration(info):
            annotation = DurationText
        elif annotation_of(info) in (int, float):
            annotation = annotation_of(info)
        else:
            continue
        fields[name] = (annotation, Field(default=None, alias=info.alias, description=info.description))
    return create_model(f"{section.__name__}Bounds", __base__=Section, __doc__=section.__doc__, **fields)


Bounds = _bounds_of(Effective)
ENABLED = "enabled"
"""What `enforce.locked` calls the switch OVERCOAT_ENABLED."""

_PATHS = tuple(paths_of(Effective))
_Path: Any = Literal[_PATHS]
_Lockable: Any = Literal[(ENABLED, *_PATHS)]


def _paths(path: Any, description: str) -> Setting:
    return _list_of(path), Field(default=(), description=description)


Enforce = _model(
    "Enforce",
    "What neither a policy, nor the environment, nor code may exceed; it holds for every policy of the file.",
    max=(optional(Bounds), Field(default=None, description="Ceilings, in the shape of a policy.")),
    min=(optional(Bounds), Field(default=None, description="Floors, in the shape of a policy.")),
    locked=_paths(
        _Lockable, "What only this file may set, such as `retry.server_delay.max`; `enabled` is OVERCOAT_ENABLED."
    ),
    require=_paths(_Path, "What every policy must have, such as `breaker`."),
    forbid=_paths(_Path, "What no policy may have or switch on, such as `hedge`, `cache.sampled` or `trace.content`."),
)


def _named(made: Any, description: str) -> Setting:
    return dict[Name, made], Field(default_factory=dict, description=description)


File = _model(
    "File",
    "A policy file of overcoat.",
    version=(Literal[1], Field(description="Of this format.")),
    policies=_named(PolicySection, "Policies by their names."),
    budgets=_named(settings_of(RetryBudget), "Retry budgets by their names."),
    spending=_named(settings_of(Budget), "Limits on what is spent, in dollars or in tokens, by their names."),
    breakers=_named(settings_of(Breaker), "Breakers by their names."),
    limits=_named(settings_of(RateLimit), "Rate limits by their names."),
    models=(
        _list_of(Rule, MOST_RULES),
        Field(
            default=(),
            description="Which policy each model has: the first rule that matches. Where there is no rule, "
            "the policy `default`.",
        ),
    ),
    fallbacks=(
        _list_of(FallbackSection, MOST_RULES),
        Field(default=(), description="Which models are asked where others cannot answer."),
    ),
    cache=_section(Cache),
    trace=_TRACE,
    meter=_METER,
    enforce=(optional(Enforce), Field(default=None, description=cast("str", Enforce.__doc__))),
)


class _Schema(GenerateJsonSchema):
    """Says "none" where pydantic would say null, and leaves out titles that repeat the key."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return {"anyOf": [self.generate_inner(schema["schema"]), {"const": NONE}]}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = super().default_schema(schema)
        if inner.get("default", ...) is None:
            del inner["default"]
        return inner

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        if "patternProperties" in made:  # which lets through what matches no pattern
            ((pattern, value),) = made.pop("patternProperties").items()
            made |= {"additionalProperties": value, "propertyNames": {"pattern": pattern, "not": {"const": NONE}}}
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - for no field
        return False


def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a policy file, for completion in editors."""
    made = File.model_json_schema(schema_generator=_Schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "overcoat policy"}
