"""The key of a request in a cache: everything that can change the answer, framed, typed and hashed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from overcoat.options import Uncacheable

KEY_VERSION = 1
"""Raised whenever the material changes, so that old entries are no longer found."""

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_TEXTS = frozenset({str, bytes, type(None)})
_SCALARS = _TEXTS | {int, float, bool}


def client_identity(client: Any) -> tuple[Any, ...]:
    """Return what all requests through *client* share, to be compared and given to `scope_of`: it holds the API key."""
    return (
        cast("Any", type(client)),
        getattr(client, "model_name", None),
        getattr(client, "base_url", None),
        getattr(client, "api_version", None),
        getattr(client, "api_key", None),
    )


def scope_of(identity: tuple[Any, ...], namespace: str | None) -> bytes:
    """Encode a client's *identity* and the *namespace*: two tenants, endpoints or credentials never share an answer.

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
            namespace,
            f"{kind.__module__}.{kind.__qualname__}",
            model_name,
            None if base_url is None else str(base_url),
            api_version,
            hmac.digest(b"overcoat.cache.credential", _encoded(part, api_key), "sha256"),
        ],
    )


def key_of(scope: bytes, conversation: Any, options: Mapping[str, Any], *, json_mode: bool) -> str:
    """Return the key of a request, 64 hexadecimal digits.

    Equal requests give equal keys whatever the order of their fields; any difference that can change the answer gives
    another key. Contents are taken as they are: not stripped, folded or normalised.

    Args:
        scope: From `scope_of`.
        conversation: The messages.
        options: From `given_options`.
        json_mode: Whether the answer must be JSON.

    Raises:
        Uncacheable: The options or the conversation hold something else than None, booleans, numbers of 64 bits, text,
            bytes, lists, tuples (which are lists to a client) and dicts by text.
    """
    digest = hashlib.sha256(scope)
    digest.update(_encoded("the options", [json_mode, options]))
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
    text. It has no switch for that, and `enc_hook` is not asked about types that it knows.
    """
    kind = type(value)  # pyright: ignore[reportUnknownVariableType] - a cast would cost as much as the rest
    if kind is dict:
        for name, each in value.items():
            if type(name) is not str:
                raise TypeError
            if type(each) is not str:  # asked here since a conversation is texts, and a call for each would double this
                _refuse_ambiguous(each)
    elif kind is list or kind is tuple:
        for each in value:
            if type(each) is not str:
                _refuse_ambiguous(each)
    elif kind not in _SCALARS:
        raise TypeError
