"""The emulator as a server: on loopback, inside of whatever process starts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, WebSocketRoute

from signalr_emulator.clients import MAX_MESSAGE, Clients
from signalr_emulator.hub import Hubs
from signalr_emulator.rest import Rest
from signalr_emulator.tokens import Tokens

#: It is a tool for one machine: nothing else can reach it.
HOST: Final = "127.0.0.1"
_NAMES: Final = (HOST, "localhost")
_KEY_BYTES: Final = 32
#: Seconds for clients to close when the emulator stops.
_STOP_SECONDS: Final = 1


class SignalREmulatorError(Exception):
    """The emulator can't start."""


class SignalREmulator:
    """A running emulator. Use it as an async context manager."""

    def __init__(self, access_key: str, *, port: int = 0) -> None:
        """Describe it.

        Args:
            access_key: Signs tokens; see ``kept_access_key``.
            port: Where it listens on 127.0.0.1; 0 takes a free port.
        """
        self._access_key = access_key
        self._wanted_port = port
        self._hubs = Hubs()
        self._listener: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if self._listener is None:
            raise SignalREmulatorError("The emulator is not running.")
        return int(self._listener.getsockname()[1])

    @property
    def endpoint(self) -> str:
        """What applications and clients connect to."""
        return f"http://{HOST}:{self.port}"

    @property
    def connection_string(self) -> str:
        """What an application is given, as the service's portal would."""
        return f"Endpoint={self.endpoint};AccessKey={self._access_key};Version=1.0;"

    async def __aenter__(self) -> Self:
        """Start, and be ready."""
        try:
            self._listener = socket.create_server((HOST, self._wanted_port))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "not possible"
            raise SignalREmulatorError(f"Can't listen on {HOST}:{self._wanted_port} ({reason}).") from None
        self._server = _Server(
            uvicorn.Config(
                self._app(),
                ws="wsproto",
                ws_max_size=MAX_MESSAGE,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
        )
        self._serving = asyncio.create_task(self._server.serve([self._listener]), name="signalr-emulator")
        await self._server.is_ready.wait()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell clients to come back; then stop."""
        for connection in self._hubs.all():
            connection.close(allow_reconnect=True)
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait([self._serving])
        if self._listener is not None:
            self._listener.close()

    def _app(self) -> Starlette:
        tokens = Tokens(self._access_key, tuple(f"http://{name}:{self.port}" for name in _NAMES))
        clients = Clients(self._hubs, tokens)
        app = Starlette(
            routes=[
                Route("/client/negotiate", clients.negotiate, methods=["POST"]),
                WebSocketRoute("/client/", clients.connect),
                WebSocketRoute("/client", clients.connect),
                *Rest(self._hubs, tokens).routes(),
            ],
            middleware=[
                # Pages of any origin, as the service does: a token decides, and no page has another's. The
                # vendor's client asks with credentials, so the origin has to be named.
                Middleware(
                    CORSMiddleware,
                    allow_origin_regex=".*",
                    allow_methods=["GET", "POST"],
                    allow_headers=["*"],
                    allow_credentials=True,
                )
            ],
        )
        app.router.redirect_slashes = False
        return app


class _Server(uvicorn.Server):
    """Runs beside whatever else the process does: signals are not its business."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        self.is_ready.set()


def kept_access_key(path: Path) -> str:
    """The key in a file, made where there is none: tokens stay good over a restart.

    Raises:
        OSError: the file can't be read or written.
    """
    with contextlib.suppress(FileNotFoundError):
        key = path.read_text(encoding="ascii").strip()
        if key:
            return key
    key = secrets.token_hex(_KEY_BYTES)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nobody else is to read it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(key)
    return key
