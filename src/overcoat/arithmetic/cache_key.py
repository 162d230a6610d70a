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
        Uncacheable: The client's model name or version is of a type that has no unambiguous encoding.
    """
    kind, model_name, base_url, api_version, api_key = identity
    return _encoded(
        "the client's attributes",
        [
            KEY_VERSION,
            namespace,
            f"{kind.__module__}.{kind.__qualname__}",
            model_name,
            None if base_url is None else str(base_url),
            api_version,
            None if api_key is None else hmac.digest(b"overcoat.cache.credential", str(api_key).encode(), "sha256"),
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
        Uncacheable: The options or the conversation hold something that msgpack cannot express without loss.
    """
    digest = hashlib.sha256(scope)
    digest.update(_encoded("the options", [json_mode, options]))
    digest.update(_encoded("the conversation", conversation))
    return digest.hexdigest()


def _encoded(part: str, material: Any) -> bytes:
    # Each part is one msgpack value, which says where it ends: no two requests run together to the same bytes.
    try:
        return _encode(material)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Uncacheable(f"{part} hold a value that has no unambiguous encoding ({type(error).__name__})") from error
