"""The key of a request in a cache: everything that can change the answer, framed, typed and hashed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from overcoat.options import Uncacheable

KEY_VERSION = 2
"""Raised whenever the material changes, so that old entries are no longer found."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_TEXTS = frozenset({str, bytes, type(None)})
_SCALARS = _TEXTS | {int, float, bool}
_NOTHING = _encode(None)


def client_identity(client: Any) -> tuple[Any, ...]:
    """Return what all requests through *client* share, to be compared and given to `scope_of`: it holds the API key."""
    return (
        cast("Any", type(client)),
        getattr(client, "model_name", None),
        getattr(client, "base_url", None),
        getattr(client, "api_version", None),
        getattr(client, "api_key", None),
    )


def scope_of(identity: tuple[Any, ...]) -> bytes:
    """Encode a client's *identity*: two models, endpoints or credentials never share an answer.

    The API key itself is not in the result, only a digest of it.

    Raises:
        Uncacheable: The client's model name, version or API key is neither text nor bytes: the text of pydantic's
            `SecretStr` is the same for all, and what can be changed in place would not be seen to differ.
    """
    kind, model_name, base_url, api_version, api_key = identity
    part = "the client's attributes"
    if not _TEXTS.issuperset(map(type, (model_name, api_version, api_key))):
        raise Uncacheable(f"{part} hold a value that has no unambiguous encoding")
    return _encoded(
        part,
        [
            KEY_VERSION,
            f"{kind.__module__}.{kind.__qualname__}",
            model_name,
            None if base_url is None else str(base_url),
            api_version,
            hmac.digest(b"overcoat.cache.credential", _encoded(part, api_key), "sha256"),
        ],
    )


def parts_of(client: Any) -> Any:
    """Return what *client* adds to the key by `cache_key_parts`, a method or an attribute: tools, a region, ...

    Raises:
        Uncacheable: It failed: what it would have said may be all that tells two requests apart.
    """
    try:
        parts = getattr(client, "cache_key_parts", None)
        if parts is None and hasattr(cast("Any", type(client)), "cache_key_parts"):
            parts = client.cache_key_parts  # or a property's own AttributeError would pass for "there is none"
        return parts() if callable(parts) else parts
    except Exception as error:
        raise Uncacheable(f"the client's cache_key_parts raised {type(error).__qualname__}") from error


def key_of(
    scope: bytes,
    conversation: Any,
    options: Mapping[str, Any],
    *,
    json_mode: bool,
    namespace: str | None = None,
    sample: int = 0,
    parts: Any = None,
) -> str:
    """Return the key of a request, 64 hexadecimal digits.

    Equal requests give equal keys whatever the order of their fields; any difference that can change the answer gives
    another key. Contents are taken as they are: not stripped, folded or normalised.

    Args:
        scope: From `scope_of`.
        conversation: The messages.
        options: From `given_options`.
        json_mode: Whether the answer must be JSON.
        namespace: Whose answers these are, such as a tenant's.
        sample: Which of several answers to the same request this is.
        parts: From `parts_of`.

    Raises:
        Uncacheable: The options, the parts or the conversation hold something else than None, booleans, numbers of 64
            bits, text, bytes, lists, tuples (which are lists to a client) and dicts by text.
    """
    digest = hashlib.sha256(scope)
    digest.update(_encoded("the options", [namespace, json_mode, sample, options]))
    digest.update(_NOTHING if parts is None else _encoded("the client's cache_key_parts", parts))
    digest.update(_encoded("the conversation", conversation))
    return digest.hexdigest()


def _encoded(part: str, material: Any) -> bytes:
    # Each part is one msgpack value, which says where it ends: no two requests run together to the same bytes.
    try:
        _refuse_ambiguous(material)
        return _encode(material)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Uncacheable(f"{part} hold a value that has no unambiguous encoding ({type(error).__name__})") from error


def _refuse_ambiguous(value: Any) -> None:
    """Raise TypeError where *value* is or holds what msgspec would encode like something else.

    It takes an enum for its value, a set for a list, a dataclass for a dict, and a Decimal, a UUID or a date for its
    text. It has no switch for that, and `enc_hook` is not asked about types that it knows; its `convert` is fast, but
    lets subclasses pass.
    """
    kind = type(value)  # pyright: ignore[reportUnknownVariableType] - a cast would cost as much as the rest
    if kind is dict:
        for name in value:
            if type(name) is not str:
                raise TypeError
            if type(value[name]) not in _SCALARS:
                _refuse_ambiguous(value[name])
    elif kind is list or kind is tuple:
        _refuse_ambiguous_in(value)
    elif kind not in _SCALARS:
        raise TypeError


def _refuse_ambiguous_in(values: Sequence[Any]) -> None:
    # A conversation is dicts of two texts each, under names that are the same objects in all of them: not to look at
    # their types again saves a tenth, and a call for each message would take twice as long.
    role = content = None
    for each in values:
        kind = type(each)  # pyright: ignore[reportUnknownVariableType] - as above
        if kind is dict:
            try:
                first, second = each
            except ValueError:  # more or fewer than two; to ask for their number takes longer
                pass
            else:
                if first is role and second is content and type(each[first]) is str is type(each[second]):
                    continue
                if type(first) is str is type(second):
                    role, content = first, second
        if kind not in _SCALARS:
            _refuse_ambiguous(each)
