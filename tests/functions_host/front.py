"""The host's HTTP front: routes, keys, and the two ways in which requests reach a worker."""

from __future__ import annotations

import asyncio
import base64
import hmac
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from aiohttp import ClientError, ClientSession
from multidict import CIMultiDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from yarl import URL

from streaming.cancellation import cancel_and_wait
from tests.functions_host.worker_process import Function, InvocationFailed, WorkerLost

#: Of one connection; a proxy that passes a request on leaves them out (RFC 9110, section 7.6.1).
_HOP_BY_HOP: Final = {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


class Host(Protocol):
    """What the front needs of the host."""

    #: The master key; empty: nothing is asked for, as with ``func start``.
    key: str
    http: ClientSession

    @property
    def http_uri(self) -> str | None:
        """Where the worker takes live HTTP; ``None``: the app speaks the classic way."""

    async def invoke(self, function: Function, inputs: Mapping[str, Any], *, invocation: str = "") -> Any:
        """Call a function."""

    def note(self, error: BaseException) -> None:
        """Put into the log why a request could not be answered."""

    def client_input(self) -> str:
        """What a durable client is given."""


def create_front(host: Host, functions: tuple[Function, ...], prefix: str, durable: list[Route]) -> Starlette:
    """The front of a loaded app.

    Args:
        host: Calls the functions.
        functions: The app's.
        prefix: Of the routes, as host.json has it.
        durable: The durable extension's.
    """
    routes = [_route(host, each, prefix) for each in functions if each.binding("httpTrigger")]
    app = Starlette(
        routes=[*routes, *durable],
        # What is not there is a 404 without a word, and so is a method that a route doesn't have.
        exception_handlers={HTTPException: _not_found},
    )
    app.router.redirect_slashes = False
    return app


def _route(host: Host, function: Function, prefix: str) -> Route:
    binding = function.binding("httpTrigger") or {}
    path = f"/{prefix}/{binding['route']}" if prefix else f"/{binding['route']}"
    route = Route(path, _HttpFunction(host, function), methods=list(binding["methods"]))
    # Which Starlette adds to GET and the platform does not.
    (route.methods or set()).discard("HEAD")
    return route


async def _not_found(_request: Request, _error: Exception) -> Response:
    return Response(status_code=404)


class _HttpFunction:
    """One function with an HTTP trigger."""

    def __init__(self, host: Host, function: Function) -> None:
        self._host = host
        self._function = function
        self._trigger = function.binding("httpTrigger") or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if not self._is_allowed(request):
            await Response(status_code=401)(scope, receive, send)
        elif self._host.http_uri is None:
            await self._classic(request, send)
        else:
            await _Forwarding(self._host, request, send).run(self._function, self._inputs(request, b""))

    def _is_allowed(self, request: Request) -> bool:
        if not self._host.key or str(self._trigger["authLevel"]).upper() == "ANONYMOUS":
            return True
        given = request.headers.get("x-functions-key") or request.query_params.get("code", "")
        return hmac.compare_digest(given.encode(), self._host.key.encode())

    def _inputs(self, request: Request, body: bytes) -> dict[str, Any]:
        content = {
            "method": request.method,
            "url": str(request.url),
            "headers": dict(request.headers),
            "params": request.path_params,
            "query": dict(request.query_params),
            "body": {"bytes": base64.b64encode(body).decode()},
        }
        inputs: dict[str, Any] = {str(self._trigger["name"]): {"http": content}}
        if (client := self._function.binding("durableClient")) is not None:
            inputs[str(client["name"])] = {"string": self._host.client_input()}
        return inputs

    async def _classic(self, request: Request, send: Send) -> None:
        """The request in one message, the response in another."""
        try:
            inputs = self._inputs(request, await request.body())
            returned = await self._host.invoke(self._function, inputs)
        except (InvocationFailed, WorkerLost, TimeoutError) as error:
            self._host.note(error)
            response = Response(status_code=500)
        except ClientDisconnect:
            return
        else:
            response = _from_message(returned)
        await response(request.scope, request.receive, send)


def _from_message(returned: Mapping[str, Any] | None) -> Response:
    if returned is None:
        return Response(status_code=204)
    if "http" not in returned:
        [text] = returned.values()
        return Response(str(text), media_type="text/plain")
    http = returned["http"]
    body = http["body"] or {}
    content = base64.b64decode(body["bytes"]) if "bytes" in body else str(body.get("string", "")).encode()
    response = Response(content, status_code=http["status"], headers=http["headers"])
    for name, value in http["cookies"]:
        response.set_cookie(name, value)
    return response


class _Forwarding:
    """The live way: the request is passed on to the worker's own HTTP server, the response passed back."""

    def __init__(self, host: Host, request: Request, send: Send) -> None:
        self._host = host
        self._request = request
        self._send = send
        self._body_read = asyncio.Event()
        self._has_begun = False

    async def run(self, function: Function, inputs: Mapping[str, Any]) -> None:
        """Tell the worker of the invocation, and pass on what its server and the client say."""
        invocation = str(uuid.uuid4())
        work = asyncio.create_task(self._both(function, inputs, invocation))
        leaving = asyncio.create_task(self._until_client_leaves())
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait({leaving})
        if not work.done():
            # Its end of the connection to the worker is closed; the invocation itself goes on.
            await cancel_and_wait({work})
            return
        with suppress(asyncio.CancelledError):
            await self._report(work)

    async def _report(self, work: asyncio.Task[None]) -> None:
        try:
            await work
        except (InvocationFailed, WorkerLost, TimeoutError, ClientError) as error:
            self._host.note(error)
            if self._has_begun:
                # Closes the connection without the response's end.
                raise
            await Response(status_code=502)(self._request.scope, self._request.receive, self._send)

    async def _both(self, function: Function, inputs: Mapping[str, Any], invocation: str) -> None:
        """Over when the function has returned and its response has been sent."""
        invoking = asyncio.create_task(self._host.invoke(function, inputs, invocation=invocation))
        invoking.add_done_callback(_retrieve)
        await self._forward(invocation)
        await asyncio.shield(invoking)

    async def _forward(self, invocation: str) -> None:
        scope = self._request.scope
        query = f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
        headers = [(n, v) for n, v in self._request.headers.items() if n not in _HOP_BY_HOP]
        has_body = any(name in self._request.headers for name in ("content-length", "transfer-encoding"))
        if not has_body:
            self._body_read.set()
        async with self._host.http.request(
            scope["method"],
            URL(f"{self._host.http_uri}{scope['raw_path'].decode()}{query}", encoded=True),
            headers=CIMultiDict([*headers, ("x-ms-invocation-id", invocation)]),
            data=self._body() if has_body else None,
            allow_redirects=False,
            skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
        ) as response:
            raw = [
                (name.lower(), value)
                for name, value in response.raw_headers
                if name.lower().decode() not in _HOP_BY_HOP
            ]
            self._has_begun = True
            await self._send({"type": "http.response.start", "status": response.status, "headers": raw})
            async for piece in response.content.iter_any():
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _body(self) -> AsyncIterator[bytes]:
        async for piece in self._request.stream():
            yield piece
        self._body_read.set()

    async def _until_client_leaves(self) -> None:
        await self._body_read.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Have an error count as seen: its client may have left."""
    if not task.cancelled():
        task.exception()
