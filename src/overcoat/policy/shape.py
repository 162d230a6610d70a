"""Finds one's way in the models: which keys a mapping has, and what is under each."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import PlainValidator
from pydantic.fields import FieldInfo

from overcoat.policy.derivation import Section
from overcoat.policy.problems import Path


def annotation_of(info: FieldInfo) -> Any:
    """Return the type of a field, without the "or none"."""
    arguments = [each for each in get_args(info.annotation) if each is not type(None)]
    return arguments[0] if get_origin(info.annotation) in (Union, types.UnionType) else info.annotation


def section_of(annotation: Any) -> type[Section] | None:
    """Return *annotation* where it is a mapping with known keys, else None."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def keys_of(section: type[Section]) -> Mapping[str, FieldInfo]:
    """Return the fields of *section* by the keys that a file has for them."""
    return {info.alias or name: info for name, info in section.model_fields.items()}


def child_of(annotation: Any, step: str | int) -> Any:
    """Return the type of what is under *step* in a value of the type *annotation*; None where there can be nothing."""
    section = section_of(annotation)
    if section is not None:
        info = keys_of(section).get(str(step))
        return None if info is None else annotation_of(info)
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if get_origin(annotation) is tuple and isinstance(step, int) else None


def type_at(model: type[Section], path: Path) -> Any:
    """Return the type of what is at *path*; None where there can be nothing."""
    annotation: Any = model
    for step in path:
        annotation = child_of(annotation, step)
    return annotation


def keys_at(model: type[Section], path: Path) -> Sequence[str]:
    """Return the keys that the mapping at *path* may have; none where they are names that the file chooses."""
    annotation = type_at(model, path)
    section = section_of(annotation)
    if section is not None:
        return list(keys_of(section))
    names = get_args(annotation)[0] if get_origin(annotation) is dict else None
    return list(get_args(names)) if get_origin(names) is Literal else []


def is_duration(info: FieldInfo) -> bool:
    """Say whether a field holds a duration, in seconds."""
    return any(isinstance(each, PlainValidator) for each in info.metadata) or (
        any(isinstance(each, PlainValidator) for each in getattr(annotation_of(info), "__metadata__", ()))
    )


def paths_of(section: type[Section]) -> Mapping[str, FieldInfo]:
    """Return every value and section below *section*, by its path such as "retry.max_attempts"."""
    paths: dict[str, FieldInfo] = {}
    for key, info in keys_of(section).items():
        paths[key] = info
        inner = section_of(annotation_of(info))
        if inner is not None:
            paths.update({f"{key}.{path}": found for path, found in paths_of(inner).items()})
    return paths
