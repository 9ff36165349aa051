"""Readers of live streams: plain sockets, in a process of its own that does as little as it can.

    python -m benchmarks.loads.readers HOST:PORT PATH STREAMS READERS FIRST STEP

Opens the readers FIRST, FIRST + STEP … of READERS readers; reader n reads stream n modulo STREAMS. Says
``open`` when all are answered, and waits for ``go``. From then on it takes what comes with its time, and
counts. Told the number of chunks that there are by stream, it reads until it has them, or the patience is
over, and says ``over``. Only then does it look into what it has, and says what came of it as JSON.
"""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Final

from benchmarks.loads.pacing import say, say_outcome, stream_name

#: A chunk in whatever is around it: an event's data, JSON.
_CHUNK: Final = re.compile(rb"@(\d+) (\d+);")
#: Begins each chunk, and is in nothing else that the contestants send.
_MARK: Final = b"@"
_PIECE: Final = 262_144
#: How long is waited for chunks after the last one was written, in seconds. A server that is further behind
#: does not keep up.
PATIENCE: Final = 3.0
#: Readers that ask at the same time. How a service takes a rush is another matter.
_AT_ONCE: Final = 200
#: What is taken at first of an answer, in bytes: its head, and an error that may follow.
_HEAD: Final = 4_096
#: Of one answer to a request, in seconds.
_ANSWER_TIMEOUT: Final = 30.0


@dataclass(slots=True)
class Reader:
    """One reader, and what it was given."""

    stream: int
    socket: socket.socket
    pieces: list[tuple[int, bytes]] = field(default_factory=list)

    def chunks(self) -> list[tuple[int, int, int]]:
        """Number, time made and time come of each chunk."""
        found, rest = [], b""
        for came, piece in self.pieces:
            held, end = rest + piece, 0
            for chunk in _CHUNK.finditer(held):
                found.append((int(chunk[1]), int(chunk[2]), came))
                end = chunk.end()
            rest = held[end:]
        return found


def open_readers(address: tuple[str, int], path: str, streams: int, numbers: range) -> list[Reader]:
    """Connect, ask for the streams from their starts, and wait until all are answered."""
    readers: list[Reader] = []
    for number in numbers:
        if len(readers) % _AT_ONCE == 0:
            _wait_for_answers(readers[-_AT_ONCE:])
        stream = number % streams
        target = path.format(stream=stream_name(stream))
        connection = socket.create_connection(address, _ANSWER_TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(
            f"GET {target} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        readers.append(Reader(stream, connection))
    _wait_for_answers(readers)
    return readers


def _wait_for_answers(readers: list[Reader]) -> None:
    for reader in readers:
        if reader.socket.gettimeout() == 0:
            continue
        # Answered: from here on it is followed.
        head = reader.socket.recv(_HEAD)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"A reader was answered with {head.decode(errors='replace')!r}.")
        reader.pieces.append((time.monotonic_ns(), head))
        reader.socket.settimeout(0)


def watch(by_file: dict[int, Reader]) -> select.epoll:
    """Have all of them watched, and take what has followed their heads.

    For ten thousand this takes a tenth of a second, which is no latency of a chunk.
    """
    epoll = select.epoll()
    for file in by_file:
        epoll.register(file, select.EPOLLIN)
    for file, _ in epoll.poll(0, len(by_file)):
        # An end stays there, to be counted.
        if by_file[file].socket.recv(1, socket.MSG_PEEK):
            by_file[file].pieces.append((time.monotonic_ns(), by_file[file].socket.recv(_PIECE)))
    return epoll


def read(by_file: dict[int, Reader], epoll: select.epoll) -> int:
    """Take what comes until all of it has, or patience is over. Returns how many ended too early."""
    readers = by_file.values()
    orders = sys.stdin.fileno()
    epoll.register(orders, select.EPOLLIN)
    # One for all: to allocate as much for each piece takes longer than to receive it.
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    ended = 0
    received = sum(piece.count(_MARK) for reader in readers for _, piece in reader.pieces)
    expected, until = float("inf"), float("inf")
    while received < expected and time.monotonic() < until:
        for file, _ in epoll.poll(0.1):
            if file == orders:
                epoll.unregister(orders)
                sent = json.loads(sys.stdin.readline())
                expected = sum(sent[reader.stream] for reader in readers)
                until = time.monotonic() + PATIENCE
                continue
            reader = by_file[file]
            try:
                length = reader.socket.recv_into(buffer)
            except BlockingIOError:
                continue
            came, piece = time.monotonic_ns(), bytes(view[:length])
            reader.pieces.append((came, piece))
            received += piece.count(_MARK)
            if not length:
                ended += 1
                epoll.unregister(file)
    return ended


def main() -> None:
    """Read as the command line says."""
    address, path, streams, readers, first, step = sys.argv[1:]
    host, _, port = address.rpartition(":")
    numbers = range(int(first), int(readers), int(step))
    opened = open_readers((host, int(port)), path, int(streams), numbers)
    by_file = {reader.socket.fileno(): reader for reader in opened}
    epoll = watch(by_file)
    gc.collect()
    # Pieces pile up and are never thrown away: to look for garbage among them takes ever longer.
    gc.disable()
    say("open")
    sys.stdin.readline()
    began, began_cpu = time.monotonic(), time.process_time()
    ended = read(by_file, epoll)
    load = (time.process_time() - began_cpu) / (time.monotonic() - began)
    say("over")
    chunks = [reader.chunks() for reader in opened]
    say_outcome(
        latencies=[came - made for each in chunks for _, made, came in each],
        out_of_order=sum(number != place for each in chunks for place, (number, _, _) in enumerate(each)),
        ended=ended,
        load=load,
        first=min((each[0][1] for each in chunks if each), default=0),
        last=max((each[-1][2] for each in chunks if each), default=0),
    )


if __name__ == "__main__":
    main()
