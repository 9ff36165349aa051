"""A peer: the reference server of Durable Streams (Node), with its streams in memory.

    python -m benchmarks.contestants.durable_streams write PORT STREAMS RATE SECONDS
    python -m benchmarks.contestants.durable_streams fill PORT CHUNKS

It is written to over HTTP: one request for a chunk, over 32 connections that stay open.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.contestants.contestant import Contestant, Kind, own_program
from benchmarks.loads.pacing import (
    Pace,
    drive,
    pace_of,
    say_outcome,
    stamped,
    stream_name,
    wait_for_go,
)
from benchmarks.peers import NODE_PACKAGES, node_modules, prepare_node
from benchmarks.programs import Command

_MODULE: Final = "benchmarks.contestants.durable_streams"
_SERVER: Final = Path(__file__).with_suffix(".mjs")
_CONNECTIONS: Final = 32


class _Connection:
    """One connection on which one request follows the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def request(self, method: str, stream: int, body: str, *headers: str) -> None:
        """Send a request and wait for its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        lines = [f"{method} /{stream_name(stream)} HTTP/1.1", "Host: bench", "Content-Type: text/plain"]
        lines += [f"Content-Length: {len(body)}", *headers, "", body]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 20" not in head[:12]:
            raise RuntimeError(f"{method} was answered with {head!r}.")
        if b"transfer-encoding: chunked" in head:
            await reader.readuntil(b"0\r\n\r\n")
        elif b"content-length: " in head:
            await reader.readexactly(int(head.split(b"content-length: ")[1].partition(b"\r")[0]))


async def _write(port: int, pace: Pace) -> dict[str, object]:
    lanes = min(_CONNECTIONS, pace.streams)
    connections = [_Connection(port) for _ in range(lanes)]
    acknowledged: list[float] = []

    async def write_one(stream: int, number: int) -> None:
        began = time.monotonic()
        await connections[stream % lanes].request("POST", stream, stamped(number))
        acknowledged.append((time.monotonic() - began) * 1e3)

    for stream in range(pace.streams):
        await connections[stream % lanes].request("PUT", stream, "")
    for connection in connections:
        # Until it goes on, the server would have closed it.
        connection.close()
    await asyncio.to_thread(wait_for_go)
    began_cpu = time.process_time()
    written = await drive(pace, write_one, lanes=lanes)
    cpu = time.process_time() - began_cpu
    return {"sent": written.sent, "took": written.took, "cpu": cpu, "stored": acknowledged}


async def _fill(port: int, chunks: int) -> dict[str, object]:
    connection = _Connection(port)
    await connection.request("PUT", 0, "")
    for number in range(chunks):
        await connection.request("POST", 0, stamped(number))
    await connection.request("POST", 0, "", "Stream-Closed: true")
    return {"sent": [chunks]}


CONTESTANT: Final = Contestant(
    name="durable_streams",
    title=f"Durable Streams reference server {NODE_PACKAGES['@durable-streams/server']} (Node, memory)",
    kind=Kind.PEER,
    server=lambda place, _load: Command(
        ["node", str(_SERVER), str(node_modules(place.cache)), str(place.port)]
    ),
    path="/{stream}?offset=-1&live=sse",
    writer=lambda place, load: own_program(_MODULE, "write", place.port, *load.arguments()),
    writes_to_server=True,
    filler=lambda place, chunks: own_program(_MODULE, "fill", place.port, chunks),
    prepare=prepare_node,
)


def main() -> None:
    """Do what the command line says."""
    what, port, *arguments = sys.argv[1:]
    if what == "fill":
        say_outcome(**asyncio.run(_fill(int(port), int(arguments[0]))))
    else:
        say_outcome(**asyncio.run(_write(int(port), pace_of(arguments))))


if __name__ == "__main__":
    main()
