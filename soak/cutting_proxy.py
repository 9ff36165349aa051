"""A TCP proxy in front of a service that cuts its connections: after so many bytes, or all at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

_PIECE: Final = 65_536
#: Closing with this option resets the connection instead of ending it in good order.
_RESET: Final = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards to one address; ``budget`` says how many bytes of answers each new connection is given."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Forward to ``address``, which may be changed later."""
        self.address = address
        #: Asked for each connection; ``None``: it is never cut.
        self.budget: Callable[[], int | None] = lambda: None
        self.cuts = 0
        #: Away from the network: new connections are refused.
        self.is_down = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """What a client is given."""
        if self._server is None:
            raise RuntimeError("the proxy has not been started")
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cut all and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut_all()
        while self._writers:  # noqa: ASYNC110 - each connection ends in a task of the server's own
            await asyncio.sleep(0)

    def cut_all(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        up_writer = None
        try:
            if self.is_down:
                return
            up_reader, up_writer = await asyncio.open_connection(*self.address)
            both = [
                asyncio.create_task(_forward(reader, up_writer)),
                asyncio.create_task(self._answer(up_reader, writer, self.budget())),
            ]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            _reset(writer)
            if up_writer is not None:
                up_writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None
    ) -> None:
        while piece := await reader.read(_PIECE):
            if budget is not None and len(piece) >= budget:
                self.cuts += 1
                writer.write(piece[:budget])
                await writer.drain()
                return
            budget = None if budget is None else budget - len(piece)
            writer.write(piece)
            await writer.drain()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    handle: socket.socket | None = writer.get_extra_info("socket")
    if handle is not None:
        with contextlib.suppress(OSError):
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def cutting_proxy(address: tuple[str, int]) -> AsyncIterator[CuttingProxy]:
    """A proxy that cuts nothing so far."""
    proxy = CuttingProxy(address)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
