"""Streams whose writers publish nothing, where Redis says which of them have changed.

Each is read by a command of its own: on a cluster, with a connection to each server, it is the same. Reasons:
docs/decisions/0013.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from streaming.cancellation import cancel_and_wait
from streaming.commands import Commands
from streaming.connections import server_of
from streaming.outage import RETRY_PAUSE
from streaming.reading.blocking_reads import BlockingReads
from streaming.reading.live_stream import LiveStream
from streaming.reading.tracked_connection import Broke, NotTold, TrackedConnection
from streaming.telemetry import Telemetry

_log = logging.getLogger(__name__)

#: A server that does not say what changes is asked for it again after this time: it may be another by then.
ASKED_AGAIN_AFTER: Final = timedelta(minutes=10)
#: So often in a row a connection may break as it is asked for that: a proxy may close it.
CHANCES: Final = 3


class TrackedReads:
    """Reads the streams whose writers publish nothing, once they have changed."""

    def __init__(
        self,
        commands: Commands,
        telemetry: Telemetry,
        look_at: Callable[[LiveStream], None],
        otherwise: BlockingReads,
    ) -> None:
        """Read from the server of ``commands``.

        Args:
            commands: Those of the event loop.
            telemetry: Is told how Redis does.
            look_at: Reads one stream, some time soon, wherever it is.
            otherwise: Reads where Redis does not say what changes.
        """
        self._commands = commands
        self._telemetry = telemetry
        self._look_at = look_at
        self._otherwise = otherwise
        #: By the loop's clock.
        self._asked_again_at = 0.0
        self._broken_in_a_row = 0
        self._connections: dict[str, TrackedConnection] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closed = False

    async def close(self) -> None:
        """Read no more."""
        self._is_closed = True
        await cancel_and_wait(self._tasks.values())
        await self._otherwise.close()

    def follows(self, stream: LiveStream) -> bool:
        """Whether what comes to a stream without a message is seen."""
        is_told_of = stream.is_foreign and self._connection_of(stream) is not None
        return is_told_of or self._otherwise.follows(stream)

    def follow(self, stream: LiveStream) -> None:
        """Read a stream as long as it is foreign."""
        if self._is_closed or not stream.is_foreign:
            return
        if asyncio.get_running_loop().time() < self._asked_again_at:
            self._otherwise.follow(stream)
        elif self._connection_of(stream) is None:
            self._otherwise.leave(stream)
            server = server_of(self._commands.redis, stream.keys.stream)
            connection = self._connections.get(server)
            if connection is None:
                connection = self._connections[server] = TrackedConnection(self._telemetry, self._refused)
                self._tasks[server] = asyncio.create_task(
                    self._keep(server, connection), name="stream-tracked-reads"
                )
            connection.follow(stream)

    def leave(self, stream: LiveStream) -> None:
        """Read a stream no more: it has no readers."""
        self._otherwise.leave(stream)
        for connection in self._connections.values():
            connection.leave(stream)

    def missed(self, stream: LiveStream) -> None:
        """Somebody else has found an entry.

        Its server may be another since it was read there. And where one has never said that anything has
        changed, it is not believed any more: a proxy may take the command and know nothing of it.
        """
        connection = self._connection_of(stream)
        if connection is not None and connection.missed(stream):
            connection.leave(stream)
            self.follow(stream)

    def _connection_of(self, stream: LiveStream) -> TrackedConnection | None:
        for connection in self._connections.values():
            if connection.follows(stream):
                return connection
        return None

    async def _keep(self, server: str, connection: TrackedConnection) -> None:
        is_lost = False
        try:
            await connection.run(self._commands.redis)
        except NotTold as error:
            self._do_without(str(error))
        except Exception as error:  # noqa: BLE001 - readers are given nothing without this task
            self._telemetry.redis_failed("tracked_read", error)
            is_lost = True
            self._broken_in_a_row = self._broken_in_a_row + 1 if isinstance(error, Broke) else 0
            if self._broken_in_a_row >= CHANCES:
                self._do_without("it closes the connection")
            await asyncio.sleep(RETRY_PAUSE.total_seconds())
        else:
            self._broken_in_a_row = 0
        del self._connections[server], self._tasks[server]
        for stream in connection.streams:
            if is_lost:
                # Nothing may be told of for a while; and on a cluster whoever has it now is learned by that.
                self._look_at(stream)
            self.follow(stream)

    def _do_without(self, reason: str) -> None:
        if not self._asked_again_at:
            _log.info("streams of foreign writers are read without being told what changed: %s", reason)
        self._asked_again_at = asyncio.get_running_loop().time() + ASKED_AGAIN_AFTER.total_seconds()
        self._broken_in_a_row = 0

    def _refused(self, stream: LiveStream, error: Exception) -> None:
        _log.debug("stream not read: error=%s", type(error).__name__)
        loop = asyncio.get_running_loop()
        # As it says why, and where the stream is now, if it is elsewhere.
        loop.call_later(RETRY_PAUSE.total_seconds(), self._look_at, stream)
        loop.call_later(2 * RETRY_PAUSE.total_seconds(), self.follow, stream)
