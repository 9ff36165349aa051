"""A local HTTP endpoint that answers as it is told to: whole, cut at any byte, or held in mid-answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request is answered with."""

    body: bytes
    status: int = 200
    content_type: str = "text/event-stream"
    #: The connection is closed after so many bytes of the body.
    cut_at: int | None = None
    #: ``False``: the body ends where the connection does, so that a cut looks like an end.
    chunked: bool = True
    #: The body is sent in pieces of so many bytes.
    piece: int = 65_536
    #: After so many bytes the answer waits for ``hold``, having set ``held``.
    hold_at: int | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event = field(default_factory=asyncio.Event)


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status, "application/json")


@dataclass(frozen=True, slots=True)
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


class Endpoint:
    """Gives the answers in the order of the requests."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = []
        #: Answers what ``answers`` has nothing for.
        self.respond: Callable[[Request], Answer] = lambda _: json_answer({"error": "no answer left"}, 500)
        self.requests: list[Request] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        parsed = urlsplit(path)
        request = Request(method, parsed.path, dict(parse_qsl(parsed.query)), json.loads(body or b"null"))
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else self.respond(request)
        framing = b"transfer-encoding: chunked" if answer.chunked else b"connection: close"
        writer.write(
            b"HTTP/1.1 %d Answer\r\ncontent-type: %s\r\n%s\r\n\r\n"
            % (answer.status, answer.content_type.encode(), framing)
        )
        await self._body(answer, writer)
        return answer.chunked and answer.cut_at is None

    async def _body(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        end = len(answer.body) if answer.cut_at is None else answer.cut_at
        at = 0
        while at < end:
            if at == answer.hold_at:
                answer.held.set()
                await answer.hold.wait()
            stop = min(at + answer.piece, end)
            if answer.hold_at is not None and at < answer.hold_at:
                stop = min(stop, answer.hold_at)
            piece = answer.body[at:stop]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if answer.chunked else piece)
            await writer.drain()
            at = stop
        if answer.cut_at is None and answer.chunked:
            writer.write(b"0\r\n\r\n")


@asynccontextmanager
async def local_endpoint(*answers: Answer) -> AsyncIterator[Endpoint]:
    """Run an endpoint on a free loopback port while the context lasts."""
    endpoint = Endpoint()
    endpoint.answers = list(answers)
    tasks: set[asyncio.Task[None]] = set()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(endpoint.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield endpoint
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def events(*pairs: tuple[str, Any]) -> bytes:
    """Server-sent events with JSON data (or a bare word), as both services write them."""
    lines = []
    for event, data in pairs:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        lines.append(f"event: {event}\ndata: {text}\n\n")
    return "".join(lines).encode("utf-8", "surrogatepass")
