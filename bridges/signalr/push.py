"""The push put together, for composition roots."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis

from bridges.signalr.audience import Audience
from bridges.signalr.callback import SignalRCallback
from bridges.signalr.errors import PushUnavailable
from bridges.signalr.routes import PushRoutes, with_secrets
from bridges.signalr.service_client import SignalRServiceClient
from bridges.signalr.settings import CONNECTION_STRING, SignalRAddress, SignalRSettings
from streaming.access_settings import AccessSettings
from streaming.commands import Commands
from streaming.errors import SettingsError
from streaming.http.routes import Route
from streaming.loop_local import LoopLocal
from streaming.reading.reader import StreamReader

#: What the access key signs besides the service's own tokens, kept apart from these.
_PURPOSE: Final = b"agent-stream tokens"
NOT_SET_UP: Final = (
    "Push is not set up here: set AZURE_SIGNALR_CONNECTION_STRING, or read the stream over HTTP instead."
)


@dataclass(frozen=True, slots=True)
class SignalRPush:
    """What a host needs of the push."""

    routes: tuple[Route, ...]
    #: ``None``: there is no service to push by; the routes say so.
    callback: SignalRCallback | None
    _clients: LoopLocal[SignalRServiceClient]
    _commands: LoopLocal[Commands]

    @property
    def observers(self) -> tuple[SignalRCallback, ...]:
        """For ``hosting.callbacks.Callbacks``."""
        return () if self.callback is None else (self.callback,)

    async def aclose(self) -> None:
        """Stop pushing, and close the running loop's connections."""
        if self.callback is not None:
            await self.callback.aclose()
        if client := self._clients.discard():
            await client.aclose()
        if commands := self._commands.discard():
            await commands.redis.aclose()


def create_push(
    settings: SignalRSettings,
    access: AccessSettings,
    *,
    reader: Callable[[], StreamReader],
    connect: Callable[[], Redis],
) -> SignalRPush:
    """Put the push together. Nothing is connected before its first use.

    Args:
        settings: Without an address there is no push, and the routes say so.
        access: Who may use the host. Where it has no tokens, the push has some of its own.
        reader: The running loop's reader of streams.
        connect: Makes a Redis client for the running loop.

    Raises:
        SettingsError: there is nothing to sign the push's own tokens with.
    """
    address = settings.address
    push_access = with_secrets(access, _token_secret(address, access))

    def new_client() -> SignalRServiceClient:
        if address is None:
            raise PushUnavailable(NOT_SET_UP)
        return SignalRServiceClient(address, settings.hub)

    clients, commands = LoopLocal(new_client), LoopLocal(lambda: Commands(connect()))

    def audience() -> Audience:
        return Audience(commands.get(), push_access.token_ttl)

    routes = PushRoutes(
        client=clients.get,
        audience=audience,
        access=push_access,
        token_ttl=settings.token_ttl,
    )
    callback = None if address is None else SignalRCallback(reader, clients.get, audience)
    return SignalRPush(routes.routes(), callback, clients, commands)


def _token_secret(address: SignalRAddress | None, access: AccessSettings) -> str:
    """What signs tokens where the host has set no secrets: the same in all of a service's processes."""
    if address is None or access.uses_tokens:
        return secrets.token_hex(hashlib.sha256().digest_size)
    if address.access_key is None:
        raise SettingsError(
            CONNECTION_STRING[0],
            "signs in with Entra ID, which has no key to sign tokens with: set STREAM_TOKEN_SECRETS too.",
        )
    return hmac.new(address.access_key.encode(), _PURPOSE, hashlib.sha256).hexdigest()
