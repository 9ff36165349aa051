"""The design of the published sample that this project grew from, written anew.

    python -m benchmarks.contestants.published_sample serve REDIS_URL PORT
    python -m benchmarks.contestants.published_sample write REDIS_URL STREAMS RATE SECONDS
    python -m benchmarks.contestants.published_sample read REDIS_URL TIMES

A new Redis client for each chunk, ``XADD`` and then ``EXPIRE``; a reader that asks again each second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.contestants.contestant import Contestant, Kind, own_program
from benchmarks.contestants.plain_redis import stream_key
from benchmarks.loads.pacing import (
    Pace,
    drive,
    pace_of,
    say_outcome,
    stamped,
    stream_name,
    wait_for_go,
)
from benchmarks.loads.serving import serve_events

_MODULE: Final = "benchmarks.contestants.published_sample"
_TTL: Final = timedelta(minutes=10)
#: Between two looks at a stream that has nothing new.
_POLL: Final = timedelta(seconds=1)
#: Entries of one look.
_PAGE: Final = 100


async def write_chunk(redis_url: str, key: str, text: str, sequence: int) -> None:
    """Append a chunk with a client of its own."""
    redis = Redis.from_url(redis_url)
    fields: dict[Any, Any] = {
        "text": text,
        "sequence": str(sequence),
        "timestamp": str(time.time_ns() // 1_000_000),
    }
    await redis.xadd(key, fields)
    await redis.expire(key, _TTL)
    await redis.aclose()


async def read_stream(redis_url: str, key: str) -> AsyncIterator[tuple[str, str]]:
    """Entry ids and texts, to the end of the run."""
    redis = Redis.from_url(redis_url)
    cursor = "0-0"
    try:
        while True:
            found: Any = await redis.xread({key: cursor}, count=_PAGE)
            if not found:
                await asyncio.sleep(_POLL.total_seconds())
                continue
            for _, entries in found:
                for entry_id, fields in entries:
                    cursor = entry_id.decode()
                    if fields.get(b"done", b"").decode() == "true":
                        return
                    yield cursor, fields[b"text"].decode()
    finally:
        await redis.aclose()


def serve(redis_url: str, port: int) -> None:
    """Serve readers."""

    async def events(name: str) -> AsyncIterator[str]:
        async for entry_id, text in read_stream(redis_url, f"agent-stream:{name}"):
            yield f"id: {entry_id}\nevent: message\ndata: {text}\n\n"
        yield "event: done\ndata: [DONE]\n\n"

    serve_events(events, port)


async def write(redis_url: str, pace: Pace) -> dict[str, object]:
    """Write with a client for each chunk."""
    acknowledged: list[float] = []

    async def write_one(stream: int, number: int) -> None:
        began = time.monotonic()
        await write_chunk(redis_url, stream_key(stream), stamped(number), number)
        acknowledged.append((time.monotonic() - began) * 1e3)

    await asyncio.to_thread(wait_for_go)
    began_cpu = time.process_time()
    written = await drive(pace, write_one)
    cpu = time.process_time() - began_cpu
    return {"sent": written.sent, "took": written.took, "cpu": cpu, "stored": acknowledged}


async def read(redis_url: str, times: int) -> dict[str, object]:
    """Read a finished stream in this process; how many chunks a second, each time."""
    rates = []
    for _ in range(times):
        began, chunks = time.monotonic(), 0
        async for _ in read_stream(redis_url, f"agent-stream:{stream_name(0)}"):
            chunks += 1
        rates.append(chunks / (time.monotonic() - began))
    return {"rates": rates}


CONTESTANT: Final = Contestant(
    name="published_sample",
    title="published sample: client per chunk, polling reader",
    kind=Kind.NAIVE,
    server=lambda place, _load: own_program(_MODULE, "serve", place.redis_url, place.port),
    writer=lambda place, load: own_program(_MODULE, "write", place.redis_url, *load.arguments()),
    filler=lambda place, chunks: own_program(
        "benchmarks.loads.prefill", place.redis_url, stream_key(0), chunks
    ),
    in_process_reader=lambda place, times: own_program(_MODULE, "read", place.redis_url, times),
)


def main() -> None:
    """Do what the command line says."""
    what, redis_url, *arguments = sys.argv[1:]
    if what == "serve":
        serve(redis_url, int(arguments[0]))
    elif what == "read":
        say_outcome(**asyncio.run(read(redis_url, int(arguments[0]))))
    else:
        say_outcome(**asyncio.run(write(redis_url, pace_of(arguments))))


if __name__ == "__main__":
    main()
