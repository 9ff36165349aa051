"""A TCP proxy in front of a service that cuts connections after a random number of bytes of the answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_PIECE: Final = 65_536


class CuttingProxy:
    """Forwards to a port of loopback."""

    def __init__(self, port: int, *, longest: int, chance: random.Random) -> None:
        """Cut each connection after at most ``longest`` bytes of its answer."""
        self._port = port
        self._longest = longest
        self._chance = chance
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        #: Connections that were cut.
        self.cuts = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Cut all and listen no more."""
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        up: asyncio.StreamWriter | None = None
        asking: asyncio.Task[None] | None = None
        try:
            answers, up = await asyncio.open_connection("127.0.0.1", self._port)
            asking = asyncio.create_task(_forward(reader, up))
            await self._forward_some(answers, writer)
        except (OSError, asyncio.CancelledError):
            # The service is away, a side has left, or the test is over.
            return
        finally:
            self._open.discard(task)
            if asking is not None:
                asking.cancel()
            for side in (up, writer):
                if side is not None:
                    side.transport.abort() if self._chance.random() < 0.5 else side.close()

    async def _forward_some(self, answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._chance.randint(0, self._longest)
        while piece := await answers.read(_PIECE):
            writer.write(piece[:left])
            await writer.drain()
            left -= len(piece)
            if left <= 0:
                self.cuts += 1
                return


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()


@asynccontextmanager
async def cutting_proxy(port: int, *, longest: int, seed: int = 7) -> AsyncIterator[CuttingProxy]:
    """A proxy in front of the service on ``port``."""
    proxy = CuttingProxy(port, longest=longest, chance=random.Random(seed))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
