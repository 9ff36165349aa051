"""The writers: many runs on one event loop, as a worker has them, in a process of its own.

    python -m benchmarks.writers REDIS_URL PREFIX STREAMS RATE SECONDS

Begins a run in each of STREAMS streams, says ``ready``, waits for a line, then writes RATE chunks a second
over all of them for SECONDS and prints what it did as JSON. A chunk's text is ``<sequence> <time>``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from datetime import timedelta

from bridges.telemetry.counts import Counts
from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.entries import NewEntry
from streaming.writing.writer import RunWriter


async def begin(handler: RedisStreamResponseHandler, prefix: str, streams: int) -> list[RunWriter]:
    """Begin a run in each stream."""
    writers = []
    for number in range(streams):
        attempt = await handler.begin_run(f"{prefix}-{number}", "run", agent="Bench", owner=f"owner-{number}")
        writers.append(RunWriter(handler.runs, attempt, on_cancel=lambda: None))
    return writers


async def write(writer: RunWriter, *, rate: float, delay: float, seconds: float) -> list[float]:
    """Write so many chunks a second; how long each took to be stored, in seconds."""
    loop, stored = asyncio.get_running_loop(), list[float]()
    began = loop.time() + delay
    while (due := began + len(stored) / rate) < began + seconds:
        await asyncio.sleep(max(0.0, due - loop.time()))
        said = loop.time()
        now = time.time_ns() // 1_000_000
        await writer.put(NewEntry(timestamp=now, text=f"{len(stored)} {time.monotonic_ns()}"))
        await writer.flush()
        stored.append(loop.time() - said)
    return stored


async def main() -> None:
    """Write as the command line says."""
    url, prefix, streams, rate, seconds = sys.argv[1:]
    ttl = timedelta(minutes=10)
    # Counted, as the service does it.
    async with RedisStreamResponseHandler(connect(url), ttl, telemetry=Counts()) as handler:
        writers = await begin(handler, prefix, int(streams))
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        began, each = time.process_time(), float(rate) / len(writers)
        stored = await asyncio.gather(
            *(
                write(writer, rate=each, delay=place / float(rate), seconds=float(seconds))
                for place, writer in enumerate(writers)
            )
        )
        latencies = [latency for latencies in stored for latency in latencies]
        print(json.dumps({"stored": latencies, "cpu": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
