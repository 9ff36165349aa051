"""The outermost layer of the function app: the endpoints as Azure Functions, with streams that are live.

Azure Functions speaks HTTP with Python in two ways, and an app speaks one of them throughout. The classic
way hands over whole requests and takes whole responses. The live way, switched on by importing an
extension, speaks Starlette's types, whose responses can stream; classic handlers, such as Agent
Framework's own, don't even load then. ``StreamingFunctionApp`` answers our routes in either way, and makes
classic handlers work in the live one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar, Final, Protocol, cast, get_type_hints

import azure.durable_functions as df  # type: ignore[import-untyped]  # it has no types of its own
import azure.functions as func
from agent_framework import SupportsAgentRun
from agent_framework_azurefunctions import AgentFunctionApp
from agent_framework_durabletask import AgentResponseCallbackProtocol
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from hosting.functions_hub import FunctionsHub
from hosting.functions_limits import LONGEST_SILENCE
from hosting.log_format import keep_queries_out_of_access_logs
from hosting.starlette_requests import read_body, read_request
from streaming.access_settings import AccessSettings
from streaming.errors import RequestTimedOut, RequestTooLarge
from streaming.http.access import Needs
from streaming.http.delivery import CUT_NOTE
from streaming.http.endpoints import Endpoints
from streaming.http.messages import TEXT_TYPE, HttpRequest, HttpResponse, error_response
from streaming.http.routes import ROUTES, Route
from streaming.http.task_hub import TaskHub

_log = logging.getLogger(__name__)

#: The platform puts this before every route; host.json, ``routePrefix``, has to say the same.
ROUTE_PREFIX: Final = "/api/"
_REQUEST: Final = "req"
_CLIENT: Final = "client"

Handler = Callable[..., Any]


class FunctionsHttp(Protocol):
    """One of the platform's two ways to speak HTTP."""

    request_type: ClassVar[type]
    response_type: ClassVar[type]

    async def read(self, request: Any) -> HttpRequest:
        """Take a request from the platform.

        Raises:
            RequestTooLarge: its body is over the limit.
            RequestTimedOut: its body did not come in time.
        """

    async def answer(self, response: HttpResponse) -> Any:
        """Make what the platform takes for a response."""

    def adapt(self, function: func.Function) -> None:
        """Make the handler of a function, which may be written for the other way, work in this one."""


def choose_http(body_limit: int) -> FunctionsHttp:
    """The live way where its extension is installed, else the classic one."""
    try:
        # Importing it is what switches the platform over, for the whole app.
        import azurefunctions.extensions.http.fastapi  # type: ignore[import-untyped]  # noqa: F401, PLC0415
    except ImportError:
        _log.warning(
            "streams are answered when they are complete: azurefunctions-extensions-http-fastapi, which makes"
            " them live, is not installed"
        )
        return ClassicHttp(body_limit)
    keep_queries_out_of_access_logs()
    return LiveHttp(body_limit)


class StreamingFunctionApp(AgentFunctionApp):
    """Agents as durable entities, and the routes of our HTTP contract in place of the framework's."""

    def __init__(
        self,
        *,
        agents: Sequence[SupportsAgentRun],
        callback: AgentResponseCallbackProtocol,
        endpoints: Callable[[TaskHub], Endpoints],
        http: FunctionsHttp,
        access: AccessSettings | None = None,
        routes: Sequence[Route] = ROUTES,
        callbacks: Mapping[str, AgentResponseCallbackProtocol] | None = None,
    ) -> None:
        """Register the agents and the routes.

        Args:
            agents: Each wrapped in a ``StreamableAgent``.
            callback: Streams their runs.
            endpoints: Called for each request, on the event loop that serves it, with the request's hub.
            http: How the app speaks HTTP; see ``choose_http``.
            access: Says which routes need none of the platform's keys.
            routes: What the app answers.
            callbacks: By an agent's name, what is told of its updates in place of ``callback``.
        """
        super().__init__(default_callback=callback, enable_http_endpoints=False, enable_health_check=False)
        for agent in agents:
            self.add_agent(agent, (callbacks or {}).get(agent.name or ""))
        self._endpoints = endpoints
        self._http = http
        self._access = access or AccessSettings()
        for route in routes:
            self._add_route(route)

    def _add_route(self, route: Route) -> None:
        handler = self._handler(route)
        for decorate in (
            self.durable_client_input(client_name=_CLIENT),
            # The framework's types leave out what its base class has at run time.
            cast("Any", self).route(
                route=route.path.removeprefix(ROUTE_PREFIX),
                methods=[route.method],
                auth_level=_auth_level(route, self._access),
            ),
            self.function_name(route.name),
        ):
            handler = decorate(handler)

    def _handler(self, route: Route) -> Handler:
        async def handle(req: Any, client: df.DurableOrchestrationClient) -> Any:
            try:
                request = await self._http.read(req)
            except (RequestTooLarge, RequestTimedOut) as error:
                return await self._http.answer(error_response(error))
            except ClientDisconnect:
                # Nobody is left to answer; 499 is nginx's word for it, for the log.
                return await self._http.answer(HttpResponse(499))
            hub = FunctionsHub(client, probe_agent=next(iter(self.agents)))
            return await self._http.answer(await route.answer(self._endpoints(hub), request))

        # The platform reads its way to speak HTTP off these.
        handle.__annotations__ = {
            _REQUEST: self._http.request_type,
            _CLIENT: df.DurableOrchestrationClient,
            "return": self._http.response_type,
        }
        return handle

    def get_functions(self) -> list[func.Function]:
        """The functions, as the platform's indexer asks for them."""
        # The framework's types leave out what its base class has at run time.
        functions: list[func.Function] = cast("Any", super()).get_functions()
        for function in functions:
            if function.is_http_function():
                self._http.adapt(function)
        return functions


