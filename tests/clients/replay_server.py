"""A small TCP server that replays a recorded stream from ``Last-Event-ID``, as rudely as a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qs, urlsplit

from clients import Patience, StreamClient
from streaming.sse import encode_event, encode_retry

#: A client that does not wait before it comes back; and no test waits for what hangs.
HURRY: Final = Patience(
    first_delay=timedelta(0), longest_delay=timedelta(0), give_up_after=timedelta(seconds=30)
)
CONVERSATION: Final = "c"


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: Mapping[str, str]
    #: By lower-case name.
    headers: Mapping[str, str]

    @property
    def cursor(self) -> str | None:
        """Where it wants to go on."""
        return self.headers.get("last-event-id") or self.query.get("cursor")


@dataclass(frozen=True)
class Told:
    """An answer."""

    body: bytes = b""
    status: str = "200 OK"
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})
    #: How the body's end is known: ``chunked``, ``length`` or ``close``.
    framing: str = "chunked"
    #: The connection ends after so many bytes, the head's included; ``None``: after all.
    cut: int | None = None
    #: Whether it is silent after that, for as long as the test lasts, and not closed.
    hangs: bool = False
    #: Whether more bytes of the same line keep coming after that.
    drips: bool = False

    def encoded(self) -> bytes:
        """Every byte of it."""
        fields, body = dict(self.headers), self.body
        if self.framing == "length":
            fields["content-length"] = str(len(body))
        elif self.framing == "chunked":
            fields["transfer-encoding"] = "chunked"
            pieces = [body[place : place + 97] for place in range(0, len(body), 97)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {self.status}\r\n{head}connection: close\r\n\r\n".encode() + body


#: What the server does with a request.
Behaviour = Callable[[Asked], Told]


class Recording:
    """A stream as the service sent it, event by event."""

    def __init__(self, events: Sequence[tuple[str | None, bytes]], retry_ms: int = 0) -> None:
        """``events`` are ids and bytes."""
        self.events = list(events)
        self._retry = encode_retry(retry_ms)

    @classmethod
    def of(cls, body: bytes) -> Recording:
        """Take apart what a service has sent, but for its ``retry``."""
        blocks = [
            block + b"\n\n" for block in body.split(b"\n\n") if block and not block.startswith(b"retry")
        ]
        return cls([(_id_of(block), block) for block in blocks])

    @classmethod
    def saying(cls, *texts: str) -> Recording:
        """A run that says this."""
        events = [
            (f"{n}-0", encode_event("message", text, entry_id=f"{n}-0")) for n, text in enumerate(texts, 1)
        ]
        end = f"{len(texts)}-1"
        return cls([*events, (end, encode_event("done", "[DONE]", entry_id=end))])

    def after(self, cursor: str | None) -> bytes:
        """The response's body for a client that has everything up to ``cursor``."""
        places = [place for place, (event_id, _) in enumerate(self.events) if event_id == cursor]
        start = places[-1] + 1 if cursor and places else 0
        return self._retry + b"".join(block for _, block in self.events[start:])

    def has_more(self, cursor: str | None) -> bool:
        """Whether anything comes after ``cursor``."""
        return cursor != self.events[-1][0]

    def answer(self, asked: Asked) -> Told:
        """What an honest service says."""
        return Told(self.after(asked.cursor)) if self.has_more(asked.cursor) else NOTHING_MORE


NOTHING_MORE: Final = Told(status="204 No Content", headers={}, framing="length")


def _id_of(block: bytes) -> str | None:
    lines = [line for line in block.decode(errors="replace").split("\n") if line.startswith("id: ")]
    return lines[0].removeprefix("id: ") if lines else None


class ReplayServer:
    """Does with each request what ``behave`` says."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: list[Asked] = []
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1_000)

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            asked = _parse(await reader.readuntil(b"\r\n\r\n"))
            await reader.readexactly(int(asked.headers.get("content-length", "0")))
            self.asked.append(asked)
            told = self.behave(asked)
            writer.write(told.encoded()[: told.cut])
            await writer.drain()
            while told.drips:
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                # The slow line is the fault itself, nothing that is waited for.
                await asyncio.sleep(0.01)
            if told.hangs:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            # Its client has left, or the test is over.
            return
        finally:
            self._open.discard(task)
            writer.close()


def _parse(head: bytes) -> Asked:
    request, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = request.split(" ")
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    fields = (line.partition(":") for line in lines if line)
    return Asked(method, url.path, query, {name.lower(): value.strip() for name, _, value in fields})


@asynccontextmanager
async def replaying(behave: Behaviour) -> AsyncIterator[ReplayServer]:
    """A server that behaves so."""
    server = ReplayServer(behave)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def client_of(
    behave: Behaviour, patience: Patience = HURRY
) -> AsyncIterator[tuple[StreamClient, ReplayServer]]:
    """A client in a hurry, and its server."""
    async with replaying(behave) as server, StreamClient(server.url, patience=patience) as client:
        yield client, server
