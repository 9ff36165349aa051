"""The HTTP routes of the push, the same on both hosts: docs/protocol.md, section 7.

Who may connect, and who may join a conversation. The service itself decides who hears what by its groups, so
nobody gets into a group but by ``join-group``, which checks the conversation's own token.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from bridges.signalr.audience import Audience
from bridges.signalr.service_client import SignalRServiceClient
from bridges.signalr.users import USER_HEADER, Users
from streaming.access_settings import AccessSettings
from streaming.errors import InvalidInput, StreamingError, Unauthorized
from streaming.http.access import Access, Needs
from streaming.http.endpoints import Endpoints
from streaming.http.messages import HttpRequest, HttpResponse, json_response
from streaming.http.routes import Route
from streaming.identifiers import check_conversation_id, new_id

#: No proxy or browser may keep what lets somebody in.
_PRIVATE: Final = {"cache-control": "no-store"}
#: Characters of a connection's id. The service's have 43.
_MAX_CONNECTION_ID: Final = 256


@dataclass(frozen=True, slots=True)
class PushRoutes:
    """The routes' logic. Its parts are asked for on the event loop that serves the request."""

    #: Raises ``PushUnavailable`` where there is no service to push by.
    client: Callable[[], SignalRServiceClient]
    audience: Callable[[], Audience]
    #: With secrets, also where the host has set none.
    access: AccessSettings
    #: How long a client may connect with what ``negotiate`` gives it.
    token_ttl: timedelta

    def routes(self) -> tuple[Route, ...]:
        """What the hosts are to answer."""
        return (
            Route("POST", "/api/agent/negotiate", self.negotiate, Needs.MEMBER),
            Route("GET", "/api/agent/negotiate", self.negotiate_by_get, Needs.MEMBER),
            Route("POST", "/api/agent/create-thread", self.create_thread, Needs.KEY),
            Route("POST", "/api/agent/join-group", self.join_group, Needs.MEMBER),
        )

    async def negotiate(self, _endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """Tell a client where to connect, as whom, and what lets it in."""
        client = self.client()
        user = self._users.of(request) or Users.new()
        user_token, expires_at = self._users.token(user)
        answer = {
            "url": client.client_url,
            "accessToken": await client.client_token(user, self.token_ttl),
            "userToken": user_token,
            "userTokenExpiresAt": expires_at.isoformat(timespec="seconds"),
        }
        return json_response(200, answer, _PRIVATE)

    async def negotiate_by_get(self, endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """The same, for those who ask with GET."""
        return await self.negotiate(endpoints, request)

    async def create_thread(self, _endpoints: Endpoints, _request: HttpRequest) -> HttpResponse:
        """Make a conversation's id, and the token that lets its bearer join it."""
        conversation_id = new_id()
        await self.audience().open(conversation_id)
        token = Access(self.access).issue(conversation_id)
        names = dict.fromkeys(("thread_id", "conversation_id", "session_id"), conversation_id)
        return json_response(200, names | (token.fields if token else {}), _PRIVATE)

    async def join_group(self, _endpoints: Endpoints, request: HttpRequest) -> HttpResponse:
        """Have a user, or else one connection, told of a conversation's runs."""
        client = self.client()
        body = _json_object(request.body)
        group = check_conversation_id(_text(body, "group") or "")
        user = self._users.of(request)
        connection = _text(body, "connectionId")
        if user is None and (not connection or len(connection) > _MAX_CONNECTION_ID):
            raise InvalidInput(
                "connectionId", connection, f"a connection's id, or a user token as the header {USER_HEADER}"
            )
        audience = self.audience()
        is_claim = await self._admit(request, group, user, audience)
        try:
            if user is not None:
                await client.add_user_to_group(group, user, self.access.token_ttl)
            else:
                await client.add_connection_to_group(group, connection or "")
        except StreamingError:
            if is_claim:
                # Its maker will try again.
                await audience.open(group)
            raise
        if not is_claim:
            await audience.joined(group)
        return json_response(200, {"status": "joined", "group": group}, _PRIVATE)

    async def _admit(self, request: HttpRequest, group: str, user: str | None, audience: Audience) -> bool:
        """Let a request join. Whether it did so by being the first on a new thread.

        The page of the published sample has no tokens. Where the host asks for none, the connection that
        comes first to a new thread is its maker's: nobody else knows the thread's id yet.
        """
        try:
            Access(self.access).check_joining(request, group)
        except Unauthorized:
            if user is not None or not await audience.claim(group):
                raise
            return True
        return False

    @property
    def _users(self) -> Users:
        return Users(self.access)


def with_secrets(access: AccessSettings, secret: str) -> AccessSettings:
    """Access settings that have tokens: those of the host, or else ones signed with ``secret``."""
    return access if access.uses_tokens else replace(access, token_secrets=(secret,))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InvalidInput("body", body[:20], 'a JSON object such as {"group": "…", "connectionId": "…"}')
    return content


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(name, value, "a string")
    return value
