"""The connection on which readers hear of entries, against a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of
from streaming.reading import follower as module
from streaming.reading.follower import IDLE_CHANNEL
from streaming.wire import Tap, tapped
from tests.redis_server import RedisServer

#: Reached only by what hangs.
BOUND = 30.0


async def test_what_comes_as_the_time_of_direct_hearing_ends_is_heard(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A confirmation that comes in the turn of the loop in which the driver takes over counts too."""
    channel = keys_of("c").channel
    is_late = asyncio.Event()

    @contextmanager
    def ended(
        connection: AbstractConnection, take: Callable[[list[Any]], None], lost: Callable[[], None]
    ) -> Iterator[Tap]:
        try:
            with tapped(connection, take, lost) as tap:
                yield tap
        finally:
            take([[b"subscribe", channel.encode(), 1]])
            is_late.set()

    monkeypatch.setattr(module, "tapped", ended)
    monkeypatch.setattr(module, "PING_INTERVAL", timedelta(milliseconds=50))
    async with RedisStreamResponseHandler(connect(server.url)) as handler:
        await handler.write_chunk("c", "so far", 0)
        opened = await handler.reader.open("c", follow=True)
        await anext(opened)
        waiting = asyncio.create_task(anext(opened))
        follower = handler.reader._follower
        hear, heard_late = follower._hear, asyncio.Event()

        def heard(told: str | bytes, message: object) -> None:
            hear(told, message)
            if is_late.is_set() and not message:
                heard_late.set()

        monkeypatch.setattr(follower, "_hear", heard)
        async with asyncio.timeout(BOUND):
            await heard_late.wait()
        waiting.cancel()
        await opened.aclose()


async def test_a_reader_that_leaves_while_there_is_no_connection(server: RedisServer) -> None:
    """Its stream is not listened to any more once there is one, and nobody but the listener connects."""
    channels = [keys_of("c").channel, IDLE_CHANNEL]
    async with server.client() as redis, RedisStreamResponseHandler(connect(server.url)) as handler:
        await handler.write_chunk("c", "so far", 0)
        follower = handler.reader._follower
        opened = await handler.reader.open("c", follow=True)
        await anext(opened)
        waiting = asyncio.create_task(anext(opened))
        await _listened_to(redis, channels, [1, 1])
        connection: Any = follower._pubsub.connection
        async with asyncio.timeout(BOUND):
            while "stream-wakeups" not in follower._tasks:  # noqa: ASYNC110 - nor does this
                await asyncio.sleep(0.01)
        await connection.disconnect()
        waiting.cancel()
        await asyncio.wait({waiting})
        await opened.aclose()
        assert follower._left == {channels[0]}
        await _listened_to(redis, channels, [0, 1])


async def _listened_to(redis: Redis, channels: list[str], counts: list[int]) -> None:
    async with asyncio.timeout(BOUND):
        while [count for _, count in await redis.pubsub_numsub(*channels)] != counts:  # noqa: ASYNC110 - another process's doing sets no event here
            await asyncio.sleep(0.01)
