"""The SignalR service's REST interface: sends to groups and users, and says who is in which group.

It knows the service, and neither streams nor agents. There is no vendor's package for Python.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Protocol, Self
from urllib.parse import quote, urlsplit

import httpx
import jwt

from bridges.signalr.errors import PushRefused, PushUnavailable, UnknownConnection
from bridges.signalr.settings import EntraSignIn, SignalRAddress

#: The versions of the interface: the first that has all of these, and the first that gives tokens.
API_VERSION: Final = "2022-06-01"
TOKEN_API_VERSION: Final = "2024-12-01"  # noqa: S105 - a version, no secret
_ALGORITHM: Final = "HS256"
#: What Entra ID's tokens for the service are for.
_SCOPE: Final = "https://signalr.azure.com/.default"
#: A token of ours goes with one request; this is for clocks that differ.
_REQUEST_TOKEN_LIFE: Final = timedelta(minutes=5)

#: A connection to the service is opened within this time or the service counts as away.
CONNECT_TIMEOUT: Final = timedelta(seconds=3)
#: A request is answered within this time or the service counts as away: it answers before it delivers.
ANSWER_TIMEOUT: Final = timedelta(seconds=5)
#: Connections of one event loop. Requests share them; the next one waits.
MAX_CONNECTIONS: Final = 32
#: How often a request is sent that met a passing fault, and how long is waited before the second and third.
TRIES: Final = 3
RETRY_FIRST: Final = timedelta(milliseconds=100)

_HOST_NAMES_OF_THIS_MACHINE: Final = ("127.0.0.1", "localhost", "::1")


class Credential(Protocol):
    """What ``azure.identity.aio`` calls a credential."""

    async def get_token(self, *scopes: str) -> Any:
        """A token with its ``token`` and ``expires_on``."""

    async def close(self) -> None:
        """Close its connections."""


class SignalRServiceClient:
    """One hub of a SignalR service. Belongs to the event loop that uses it first.

    All of its calls raise ``PushUnavailable`` where the service does not answer or is too busy, after
    ``TRIES``, and ``PushRefused`` where it never will.
    """

    def __init__(self, address: SignalRAddress, hub: str, *, credential: Credential | None = None) -> None:
        """Use ``hub`` of the service at ``address``.

        Args:
            address: Where it is, and how to sign in.
            hub: The hub's name.
            credential: Signs in in place of the one that ``address`` asks for.
        """
        self._address = address
        self._hub = hub
        self._credential = credential
        host = urlsplit(address.endpoint).hostname
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(ANSWER_TIMEOUT.total_seconds(), connect=CONNECT_TIMEOUT.total_seconds()),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS),
            # A proxy of the environment is for the way out of this machine.
            trust_env=host not in _HOST_NAMES_OF_THIS_MACHINE,
        )

    async def __aenter__(self) -> Self:
        """Enter; nothing is opened before it is needed."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        if self._credential is not None:
            await self._credential.close()

    async def send(
        self,
        *,
        target: str,
        arguments: Sequence[Any],
        group: str | None = None,
        user_id: str | None = None,
    ) -> None:
        """Call ``target`` on the clients of a group, or of a user, or else of the whole hub."""
        at = f"/groups/{_segment(group)}" if group is not None else ""
        at = f"/users/{_segment(user_id)}" if user_id is not None and not at else at
        await self._request("POST", f"{at}/:send", {"target": target, "arguments": list(arguments)})

    async def add_user_to_group(self, group: str, user_id: str, ttl: timedelta) -> None:
        """Have a user's connections in a group, those that are to come too, for a while."""
        path = f"/users/{_segment(user_id)}/groups/{_segment(group)}"
        await self._request("PUT", path, query={"ttl": str(int(ttl.total_seconds()))})

    async def remove_user_from_group(self, group: str, user_id: str) -> None:
        """Take all of a user's connections out of a group."""
        await self._request("DELETE", f"/users/{_segment(user_id)}/groups/{_segment(group)}")

    async def add_connection_to_group(self, group: str, connection_id: str) -> None:
        """Have one connection in a group, for as long as it lasts.

        Raises:
            UnknownConnection: there is no such connection.
        """
        await self._request("PUT", f"/groups/{_segment(group)}/connections/{_segment(connection_id)}")

    async def remove_connection_from_group(self, group: str, connection_id: str) -> None:
        """Take one connection out of a group.

        Raises:
            UnknownConnection: there is no such connection.
        """
        await self._request("DELETE", f"/groups/{_segment(group)}/connections/{_segment(connection_id)}")

    async def client_token(self, user_id: str, ttl: timedelta) -> str:
        """What lets a client connect as this user for a while."""
        if self._address.access_key is None:
            # Whoever signed in with Entra ID has no key to sign with: the service does it.
            query = {"userId": user_id, "minutesToExpire": str(max(1, round(ttl / timedelta(minutes=1))))}
            answer = await self._request("POST", "/:generateToken", query=query, version=TOKEN_API_VERSION)
            token = answer.json().get("token")
            if not isinstance(token, str):
                raise PushUnavailable
            return token
        return self._sign(self._address.client_audience(self._hub), ttl, {"nameid": user_id})

    @property
    def client_url(self) -> str:
        """Where clients connect."""
        return self._address.client_url(self._hub)

    async def _request(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        version: str = API_VERSION,
    ) -> httpx.Response:
        url = f"{self._address.endpoint}/api/hubs/{self._hub}{path}"
        pause = RETRY_FIRST.total_seconds()
        for left in reversed(range(TRIES)):
            try:
                response = await self._http.request(
                    method,
                    url,
                    params={**(query or {}), "api-version": version},
                    json=content,
                    headers={"authorization": f"Bearer {await self._bearer(url)}"},
                )
            except httpx.HTTPError as error:
                if not left:
                    raise PushUnavailable from error
            else:
                if response.is_success:
                    return response
                if not left or not _is_passing(response):
                    raise _refusal(response)
            await asyncio.sleep(pause)
            pause *= 2
        raise PushUnavailable

    async def _bearer(self, url: str) -> str:
        """What a request to this URL carries.

        Raises:
            PushUnavailable: Entra ID gives no token.
        """
        if self._address.entra is None:
            return self._sign(url, _REQUEST_TOKEN_LIFE, {})
        if self._credential is None:
            self._credential = _credential(self._address.entra)
        try:
            return str((await self._credential.get_token(_SCOPE)).token)
        except Exception as error:
            raise PushUnavailable("Entra ID gives no token for the SignalR service.") from error

    def _sign(self, audience: str, life: timedelta, claims: Mapping[str, Any]) -> str:
        now = int(time.time())
        content = {"aud": audience, "iat": now, "exp": now + int(life.total_seconds()), **claims}
        return jwt.encode(content, self._address.access_key or "", algorithm=_ALGORITHM)


def _is_passing(response: httpx.Response) -> bool:
    return response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error


def _refusal(response: httpx.Response) -> Exception:
    if _is_passing(response):
        return PushUnavailable()
    if response.status_code == httpx.codes.NOT_FOUND and "/connections/" in response.url.path:
        return UnknownConnection()
    return PushRefused(f"The SignalR service refused a request with status {response.status_code}.")


def _segment(value: str) -> str:
    return quote(value, safe="")


def _credential(entra: EntraSignIn) -> Credential:
    # Only where it is asked for: the package is large.
    from azure.identity import aio  # noqa: PLC0415

    if entra.client_secret and entra.tenant_id and entra.client_id:
        return aio.ClientSecretCredential(entra.tenant_id, entra.client_id, entra.client_secret)
    if entra.managed_identity:
        return aio.ManagedIdentityCredential(client_id=entra.client_id)
    return aio.DefaultAzureCredential(managed_identity_client_id=entra.client_id)
