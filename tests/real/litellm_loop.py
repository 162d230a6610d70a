"""Runs what calls litellm in a loop of its own, and closes the sessions that litellm keeps for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from .parts import need


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result; sessions that were left open would be warned of in whichever test the collector runs next."""

    async def main() -> Any:
        try:
            return await coroutine
        finally:
            await need("litellm").close_litellm_async_clients()

    return asyncio.run(main())
