"""The programs of the peer agno; they run in its environment, which has nothing of this project's.

python -m benchmarks.contestants.agno_programs serve REDIS_URL PORT
python -m benchmarks.contestants.agno_programs write REDIS_URL STREAMS RATE SECONDS
python -m benchmarks.contestants.agno_programs fill REDIS_URL CHUNKS
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from redis.asyncio import Redis

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


class _Events:
    """Its stream of events. It is imported by name: only its own environment has it."""

    def __init__(self, redis_url: str) -> None:
        # A tail holds a connection; its default would end reads that take longer than five seconds.
        redis = Redis.from_url(redis_url, max_connections=9_100, socket_timeout=None)
        self.stream: Any = import_module("agno.os.event_streams.redis").RedisEventStream(redis)
        self._event = import_module("agno.run.agent").RunContentEvent
        self._status = import_module("agno.run.base").RunStatus

    async def begin(self, name: str) -> None:
        """Make a run known."""
        await self.stream.register_run(name, self._status.running)

    async def add(self, name: str, text: str) -> None:
        """Write a chunk."""
        await self.stream.add_event(name, self._event(content=text, run_id=name, agent_id="bench"))

    async def end(self, name: str) -> None:
        """End a run."""
        await self.stream.complete_run(name, self._status.completed)


def _serve(redis_url: str, port: int) -> None:
    events = _Events(redis_url)

    async def tail(name: str) -> AsyncIterator[str]:
        async for _, event in events.stream.tail(name):
            yield event

    serve_events(tail, port)


async def _write(redis_url: str, pace: Pace) -> dict[str, object]:
    events = _Events(redis_url)
    acknowledged: list[float] = []

    async def write_one(stream: int, number: int) -> None:
        began = time.monotonic()
        await events.add(stream_name(stream), stamped(number))
        acknowledged.append((time.monotonic() - began) * 1e3)

    for number in range(pace.streams):
        await events.begin(stream_name(number))
    await asyncio.to_thread(wait_for_go)
    began_cpu = time.process_time()
    written = await drive(pace, write_one)
    cpu = time.process_time() - began_cpu
    return {"sent": written.sent, "took": written.took, "cpu": cpu, "stored": acknowledged}


async def _fill(redis_url: str, chunks: int) -> dict[str, object]:
    events = _Events(redis_url)
    await events.begin(stream_name(0))
    for number in range(chunks):
        await events.add(stream_name(0), stamped(number))
    await events.end(stream_name(0))
    return {"sent": [chunks]}


def main() -> None:
    """Do what the command line says."""
    what, redis_url, *arguments = sys.argv[1:]
    if what == "serve":
        _serve(redis_url, int(arguments[0]))
    elif what == "fill":
        say_outcome(**asyncio.run(_fill(redis_url, int(arguments[0]))))
    else:
        say_outcome(**asyncio.run(_write(redis_url, pace_of(arguments))))


if __name__ == "__main__":
    main()
