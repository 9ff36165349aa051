"""The naive design of live reading: each reader has a blocking ``XREAD`` and a connection of its own.

    python -m benchmarks.contestants.blocking_readers REDIS_URL PORT

Starlette's ``StreamingResponse`` over redis-py with hiredis. The streams are written by plain ``XADD``.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.contestants import plain_redis
from benchmarks.contestants.contestant import Contestant, Kind, own_program
from benchmarks.contestants.plain_redis import stream_key
from benchmarks.loads.serving import serve_events

#: How long Redis holds a read that has nothing to give.
_BLOCK: Final = timedelta(seconds=5)
_PAGE: Final = 500
#: A Redis takes 10,000 clients unless told otherwise; some are needed for other things.
_MOST_READERS: Final = 9_000


async def read_stream(redis: Redis, key: str) -> AsyncIterator[tuple[str, str]]:
    """Entry ids and texts, to the end of the run."""
    cursor = "0-0"
    while True:
        found: Any = await redis.xread({key: cursor}, count=_PAGE, block=int(_BLOCK.total_seconds() * 1e3))
        for _, entries in found or ():
            for entry_id, fields in entries:
                cursor = entry_id.decode()
                if b"done" in fields:
                    return
                yield cursor, fields[b"text"].decode()


def main() -> None:
    """Serve as the command line says."""
    redis_url, port = sys.argv[1:]
    redis = Redis.from_url(redis_url, max_connections=_MOST_READERS + 100, socket_timeout=None)

    async def events(name: str) -> AsyncIterator[str]:
        async for entry_id, text in read_stream(redis, f"agent-stream:{name}"):
            yield f"id: {entry_id}\nevent: message\ndata: {text}\n\n"
        yield "event: done\ndata: [DONE]\n\n"

    serve_events(events, int(port))


CONTESTANT: Final = Contestant(
    name="blocking_readers",
    title="one XREAD BLOCK per reader (redis-py, Starlette)",
    kind=Kind.NAIVE,
    server=lambda place, _load: own_program(
        "benchmarks.contestants.blocking_readers", place.redis_url, place.port
    ),
    feeder=plain_redis.CONTESTANT.writer,
    filler=lambda place, chunks: own_program(
        "benchmarks.loads.prefill", place.redis_url, stream_key(0), chunks
    ),
    most_readers=_MOST_READERS,
)


if __name__ == "__main__":
    main()
