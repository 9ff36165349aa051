"""A TCP proxy in front of Redis that breaks chosen replies: cut at any byte, swallowed, late, or another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

#: Commands after which a connection gets messages that nobody asked for.
_SUBSCRIBING: Final = (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE")
_PIECE: Final = 65_536
#: Closing with this option resets the connection instead of ending it in good order.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Cut:
    """The command is executed; so many bytes of its reply arrive, then the connection is reset."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Swallow:
    """The command is executed, and nothing more ever arrives on the connection."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The command is executed, and its reply is late."""

    by: timedelta


@dataclass(frozen=True, slots=True)
class Answer:
    """The command does not reach Redis; this is the reply."""

    reply: bytes


Fault = Cut | Swallow | Delay | Answer
#: Says what becomes of a command's reply, from the command's words.
Rule = Callable[[Sequence[bytes]], Fault | None]


def frame_end(data: bytes, at: int = 0) -> int | None:
    """Where the value of the Redis protocol that begins at ``at`` ends; ``None``: not all of it is there.

    Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    line_end = data.find(b"\r\n", at)
    if line_end < 0:
        return None
    end, kind = line_end + 2, data[at : at + 1]
    if kind in b"+-:":
        return end
    size = int(data[at + 1 : line_end])
    if kind == b"$":
        end += size + 2 if size >= 0 else 0
        return end if end <= len(data) else None
    for _ in range(max(0, size)):
        inner = frame_end(data, end)
        if inner is None:
            return None
        end = inner
    return end


def words_of(command: bytes) -> list[bytes]:
    """The words of a command as a client sends it: an array of strings."""
    lines, words, at = command.split(b"\r\n", 1)[0], [], 0
    at = len(lines) + 2
    while at < len(command):
        line_end = command.index(b"\r\n", at)
        size = int(command[at + 1 : line_end])
        words.append(command[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size
    return words


class FaultProxy:
    """Listens on loopback and forwards to a Redis, but for what ``rule`` says."""

    def __init__(self, port: int) -> None:
        """Forward to ``port``."""
        self.rule: Rule | None = None
        #: How often the rule broke something.
        self.faults = 0
        self._port = port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    @property
    def url(self) -> str:
        """What a client connects to."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cut all and listen no more."""
        assert self._server is not None
        self._server.close()
        self.cut_all()
        while self._links:  # noqa: ASYNC110 - each link ends in a task of the server's own
            await asyncio.sleep(0)

    def cut_all(self) -> None:
        """Reset every connection."""
        for link in list(self._links):
            link.reset()

    def judge(self, words: Sequence[bytes]) -> Fault | None:
        """What becomes of a command."""
        fault = self.rule(words) if self.rule is not None else None
        self.faults += fault is not None
        return fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, reader, writer, *up)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)


class _Link:
    """One client's connection and its counterpart to Redis."""

    def __init__(
        self,
        proxy: FaultProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._up_reader, self._up_writer = up_reader, up_writer
        #: What becomes of the replies that are still to come, in order.
        self._fates: deque[Fault | None] = deque()
        self._subscribed = False
        self._over = asyncio.Event()

    def reset(self) -> None:
        """Reset the client's connection."""
        handle: socket.socket | None = self._writer.get_extra_info("socket")
        if handle is not None:
            with contextlib.suppress(OSError):
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._over.set()

    async def run(self) -> None:
        """Forward until one side ends or the connection is reset."""
        tasks = [asyncio.create_task(work) for work in (self._requests(), self._replies(), self._over.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writer.transport.abort()
            self._up_writer.transport.abort()

    async def _requests(self) -> None:
        data = b""
        while piece := await self._reader.read(_PIECE):
            data += piece
            while data and (end := frame_end(data)) is not None:
                command, data = data[:end], data[end:]
                words = words_of(command)
                self._subscribed |= words[0].upper() in _SUBSCRIBING
                fault = self._proxy.judge(words)
                self._fates.append(fault)
                if isinstance(fault, Answer):
                    # An answer of Redis keeps its place in line.
                    command = b"*1\r\n$4\r\nPING\r\n"
                self._up_writer.write(command)
            await self._up_writer.drain()

    async def _replies(self) -> None:
        data = b""
        while piece := await self._up_reader.read(_PIECE):
            data += piece
            if self._subscribed:
                self._writer.write(data)
                data = b""
            while data and (end := frame_end(data)) is not None:
                reply, data = data[:end], data[end:]
                await self._give(reply, self._fates.popleft())
            await self._writer.drain()

    async def _give(self, reply: bytes, fate: Fault | None) -> None:
        match fate:
            case Cut(after):
                self._writer.write(reply[:after])
                await self._writer.drain()
                self.reset()
                await asyncio.Future()
            case Swallow():
                await asyncio.Future()
            case Delay(by):
                # The delay is the fault itself, nothing that is waited for.
                await asyncio.sleep(by.total_seconds())
                self._writer.write(reply)
            case Answer(other):
                self._writer.write(other)
            case None:
                self._writer.write(reply)


@asynccontextmanager
async def fault_proxy(port: int) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the Redis on ``port``, without a rule so far."""
    proxy = FaultProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
