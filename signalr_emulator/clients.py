"""What clients do: negotiate, connect by WebSocket, listen."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from signalr_emulator.hub import Connection, Hub, HubFull, Hubs
from signalr_emulator.hub_protocol import (
    HANDSHAKE_DONE,
    PING,
    HubProtocolError,
    Incoming,
    check_handshake,
    check_message,
    handshake_refused,
)
from signalr_emulator.tokens import TokenRefused, Tokens, client_paths, user_of

#: A client says which protocol it speaks within this time.
HANDSHAKE_TIMEOUT: Final = timedelta(seconds=15)
#: A silent client hears this often that the service is there: it gives up after 30 s of silence.
PING_INTERVAL: Final = timedelta(seconds=10)
#: A client that says nothing for so long is gone: it would have sent a ping every 15 s.
SILENCE_LIMIT: Final = timedelta(seconds=60)
#: Characters of one message from a client.
MAX_MESSAGE: Final = 65_536
#: The only transport, and its only form.
_TRANSPORTS: Final = [{"transport": "WebSockets", "transferFormats": ["Text"]}]
_POLICY_VIOLATION: Final = 1008
_BEARER: Final = "bearer "
_ID_BYTES: Final = 16


class Clients:
    """The clients' side of the service."""

    def __init__(self, hubs: Hubs, tokens: Tokens) -> None:
        self._hubs = hubs
        self._tokens = tokens

    async def negotiate(self, request: Request) -> Response:
        """Tell a client how to connect."""
        try:
            self._admit(request)
        except TokenRefused as refused:
            return JSONResponse({"error": str(refused)}, 401)
        connection_id = secrets.token_urlsafe(_ID_BYTES)
        answer: dict[str, Any] = {"connectionId": connection_id, "availableTransports": _TRANSPORTS}
        if request.query_params.get("negotiateVersion", "0") != "0":
            answer |= {"negotiateVersion": 1, "connectionToken": connection_id}
        return JSONResponse(answer)

    async def connect(self, socket: WebSocket) -> None:
        """Serve a client for as long as it is there."""
        try:
            hub, user = self._admit(socket)
        except TokenRefused as refused:
            await socket.send_denial_response(JSONResponse({"error": str(refused)}, 401))
            return
        connection_id = socket.query_params.get("id") or secrets.token_urlsafe(_ID_BYTES)
        if connection_id in hub.connections:
            await socket.send_denial_response(JSONResponse({"error": "The id is taken."}, 409))
            return
        await socket.accept()
        connection = Connection(connection_id, user)
        try:
            await self._serve(socket, hub, connection)
        except (WebSocketDisconnect, TimeoutError):
            # The client has left, without a word or in silence.
            pass
        finally:
            hub.connections.pop(connection.id, None)

    async def _serve(self, socket: WebSocket, hub: Hub, connection: Connection) -> None:
        incoming = Incoming(MAX_MESSAGE)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT.total_seconds()):
                while not (first := incoming.feed(await socket.receive_text())):
                    pass
            check_handshake(first[0])
            self._hubs.connect(hub, connection)
        except (HubProtocolError, HubFull) as error:
            await socket.send_text(handshake_refused(str(error) or "The service is full."))
            await socket.close(_POLICY_VIOLATION)
            return
        await socket.send_text(HANDSHAKE_DONE)
        listening = asyncio.create_task(_listen(socket, incoming, connection), name="signalr-client")
        try:
            await _send(socket, connection, listening)
        finally:
            listening.cancel()
            await asyncio.wait([listening])
        await socket.close()

    def _admit(self, request: HTTPConnection) -> tuple[Hub, str]:
        """The hub and the user that a client's token is for.

        Raises:
            TokenRefused: it has no valid one.
        """
        hub = request.query_params.get("hub", "")
        claims = self._tokens.check(_token(request.headers, request.query_params), *client_paths(hub))
        return self._hubs.get(hub), user_of(claims)


async def _send(socket: WebSocket, connection: Connection, listening: asyncio.Task[None]) -> None:
    """Send what there is, and pings in between, until the connection is closed from either side."""
    upcoming = asyncio.create_task(connection.next())
    try:
        while not listening.done():
            await asyncio.wait(
                {upcoming, listening},
                timeout=PING_INTERVAL.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not upcoming.done():
                if not listening.done():
                    await socket.send_text(PING)
                continue
            message = upcoming.result()
            if message is None:
                return
            upcoming = asyncio.create_task(connection.next())
            await socket.send_text(message)
        listening.result()
    finally:
        upcoming.cancel()
        await asyncio.wait([upcoming])


async def _listen(socket: WebSocket, incoming: Incoming, connection: Connection) -> None:
    """Hear a client until it closes or says what it must not."""
    while True:
        async with asyncio.timeout(SILENCE_LIMIT.total_seconds()):
            text = await socket.receive_text()
        try:
            for message in incoming.feed(text):
                check_message(message)
        except HubProtocolError as error:
            connection.close(str(error), allow_reconnect=False)


def _token(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """A browser can't send headers with a WebSocket, so a query parameter will do."""
    authorization = headers.get("authorization", "")
    if authorization.lower().startswith(_BEARER):
        return authorization[len(_BEARER) :].strip()
    return query.get("access_token", "")
