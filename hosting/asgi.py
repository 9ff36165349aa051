"""The outermost layer of the standalone host: the endpoints as an ASGI app.

Starlette routes; the pieces of a stream go straight to the server's ``send``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hosting.starlette_requests import read_request
from streaming.cancellation import cancel_and_wait
from streaming.errors import RequestTooLarge
from streaming.http.endpoints import Endpoint, Endpoints
from streaming.http.messages import HttpResponse, error_response, json_response
from streaming.http.routes import ROUTES


def create_app(endpoints: Endpoints) -> Starlette:
    """Build the app."""
    limit = endpoints.settings.max_request_bytes
    routes = [
        Route(route.path, _handler(partial(route.endpoint, endpoints), limit), methods=[route.method])
        for route in ROUTES
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    # Its redirects would be built from the client's own Host header.
    app.router.redirect_slashes = False
    return app


def _handler(endpoint: Endpoint, body_limit: int) -> Callable[[Request], object]:
    async def handle(request: Request) -> Response:
        try:
            wanted = await read_request(request, body_limit)
        except RequestTooLarge as error:
            return _Answer(error_response(error))
        except ClientDisconnect:
            # Nobody is left to answer; 499 is nginx's word for it, for the access log.
            return Response(status_code=499)
        return _Answer(await endpoint(wanted))

    return handle


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    content = {"error": error.detail, "code": codes.get(error.status_code, "http_error")}
    return _Answer(json_response(error.status_code, content, error.headers))


class _Answer(Response):
    """Sends an ``HttpResponse``; one that streams ends when the client leaves."""

    def __init__(self, response: HttpResponse) -> None:
        self._pieces = response.body if isinstance(response.body, AsyncGenerator) else None
        self._is_head = False
        whole = response.body if isinstance(response.body, bytes) else None
        super().__init__(content=whole, status_code=response.status, headers=dict(response.headers))
        if self._pieces is not None:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._pieces is None:
            await super().__call__(scope, receive, send)
            return
        self._is_head = scope["method"] == "HEAD"
        sending = asyncio.create_task(self._send(self._pieces, send), name="stream-response")
        leaving = asyncio.create_task(_until_client_leaves(receive), name="client-watch")
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait((sending, leaving))

    async def _send(self, pieces: AsyncGenerator[bytes, None], send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        if self._is_head:
            await pieces.aclose()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        async with aclosing(pieces):
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
