"""The server's protocol with an application of the test's own, and what goes over its sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn

from hosting.http_protocol import bounded_protocol
from hosting.listener import listen
from tests.service import PATIENCE, eventually

#: Of a request's head, in bytes.
LIMIT: Final = 32_768


def exchange(address: tuple[str, int], sent: bytes, *, ends: bool = True) -> bytes:
    """Send bytes, and read what comes until the service closes."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        try:
            connection.sendall(sent)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            # The service has closed; what it said before may still be there.
            pass
        received = b""
        try:
            while piece := connection.recv(65_536):
                received += piece
        except ConnectionError:
            pass
        return received


def answers_of(received: bytes) -> list[int]:
    """The status of each response in what was received."""
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[str, int]]:
    """The server as the standalone host has it, in this process, where its patience can be shortened."""
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(
            app, http=bounded_protocol(LIMIT), ws="none", log_config=None, access_log=False, lifespan="off"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))

        async def is_started() -> bool:
            return server.started

        await eventually(is_started, "the server has started")
        yield listener.getsockname()
        server.should_exit = True
        await serving
