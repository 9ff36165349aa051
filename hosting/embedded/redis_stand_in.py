"""fakeredis's TCP server where no real one runs (Windows), for ``hosting.embedded.redis_server`` alone.

It speaks enough for the service and for ``redis-cli``, and keeps nothing.
"""

from __future__ import annotations

import asyncio
import io
import select
import socket
import threading
from typing import TYPE_CHECKING, Final

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

#: Connections that wait to be accepted: fifty readers come at once.
_BACKLOG: Final = 128
#: How often the accepting thread looks whether to end.
_SHUTDOWN_POLL_SECONDS: Final = 0.05


class RedisStandIn:
    """A running stand-in. Port 0 takes a free one."""

    def __init__(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port))
        self.port: int = self._server.server_address[1]
        self.kind = "fakeredis stand-in (in memory)"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            args=(_SHUTDOWN_POLL_SECONDS,),
            name="redis-stand-in",
            daemon=True,
        )
        self._thread.start()

    async def stop(self) -> None:
        """Stop serving. Everything that was stored is gone."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(TcpFakeServer):
    request_queue_size = _BACKLOG

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address)
        self.RequestHandlerClass = _Handler


class _Handler(TCPFakeRequestHandler):
    # Otherwise each pipeline waits 44 ms for the acknowledgement of its first reply.
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        # The handler alternates between reading and pushing what was published, so a read must never block.
        # The library sees to that on POSIX only.
        self.connection.settimeout(0)
        self.wfile.close()
        self.wfile = self.writer.writer = _PatientWriter(self.connection)


class _PatientWriter(io.BufferedIOBase):
    """Writes all of a reply to a socket that doesn't block, however slowly its client reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
            except BlockingIOError:
                select.select([], [self._connection], [])
        return memoryview(data).nbytes
