"""Streams whose writers publish nothing, where Redis does not say which of them have changed.

One blocking read waits for all of them. Where there are many, they are looked at in turns; where one command
can't take keys of several slots, each is read again and again. Reasons: docs/decisions/0007 and 0012.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from redis.exceptions import ClusterCrossSlotError, RedisError

from streaming.cancellation import cancel_and_wait, raise_if_cancelled
from streaming.commands import Commands, milliseconds
from streaming.entries import as_text
from streaming.outage import RETRY_PAUSE
from streaming.reading.live_stream import LiveStream
from streaming.store.stored_entries import PAGE
from streaming.telemetry import Telemetry

_log = logging.getLogger(__name__)

#: A blocking read returns after this time at the latest. Below the driver's default socket timeout of 5 s,
#: since the client may be the user's own.
BLOCK: Final = timedelta(seconds=4)
#: Streams that one read blocks on; while it takes them, Redis does nothing else for a fifth of a millisecond.
#: Where there are more, they are looked at in turns.
BLOCKED_AT_ONCE: Final = 500
#: Such reads are so far apart, for each of their streams: a few times what that one costs here and in Redis.
BLOCKED_INTERVAL: Final = timedelta(microseconds=12)
#: Where one command can't take keys of several slots, streams are looked at this often.
LOOK_INTERVAL: Final = timedelta(milliseconds=250)


@contextlib.asynccontextmanager
async def _no_sooner_than(interval: timedelta) -> AsyncIterator[None]:
    """What is inside takes so long at least."""
    loop = asyncio.get_running_loop()
    over_at = loop.time() + interval.total_seconds()
    yield
    await asyncio.sleep(max(0.0, over_at - loop.time()))


class BlockingReads:
    """Reads the streams whose writers publish nothing, for a bounded share of the time."""

    def __init__(
        self, commands: Commands, telemetry: Telemetry, look_at: Callable[[LiveStream], None]
    ) -> None:
        """Read by ``commands``; ``look_at`` reads one stream, some time soon."""
        self._commands = commands
        self._telemetry = telemetry
        self._look_at_one = look_at
        #: Whether one command may take keys of several slots.
        self._takes_many_slots = not commands.is_cluster
        self._followed: set[LiveStream] = set()
        self._changed = asyncio.Event()
        #: The streams that are waited on.
        self._blocked_on: set[LiveStream] = set()
        self._reading: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Read no more."""
        if self._reading is not None:
            await cancel_and_wait((self._reading,))

    def follows(self, stream: LiveStream) -> bool:
        """Whether what comes to a stream without a message is seen."""
        return stream in self._blocked_on

    def follow(self, stream: LiveStream) -> None:
        """Read a stream as long as it is foreign."""
        self._followed.add(stream)
        if stream not in self._blocked_on:
            self._changed.set()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="stream-blocking-read")

    def leave(self, stream: LiveStream) -> None:
        """Read a stream no more: it has no readers."""
        self._followed.discard(stream)
        if stream in self._blocked_on:
            # The blocking read goes on without it.
            self._changed.set()

    async def _read(self) -> None:
        while True:
            raise_if_cancelled()
            self._followed = {stream for stream in self._followed if stream.is_foreign}
            foreign = list(self._followed)
            self._changed.clear()
            self._blocked_on = set(foreign)
            if not foreign:
                return
            if not self._takes_many_slots:
                await self._unless_changed(self._look_later(foreign))
            elif len(foreign) <= BLOCKED_AT_ONCE:
                async with _no_sooner_than(len(foreign) * BLOCKED_INTERVAL):
                    await self._unless_changed(self._block(foreign))
            else:
                for first in range(0, len(foreign), BLOCKED_AT_ONCE):
                    async with _no_sooner_than(BLOCKED_AT_ONCE * BLOCKED_INTERVAL):
                        await self._look_at(foreign[first : first + BLOCKED_AT_ONCE])

    async def _unless_changed(self, wait: Coroutine[Any, Any, None]) -> None:
        """Wait, until there are other streams to wait for."""
        changed = asyncio.create_task(self._changed.wait())
        waiting = asyncio.create_task(wait)
        try:
            await asyncio.wait({changed, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait((changed, waiting))

    async def _look_later(self, streams: list[LiveStream]) -> None:
        await asyncio.sleep(LOOK_INTERVAL.total_seconds())
        for stream in streams:
            self._look_at_one(stream)

    async def _block(self, streams: list[LiveStream]) -> None:
        # On a connection of its own, unlike all other commands.
        command = _read_of(streams, BLOCK)
        await self._read_streams(streams, self._commands.redis.execute_command(*command))  # type: ignore[no-untyped-call]

    async def _look_at(self, streams: list[LiveStream]) -> None:
        key = streams[0].keys.stream
        await self._read_streams(streams, self._commands.page(key, *_read_of(streams, None)))

    async def _read_streams(self, streams: list[LiveStream], asked: Awaitable[Any]) -> None:
        try:
            reply = await asked
        except ClusterCrossSlotError:
            _log.info("one address before several shards: streams of foreign writers are read one by one")
            self._takes_many_slots = False
            return
        except (RedisError, OSError) as error:
            self._telemetry.redis_failed("blocking_read", error)
            await asyncio.sleep(RETRY_PAUSE.total_seconds())
            return
        self._telemetry.redis_answered()
        by_key = {stream.keys.stream: stream for stream in streams}
        for key, entries in reply.items() if isinstance(reply, dict) else reply or []:
            by_key[as_text(key)].take_stored(entries)


def _read_of(streams: list[LiveStream], block: timedelta | None) -> list[Any]:
    """The command that reads what is after each stream's tail, and waits for it if there is nothing."""
    waits = [] if block is None else ["BLOCK", milliseconds(block)]
    keys, tails = [each.keys.stream for each in streams], [each.tail_text for each in streams]
    return ["XREAD", "COUNT", PAGE, *waits, "STREAMS", *keys, *tails]
