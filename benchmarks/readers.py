"""The readers: plain sockets in a process of its own, which does as little as it can with what comes.

    python -m benchmarks.readers HOST:PORT PREFIX STREAMS READERS SECONDS

Opens READERS readers of each of STREAMS streams, says ``open``, waits for a line, reads for SECONDS and
prints what it has seen as JSON. The text of a chunk is ``<sequence> <time>``, the time by this machine's
monotonic clock in nanoseconds.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = re.compile(rb"\ndata: (\d+) (\d+)\n")
_PIECE: Final = 262_144


@dataclass(slots=True)
class Seen:
    """What came."""

    latencies: list[int] = field(default_factory=list)
    #: Chunks that came after a later one of their stream, or after a hole.
    out_of_order: int = 0
    closed: int = 0


@dataclass(slots=True)
class _Reader:
    socket: socket.socket
    next: int = 0
    rest: bytes = b""

    def take(self, piece: bytes, now: int, seen: Seen) -> None:
        """Take the chunks of a piece. What follows the last whole event waits for the next one."""
        held, end = self.rest + piece, 0
        for found in _CHUNK.finditer(held):
            sequence = int(found[1])
            seen.out_of_order += sequence != self.next
            self.next = sequence + 1
            seen.latencies.append(now - int(found[2]))
            end = found.end() - 1
        self.rest = held[end:] if end else held[-200:]


def open_readers(address: tuple[str, int], prefix: str, streams: int, readers: int) -> list[_Reader]:
    """Connect, ask for the streams from their starts, and wait until all are answered."""
    opened = []
    for number in range(streams):
        head = f"GET /api/agent/stream/{prefix}-{number}?cursor=0 HTTP/1.1\r\nHost: bench\r\n"
        for _ in range(readers):
            connection = socket.create_connection(address)
            connection.sendall(f"{head}Accept: text/event-stream\r\n\r\n".encode())
            opened.append(_Reader(connection))
    for reader in opened:
        # Answered: from here on it is followed.
        reader.socket.recv(1, socket.MSG_PEEK)
        reader.socket.settimeout(0)
    return opened


def read(readers: list[_Reader], seconds: float) -> Seen:
    """Read what comes for so long."""
    seen = Seen()
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.socket, selectors.EVENT_READ, reader)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for key, _ in selector.select(0.1):
                reader = key.data
                try:
                    piece = reader.socket.recv(_PIECE)
                except BlockingIOError:
                    continue
                if not piece:
                    seen.closed += 1
                    selector.unregister(reader.socket)
                    continue
                reader.take(piece, time.monotonic_ns(), seen)
    return seen


def main() -> None:
    """Read as the command line says."""
    address, prefix, streams, per_stream, seconds = sys.argv[1:]
    host, _, port = address.rpartition(":")
    readers = open_readers((host, int(port)), prefix, int(streams), int(per_stream))
    print("open", flush=True)
    sys.stdin.readline()
    began = time.process_time()
    seen = read(readers, float(seconds))
    print(
        json.dumps(
            {
                "latencies": seen.latencies,
                "out_of_order": seen.out_of_order,
                "closed": seen.closed,
                "load": (time.process_time() - began) / float(seconds),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
