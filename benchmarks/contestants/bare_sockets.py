"""The floor of serving: asyncio's own sockets, no Redis, no HTTP server, no framework.

    python -m benchmarks.contestants.bare_sockets PORT STREAMS RATE SECONDS

It makes the chunks itself and writes each, encoded once, to the connections of its stream. Its own CPU is
thus the least that an event loop of Python takes; and since the readers are the same, what it reaches shows
that they are not what is slow.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Final, cast

import uvloop

from benchmarks.contestants.contestant import Contestant, Kind, own_program
from benchmarks.loads.pacing import TICK, Pace, due, pace_of, say_outcome, stamped, wait_for_go
from benchmarks.loads.serving import BACKLOG

_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self, readers: list[list[asyncio.Transport]]) -> None:
        self._readers = readers
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A request, which comes in one piece from the readers of this bench."""
        if self._transport is not None:
            stream = int(data.split(b" ", 2)[1].rpartition(b"-")[2])
            self._transport.write(_HEAD)
            self._readers[stream].append(self._transport)


def event(number: int) -> bytes:
    """A chunk that is made now, as an event."""
    return f"id: {number}\nevent: message\ndata: {stamped(number)}\n\n".encode()


async def serve(port: int, pace: Pace) -> list[int]:
    """Serve readers, then write to them at a rate. Returns the chunks by stream."""
    readers: list[list[asyncio.Transport]] = [[] for _ in range(pace.streams)]
    sent = [0] * pace.streams
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: _Connection(readers), "127.0.0.1", port, backlog=BACKLOG)
    await asyncio.to_thread(wait_for_go)
    began, done = time.monotonic(), 0
    while done < int(pace.rate * pace.seconds):
        for stream in due(pace, began, done):
            chunk = event(sent[stream])
            sent[stream] += 1
            done += 1
            for transport in readers[stream]:
                transport.write(chunk)
        await asyncio.sleep(TICK)
    return sent


async def main() -> None:
    """Serve as the command line says, until killed."""
    port, *arguments = sys.argv[1:]
    say_outcome(sent=await serve(int(port), pace_of(arguments)))
    await asyncio.Event().wait()


CONTESTANT: Final = Contestant(
    name="bare_sockets",
    title="SSE socket writing alone: asyncio (uvloop)",
    kind=Kind.FLOOR,
    server=lambda place, load: own_program(
        "benchmarks.contestants.bare_sockets", place.port, *load.arguments()
    ),
)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
