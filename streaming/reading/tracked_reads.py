"""Streams whose writers publish nothing, where Redis says which of them have changed.

Tracking is made for client-side caching: of each key that a connection has read, Redis tells it once that it
has changed (https://redis.io/docs/latest/develop/reference/client-side-caching/). So a stream is read, and
again whenever it is told of. Each is read by a command of its own: on a cluster, with a connection to each
server, it is the same. Reasons: docs/decisions/0013.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from streaming.cancellation import cancel_and_wait
from streaming.commands import Commands
from streaming.connections import own_connection, server_of
from streaming.entries import as_text
from streaming.outage import RETRY_PAUSE
from streaming.reading.blocking_reads import BlockingReads
from streaming.reading.live_stream import LiveStream
from streaming.store.stored_entries import PAGE
from streaming.telemetry import Telemetry
from streaming.wire import Tap, can_be_tapped, tapped

_log = logging.getLogger(__name__)

#: Reads that Redis has not answered yet; more wait here. A page of each is taken in one turn of the loop at
#: the most, and that in a few milliseconds.
READS_UNDER_WAY: Final = 32
#: Redis answers something within this time, at least a ``PING``, or counts as away.
ANSWER_TIMEOUT: Final = timedelta(seconds=10)
#: Then another connection follows, so that whatever the driver does for new ones (signing in anew before a
#: token expires, another master) is done for this one too. All of its streams are read once then.
HELD_AT_MOST: Final = timedelta(minutes=5)

#: Called with a stream that the server does not give, and its reason.
OnRefused = Callable[[LiveStream, RedisError], None]


class _NotTold(Exception):
    """The server does not say what changes."""


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
        self._is_told = True
        self._connections: dict[str, _TrackedConnection] = {}
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
        if not self._is_told:
            self._otherwise.follow(stream)
        elif self._connection_of(stream) is None:
            server = server_of(self._commands.redis, stream.keys.stream)
            connection = self._connections.get(server)
            if connection is None:
                connection = self._connections[server] = _TrackedConnection(self._telemetry, self._refused)
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

        Where the server has never said that anything has changed, it is not believed any more: a proxy may
        take the command and know nothing of it.
        """
        connection = self._connection_of(stream)
        if connection is not None and connection.is_believed and not connection.has_heard:
            connection.disbelieve()

    def _connection_of(self, stream: LiveStream) -> _TrackedConnection | None:
        for connection in self._connections.values():
            if connection.follows(stream):
                return connection
        return None

    async def _keep(self, server: str, connection: _TrackedConnection) -> None:
        is_lost = False
        try:
            await connection.run(self._commands.redis)
        except _NotTold as error:
            if self._is_told:
                _log.info("streams of foreign writers are read without being told what changed: %s", error)
            self._is_told = False
        except Exception as error:  # noqa: BLE001 - readers are given nothing without this task
            self._telemetry.redis_failed("tracked_read", error)
            is_lost = True
            await asyncio.sleep(RETRY_PAUSE.total_seconds())
        del self._connections[server], self._tasks[server]
        for stream in connection.streams:
            if is_lost and self._commands.is_cluster:
                # Whoever has it now is learned by that.
                self._look_at(stream)
            self.follow(stream)

    def _refused(self, stream: LiveStream, error: RedisError) -> None:
        self._telemetry.redis_failed("tracked_read", error)
        loop = asyncio.get_running_loop()
        # As it says why, and where the stream is now, if it is elsewhere.
        loop.call_later(RETRY_PAUSE.total_seconds(), self._look_at, stream)
        loop.call_later(2 * RETRY_PAUSE.total_seconds(), self.follow, stream)