def _auth_level(route: Route, access: AccessSettings) -> func.AuthLevel:
    """Whether the platform asks for one of its keys. Browsers have none: where tokens are on, these do."""
    is_open = {
        Needs.NOTHING: True,
        Needs.HEALTH: access.health_anonymous is True,
        Needs.METRICS: access.metrics_anonymous,
        Needs.CONVERSATION: access.uses_tokens,
        Needs.MEMBER: access.uses_tokens,
    }
    return func.AuthLevel.ANONYMOUS if is_open.get(route.needs, False) else func.AuthLevel.FUNCTION


class ClassicHttp:
    """Whole requests and whole responses: a stream is answered when it is complete."""

    request_type: ClassVar[type] = func.HttpRequest
    response_type: ClassVar[type] = func.HttpResponse

    def __init__(self, body_limit: int) -> None:
        self._body_limit = body_limit

    async def read(self, request: func.HttpRequest) -> HttpRequest:
        """Take a request from the platform."""
        body = request.get_body()
        if len(body) > self._body_limit:
            raise RequestTooLarge(f"The request body is larger than {self._body_limit} bytes.")
        return HttpRequest(
            path=dict(request.route_params),
            query=dict(request.params),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
        )

    async def answer(self, response: HttpResponse) -> func.HttpResponse:
        """Make what the platform takes for a response."""
        body = response.body
        if isinstance(body, AsyncGenerator):
            body = await _collect(body, is_text=response.headers.get("content-type") == TEXT_TYPE)
        return func.HttpResponse(body, status_code=response.status, headers=response.headers)

    def adapt(self, function: func.Function) -> None:
        """Classic handlers are at home here."""


class LiveHttp:
    """Starlette's requests and responses: a stream's pieces are sent as they come."""

    request_type: ClassVar[type] = Request
    response_type: ClassVar[type] = Response

    def __init__(self, body_limit: int) -> None:
        self._body_limit = body_limit

    async def read(self, request: Request) -> HttpRequest:
        """Take a request from the platform."""
        # The one at the other end is the platform, whoever the client is.
        return replace(await read_request(request, self._body_limit), client="")

    async def answer(self, response: HttpResponse) -> Response:
        """Make what the platform takes for a response."""
        headers = dict(response.headers)
        if isinstance(response.body, AsyncGenerator):
            return _LiveStream(response.body, status_code=response.status, headers=headers)
        return Response(response.body, status_code=response.status, headers=headers)

    def adapt(self, function: func.Function) -> None:
        """Let a handler that is annotated with ``func.HttpRequest`` go on getting one."""
        handler = function.get_user_function()
        hints = get_type_hints(handler)
        trigger = function.get_trigger()
        name = trigger.name if trigger is not None else ""
        if hints.get(name) is not func.HttpRequest:
            return

        @functools.wraps(handler)
        async def adapted(**arguments: Any) -> Response:
            try:
                arguments[name] = await self._to_classic(arguments[name])
            except (RequestTooLarge, RequestTimedOut) as error:
                return await self.answer(error_response(error))
            return _from_classic(await _call(handler, arguments))

        adapted.__annotations__ = {**hints, name: Request, "return": Response}
        _replace_handler(function, adapted)

    async def _to_classic(self, request: Request) -> func.HttpRequest:
        return func.HttpRequest(
            request.method,
            str(request.url),
            headers=request.headers,
            params=dict(request.query_params),
            route_params={key: str(value) for key, value in request.path_params.items()},
            body=await read_body(request, self._body_limit),
        )


class _LiveStream(StreamingResponse):
    """Ends its pieces when the client leaves, also while one of them is on its way to it."""

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], *, status_code: int, headers: dict[str, str]
    ) -> None:
        super().__init__(pieces, status_code=status_code, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)


async def _collect(pieces: AsyncGenerator[bytes, None], *, is_text: bool) -> bytes:
    """All of a stream, or as much as comes in time: a browser's ``EventSource`` comes back for the rest."""
    collected = bytearray()
    try:
        async with asyncio.timeout(LONGEST_SILENCE.total_seconds()), aclosing(pieces):
            async for piece in pieces:
                collected += piece
    except TimeoutError:
        collected += CUT_NOTE if is_text else b""
    return bytes(collected)


async def _call(handler: Handler, arguments: dict[str, Any]) -> Any:
    """Call a classic handler as the platform does: one that is not a coroutine on a thread."""
    if inspect.iscoroutinefunction(handler):
        return await handler(**arguments)
    return await asyncio.to_thread(handler, **arguments)


def _from_classic(answer: func.HttpResponse | str) -> Response:
    if isinstance(answer, str):
        return Response(answer, media_type="text/plain")
    response = Response(answer.get_body(), status_code=answer.status_code)
    # One by one: some, such as cookies, come several times.
    for name, value in answer.headers.items():
        response.headers.append(name, value)
    if "content-type" not in response.headers:
        charset = f"; charset={answer.charset}" if answer.mimetype.startswith("text/") else ""
        response.headers["content-type"] = f"{answer.mimetype}{charset}"
    return response


def _replace_handler(function: func.Function, handler: Handler) -> None:
    """The only place that touches a private name of the platform's library."""
    function._func = handler  # noqa: SLF001 - there is no public way; the durable library does the same
