"""The outermost layer of the standalone host: the endpoints as an ASGI app.

Starlette routes; the pieces of a stream go straight to the server's ``send``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import Message, Receive, Scope, Send

from hosting.deadlines import Deadlines, expire
from hosting.http_protocol import CLIENT_LINE, ClientLine
from hosting.starlette_requests import read_request
from streaming.cancellation import cancel_and_wait
from streaming.errors import RequestTimedOut, RequestTooLarge
from streaming.http.access import KEY_HEADER, TOKEN_HEADER
from streaming.http.answering import TRACE_HEADER
from streaming.http.endpoints import Endpoints
from streaming.http.messages import DirectLine, HttpResponse, error_response, json_response
from streaming.http.routes import ROUTES, Route
from streaming.http.run_input import ID_HEADERS, WAIT_HEADER

_log = logging.getLogger(__name__)

#: How much longer than its time limit a response may take before it is broken off: a client that does not
#: read keeps it from ending by itself.
STUCK_GRACE: Final = timedelta(minutes=2)
#: Where a scope has the answer that is to be streamed.
_STREAMED: Final = "agent_stream.streamed"
#: What our clients send, beyond what every page may.
_CORS_REQUEST_HEADERS: Final = (
    "accept",
    "authorization",
    "content-type",
    "last-event-id",
    KEY_HEADER,
    TOKEN_HEADER,
    WAIT_HEADER,
    *ID_HEADERS,
    # Of who is connected to the SignalR service, and of its vendor's client when it negotiates.
    "x-user-token",
    "x-requested-with",
    TRACE_HEADER,
    "tracestate",
    "x-signalr-user-agent",
)
#: What a page may read of an answer.
_CORS_RESPONSE_HEADERS: Final = (
    "retry-after",
    TRACE_HEADER,
    "www-authenticate",
    "x-conversation-id",
    "x-ms-session-id",
    TOKEN_HEADER,
)


def create_app(endpoints: Endpoints, routes: Sequence[Route] = ROUTES) -> Starlette:
    """Build the app, which answers these routes."""
    app = _App(
        routes=[
            StarletteRoute(route.path, _handler(route, endpoints), methods=[route.method]) for route in routes
        ],
        exception_handlers={HTTPException: _http_error},
        middleware=_cors(endpoints.settings.access.cors_origins, {route.method for route in routes}),
    )
    # Its redirects would be built from the client's own Host header.
    app.router.redirect_slashes = False
    return app


def _cors(origins: Sequence[str], methods: Iterable[str]) -> list[Middleware]:
    """Let pages of these origins use the service. Never with cookies: there are none."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=sorted(methods),
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_RESPONSE_HEADERS,
        )
    ]


def _handler(route: Route, endpoints: Endpoints) -> Callable[[Request], object]:
    settings = endpoints.settings
    deadlines = Deadlines(settings.limits.stream_max + STUCK_GRACE)

    async def handle(request: Request) -> Response:
        try:
            wanted = await read_request(request, settings.max_request_bytes)
        except (RequestTooLarge, RequestTimedOut) as error:
            return _Answer(error_response(error), deadlines)
        except ClientDisconnect:
            # Nobody is left to answer; 499 is nginx's word for it, for the access log.
            return Response(status_code=499)
        answer = _Answer(await route.answer(endpoints, wanted), deadlines)
        if route.streams and not answer.streams:
            # Perhaps there is no room, and a connection that waits for its next request takes some too.
            answer.headers["connection"] = "close"
        return answer

    return handle


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    content = {"error": error.detail, "code": codes.get(error.status_code, "http_error")}
    return _Answer(json_response(error.status_code, content, error.headers), Deadlines(STUCK_GRACE))


class _App(Starlette):
    """Sends streams itself, once what is around their routes has returned: nobody needs that for hours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # It knows the scope: if it stayed there, each request would be left to the garbage collector.
        line: ClientLine | None = scope.get("extensions", {}).pop(CLIENT_LINE, None)
        stream = await self._answer(scope, receive, send)
        if stream is not None:
            await stream.send(scope["method"], line, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> _Stream | None:
        """Answer; returns what is to be streamed."""
        scope[_STREAMED] = None
        heads: list[Message] = []

        async def send_unless_streamed(message: Message) -> None:
            if scope[_STREAMED] is None:
                await send(message)
            else:
                heads.append(message)

        await super().__call__(scope, receive, send_unless_streamed)
        stream: _Stream | None = scope.pop(_STREAMED)
        if stream is not None:
            # With what is around the routes has added.
            stream.head = heads.pop()
        return stream


class _Answer(Response):
    """Sends an ``HttpResponse``."""

    def __init__(self, response: HttpResponse, deadlines: Deadlines) -> None:
        self._stream: _Stream | None = None
        if isinstance(response.body, AsyncGenerator):
            self._stream = _Stream(response.body, response.direct, deadlines)
        whole = response.body if isinstance(response.body, bytes) else None
        super().__init__(content=whole, status_code=response.status, headers=dict(response.headers))
        if self._stream is not None:
            del self.headers["content-length"]

    @property
    def streams(self) -> bool:
        """Whether it comes piece by piece."""
        return self._stream is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._stream is None:
            await super().__call__(scope, receive, send)
            return
        scope[_STREAMED] = self._stream
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})


class _Stream:
    """A response that comes piece by piece. Ends when its client leaves, or has taken too long."""

    __slots__ = ("_deadlines", "_direct", "_pieces", "head")

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], direct: DirectLine | None, deadlines: Deadlines
    ) -> None:
        self._pieces = pieces
        self._direct = direct
        self._deadlines = deadlines
        #: Sent first, and then forgotten.
        self.head: Message = {}

    async def send(self, method: str, line: ClientLine | None, receive: Receive, send: Send) -> None:
        """Send all of it."""
        watch: asyncio.Task[None] | None = None
        limit = asyncio.timeout(None)
        try:
            async with limit, aclosing(self._pieces) as pieces:
                self._deadlines.watch(limit)
                if line is not None:
                    line.when_left(partial(expire, limit))
                else:
                    watch = asyncio.create_task(_until_client_leaves(receive, limit), name="client-watch")
                await send(self.head)
                # Nobody needs it for hours.
                self.head = {}
                if method != "HEAD":
                    if self._direct is not None and line is not None:
                        self._direct.write = line.write
                    await _send(pieces, send, limit)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # The client has left, or has taken too long.
            pass
        except Exception as error:  # noqa: BLE001 - whatever broke, its client comes back
            # The connection is closed without the response's end.
            _log.error("response broke off: error=%s", type(error).__name__)
        finally:
            self._deadlines.leave(limit)
            if line is not None:
                line.when_left(None)
            if watch is not None:
                await cancel_and_wait([watch])


async def _send(pieces: AsyncGenerator[bytes, None], send: Send, limit: asyncio.Timeout) -> None:
    async for piece in pieces:
        # Up to Python 3.11 the driver swallows a cancel that meets a reply.
        if limit.expired():
            raise TimeoutError
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        # The next may be long in coming.
        del piece


async def _until_client_leaves(receive: Receive, limit: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    expire(limit)
