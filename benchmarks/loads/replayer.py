"""A reader of finished streams, one after the other.

    python -m benchmarks.loads.replayer HOST:PORT PATH CHUNKS TIMES PAUSE

PAUSE is for how many seconds it stops reading after the first piece, as a client does that is stuck.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.loads.pacing import say_outcome

_CHUNK: Final = re.compile(rb"@(\d+) \d+;")
_PIECE: Final = 1_048_576
#: Ends a body that is sent in chunks; servers may leave the connection open after it.
_END: Final = b"0\r\n\r\n"
#: Of one read, in seconds.
_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Replay:
    """One reading, in seconds."""

    first_byte: float
    took: float
    body: bytes


def replay(address: tuple[str, int], path: str, pause: float) -> Replay:
    """Read a stream to its end."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
    pieces: list[bytes] = []
    with socket.create_connection(address, _TIMEOUT) as connection:
        began = time.monotonic()
        connection.sendall(request.encode())
        first_byte, tail = 0.0, b""
        while tail != _END and (piece := connection.recv(_PIECE)):
            pieces.append(piece)
            tail = (tail + piece)[-len(_END) :]
            if not first_byte and (len(pieces) > 1 or not 0 < piece.find(b"\r\n\r\n") == len(piece) - 4):
                # More than the head.
                first_byte = time.monotonic() - began
                if pause:
                    time.sleep(pause)
        took = time.monotonic() - began
    return Replay(first_byte, took - pause, b"".join(pieces))


def missing(body: bytes, chunks: int) -> int:
    """How many chunks are not where they belong."""
    numbers = [int(found[1]) for found in _CHUNK.finditer(body)]
    return abs(chunks - len(numbers)) + sum(number != place for place, number in enumerate(numbers))


def main() -> None:
    """Read as the command line says."""
    address, path, chunks, times, pause = sys.argv[1:]
    host, _, port = address.rpartition(":")
    first_bytes, took, lost = [], [], 0
    for _ in range(int(times)):
        one = replay((host, int(port)), path, float(pause))
        first_bytes.append(one.first_byte)
        took.append(one.took)
        lost += missing(one.body, int(chunks))
    say_outcome(first_bytes=first_bytes, took=took, lost=lost)


if __name__ == "__main__":
    main()
