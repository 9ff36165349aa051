"""The function app as a service: ``python -m tests.functions_host``.

Says that it is ready in the standalone service's words, so that tests of the HTTP contract run over both.
With no ``REDIS_CONNECTION_STRING`` it starts a Redis in ``DATA_DIR``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from hosting.embedded.redis_server import EmbeddedRedis
from tests.functions_host.host import Deployment, functions_host

#: The project's.
FOLDER = Path(__file__).parents[2]


async def serve() -> None:
    """Serve until the process is ended."""
    settings = dict(os.environ)
    async with AsyncExitStack() as stack:
        note = "the Redis that is set"
        if not settings.get("REDIS_CONNECTION_STRING"):
            redis = await stack.enter_async_context(EmbeddedRedis(Path(settings["DATA_DIR"]) / "redis"))
            settings["REDIS_CONNECTION_STRING"] = redis.url
            note = f"{redis.kind} on port {redis.port}"
        deployment = Deployment(FOLDER, settings, key=settings.get("FUNCTIONS_HOST_KEY", ""))
        address = settings["HOST"], int(settings["PORT"])
        host = await stack.enter_async_context(functions_host(deployment, sys.stderr.buffer, address=address))
        print(f"Ready on {host.url} (streams in {note}). CONVERSATION_ID", flush=True)  # noqa: T201 - what who started it waits for
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
