"""The connection on which readers hear of entries, against a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.identifiers import keys_of
from streaming.reading import follower as module
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
