"""The REST interface, in the version of the published samples (v1) and in those with a date.

Source: https://learn.microsoft.com/azure/azure-signalr/signalr-reference-data-plane-rest-api
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from signalr_emulator.hub import Connection, Hub, Hubs
from signalr_emulator.hub_protocol import invocation
from signalr_emulator.tokens import TokenRefused, Tokens

#: Bytes of a message, as in the service.
MAX_BODY: Final = 1024 * 1024
#: How long a user stays in a group, unless it is said: as in the service, a year.
_LONGEST_STAY: Final = timedelta(days=365)
_DEFAULT_TOKEN_LIFE: Final = timedelta(hours=1)
_BEARER: Final = "bearer "

#: Both versions' prefixes; the dated ones have their verb at the end.
_V1: Final = "/api/v1/hubs/{hub}"
_DATED: Final = "/api/hubs/{hub}"
_GROUP: Final = "/groups/{group}"
_USER: Final = "/users/{user}"
_CONNECTION: Final = "/connections/{connection}"

Answer = Callable[[Hub, Request], Awaitable[Response]]


class Rest:
    """The application's side of the service."""

    def __init__(self, hubs: Hubs, tokens: Tokens) -> None:
        self._hubs = hubs
        self._tokens = tokens

    def routes(self) -> list[Route]:
        """What is answered."""
        routes = [
            self._route("POST", f"{_DATED}/:generateToken", self._generate_token),
            Route("/api/health", _healthy, methods=["GET", "HEAD"]),
            Route("/api/v1/health", _healthy, methods=["GET", "HEAD"]),
        ]
        for place, send in (("", _send_to_all), (_GROUP, _send_to_group), (_USER, _send_to_user)):
            routes += [self._route("POST", f"{_V1}{place}", send)]
            routes += [self._route("POST", f"{_DATED}{place}/:send", send)]
        for prefix in (_V1, _DATED):
            routes += [
                self._route("PUT", f"{prefix}{_GROUP}{_CONNECTION}", _add_connection),
                self._route("DELETE", f"{prefix}{_GROUP}{_CONNECTION}", _remove_connection),
                self._route("DELETE", f"{prefix}{_CONNECTION}", _close_connection),
                self._route("HEAD", f"{prefix}{_USER}{_GROUP}", _is_user_in_group),
            ]
            # The older version has the two the other way round as well.
            for place in (f"{_USER}{_GROUP}", f"{_GROUP}{_USER}"):
                routes += [self._route("PUT", f"{prefix}{place}", _add_user)]
                routes += [self._route("DELETE", f"{prefix}{place}", _remove_user)]
        return routes

    def _route(self, method: str, path: str, answer: Answer) -> Route:
        async def admitted(request: Request) -> Response:
            authorization = request.headers.get("authorization", "")
            token = authorization[len(_BEARER) :] if authorization.lower().startswith(_BEARER) else ""
            try:
                # The path as it was sent: that is what the token is made out to.
                self._tokens.check(token, request.scope["raw_path"].decode("ascii").rstrip("/"))
            except TokenRefused as refused:
                return JSONResponse({"error": str(refused)}, 401)
            return await answer(self._hubs.get(request.path_params["hub"]), request)

        return Route(path, admitted, methods=[method])

    async def _generate_token(self, _hub: Hub, request: Request) -> Response:
        given = request.query_params.get("minutesToExpire", "")
        life = timedelta(minutes=int(given)) if given.isdigit() and int(given) else _DEFAULT_TOKEN_LIFE
        user = request.query_params.get("userId")
        return JSONResponse(
            {"token": self._tokens.client_token(request.path_params["hub"], user, min(life, _LONGEST_STAY))}
        )


async def _healthy(_request: Request) -> Response:
    return Response(status_code=200)


async def _send_to_all(hub: Hub, request: Request) -> Response:
    return await _send(list(hub.connections.values()), request)


async def _send_to_group(hub: Hub, request: Request) -> Response:
    return await _send(hub.in_group(request.path_params["group"]), request)


async def _send_to_user(hub: Hub, request: Request) -> Response:
    return await _send(hub.of_user(request.path_params["user"]), request)


async def _send(connections: Iterable[Connection], request: Request) -> Response:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            return JSONResponse({"error": "The message is larger than 1 MB."}, 413)
    try:
        message = _invocation(bytes(body))
    except (KeyError, TypeError, ValueError, RecursionError):
        return JSONResponse({"error": "Expected {target, arguments}."}, 400)
    for connection in connections:
        connection.put(message)
    return Response(status_code=202)


def _invocation(body: bytes) -> str:
    content = json.loads(body)
    target, arguments = content["target"], content["arguments"]
    if not isinstance(target, str) or not isinstance(arguments, list):
        raise TypeError
    return invocation(target, arguments)


async def _add_connection(hub: Hub, request: Request) -> Response:
    connection = hub.connections.get(request.path_params["connection"])
    if connection is None:
        return JSONResponse({"error": "There is no such connection."}, 404)
    connection.groups.add(request.path_params["group"])
    return Response(status_code=200)


async def _remove_connection(hub: Hub, request: Request) -> Response:
    connection = hub.connections.get(request.path_params["connection"])
    if connection is None:
        return JSONResponse({"error": "There is no such connection."}, 404)
    connection.groups.discard(request.path_params["group"])
    return Response(status_code=200)


async def _close_connection(hub: Hub, request: Request) -> Response:
    connection = hub.connections.get(request.path_params["connection"])
    if connection is not None:
        connection.close(request.query_params.get("reason"), allow_reconnect=False)
    return Response(status_code=202)


async def _add_user(hub: Hub, request: Request) -> Response:
    given = request.query_params.get("ttl", "")
    longest = _LONGEST_STAY.total_seconds()
    seconds = min(float(given), longest) if given.isdigit() and int(given) else longest
    hub.add_user(request.path_params["user"], request.path_params["group"], seconds)
    return Response(status_code=202)


async def _remove_user(hub: Hub, request: Request) -> Response:
    hub.remove_user(request.path_params["user"], request.path_params["group"])
    return Response(status_code=202)


async def _is_user_in_group(hub: Hub, request: Request) -> Response:
    is_in = hub.is_user_in_group(request.path_params["user"], request.path_params["group"])
    return Response(status_code=200 if is_in else 404)
