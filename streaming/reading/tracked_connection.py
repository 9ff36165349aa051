"""A connection on which Redis says what has changed of all that was read over it.

Tracking is made for client-side caching: of each key that a connection has read, Redis tells it once that it
has changed (https://redis.io/docs/latest/develop/reference/client-side-caching/). So a stream is read, and
again whenever it is told of.
"""

from __future__ import annotations

import asyncio
import contextlib
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

from streaming.commands import checked
from streaming.connections import own_connection
from streaming.entries import as_text
from streaming.reading.live_stream import LiveStream
from streaming.store.stored_entries import PAGE
from streaming.telemetry import Telemetry
from streaming.wire import Tap, can_be_tapped, tapped

#: Reads that Redis has not answered yet; more wait here. A page of each is taken in one turn of the loop at
#: the most, and that in a few milliseconds.
READS_UNDER_WAY: Final = 32
#: Redis answers within this time, at least a ``PING``, or counts as away.
ANSWER_TIMEOUT: Final = timedelta(seconds=5)
#: Then another connection follows, so that whatever the driver does for new ones (signing in anew before a
#: token expires, another master) is done for this one too. All of its streams are read once then.
HELD_AT_MOST: Final = timedelta(minutes=5)
#: What a server says may come so much later than what others find.
GRACE: Final = timedelta(seconds=1)
#: A stream that was read so often without anything new in it is read again after a pause: a server whose
#: table of keys is full says that keys have changed which it forgets.
READS_IN_VAIN: Final = 3
VAIN_PAUSE: Final = timedelta(milliseconds=250)

#: Called with a stream that can't be read from this server, and why.
OnRefused = Callable[[LiveStream, Exception], None]


class NotTold(Exception):
    """The server does not say what changes."""


class Broke(RedisConnectionError):
    """The connection was lost as the server was asked to say what changes."""


class TrackedConnection:
    """Reads streams of one server, over one connection, until that is lost or they have no readers."""

    def __init__(self, telemetry: Telemetry, on_refused: OnRefused) -> None:
        self._telemetry = telemetry
        self._on_refused = on_refused
        self._streams: dict[str, LiveStream] = {}
        #: To be read, in this order.
        self._due: dict[LiveStream, None] = {}
        #: How often each was read in vain since something came, and when, by the loop's clock.
        self._in_vain: dict[LiveStream, tuple[int, float]] = {}
        #: What each of the replies to come is for; ``None``: a sign of life.
        self._under_way: deque[LiveStream | None] = deque()
        self._flush_is_due = False
        self._tap: Tap | None = None
        self._answered = 0
        self._over = asyncio.Event()
        self._failure: Exception | None = None
        #: Whether the server has said of anything that it has changed; and since when it should have.
        self._has_heard = False
        self._owed_since: float | None = None

    @property
    def streams(self) -> list[LiveStream]:
        """Those that are followed."""
        return list(self._streams.values())

    def missed(self, stream: LiveStream) -> bool:
        """Somebody else has found an entry of a stream. Returns whether the server owes a word on it."""
        if self._tap is None or stream in self._due or stream in self._under_way:
            return False
        now = asyncio.get_running_loop().time()
        self._owed_since = now if self._owed_since is None else self._owed_since
        if not self._has_heard and now - self._owed_since >= GRACE.total_seconds():
            self._fail(NotTold("it never says that anything has"))
        return True

    def follows(self, stream: LiveStream) -> bool:
        """Whether a stream is read once it has changed."""
        return self._streams.get(stream.keys.stream) is stream

    def follow(self, stream: LiveStream) -> None:
        """Read a stream, and again whenever it has changed."""
        self._streams[stream.keys.stream] = stream
        self._read_soon(stream)

    def _read_soon(self, stream: LiveStream) -> None:
        self._due[stream] = None
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def leave(self, stream: LiveStream) -> None:
        """Read a stream no more."""
        if self.follows(stream):
            del self._streams[stream.keys.stream]
        self._due.pop(stream, None)
        self._in_vain.pop(stream, None)

    async def run(self, redis: Redis) -> None:
        """Read, for a while at most.

        Raises:
            NotTold: the server does not say what changes.
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
            stream = next(iter(self._due))
            del self._due[stream]
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
            return
        if stream is None:
            return
        try:
            stream.take_stored(checked(reply))
        except Exception as error:  # noqa: BLE001 - the other streams have replies to come
            self.leave(stream)
            self._on_refused(stream, error)
            return
        if not self.follows(stream):
            return
        if len(reply) == PAGE:
            self._due[stream] = None
        if reply:
            self._in_vain.pop(stream, None)
        else:
            times, _ = self._in_vain.get(stream, (0, 0.0))
            self._in_vain[stream] = times + 1, asyncio.get_running_loop().time()

    def _hear(self, push: Any) -> None:
        """Some keys have changed; ``None``: all. Each is told of once after each time that it was read."""
        kind, *rest = push
        if as_text(kind) != "invalidate":
            return
        self._has_heard = True
        for key in self._streams if rest[0] is None else map(as_text, rest[0]):
            stream = self._streams.get(key)
            if stream is None:
                continue
            if self._rests(stream):
                loop = asyncio.get_running_loop()
                loop.call_later(VAIN_PAUSE.total_seconds(), self._read_rested, stream)
            else:
                self._due[stream] = None

    def _rests(self, stream: LiveStream) -> bool:
        times, last = self._in_vain.get(stream, (0, 0.0))
        if times < READS_IN_VAIN:
            return False
        return asyncio.get_running_loop().time() - last < VAIN_PAUSE.total_seconds()

    def _read_rested(self, stream: LiveStream) -> None:
        if self.follows(stream):
            self._read_soon(stream)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._over.set()


def _pack(*command: Any) -> bytes:
    packed: bytes = hiredis.pack_command(command)
    return packed


async def _track(connection: AbstractConnection) -> None:
    """Let the server say what changes of all that this connection reads.

    Raises:
        NotTold: it does not know how, or the connection's user may not ask.
        RedisError: Redis is away.
    """
    if not can_be_tapped(connection):
        raise NotTold("it has no connections")
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
            await _ask(connection)
    except ResponseError as error:
        raise NotTold(type(error).__name__) from error
    except (RedisError, OSError) as error:
        raise Broke("The connection was lost as it was asked for tracking.") from error


async def _ask(connection: AbstractConnection) -> None:
    # Only in RESP3 replies and what is said unasked share a connection.
    for command in (("HELLO", 3), ("CLIENT", "TRACKING", "ON")):
        await connection.send_command(*command)
        _ = await connection.read_response()