class _TrackedConnection:
    """Reads streams of one server, over one connection, until that is lost or they have no readers."""

    def __init__(self, telemetry: Telemetry, on_refused: OnRefused) -> None:
        self._telemetry = telemetry
        self._on_refused = on_refused
        self._streams: dict[str, LiveStream] = {}
        #: To be read, in this order.
        self._due: deque[LiveStream] = deque()
        #: What each of the replies to come is for; ``None``: a sign of life.
        self._under_way: deque[LiveStream | None] = deque()
        self._flush_is_due = False
        self._tap: Tap | None = None
        self._answered = 0
        self._over = asyncio.Event()
        self._failure: Exception | None = None
        #: Whether the server has said of anything that it has changed.
        self.has_heard = False

    @property
    def streams(self) -> list[LiveStream]:
        """Those that are followed."""
        return list(self._streams.values())

    @property
    def is_believed(self) -> bool:
        """Whether what is asked comes over this connection, and nothing is wrong with it."""
        return self._tap is not None and self._failure is None

    def disbelieve(self) -> None:
        """The server has not said what changed."""
        self._fail(_NotTold("it never says that anything has"))

    def follows(self, stream: LiveStream) -> bool:
        """Whether a stream is read once it has changed."""
        return self._streams.get(stream.keys.stream) is stream

    def follow(self, stream: LiveStream) -> None:
        """Read a stream, and again whenever it has changed."""
        self._streams[stream.keys.stream] = stream
        self._due.append(stream)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def leave(self, stream: LiveStream) -> None:
        """Read a stream no more."""
        if self.follows(stream):
            del self._streams[stream.keys.stream]

    async def run(self, redis: Redis) -> None:
        """Read, for a while at most.

        Raises:
            _NotTold: the server does not say what changes.
            RedisError: Redis is away.
        """
        async with own_connection(redis, next(iter(self._streams), "")) as connection:
            await _track(connection)
            with tapped(connection, self._take, self._over.set) as tap:
                self._tap = tap
                self._flush()
                try:
                    await self._until_over(tap)
                finally:
                    self._tap = None

    async def _until_over(self, tap: Tap) -> None:
        loop = asyncio.get_running_loop()
        over_at = loop.time() + HELD_AT_MOST.total_seconds()
        while self._streams and loop.time() < over_at:
            answered = self._answered
            if not self._under_way:
                self._under_way.append(None)
                tap.write(_pack("PING"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
                    await self._over.wait()
            if self._failure is not None:
                raise self._failure
            if tap.is_lost:
                raise RedisConnectionError("The connection to Redis was lost.")
            if self._answered == answered:
                raise RedisTimeoutError("Redis does not answer.")

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._tap is None:
            return
        packed = []
        while self._due and len(self._under_way) < READS_UNDER_WAY:
            stream = self._due.popleft()
            if not stream.is_foreign:
                # What comes is heard of, or there is nobody to read it.
                self.leave(stream)
                continue
            packed.append(_pack("XRANGE", stream.keys.stream, f"({stream.tail_text}", "+", "COUNT", PAGE))
            self._under_way.append(stream)
        if packed:
            self._tap.write(b"".join(packed))

    def _take(self, replies: list[Any]) -> None:
        for reply in replies:
            if isinstance(reply, hiredis.PushNotification):
                self._hear(reply)
            elif not self._under_way:
                self._fail(RedisConnectionError("Redis answered what was not asked."))
                return
            else:
                self._answered += 1
                self._take_reply(self._under_way.popleft(), reply)
        self._telemetry.redis_answered()
        self._flush()

    def _take_reply(self, stream: LiveStream | None, reply: Any) -> None:
        if isinstance(reply, RedisConnectionError):
            self._fail(reply)
        elif stream is None:
            return
        elif isinstance(reply, RedisError):
            self.leave(stream)
            self._on_refused(stream, reply)
        else:
            stream.take_stored(reply)
            if len(reply) == PAGE:
                self._due.append(stream)

    def _hear(self, push: Any) -> None:
        """Some keys have changed; ``None``: all. Each is told of once after each time that it was read."""
        kind, *rest = push
        if as_text(kind) != "invalidate":
            return
        self.has_heard = True
        keys = self._streams if rest[0] is None else map(as_text, rest[0])
        self._due.extend(stream for key in keys if (stream := self._streams.get(key)) is not None)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._over.set()


def _pack(*command: Any) -> bytes:
    packed: bytes = hiredis.pack_command(command)
    return packed


async def _track(connection: AbstractConnection) -> None:
    """Let the server say what changes of all that this connection reads.

    Raises:
        _NotTold: it does not know how, or the connection's user may not ask.
        RedisError: Redis is away.
    """
    if not can_be_tapped(connection):
        raise _NotTold("it has no connections")
    try:
        await _ask(connection)
    except ResponseError as error:
        raise _NotTold(type(error).__name__) from error


async def _ask(connection: AbstractConnection) -> None:
    # Only in RESP3 replies and what is said unasked share a connection.
    for command in (("HELLO", 3), ("CLIENT", "TRACKING", "ON")):
        await connection.send_command(*command)
        _ = await connection.read_response()
