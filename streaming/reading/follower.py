"""Live entries for all readers of one event loop.

One subscription connection hears of every append to a followed stream. The message carries the entries and
names the one before them; where that is not the newest one that is known, something was missed, and one round
trip reads all streams of which that is so (on a cluster each by a command of its own: docs/decisions/0007). A
stream's readers share what came. Streams to which somebody may append without publishing, as any program may
by ``XADD``, are read besides, until a message comes of one, and again once it is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, Final, cast

from redis.asyncio.client import PubSub
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from streaming.cancellation import cancel_and_wait, raise_if_cancelled
from streaming.commands import Commands, checked
from streaming.connections import subscription
from streaming.identifiers import Keys
from streaming.outage import RETRY_PAUSE
from streaming.reading.blocking_reads import BlockingReads
from streaming.reading.live_stream import LiveStream
from streaming.reading.patrol import Patrol
from streaming.reading.tracked_reads import TrackedReads
from streaming.store.stored_entries import PAGE, newest_entry
from streaming.telemetry import Telemetry
from streaming.wire import can_be_tapped, next_replies, tapped

_log = logging.getLogger(__name__)

#: Streams read in one round trip.
STREAMS_AT_ONCE: Final = 100
#: Subscribed to throughout, so that the connection is never without a subscription: the driver would then
#: check its health by a read of its own, while the listening task reads.
IDLE_CHANNEL: Final = "agent-stream-idle"
#: The listening task sends a sign of life this often: networks drop silent connections without a word.
PING_INTERVAL: Final = timedelta(seconds=30)
_MESSAGE_KINDS: Final = (b"message", "message")


@contextlib.contextmanager
def _closed_underneath() -> Iterator[None]:
    """Translates what the driver raises where the listening task closes a broken connection meanwhile."""
    try:
        yield
    except (AttributeError, RuntimeError, OSError) as error:
        raise RedisConnectionError("The subscription's connection was closed.") from error


class StreamFollower:
    """Follows streams for the readers of the running event loop, over two connections."""

    def __init__(self, commands: Commands, telemetry: Telemetry) -> None:
        self._commands = commands
        self._telemetry = telemetry
        self._streams: dict[str, LiveStream] = {}
        self._patrol = Patrol(self._streams, self._hear_silence)
        self._woken: set[str] = set()
        self._something_woken = asyncio.Event()
        blocking = BlockingReads(commands, telemetry, self._mark_woken)
        self._foreign = TrackedReads(commands, telemetry, self._mark_woken, otherwise=blocking)
        self._pubsub: PubSub = subscription(commands.redis)
        #: Channels of streams that nobody reads any more, to be unsubscribed from.
        self._left: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: Whether readers are to go: the service stops.
        self.closed = False
        #: The subscription must not be closed under one who subscribes.
        self._subscribing = asyncio.Lock()

    async def close(self) -> None:
        """Let all readers go, and both connections."""
        self.closed = True
        for stream in self._streams.values():
            stream.wake()
        await cancel_and_wait(self._tasks.values())
        self._tasks.clear()
        await self._foreign.close()
        async with self._subscribing:
            with contextlib.suppress(RedisError):
                await self._pubsub.aclose()  # type: ignore[no-untyped-call]

    async def acquire(self, keys: Keys, *, foreign: bool) -> LiveStream:
        """Follow a stream until ``release``.

        Args:
            keys: The conversation's.
            foreign: Whether someone may append without publishing.

        Raises:
            RedisError: Redis is away.
        """
        stream = self._streams.get(keys.channel)
        if stream is None:
            stream = self._streams[keys.channel] = LiveStream(keys)
        stream.readers += 1
        stream.foreign_readers += foreign
        try:
            await self._ensure_ready(stream)
        except BaseException:
            await self.release(stream, foreign=foreign)
            raise
        self._foreign.follow(stream)
        return stream

    async def release(self, stream: LiveStream, *, foreign: bool) -> None:
        """Stop following for one reader; ``foreign`` as it was acquired."""
        stream.readers -= 1
        stream.foreign_readers -= foreign
        channel = stream.keys.channel
        if stream.readers == 0 and self._streams.get(channel) is stream:
            del self._streams[channel]
            self._woken.discard(channel)
            self._foreign.leave(stream)
            self._left.add(channel)
            await self._unsubscribe_left()

    async def _ensure_ready(self, stream: LiveStream) -> None:
        """The first reader subscribes, then looks where the stream stands: nothing falls between.

        The two go over different connections, so what is heard meanwhile may come before or after it.
        """
        async with stream.preparing:
            if stream.is_ready:
                return
            async with self._subscribing:
                if self.closed:
                    raise RedisConnectionError("The service stops.")
                idle = () if self._pubsub.subscribed else (IDLE_CHANNEL,)
                with _closed_underneath():
                    await self._pubsub.subscribe(*idle, stream.keys.channel)
            newest = await newest_entry(self._commands, stream.keys.stream)
            if newest is not None:
                stream.begin_after(newest.id)
            stream.is_ready, stream.stirred_at = True, asyncio.get_running_loop().time()
        if stream.is_woken_early:
            self._mark_woken(stream)
        self._ensure_task("stream-wakeups", self._listen)
        self._ensure_task("stream-patrol", self._patrol.run)
        self._ensure_task("stream-reads", self._read_woken)
        await self._unsubscribe_left()

    async def _unsubscribe_left(self) -> None:
        """Unsubscribe from what nobody reads any more; later, if somebody connects at the moment."""
        connection = cast("AbstractConnection | None", self._pubsub.connection)
        if self.closed or not self._left or self._subscribing.locked():
            return
        if connection is None or not connection.is_connected:
            # The driver subscribes to all of them again, once it connects.
            return
        async with self._subscribing:
            left = frozenset(self._left)
            with contextlib.suppress(RedisError), _closed_underneath():
                # A later reader may have come.
                if unread := left - self._streams.keys():
                    await self._pubsub.unsubscribe(*unread)
                self._left -= left

    def _ensure_task(self, name: str, run: Any) -> None:
        if self.closed:
            return
        task = self._tasks.get(name)
        if task is None or task.done():
            self._tasks[name] = asyncio.create_task(run(), name=name)

    def _hear_silence(self, stream: LiveStream, newest: str | None) -> None:
        if newest != stream.tail_text:
            # A net under wake-ups that a dead connection swallowed.
            self._mark_woken(stream)
        # The next to append may be another, who does not publish.
        stream.publishes = False
        self._foreign.follow(stream)

    def _mark_woken(self, stream: LiveStream) -> None:
        if stream.keys.channel in self._streams:
            self._woken.add(stream.keys.channel)
            self._something_woken.set()

    async def _listen(self) -> None:
        """Mark streams as woken. A (re)subscription is a wake-up too: what came in between was not heard."""
        while not self.closed:
            raise_if_cancelled()
            try:
                async with self._subscribing:
                    # Not two at the same time: the driver would open two connections and keep one.
                    await self._pubsub.connect()  # type: ignore[no-untyped-call]
                # Connects, subscribes again after trouble, and says that all is well now and then.
                self._take_heard(await self._pubsub.get_message(timeout=PING_INTERVAL.total_seconds()))
                self._telemetry.redis_answered()
                await self._unsubscribe_left()
                await self._hear_more()
            except Exception as error:  # noqa: BLE001 - readers hear of nothing without this task
                self._telemetry.redis_failed("subscription", error)
                await asyncio.sleep(RETRY_PAUSE.total_seconds())

    async def _hear_more(self) -> None:
        """Take messages as they come, past the driver's timers and retries, for a while."""
        # It is none before the first subscription, whatever its type says.
        connection = cast("AbstractConnection | None", self._pubsub.connection)
        if connection is None or not can_be_tapped(connection):
            return
        while await connection.can_read():
            for reply in await next_replies(connection):
                await self._handle(reply)
        # Nobody else reads from here on: what could be read was, without a turn of the loop in between.
        await self._hear_directly(connection)

    async def _hear_directly(self, connection: AbstractConnection) -> None:
        others: deque[Any] = deque()
        stirred = asyncio.Event()

        def take(replies: list[Any]) -> None:
            for reply in replies:
                if isinstance(reply, list) and reply[0] in _MESSAGE_KINDS:
                    self._hear(reply[1], reply[2])
                else:
                    others.append(reply)
                    stirred.set()

        with tapped(connection, take, stirred.set) as tap, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PING_INTERVAL.total_seconds()):
                while not tap.is_lost:
                    await stirred.wait()
                    stirred.clear()
                    while others:
                        await self._handle(others.popleft())
        if tap.is_lost:
            # The driver has not noticed; so that it is connected again where nobody else does.
            await connection.disconnect(nowait=True)
        # What came in the turn of the loop in which the time was over.
        while others:
            await self._handle(others.popleft())

    async def _handle(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            raise reply
        self._take_heard(await self._pubsub.handle_message(reply))  # type: ignore[no-untyped-call]

    def _take_heard(self, message: dict[str, Any] | None) -> None:
        if message is not None and message["type"] in ("message", "subscribe"):
            self._hear(message["channel"], message["data"] if message["type"] == "message" else b"")

    def _hear(self, channel: str | bytes, message: object) -> None:
        stream = self._streams.get(channel if isinstance(channel, str) else channel.decode())
        if stream is None:
            return
        carried = message if isinstance(message, bytes) else str(message).encode()
        stream.publishes = stream.publishes or bool(carried)
        if not stream.is_ready:
            # What it tells of may have come after the newest entry was looked up, and cannot be taken yet.
            stream.is_woken_early = True
        elif not stream.take_message(carried):
            self._mark_woken(stream)

    async def _read_woken(self) -> None:
        while not self.closed:
            raise_if_cancelled()
            await self._something_woken.wait()
            self._something_woken.clear()
            while self._woken:
                raise_if_cancelled()
                channels = list(islice(self._woken, STREAMS_AT_ONCE))
                self._woken.difference_update(channels)
                try:
                    await self._read([self._streams[name] for name in channels if name in self._streams])
                    self._telemetry.redis_answered()
                except Exception as error:  # noqa: BLE001 - readers are given nothing without this task
                    self._telemetry.redis_failed("read", error)
                    self._woken.update(channels)
                    await asyncio.sleep(RETRY_PAUSE.total_seconds())

    async def _read(self, streams: list[LiveStream]) -> None:
        streams = [stream for stream in streams if stream.is_ready]
        if not streams:
            return
        if self._commands.is_cluster:
            await asyncio.gather(*(self._read_alone(stream) for stream in streams))
            return
        asked = [("XRANGE", stream.keys.stream, f"({stream.tail}", "+", "COUNT", PAGE) for stream in streams]
        replies = await self._commands.execute_together(streams[0].keys.stream, *asked, are_pages=True)
        for stream, reply in zip(streams, replies, strict=True):
            self._take_page(stream, checked(reply))

    async def _read_alone(self, stream: LiveStream) -> None:
        """Read one stream. Its part of the cluster may be away; the streams of the others go on."""
        try:
            key = stream.keys.stream
            reply = await self._commands.page(key, "XRANGE", key, f"({stream.tail}", "+", "COUNT", PAGE)
        except (RedisError, OSError) as error:
            self._telemetry.redis_failed("read", error)
            loop = asyncio.get_running_loop()
            loop.call_later(RETRY_PAUSE.total_seconds(), self._mark_woken, stream)
        else:
            self._take_page(stream, reply)

    def _take_page(self, stream: LiveStream, reply: list[Any]) -> None:
        known = stream.tail
        stream.take_stored(reply)
        if stream.tail > known:
            self._foreign.missed(stream)
        if len(reply) == PAGE:
            self._mark_woken(stream)
