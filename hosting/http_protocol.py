"""The server's HTTP/1.1 protocol, with bounds: uvicorn and its parser have none for what comes before a body.

An endless header, request line or trailer would otherwise be collected in memory for as long as it comes, and
a connection that never sends a whole request would be kept for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from typing import ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from streaming.errors import HeadersTooLarge, StreamingError
from streaming.http.messages import JSON_TYPE

#: How long a client may take from connecting, or from a request's first byte, to the end of its headers.
HEAD_PATIENCE: Final = timedelta(seconds=30)
#: What a header costs in memory besides its bytes: with many short ones it is most of it.
_HEADER_OVERHEAD: Final = 32


def bounded_protocol(max_header_bytes: int) -> type[BoundedHttpProtocol]:
    """The protocol for a server."""
    return type("BoundedHttpProtocol", (BoundedHttpProtocol,), {"max_header_bytes": max_header_bytes})


def _written(error: StreamingError) -> bytes:
    """An error's answer as it goes over the wire, for what never becomes a request."""
    status = HTTPStatus(error.http_status)
    body = json.dumps({"error": error.message, "code": error.code})
    head = (
        f"HTTP/1.1 {status} {status.phrase}",
        f"content-type: {JSON_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
    )
    return "\r\n".join((*head, "", body)).encode()


_TOO_LARGE: Final = _written(HeadersTooLarge())

#: Where a scope's ``extensions`` have the ``ClientLine`` of a response.
CLIENT_LINE: Final = "agent_stream.client_line"


class ClientLine:
    """What a response that streams can do without a task: write, and hear that its client has left."""

    __slots__ = ("_cycle", "_flow", "_is_first", "_seen", "_transport")

    def __init__(self, cycle: RequestResponseCycle, seen: _Seen) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._transport = cycle.transport
        self._seen = seen
        self._is_first = True

    def write(self, piece: bytes) -> bool:
        """Write a piece as ``send`` would; ``False``: not now, since ``send`` would wait or do otherwise."""
        cycle = self._cycle
        if self._flow.write_paused or cycle.disconnected or cycle.response_complete:
            return False
        if self._is_first:
            if not cycle.chunked_encoding:
                return False
            # Else uvloop sends it at the loop's next turn, and a thousand clients wait for the last of them.
            self._transport.set_write_buffer_limits(0)
            self._is_first = False
        self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return True

    def when_left(self, call: Callable[[], None] | None) -> None:
        """Call once the client has left, or now if it has; ``None``: not any more."""
        self._seen.when_left = call
        if call is not None and self._transport.is_closing():
            call()


class _Seen:
    """What a connection has brought.

    Apart from the protocol: with these it had so many attributes that each needed a dictionary of a kilobyte.
    """

    __slots__ = ("head", "head_timer", "is_too_large", "unfinished", "when_left")

    def __init__(self) -> None:
        #: Bytes that the parser took since it last told of something whole: it keeps them.
        self.unfinished = 0
        #: Of the message's line and headers, as far as they are known.
        self.head = 0
        self.is_too_large = False
        self.head_timer: asyncio.TimerHandle | None = None
        #: Called when the client has left.
        self.when_left: Callable[[], None] | None = None


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses heads and trailers over the limit with 431, before they are whole, and closes."""

    max_header_bytes: ClassVar[int]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Watch from the first moment."""
        super().connection_made(transport)
        self._seen = _Seen()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._stop_waiting()
        super().connection_lost(exc)
        if self._seen.when_left is not None:
            self._seen.when_left()

    def data_received(self, data: bytes) -> None:
        """Take what comes, unless too much of it is unfinished."""
        if self._seen.is_too_large:
            return
        self._seen.unfinished += len(data)
        super().data_received(data)
        # Before the first request it is None, whatever its type says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self._seen.head_timer is None and (cycle is None or cycle.response_complete):
            # Whatever came, empty lines for example: uvicorn has stopped its own clock for it.
            self._await_head()
        if self._seen.unfinished > self.max_header_bytes and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._seen.head = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """The request's line, or a part of it."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        self._count(len(name) + len(value) + _HEADER_OVERHEAD)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._seen.unfinished = 0
        self._stop_waiting()
        super().on_headers_complete()
        line = ClientLine(self.cycle, self._seen)
        # The specification would have a dictionary around it, for each of thousands of readers.
        self.scope["extensions"] = {CLIENT_LINE: line}  # type: ignore[dict-item]

    def on_body(self, body: bytes) -> None:
        """A piece of the body, which is bounded where it is read."""
        self._seen.unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._seen.unfinished = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused; also what it refused because we did."""
        if self._seen.is_too_large:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _count(self, size: int) -> None:
        self._seen.head += size
        if self._seen.head > self.max_header_bytes:
            self._seen.is_too_large = True
            # The parser stops at it, and uvicorn answers.
            raise ValueError

    def _refuse(self) -> None:
        self._seen.is_too_large = True
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._seen.head_timer = self.loop.call_later(HEAD_PATIENCE.total_seconds(), self._give_up)

    def _stop_waiting(self) -> None:
        if self._seen.head_timer is not None:
            self._seen.head_timer.cancel()
            self._seen.head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
